//! The codec of chunks alone, on one core: encoding with statistics, decoding, and edges of sums.

use std::time::Instant;

use tapefeed_server::domain::Tick;
use tapefeed_server::domain::chunk::{self, Chunk, StoredChunk};
use tapefeed_server::domain::statistics::Statistics;

use super::{GAP, figure};
use crate::base::bytes::tick;
use crate::figure::quantile;
use crate::ticks::Tape;

pub(super) fn run(quick: bool) {
    let count = if quick { 400_000 } else { 2_000_000 };
    let ticks: Vec<Tick> = Tape::new(1, GAP).take(count).enumerate().map(|(n, trade)| tick(n, &trade)).collect();
    let mut parts = Vec::new();
    for day in ticks.chunk_by(|a, b| a.event_time.day() == b.event_time.day()) {
        parts.extend(chunk::cuts(day, chunk::CHUNK_TICKS).into_iter().map(|range| &day[range]));
    }
    let (mut encoding, mut decoding, mut edges, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..5 {
        let start = Instant::now();
        let encoded: Vec<(Vec<u8>, Vec<u8>)> = parts
            .iter()
            .map(|part| {
                let chunk = Chunk::from_ticks(part);
                (chunk.encode(), Statistics::of_chunk(&chunk).encode())
            })
            .collect();
        encoding.push(count as f64 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        for (chunk, _) in &encoded {
            std::hint::black_box(chunk::decode(chunk, ticks[0].instrument).expect("what was encoded can be read"));
        }
        decoding.push(count as f64 / start.elapsed().as_secs_f64());
        let verify = |chunk: &Vec<u8>| StoredChunk::verify(chunk.clone().into()).expect("what was encoded is whole");
        let stored: Vec<StoredChunk> = encoded.iter().map(|(chunk, _)| verify(chunk)).collect();
        let start = Instant::now();
        for (stored, part) in stored.iter().zip(&parts) {
            let middle = part[(part.len() / 2 + chunk::CHUNK_TICKS / 8).min(part.len() - 1)].event_time;
            std::hint::black_box(stored.prefix(middle).expect("what was encoded can be read"));
        }
        edges.push(start.elapsed().as_secs_f64() * 1e6 / parts.len() as f64);
        bytes = encoded.iter().map(|(chunk, statistics)| chunk.len() + statistics.len()).sum();
    }
    let case = "chunks of one instrument";
    figure(case, "encoded, with statistics", "ticks/s", quantile(&mut encoding, 0.5)).print("history");
    figure(case, "decoded into columns", "ticks/s", quantile(&mut decoding, 0.5)).print("history");
    figure(case, "sums up to the middle of a page in the middle", "us", quantile(&mut edges, 0.5)).print("history");
    figure(case, "stored, all columns and statistics", "B/tick", bytes as f64 / count as f64).print("history");
}
