//! Stored bytes a tick, by the server's own codecs.

use std::io::Read as _;
use std::path::Path;

use tapefeed_server::domain::segment::{self, Entries};
use tapefeed_server::domain::statistics::Statistics;
use tapefeed_server::domain::{InstrumentId, Origin, Side, Tick, TradeId, UnixNanos, chunk};

use crate::figure::Figure;
use crate::ticks::{Tape, Trade};

pub(super) fn run(sample_data: Option<&Path>) {
    if let Some(folder) = sample_data {
        for name in ["spot_btcusdt", "spot_ethusdt", "usdm_btcusdt", "usdm_ethusdt"] {
            let path = folder.join(format!("binance/{name}_2024-08-08_trades.csv.gz"));
            match capture(&path) {
                Ok(ticks) => print(&format!("real capture {name}"), &ticks, chunk::CHUNK_TICKS),
                Err(problem) => eprintln!("{}: {problem}", path.display()),
            }
        }
    } else {
        eprintln!("no sample data given: stored bytes are measured on made-up trades only");
    }
    for per_day in [4_096, 100, 10] {
        let gap = 86_400e9 / f64::from(per_day);
        let trades = Tape::new(1, gap).take(20_000);
        let ticks: Vec<Tick> = trades.enumerate().map(|(index, trade)| tick(index, &trade)).collect();
        print(&format!("one instrument, {per_day} ticks a day"), &ticks, chunk::CHUNK_TICKS);
    }
}

/// A trade as a stored tick.
pub(crate) fn tick(index: usize, trade: &Trade) -> Tick {
    let decimal = |text: String| text.parse().expect("the tape makes plain decimals");
    let time = UnixNanos::new(trade.event_time).expect("the tape starts in 2024");
    Tick {
        instrument: InstrumentId(1),
        log_seq: index as u64 + 1,
        event_time: time,
        receive_time: time.saturating_add(std::time::Duration::from_micros(700 + trade.id % 311)),
        price: decimal(format!("{}.{:02}", trade.price / 100, trade.price % 100)),
        quantity: Some(decimal(format!("{}.{:03}", trade.quantity / 1_000, trade.quantity % 1_000))),
        side: if trade.buy { Side::Buy } else { Side::Sell },
        trade_id: TradeId::Number(trade.id),
        origin: Origin::Live,
    }
}

fn capture(path: &Path) -> Result<Vec<Tick>, Box<dyn std::error::Error>> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path)?).read_to_string(&mut text)?;
    let mut ticks = Vec::new();
    for (index, line) in text.lines().skip(1).enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        ticks.push(Tick {
            instrument: InstrumentId(1),
            log_seq: index as u64 + 1,
            event_time: UnixNanos::new(fields[3].parse::<i64>()? * 1_000_000)?,
            receive_time: UnixNanos::new(fields[4].parse()?)?,
            price: fields[5].parse()?,
            quantity: Some(fields[6].parse()?),
            side: if fields[7] == "true" { Side::Sell } else { Side::Buy },
            trade_id: TradeId::new(fields[2])?,
            origin: Origin::Live,
        });
    }
    Ok(ticks)
}

/// Bytes a tick in chunks with their statistics, cut by day, and in segments of 1,000.
fn print(case: &str, ticks: &[Tick], most: usize) {
    let mut sorted = ticks.to_vec();
    sorted.sort_by_key(Tick::key);
    let (mut chunk_bytes, mut statistics_bytes) = (0, 0);
    for day in sorted.chunk_by(|a, b| a.event_time.day() == b.event_time.day()) {
        for range in chunk::cuts(day, most) {
            chunk_bytes += chunk::encode(&day[range.clone()]).len();
            let mut statistics = Statistics::default();
            for tick in &day[range] {
                statistics.push(tick);
            }
            statistics_bytes += statistics.encode().len();
        }
    }
    let mut log_bytes = 0;
    for group in ticks.chunks(1_000) {
        let first_seq = group[0].log_seq;
        log_bytes += segment::encode(&Entries { ticks: group.to_vec(), controls: Vec::new() }, first_seq).len();
    }
    let figure = |metric, bytes: usize, goal: Option<(&'static str, f64)>| {
        let value = bytes as f64 / ticks.len() as f64;
        let goal = goal.map(|(words, most)| (words, value <= most));
        Figure { case, metric, unit: "B/tick", value, peer: None, goal }.print("base");
    };
    let goal = case.starts_with("real").then_some(("at most 6", 6.0));
    figure("chunks, all columns", chunk_bytes, goal);
    figure("chunks with their statistics", chunk_bytes + statistics_bytes, None);
    let goal = case.starts_with("real").then_some(("at most 8", 8.0));
    figure("log, segments of 1,000", log_bytes, goal);
}
