//! What every backend must do, as one table of cases that runs against each.
//!
//! A case gets a [`Fixture`]: an empty store, its clock and its faults, and a way to restart it.

mod append;
mod bars;
mod cancellation;
mod epochs;
mod faulted;
mod manifest;
mod producers;
mod published;
mod registry;
mod runs;
mod sweep;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use super::TestServer;
use super::faults::{Fault, FaultAction, Faults};
use super::{
    Appended, BarRow, Digest, Group, LogHead, Mark, MemoryStore, PostgresOptions, PostgresStore, ProducerId, Segment,
    SqliteOptions, SqliteStore, Store,
};
use crate::domain::{Clock, Epoch, UnixNanos};

/// The epoch of every fixture's log. Its sign bit is set, as one random epoch in two has it.
pub(super) const EPOCH: Epoch = Epoch(0xfeed_0000_0000_0001);

/// When every fixture's clock starts.
const START: i64 = 1_700_000_000_000_000_000;

/// A behaviour.
struct Case {
    name: &'static str,
    run: Box<dyn Fn(Fixture) -> BoxFuture<'static, ()>>,
}

fn case<F>(name: &'static str, run: fn(Fixture) -> F) -> Case
where
    F: Future<Output = ()> + Send + 'static,
{
    Case { name, run: Box::new(move |fixture| Box::pin(run(fixture))) }
}

/// Every behaviour.
fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(append::cases());
    cases.extend(producers::cases());
    cases.extend(epochs::cases());
    cases.extend(registry::cases());
    cases.extend(manifest::cases());
    cases.extend(sweep::cases());
    cases.extend(runs::cases());
    cases.extend(published::cases());
    cases.extend(bars::cases());
    cases.extend(cancellation::cases());
    cases.extend(faulted::cases());
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_store_conforms() {
    conforms(|clock, faults| {
        let store = MemoryStore::new(clock, EPOCH).with_faults(faults);
        Box::new(Mutex::new(store))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_store_conforms() {
    conforms(|clock, faults| {
        let directory = tempfile::tempdir().unwrap();
        Box::new(Embedded { directory, options: SqliteOptions { clock, epoch: EPOCH, faults } })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_store_conforms() {
    postgres_conforms("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_store_conforms_where_connections_are_handed_out_by_transaction() {
    postgres_conforms("pooling=transaction").await;
}

async fn postgres_conforms(parameters: &'static str) {
    let Some(server) = TestServer::find() else { return };
    let server = Arc::new(server);
    conforms(|clock, faults| {
        let options = PostgresOptions { clock: Some(clock), epoch: EPOCH, seed: 1, faults };
        Box::new(Shared { server: server.clone(), parameters, database: OnceCell::new(), options })
    })
    .await;
    server.drop_databases().await;
}

/// Runs every case against a backend and names those that fail.
async fn conforms(backend: impl Fn(Arc<dyn Clock>, Faults) -> Box<dyn Backend>) {
    let mut failed = Vec::new();
    for Case { name, run } in all() {
        let clock = Arc::new(TestClock(AtomicI64::new(START)));
        let faults = Arc::new(Script::default());
        let backend = backend(clock.clone(), Faults::new(faults.clone()));
        let fixture = Fixture { clock, faults, backend };
        let within = tokio::time::timeout(Duration::from_secs(60), run(fixture));
        if !matches!(tokio::spawn(within).await, Ok(Ok(()))) {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

/// An empty store and the strings to pull.
struct Fixture {
    clock: Arc<TestClock>,
    faults: Arc<Script>,
    backend: Box<dyn Backend>,
}

impl Fixture {
    /// The store; empty at first.
    async fn open(&self) -> Arc<dyn Store> {
        self.backend.open().await
    }

    /// Closes and opens it again.
    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        store.close().await;
        self.open().await
    }
}

#[async_trait]
trait Backend: Send + Sync {
    /// Opens what is there.
    async fn open(&self) -> Arc<dyn Store>;

    /// The table of bars by key, read as other programs do.
    async fn bars(&self) -> Vec<BarRow>;
}

#[async_trait]
impl Backend for Mutex<MemoryStore> {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.lock().unwrap().reopen())
    }

    async fn bars(&self) -> Vec<BarRow> {
        self.lock().unwrap().bars()
    }
}

struct Embedded {
    directory: tempfile::TempDir,
    options: SqliteOptions,
}

#[async_trait]
impl Backend for Embedded {
    async fn open(&self) -> Arc<dyn Store> {
        SqliteStore::open(&self.directory.path().join("store.db"), self.options.clone()).await.unwrap()
    }

    async fn bars(&self) -> Vec<BarRow> {
        bars::in_file(&self.directory.path().join("store.db")).await
    }
}

struct Shared {
    server: Arc<TestServer>,
    parameters: &'static str,
    database: OnceCell<String>,
    options: PostgresOptions,
}

#[async_trait]
impl Backend for Shared {
    async fn open(&self) -> Arc<dyn Store> {
        let database = self.database.get_or_init(|| self.server.make_database()).await;
        PostgresStore::open(&self.server.url_of(database, self.parameters), self.options.clone()).await.unwrap()
    }

    async fn bars(&self) -> Vec<BarRow> {
        let database = self.database.get().expect("the store was opened");
        bars::in_database(&mut self.server.connect(Some(database)).await).await
    }
}

/// A clock that stands until it is moved.
#[derive(Debug)]
pub(super) struct TestClock(AtomicI64);

impl TestClock {
    fn set(&self, nanos: i64) {
        self.0.store(nanos, Ordering::SeqCst);
    }

    fn advance(&self, span: Duration) {
        self.0.fetch_add(i64::try_from(span.as_nanos()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixNanos {
        UnixNanos::new(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

/// What to do at each place, next time it is reached. Nothing once the list is used up.
#[derive(Debug, Default)]
struct Script(Mutex<HashMap<&'static str, VecDeque<FaultAction>>>);

impl Script {
    fn next(&self, point: &'static str, action: FaultAction) {
        self.0.lock().unwrap().entry(point).or_default().push_back(action);
    }
}

#[async_trait]
impl Fault for Script {
    async fn hit(&self, point: &'static str) -> FaultAction {
        let next = self.0.lock().unwrap().get_mut(point).and_then(VecDeque::pop_front);
        next.unwrap_or(FaultAction::Continue)
    }
}

fn at(nanos: i64) -> UnixNanos {
    UnixNanos::new(nanos).unwrap()
}

/// A group that nobody's mark is on. The store never looks into the bytes.
fn group(entry_count: u32, bytes: impl Into<Bytes>) -> Group {
    Group {
        epoch: EPOCH,
        bytes: bytes.into(),
        entry_count,
        tick_count: entry_count,
        backfill: false,
        run_id: None,
        marks: Vec::new(),
    }
}

/// A group of marked batches; its bytes name them.
fn marked(marks: Vec<Mark>) -> Group {
    let entry_count = marks.iter().map(entries).sum();
    let bytes = if entry_count == 0 { Bytes::new() } else { Bytes::from(format!("{marks:?}")) };
    let run_id = marks.iter().find_map(|mark| match mark {
        Mark::Run { run, .. } => Some(run.clone()),
        Mark::Producer { .. } => None,
    });
    Group { marks, run_id, ..group(entry_count, bytes) }
}

fn entries(mark: &Mark) -> u32 {
    match mark {
        Mark::Producer { entry_count, .. } | Mark::Run { entry_count, .. } => *entry_count,
    }
}

/// A batch of two entries whose content its number decides.
fn batch(producer: &str, fence: u64, batch_seq: u64) -> Mark {
    other_batch(producer, fence, batch_seq, digest(batch_seq))
}

/// A batch of two entries with a content of its own.
fn other_batch(producer: &str, fence: u64, batch_seq: u64, digest: Digest) -> Mark {
    Mark::Producer { producer: producer_id(producer), fence, batch_seq, digest, entry_count: 2 }
}

fn digest(number: u64) -> Digest {
    let mut digest = [0xd1; 16];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    digest
}

fn producer_id(name: &str) -> ProducerId {
    ProducerId::new(name).unwrap()
}

/// The first position of an append that must have been stored.
fn committed(appended: Appended) -> u64 {
    match appended {
        Appended::Committed { first_seq, .. } => first_seq,
        Appended::Refused(verdicts) => panic!("refused: {verdicts:?}"),
    }
}

/// The whole log, read in small pages and checked: dense, chained, times that never go back, and the head its end.
async fn whole_log(store: &dyn Store) -> (LogHead, Vec<Segment>) {
    let head = store.head().await.unwrap();
    let mut segments: Vec<Segment> = Vec::new();
    let mut after = head.oldest - 1;
    while after < head.position {
        let page = store.segments(after, 500).await.unwrap();
        assert_eq!(page.head, head);
        assert!(!page.segments.is_empty());
        for segment in page.segments {
            assert_eq!(segment.first_seq, after + 1);
            if let Some(previous) = segments.last() {
                assert!(previous.append_time <= segment.append_time);
                assert_eq!(segment.chain, link(&previous.chain, &segment));
            }
            after = segment.last_seq();
            segments.push(segment);
        }
    }
    assert_eq!(after, head.position);
    assert_eq!(head.log_bytes, segments.iter().map(|segment| segment.bytes.len() as u64).sum::<u64>());
    if let Some(last) = segments.last() {
        assert_eq!((head.chain, head.append_time), (last.chain, last.append_time));
    }
    (head, segments)
}

/// The chain that a segment must have.
fn link(previous: &[u8; 16], segment: &Segment) -> [u8; 16] {
    let link = crate::domain::segment::Link {
        epoch: segment.epoch,
        first_seq: segment.first_seq,
        entry_count: segment.entry_count,
        tick_count: segment.tick_count,
        append_time: segment.append_time.nanos(),
        backfill: segment.backfill,
        bytes: &segment.bytes,
    };
    crate::domain::segment::chain(previous, link)
}
