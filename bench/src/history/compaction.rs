//! The compactor itself on one core: hot ticks of a view become chunks in a file, and the view has them in their place.
//! And a start over as many hot ticks as a server ever lets wait.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tapefeed_proto::v1::history_service_client::HistoryServiceClient;
use tapefeed_server::app::SystemClock;
use tapefeed_server::domain::segment::{self, Entries};
use tapefeed_server::domain::{Epoch, InstrumentId, Symbol, Tick, Venue};
use tapefeed_server::replica::{HOT_TICK_LIMIT, HUB_BYTES};
use tapefeed_server::store::faults::Faults;
use tapefeed_server::store::{Appended, Group, SqliteOptions, SqliteStore, Store};
use tapefeed_server::tape::builder::Builder;
use tapefeed_server::tape::compactor::{Compactor, Policy};
use tapefeed_server::tape::{HEADER_CACHE_BYTES, Hub, Registry, Shelf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{GAP, INSTRUMENTS, Outcome, calls, figure};
use crate::base::bytes::tick;
use crate::figure::{Figure, quantile};
use crate::process::{Server, cpu_seconds};
use crate::ticks::{Tape, symbol};

pub(super) async fn run(quick: bool) -> Outcome<()> {
    let count = if quick { 2_000_000 } else { 4_000_000 };
    let (mut by_cpu, mut by_wall) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let folder = tempfile::tempdir()?;
        let store = filled(&folder.path().join("compaction.db"), count, 50_000).await?;
        let registry = Arc::new(Registry::load(store.clone()).await?);
        let hub = Arc::new(Hub::new(&store.head().await?, HUB_BYTES));
        let changed = Arc::new(Notify::new());
        let shelf = Shelf::new(HEADER_CACHE_BYTES);
        let builder = Builder::open(store.clone(), hub, registry, shelf, changed.clone(), Default::default()).await?;
        let views = builder.views();
        let stop = CancellationToken::new();
        let building = tokio::spawn(builder.run(stop.clone()));
        let (clock, policy) = (Arc::new(SystemClock), Policy::default());
        let mut compactor = Compactor::new(store.clone(), views.clone(), changed, clock, policy, Default::default());
        let (cpu, start) = (cpu_seconds("self"), Instant::now());
        while compactor.round().await? {}
        let (cpu, wall) = (cpu_seconds("self") - cpu, start.elapsed().as_secs_f64());
        let compacted = (count - views.borrow().hot_ticks()) as f64;
        by_cpu.push(compacted / cpu);
        by_wall.push(compacted / wall);
        stop.cancel();
        building.await?;
        store.close().await;
    }
    let case = "compaction of 100 instruments into SQLite: encoding, reading back, commits, the new view";
    let value = quantile(&mut by_cpu, 0.5);
    let goal = Some(("at least 4 M/s", value >= 4e6));
    Figure { case, metric: "a second of CPU", unit: "ticks/s", value, peer: None, goal }.print("history");
    figure(case, "wall", "ticks/s", quantile(&mut by_wall, 0.5)).print("history");
    Ok(())
}

/// Starts a server over as many ticks in no chunk as it takes before it refuses writes, and asks at once.
pub(super) async fn cold(binary: &Path) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("hot.db");
    filled(&path, HOT_TICK_LIMIT, 1_000).await?.close().await;
    let start = Instant::now();
    let server = Server::start(binary, &path).await?;
    let mut history = HistoryServiceClient::connect(server.url.clone()).await?;
    let request = calls::average(&symbol(0), None, Default::default());
    history.get_average_price(request).await?;
    let seconds = start.elapsed().as_secs_f64();
    let case = format!("SQLite: start over {HOT_TICK_LIMIT} ticks that no chunk has, the most that may wait");
    let goal = Some(("within 10 s", seconds <= 10.0));
    Figure { case: &case, metric: "until the first answer", unit: "s", value: seconds, peer: None, goal }
        .print("history");
    figure(&case, "resident at most", "MiB", server.peak_memory_mib()).print("history");
    Ok(())
}

/// A new store with so many ticks in its log, in segments of `each`, and no chunk.
async fn filled(path: &Path, count: usize, each: usize) -> Outcome<Arc<dyn Store>> {
    let options = SqliteOptions { clock: Arc::new(SystemClock), epoch: Epoch(1), faults: Faults::default() };
    let store: Arc<dyn Store> = SqliteStore::open(path, options).await?;
    let venue = Venue::new("BENCH")?;
    let name = |number| Ok((venue.clone(), Symbol::new(&symbol(number))?));
    store.register(&(0..INSTRUMENTS).map(name).collect::<Outcome<Vec<_>>>()?).await?;
    let mut trades = Tape::new(INSTRUMENTS, GAP).with_few_busy().take(count).enumerate();
    for first in (0..count).step_by(each) {
        let ticks = trades
            .by_ref()
            .take(each)
            .map(|(index, trade)| Tick { instrument: InstrumentId(trade.instrument + 1), ..tick(index, &trade) });
        let entries = Entries { ticks: ticks.collect(), controls: Vec::new() };
        let group = Group {
            epoch: Epoch(1),
            bytes: segment::encode(&entries, first as u64 + 1).into(),
            entry_count: entries.len() as u32,
            tick_count: entries.ticks.len() as u32,
            backfill: false,
            run_id: None,
            marks: Vec::new(),
        };
        if !matches!(store.append(group).await?, Appended::Committed { .. }) {
            return Err("a segment was refused".into());
        }
    }
    Ok(store)
}
