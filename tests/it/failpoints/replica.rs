//! A replica inside the test's own process, over a real SQLite file, with a clock and failures of the test's making.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tapefeed_server::domain::{Clock, Epoch, UnixNanos};
use tapefeed_server::grpc::history_service::HistoryService;
use tapefeed_server::grpc::instrument_service::InstrumentService;
use tapefeed_server::replica::Replica;
use tapefeed_server::store::faults::{Fault, FaultAction, Faults};
use tapefeed_server::store::{SqliteOptions, SqliteStore, Store};
use tapefeed_server::tape::compactor::Policy;
use tapefeed_tests::stumbling::Stumbling;

use super::bus::LooseBus;

/// The time of the test: it goes on by itself from a fixed start, and can be moved ahead.
#[derive(Debug)]
pub struct TestClock {
    base: i64,
    start: Instant,
    ahead: AtomicI64,
}

impl TestClock {
    /// A clock that shows `unix_nano` now.
    pub fn at(unix_nano: i64) -> Arc<TestClock> {
        Arc::new(TestClock { base: unix_nano, start: Instant::now(), ahead: AtomicI64::new(0) })
    }

    /// Moves the clock ahead.
    pub fn advance(&self, span: Duration) {
        self.ahead.fetch_add(nanos(span), Ordering::Relaxed);
    }

    /// Nanoseconds since 1970.
    pub fn unix_nano(&self) -> i64 {
        self.base + nanos(self.start.elapsed()) + self.ahead.load(Ordering::Relaxed)
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixNanos {
        UnixNanos::new(self.unix_nano()).expect("the test's time lies inside the range")
    }
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).expect("a test is short")
}

/// What is to happen at a place.
#[derive(Clone, Debug)]
pub enum Sin {
    /// The operation fails there this often.
    Fail(u32),
    /// The operation pauses there, every time.
    Delay(Duration),
    /// The process dies there: what the file then holds is copied, and from then on nothing succeeds any more.
    Crash,
}

/// The plan of failures: one sin at one place at a time.
#[derive(Debug)]
pub struct Plan {
    store: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    armed: Option<Armed>,
    /// A crash at a place beside the writer waits for the writer to stand still.
    dying: bool,
    image: Option<PathBuf>,
    fired: u32,
    hits: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Armed {
    point: &'static str,
    skip: u32,
    sin: Sin,
}

impl Plan {
    /// No failures yet, for a store file.
    pub fn over(store: &Path) -> Arc<Plan> {
        Arc::new(Plan { store: store.to_owned(), state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Arms a sin at a place, after the place has been passed `skip` times.
    pub fn arm(&self, point: &'static str, skip: u32, sin: Sin) {
        let mut state = self.state();
        assert!(state.image.is_none(), "the process is dead");
        state.fired = 0;
        state.armed = Some(Armed { point, skip, sin });
    }

    /// Disarms, and tells how often the sin was committed.
    pub fn disarm(&self) -> u32 {
        let mut state = self.state();
        state.armed = None;
        state.fired
    }

    /// How often the sin was committed.
    pub fn fired(&self) -> u32 {
        self.state().fired
    }

    /// The copy of the file at the moment of the crash.
    pub fn image(&self) -> Option<PathBuf> {
        self.state().image.clone()
    }

    /// How often each place was reached.
    pub fn hits(&self) -> BTreeMap<&'static str, u64> {
        self.state().hits.clone()
    }

    /// The plan at places beside the writer.
    pub fn reads(self: &Arc<Plan>) -> Faults {
        Faults::new(Arc::new(Reads(self.clone())))
    }

    /// Reaches a place. `writing`: the writer stands there, so that the file is at rest.
    pub fn reach(&self, point: &'static str, writing: bool) -> FaultAction {
        let mut state = self.state();
        *state.hits.entry(point).or_default() += 1;
        if state.image.is_some() {
            return FaultAction::Fail;
        }
        if state.dying && writing {
            self.die(&mut state);
            return FaultAction::Fail;
        }
        let Some(armed) = state.armed.as_mut().filter(|armed| armed.point == point) else {
            return FaultAction::Continue;
        };
        if armed.skip > 0 {
            armed.skip -= 1;
            return FaultAction::Continue;
        }
        let action = match &mut armed.sin {
            Sin::Fail(0) => FaultAction::Continue,
            Sin::Fail(left) => {
                *left -= 1;
                FaultAction::Fail
            }
            Sin::Delay(span) => FaultAction::Delay(*span),
            Sin::Crash => FaultAction::Fail,
        };
        let crash = matches!(armed.sin, Sin::Crash);
        state.fired += u32::from(action != FaultAction::Continue);
        if crash && writing {
            self.die(&mut state);
        } else if crash {
            state.dying = true;
        }
        action
    }

    /// Copies what a killed process would leave behind: the kernel has what was written, synced or not.
    fn die(&self, state: &mut State) {
        let image = self.store.with_extension(format!("crashed-{}", state.hits.values().sum::<u64>()));
        for suffix in ["", "-wal"] {
            let beside = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
            let (from, to) = (beside(&self.store), beside(&image));
            if from.exists() {
                std::fs::copy(from, to).expect("the disk takes a copy");
            }
        }
        state.image = Some(image);
    }
}

#[async_trait]
impl Fault for Plan {
    async fn hit(&self, point: &'static str) -> FaultAction {
        self.reach(point, true)
    }
}

/// The plan at places beside the writer.
#[derive(Debug)]
struct Reads(Arc<Plan>);

#[async_trait]
impl Fault for Reads {
    async fn hit(&self, point: &'static str) -> FaultAction {
        match self.0.reach(point, false) {
            FaultAction::Abort => FaultAction::Fail,
            action => action,
        }
    }
}

/// A replica and its services.
#[derive(Debug)]
pub struct Stack {
    /// The replica.
    pub replica: Replica,
    /// Its failures.
    pub plan: Arc<Plan>,
    /// History, without a transport.
    pub history: HistoryService,
    /// The registry, without a transport.
    pub instruments: InstrumentService,
    /// Its file.
    pub store: PathBuf,
}

impl Stack {
    /// Opens a store file, new or left behind, and starts a replica over it.
    pub async fn open(store: &Path, clock: Arc<TestClock>, policy: Policy, seed: u64) -> Stack {
        let plan = Plan::over(store);
        let options = SqliteOptions { clock: clock.clone(), epoch: Epoch(seed | 1), faults: Faults::new(plan.clone()) };
        let sqlite = SqliteStore::open(store, options).await.expect("the store opens");
        let stumbling = Arc::new(Stumbling::over(sqlite, plan.reads()));
        Stack::over(stumbling, plan, clock, policy, seed).await
    }

    /// Starts a replica over a store of any kind, which fails where the plan says if it was made so.
    pub async fn over(
        store: Arc<dyn Store>,
        plan: Arc<Plan>,
        clock: Arc<TestClock>,
        policy: Policy,
        seed: u64,
    ) -> Stack {
        let parts = tapefeed_server::replica::Parts {
            store,
            bus: Arc::new(LooseBus::new(seed)),
            prices: None,
            clock,
            seed,
            policy,
            hub_bytes: 1 << 20,
            hot_tick_limit: 1_000_000,
            chunk_cache_bytes: tapefeed_server::query::CHUNK_CACHE_BYTES,
            header_cache_bytes: tapefeed_server::tape::HEADER_CACHE_BYTES,
            bars_table: false,
            metrics: tapefeed_server::metrics::Metrics::new(),
        };
        let replica = Replica::start(parts).await.expect("the replica starts");
        Stack {
            history: HistoryService::new(replica.query.clone()),
            instruments: InstrumentService::new(replica.query.clone()),
            replica,
            store: plan.store.clone(),
            plan,
        }
    }
}
