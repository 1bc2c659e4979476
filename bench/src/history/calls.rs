//! Single questions through gRPC, interleaved over both stores and beside an empty call.

use std::time::Instant;

use prost_types::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::history_service_client::HistoryServiceClient;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{GAP, INSTRUMENTS, Outcome, wide};
use crate::figure::{Figure, quantile};
use crate::process::Server;
use crate::ticks::{FIRST_TIME, symbol};

const HOUR: i64 = 3_600_000_000_000;

/// The spans that are asked about, and their lengths in nanoseconds.
const SPANS: [(&str, Option<i64>); 4] = [
    ("1 h", Some(HOUR)),
    ("a trading day of 390 minutes", Some(390 * HOUR / 60)),
    ("1 day", Some(24 * HOUR)),
    ("everything", None),
];

const QUESTIONS: [&str; 5] = ["mean", "VWAP", "statistics", "last 1,000 ticks", "1-minute bars"];

/// Whether a question is asked of a span: bars of days, all others of everything but a trading day.
fn makes_sense(question: usize, span: usize) -> bool {
    if question == 4 { (1..=2).contains(&span) } else { span != 1 }
}

pub(super) async fn run(servers: &[Server], stores: &[(&str, String)], count: usize, quick: bool) -> Outcome<()> {
    let rounds = if quick { 400 } else { 2_000 };
    let mut channels = Vec::new();
    for server in servers {
        channels.push(wide(&server.url).await?);
    }
    let last = FIRST_TIME + (count as f64 * GAP) as i64;
    let mut random = SmallRng::seed_from_u64(3);
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); servers.len() * QUESTIONS.len() * SPANS.len()];
    let mut empty = Vec::new();
    for _ in 0..rounds {
        for (store, channel) in channels.iter().enumerate() {
            for (span, (_, length)) in SPANS.iter().enumerate() {
                for question in 0..QUESTIONS.len() {
                    if !makes_sense(question, span) {
                        continue;
                    }
                    let latest = |length: i64| (last - length).max(FIRST_TIME + 1);
                    let mut about = || {
                        let symbol = symbol(random.random_range(0..INSTRUMENTS));
                        let start = length.map(|length| random.random_range(FIRST_TIME..latest(length)));
                        (symbol, start.zip(*length).map(|(start, length)| (start, start + length)))
                    };
                    // What a long answer leaves behind slows the next call, whichever it is. So what is compared are
                    // each the second of their kind: an empty call, and a question, about another instrument and time.
                    nothing(channel).await?;
                    let start = Instant::now();
                    nothing(channel).await?;
                    empty.push(micros(start));
                    let (symbol, range) = about();
                    ask(channel, question, &symbol, range).await?;
                    let (symbol, range) = about();
                    let start = Instant::now();
                    ask(channel, question, &symbol, range).await?;
                    times[(store * QUESTIONS.len() + question) * SPANS.len() + span].push(micros(start));
                }
            }
        }
    }
    let (empty_p50, empty_p99) = (quantile(&mut empty, 0.5), quantile(&mut empty, 0.99));
    let call = "empty unary call (health)";
    for (index, times) in times.iter_mut().enumerate().filter(|(_, times)| !times.is_empty()) {
        let (span, question) = (index % SPANS.len(), index / SPANS.len() % QUESTIONS.len());
        let store = stores[index / SPANS.len() / QUESTIONS.len()].0;
        let case = format!("{store}: {} of {}, random instrument and time", QUESTIONS[question], SPANS[span].0);
        let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
        // Averages are differences of sums; the others decode.
        let goals = match question {
            0 | 1 => [Some(("at most 1.5x", p50 <= 1.5 * empty_p50)), Some(("at most 3x", p99 <= 3.0 * empty_p99))],
            4 => [Some(("under 500 us", p50 < 500.0)), None],
            _ => [None, None],
        };
        for (metric, value, peer, goal) in
            [("wall p50 through gRPC", p50, empty_p50, goals[0]), ("wall p99 through gRPC", p99, empty_p99, goals[1])]
        {
            Figure { case: &case, metric, unit: "us", value, peer: Some((call, peer)), goal }.print("history");
        }
    }
    Ok(())
}

/// An empty call.
async fn nothing(channel: &Channel) -> Outcome<()> {
    HealthClient::new(channel.clone()).check(HealthCheckRequest { service: String::new() }).await?;
    Ok(())
}

/// Asks for an average by a method, over everything or a range in nanoseconds.
pub(super) fn average(
    symbol: &str,
    range: Option<(i64, i64)>,
    method: proto::AverageMethod,
) -> proto::GetAveragePriceRequest {
    let (start_time, end_time) = bounds(range);
    let (venue, symbol, method) = ("BENCH".to_owned(), symbol.to_owned(), method.into());
    proto::GetAveragePriceRequest { venue, symbol, start_time, end_time, method, ..Default::default() }
}

async fn ask(channel: &Channel, question: usize, symbol: &str, range: Option<(i64, i64)>) -> Outcome<()> {
    let mut history = HistoryServiceClient::new(channel.clone());
    let (start_time, end_time) = bounds(range);
    let (venue, symbol) = ("BENCH".to_owned(), symbol.to_owned());
    let answered = match question {
        0 => history.get_average_price(average(&symbol, range, proto::AverageMethod::Mean)).await.map(drop),
        1 => history.get_average_price(average(&symbol, range, proto::AverageMethod::Vwap)).await.map(drop),
        2 => {
            let request =
                proto::GetPriceStatisticsRequest { venue, symbol, start_time, end_time, ..Default::default() };
            history.get_price_statistics(request).await.map(drop)
        }
        3 => {
            let order = proto::Order::Descending.into();
            let request = proto::ListTicksRequest {
                venue,
                symbol,
                start_time,
                end_time,
                order,
                page_size: 1_000,
                ..Default::default()
            };
            history.list_ticks(request).await.map(drop)
        }
        _ => {
            let request = proto::ListBarsRequest {
                venue,
                symbol,
                start_time,
                end_time,
                interval: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
                page_size: 8_000,
                ..Default::default()
            };
            history.list_bars(request).await.map(drop)
        }
    };
    match answered {
        // A thin instrument may have nothing in an hour, which is an answer too.
        Err(status) if status.code() != tonic::Code::NotFound => Err(status.into()),
        _ => Ok(()),
    }
}

fn bounds(range: Option<(i64, i64)>) -> (Option<Timestamp>, Option<Timestamp>) {
    let time = |nanos: i64| Timestamp { seconds: nanos / 1_000_000_000, nanos: (nanos % 1_000_000_000) as i32 };
    range.map_or((None, None), |(start, end)| (Some(time(start)), Some(time(end))))
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}
