//! An average over 10 M ticks and the latest price, against one index lookup in SQLite and an empty unary call.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sqlx::ConnectOptions as _;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::history_service_client::HistoryServiceClient;
use tonic::transport::Channel;

use crate::base::ingest::publish;
use crate::figure::{Figure, quantile};
use crate::process::Server;
use crate::ticks::{Tape, Trade, symbol};

/// Instruments that the ticks are spread over.
const INSTRUMENTS: u32 = 100;

/// Rows of the table that the index lookup searches.
const ROWS: usize = 1_000_000;

pub(super) async fn run(server: &Server, folder: &Path, quick: bool) -> Result<(), Box<dyn std::error::Error>> {
    let count = if quick { 2_000_000 } else { 10_000_000 };
    let first = load(server, count).await?;
    let mut lookup = Lookup::open(&folder.join("lookup.db")).await?;
    let channel = Channel::from_shared(server.url.clone())?.connect().await?;
    let mut history = HistoryServiceClient::new(channel.clone());
    let mut random = SmallRng::seed_from_u64(11);
    let rounds = if quick { 20 } else { 60 };
    let (mut average, mut latest, mut empty, mut index) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        for _ in 0..100 {
            let start = Instant::now();
            health(&channel).await?;
            empty.push(micros(start));
            let from = first + random.random_range(0..count as i64 / 2) * 1_000_000;
            let request = proto::GetAveragePriceRequest {
                venue: "BENCH".into(),
                symbol: symbol(random.random_range(0..INSTRUMENTS)),
                start_time: Some(timestamp(from)),
                ..proto::GetAveragePriceRequest::default()
            };
            let start = Instant::now();
            history.get_average_price(request).await?;
            average.push(micros(start));
            let request = proto::ListLatestTicksRequest {
                selectors: vec![proto::Selector {
                    venue: "BENCH".into(),
                    symbol: symbol(random.random_range(0..INSTRUMENTS)),
                }],
                min_cursor: Default::default(),
            };
            let start = Instant::now();
            history.list_latest_ticks(request).await?;
            latest.push(micros(start));
            index.push(lookup.one(&mut random).await?);
        }
    }
    let (empty_p50, empty_p99) = (quantile(&mut empty, 0.5), quantile(&mut empty, 0.99));
    let index_p50 = quantile(&mut index, 0.5);
    let (average_p50, average_p99) = (quantile(&mut average, 0.5), quantile(&mut average, 0.99));
    let (latest_p50, latest_p99) = (quantile(&mut latest, 0.5), quantile(&mut latest, 0.99));
    let average_case =
        format!("GetAveragePrice, a random half or more of {count} ticks over {INSTRUMENTS} instruments");
    let latest_case = format!("ListLatestTicks, one of {INSTRUMENTS} instruments");
    let in_server = average_p50 - empty_p50;
    let figure = |case, metric, value, peer, goal| Figure { case, metric, unit: "us", value, peer: Some(peer), goal };
    let call = "empty unary call (health)";
    figure(
        &average_case,
        "wall p50 through gRPC",
        average_p50,
        (call, empty_p50),
        Some(("at most 1.5x an empty call", average_p50 <= 1.5 * empty_p50)),
    )
    .print("base");
    figure(
        &average_case,
        "wall p99 through gRPC",
        average_p99,
        (call, empty_p99),
        Some(("at most 3x the empty call's", average_p99 <= 3.0 * empty_p99)),
    )
    .print("base");
    figure(
        &average_case,
        "p50 beyond an empty call",
        in_server,
        ("one index lookup in SQLite through sqlx", index_p50),
        Some(("under one index lookup", in_server < index_p50)),
    )
    .print("base");
    figure(&latest_case, "wall p50 through gRPC", latest_p50, (call, empty_p50), None).print("base");
    figure(&latest_case, "wall p99 through gRPC", latest_p99, (call, empty_p99), None).print("base");
    Ok(())
}

/// Publishes the ticks and waits until they are compacted; returns the first event time.
async fn load(server: &Server, count: usize) -> Result<i64, Box<dyn std::error::Error>> {
    let mut tape = Tape::new(INSTRUMENTS, 1e6);
    let mut first = 0;
    for part in 0..count / 1_000_000 {
        let trades: Vec<Trade> = tape.by_ref().take(1_000_000).collect();
        if part == 0 {
            first = trades[0].event_time;
        }
        let (_, rate) = publish(server, &format!("load-{part}"), &trades, true).await?;
        eprintln!("loaded {} of {count} ticks, {rate:.0} a second", (part + 1) * 1_000_000);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(first)
}

/// An empty unary call: what gRPC itself costs.
async fn health(channel: &Channel) -> Result<(), Box<dyn std::error::Error>> {
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    client.check(tonic_health::pb::HealthCheckRequest { service: String::new() }).await?;
    Ok(())
}

/// A table of rows with an index, and one lookup in it.
struct Lookup {
    connection: sqlx::SqliteConnection,
}

impl Lookup {
    async fn open(path: &Path) -> Result<Lookup, Box<dyn std::error::Error>> {
        let mut connection =
            sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await?;
        for statement in [
            "CREATE TABLE ticks (symbol INTEGER, time INTEGER, price INTEGER)",
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999999)
             INSERT INTO ticks SELECT i % 100, i * 1000, 10000 + i % 977 FROM n",
            "CREATE INDEX by_time ON ticks (symbol, time)",
        ] {
            sqlx::query(statement).execute(&mut connection).await?;
        }
        Ok(Lookup { connection })
    }

    /// The last price of a symbol at a random time, in microseconds.
    async fn one(&mut self, random: &mut SmallRng) -> Result<f64, Box<dyn std::error::Error>> {
        let start = Instant::now();
        sqlx::query("SELECT price FROM ticks WHERE symbol = ? AND time <= ? ORDER BY time DESC LIMIT 1")
            .bind(random.random_range(0..100i64))
            .bind(random.random_range(1_000_000..ROWS as i64 * 1_000))
            .fetch_one(&mut self.connection)
            .await?;
        Ok(micros(start))
    }
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

fn timestamp(nanos: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: nanos / 1_000_000_000, nanos: (nanos % 1_000_000_000) as i32 }
}
