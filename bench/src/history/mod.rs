//! Questions about history and bulk reads, on both stores, and through Python against databases that hold the same ticks.

mod calls;
mod codec;
mod compaction;
mod headers;
mod scan;

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use tapefeed_proto::v1::history_service_client::HistoryServiceClient;
use tapefeed_server::domain::chunk::CHUNK_TICKS;
use tapefeed_tests::scrape::Scrape;
use tonic::transport::Channel;

use crate::base::ingest::publish;
use crate::figure::Figure;
use crate::process::Server;
use crate::ticks::{Tape, Trade, symbol};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Instruments that the ticks are spread over, the first with about 15% of them.
const INSTRUMENTS: u32 = 100;

/// Mean gap between ticks in nanoseconds: 10 M span three days.
const GAP: f64 = 26e6;

/// Ticks that are published together.
const PART: usize = 1_000_000;

/// What the benchmark needs from outside.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The server binary.
    pub server: &'a Path,
    /// A Postgres on which databases may be made; without it that store and its rows are left out.
    pub database: Option<&'a str>,
    /// A Python with the package `tapefeed` and the peers; without it they are left out.
    pub python: Option<&'a Path>,
}

/// Runs everything.
pub async fn run(world: World<'_>, quick: bool, only: Option<&str>) -> Outcome<()> {
    match only {
        Some("codec") => {
            codec::run(quick);
            return Ok(());
        }
        Some("compaction") => return compaction::run(quick).await,
        Some("headers") => return headers::run(world.server, quick).await,
        Some(other) => return Err(format!("there is no part {other}: codec, compaction and headers are").into()),
        None => (),
    }
    let count = if quick { 10 * PART } else { 100 * PART };
    let folder = tempfile::tempdir()?;
    codec::run(quick);
    compaction::run(quick).await?;
    compaction::cold(world.server).await?;
    headers::run(world.server, quick).await?;
    let mut stores = vec![("SQLite", format!("sqlite://{}", folder.path().join("history.db").display()))];
    if let Some(database) = world.database {
        let name = format!("tapefeed_history_{}", std::process::id());
        let mut admin = sqlx::PgConnection::connect(database).await?;
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await?;
        let (server, _) = database.rsplit_once('/').ok_or("the URL of Postgres names a database")?;
        stores.push(("Postgres", format!("{server}/{name}")));
    }
    let mut urls = Vec::new();
    for (name, store) in &stores {
        let server = Server::start_on(world.server, &["--store", store], &[]).await?;
        load(&server, name, count).await?;
        server.kill().await?;
        urls.push(cold(world.server, name, store, count).await?);
    }
    for (server, (name, _)) in urls.iter().zip(&stores) {
        let channel = Channel::from_shared(server.url.clone())?.connect().await?;
        scan::run(server, &channel, (name, count), quick).await?;
    }
    calls::run(&urls, &stores, count, quick).await?;
    let Some(python) = world.python else {
        eprintln!("no Python: the peers are left out");
        return Ok(());
    };
    let mut peers = tokio::process::Command::new(python);
    peers.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/history"));
    peers.args(["--server", &urls[0].url, "--folder"]).arg(folder.path());
    if let Some(database) = world.database {
        peers.args(["--database", database]);
    }
    if quick {
        peers.arg("--quick");
    }
    if !peers.kill_on_drop(true).status().await?.success() {
        return Err("the peers failed".into());
    }
    Ok(())
}

/// Publishes the ticks and waits until they are compacted.
async fn load(server: &Server, store: &str, count: usize) -> Outcome<()> {
    let mut tape = Tape::new(INSTRUMENTS, GAP).with_few_busy();
    for part in 0..count / PART {
        let trades: Vec<Trade> = tape.by_ref().take(PART).collect();
        let (_, rate) = publish(server, &format!("load-{part}"), &trades, true).await?;
        eprintln!("{store}: loaded {} of {count} ticks, {rate:.0} a second", (part + 1) * PART);
    }
    let address = server.url.trim_start_matches("http://").parse()?;
    // Full chunks are cut at once, and what fills none stays.
    let rest = (INSTRUMENTS as usize * CHUNK_TICKS) as f64;
    let start = Instant::now();
    while Scrape::of(address).await.value("tapefeed_hot_ticks") >= rest {
        if start.elapsed() > Duration::from_secs(120) {
            return Err("compaction does not keep up".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eprintln!("{store}: compacted {:.1} s after the last acknowledgement", start.elapsed().as_secs_f64());
    Ok(())
}

/// Starts the server over everything that was loaded, all of which still lies in the log, and asks at once.
async fn cold(binary: &Path, name: &str, store: &str, count: usize) -> Outcome<Server> {
    let start = Instant::now();
    let server = Server::start_on(binary, &["--store", store], &[]).await?;
    let mut history = HistoryServiceClient::connect(server.url.clone()).await?;
    history.get_average_price(calls::average(&symbol(0), None, Default::default())).await?;
    let seconds = start.elapsed().as_secs_f64();
    Figure {
        case: &format!("{name}: start over {count} ticks and their log"),
        metric: "until the first answer",
        unit: "s",
        value: seconds,
        peer: None,
        goal: Some(("within 10 s", seconds <= 10.0)),
    }
    .print("history");
    let memory = server.peak_memory_mib();
    figure(&format!("{name}: memory after a start over {count} ticks"), "resident at most", "MiB", memory)
        .print("history");
    Ok(server)
}

/// A figure without a peer.
fn figure<'a>(case: &'a str, metric: &'a str, unit: &'a str, value: f64) -> Figure<'a> {
    Figure { case, metric, unit, value, peer: None, goal: None }
}

/// A connection as the clients of this repository make it.
async fn wide(url: &str) -> Outcome<Channel> {
    let endpoint = Channel::from_shared(url.to_owned())?;
    let endpoint = endpoint.initial_stream_window_size(2 << 20).initial_connection_window_size(64 << 20);
    Ok(endpoint.max_frame_size(256 << 10).connect().await?)
}
