//! What compaction does with ticks, on one core: statistics, encoding, and reading the chunk back to compare it.

use std::time::Instant;

use tapefeed_server::domain::statistics::Statistics;
use tapefeed_server::domain::{Tick, chunk};

use super::{GAP, figure};
use crate::base::bytes::tick;
use crate::figure::{Figure, quantile};
use crate::ticks::Tape;

pub(super) fn run(quick: bool) {
    let count = if quick { 400_000 } else { 2_000_000 };
    let ticks: Vec<Tick> = Tape::new(1, GAP).take(count).enumerate().map(|(n, trade)| tick(n, &trade)).collect();
    let mut parts = Vec::new();
    for day in ticks.chunk_by(|a, b| a.event_time.day() == b.event_time.day()) {
        parts.extend(chunk::cuts(day, chunk::CHUNK_TICKS).into_iter().map(|range| &day[range]));
    }
    let (mut whole, mut decoding, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..5 {
        let start = Instant::now();
        let mut encoded = Vec::new();
        for part in &parts {
            let mut statistics = Statistics::default();
            part.iter().for_each(|tick| statistics.push(tick));
            let chunk = chunk::encode(part);
            let read = chunk::decode(&chunk, part[0].instrument).expect("what was encoded can be read");
            assert!(read.ticks().eq(part.iter().cloned()));
            encoded.push((chunk, statistics.encode()));
        }
        whole.push(count as f64 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        for (chunk, _) in &encoded {
            std::hint::black_box(chunk::decode(chunk, ticks[0].instrument).expect("what was encoded can be read"));
        }
        decoding.push(count as f64 / start.elapsed().as_secs_f64());
        bytes = encoded.iter().map(|(chunk, statistics)| chunk.len() + statistics.len()).sum();
    }
    let rate = quantile(&mut whole, 0.5);
    Figure {
        case: "compaction on one core: statistics, encoding, reading back and comparing",
        metric: "through the codec",
        unit: "ticks/s",
        value: rate,
        peer: None,
        goal: Some(("at least 4 M/s", rate >= 4e6)),
    }
    .print("history");
    figure("decoding chunks into columns", "one core", "ticks/s", quantile(&mut decoding, 0.5)).print("history");
    figure("chunks with their statistics", "all columns", "B/tick", bytes as f64 / count as f64).print("history");
}
