//! Very many small chunks: what one costs in memory, how long a server starts over them, and what a question costs whose
//! headers are packed.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::history_service_client::HistoryServiceClient;
use tapefeed_server::app::SystemClock;
use tapefeed_server::domain::chunk;
use tapefeed_server::domain::segment::{self, Entries};
use tapefeed_server::domain::statistics::Statistics;
use tapefeed_server::domain::{Epoch, InstrumentId, Symbol, Tick, UnixNanos, Venue};
use tapefeed_server::store::faults::Faults;
use tapefeed_server::store::{
    Appended, ChunkId, ChunkRow, Group, ManifestChange, ManifestCommit, NewChunk, SqliteOptions, SqliteStore, Store,
};

use super::{GAP, Outcome, calls, figure};
use crate::base::bytes::tick;
use crate::figure::{Figure, quantile};
use crate::process::Server;
use crate::ticks::{Tape, symbol};

/// Each has one chunk a day.
const DAYS: usize = 500;

/// Ticks of a chunk, and so of the log: all chunks say that they hold the log's.
const TICKS: usize = 8;

/// Chunks of one commit.
const COMMIT: usize = 5_000;

const DAY: i64 = 86_400_000_000_000;

/// Memory of unpacked headers that the server may take, in MiB.
const CACHE_MIB: f64 = 8.0;

pub(super) async fn run(binary: &Path, quick: bool) -> Outcome<()> {
    let instruments: usize = if quick { 200 } else { 2_000 };
    let count = instruments * DAYS;
    let folder = tempfile::tempdir()?;
    let empty = resident(binary, &folder.path().join("empty.db")).await?;
    let path = folder.path().join("headers.db");
    let starts = filled(&path, instruments).await?;

    let start = Instant::now();
    let cache = format!("{CACHE_MIB}MiB");
    let store = format!("sqlite://{}", path.display());
    let server = Server::start_on(binary, &["--store", &store, "--header-cache", &cache], &[]).await?;
    let mut history = HistoryServiceClient::connect(server.url.clone()).await?;
    let ask = async |history: &mut HistoryServiceClient<_>, number: usize| -> Outcome<f64> {
        // From the middle of a run to the middle of another, and there between two chunks: nothing else is read.
        let range = (starts + 100 * DAY, starts + 400 * DAY);
        let request = calls::average(&symbol(number as u32), Some(range), proto::AverageMethod::Mean);
        let asked = Instant::now();
        let answer = history.get_average_price(request).await?.into_inner();
        let took = asked.elapsed().as_secs_f64() * 1e6;
        if answer.tick_count != (300 * TICKS) as u64 {
            return Err(format!("{} ticks were averaged", answer.tick_count).into());
        }
        Ok(took)
    };
    ask(&mut history, 0).await?;
    let first = start.elapsed().as_secs_f64();
    let case = format!("SQLite: {count} chunks, one a day of {instruments} instruments");
    let goal = Some(("within 10 s", first <= 10.0));
    Figure { case: &case, metric: "until the first answer", unit: "s", value: first, peer: None, goal }
        .print("history");
    let (mut packed, mut at_hand) = (Vec::new(), Vec::new());
    for number in 0..instruments {
        packed.push(ask(&mut history, number).await?);
        at_hand.push(ask(&mut history, number).await?);
    }
    let case = format!("mean of 300 of an instrument's {DAYS} chunks");
    figure(&case, "p50, headers packed", "us", quantile(&mut packed, 0.5)).print("history");
    figure(&case, "p50, headers at hand", "us", quantile(&mut at_hand, 0.5)).print("history");
    // What was freed goes back to the system a little later.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let bytes = (server.resident_memory_mib() - empty - CACHE_MIB) * f64::from(1 << 20) / count as f64;
    let case = format!("{count} chunks, without the {CACHE_MIB} MiB of unpacked headers");
    let goal = Some(("about 120 bytes", bytes <= 130.0));
    Figure { case: &case, metric: "memory of a chunk's header", unit: "B", value: bytes, peer: None, goal }
        .print("history");
    figure(&case, "resident at most", "MiB", server.peak_memory_mib()).print("history");
    server.kill().await?;
    Ok(())
}

/// What a server takes that has nothing.
async fn resident(binary: &Path, path: &Path) -> Outcome<f64> {
    let server = Server::start(binary, path).await?;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let resident = server.resident_memory_mib();
    server.kill().await?;
    Ok(resident)
}

/// A store with a chunk for each instrument and day. Returns when the first day begins.
async fn filled(path: &Path, instruments: usize) -> Outcome<i64> {
    let options = SqliteOptions { clock: Arc::new(SystemClock), epoch: Epoch(1), faults: Faults::default() };
    let store = SqliteStore::open(path, options).await?;
    let venue = Venue::new("BENCH")?;
    let name = |number| Ok((venue.clone(), Symbol::new(&symbol(number as u32))?));
    store.register(&(0..instruments).map(name).collect::<Outcome<Vec<_>>>()?).await?;
    let trades: Vec<_> = Tape::new(1, GAP).take(1_000).collect();
    let starts = trades[0].event_time / DAY * DAY;
    let ticks = |instrument: usize, day: usize| -> Vec<Tick> {
        let of_day = trades.iter().cycle().skip(7 * (instrument + day) % 900).take(TICKS).enumerate();
        let at_time = |(index, trade)| {
            let time = starts + day as i64 * DAY + (index as i64 + 1) * DAY / 10;
            let event_time = UnixNanos::new(time).expect("the tape starts in 2024");
            Tick { instrument: InstrumentId(instrument as u32 + 1), event_time, ..tick(index, trade) }
        };
        of_day.map(at_time).collect()
    };
    let entries = Entries { ticks: ticks(0, 0), controls: Vec::new() };
    let group = Group {
        epoch: Epoch(1),
        bytes: segment::encode(&entries, 1).into(),
        entry_count: TICKS as u32,
        tick_count: TICKS as u32,
        backfill: false,
        run_id: None,
        marks: Vec::new(),
    };
    if !matches!(store.append(group).await?, Appended::Committed { .. }) {
        return Err("the segment was refused".into());
    }
    let places: Vec<(usize, usize)> = (0..DAYS).flat_map(|day| (0..instruments).map(move |each| (each, day))).collect();
    for (version, part) in places.chunks(COMMIT).enumerate() {
        let added = part.iter().map(|&(instrument, day)| stored(&ticks(instrument, day)));
        let change = ManifestChange {
            expected_version: version as u64,
            added: added.collect(),
            compacted: (1..=instruments as u32).map(|id| (InstrumentId(id), TICKS as u64)).collect(),
            hot_floor: TICKS as u64 + 1,
            ..ManifestChange::default()
        };
        if !matches!(store.commit_manifest(change).await?, ManifestCommit::Committed { .. }) {
            return Err("the manifest was refused".into());
        }
    }
    store.close().await;
    Ok(starts)
}

fn stored(ticks: &[Tick]) -> NewChunk {
    let mut statistics = Statistics::default();
    ticks.iter().for_each(|tick| statistics.push(tick));
    let bytes = chunk::encode(ticks);
    let row = ChunkRow {
        id: ChunkId(0),
        instrument: ticks[0].instrument,
        day: ticks[0].event_time.day(),
        late: false,
        tick_count: ticks.len() as u32,
        first_time: ticks[0].event_time,
        last_time: ticks[ticks.len() - 1].event_time,
        min_seq: 1,
        max_seq: ticks.len() as u64,
        byte_count: bytes.len() as u32,
        statistics: statistics.encode().into(),
    };
    NewChunk { row, bytes: bytes.into() }
}
