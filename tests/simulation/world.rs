//! One run: everything in it is drawn from its seed. Some seconds of trouble, then calm, in which everybody must get
//! everything.

use std::cell::RefCell;
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use prost::Message as _;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_server::domain::{Epoch, UnixNanos};
use tapefeed_server::store::{MemoryStore, Retention, Store as _};
use tapefeed_server::tape::compactor::Policy;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::bus::Ether;
use super::nemesis::{Deed, Nemesis};
use super::oracle::{Oracle, Wish, position};
use super::publisher::{self, publish};
use super::reader::{self, read};
use super::record::Record;
use super::replica::{SimClock, Site, name, serve};
use super::weather::Weather;

pub const VENUES: [&str; 2] = ["XONE", "XTWO"];
pub const SYMBOLS: [&str; 6] = ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF"];

/// How long trouble lasts.
const TROUBLE: Duration = Duration::from_secs(5);

/// How long everybody may take to get everything once it is calm.
const CALM: Duration = Duration::from_secs(60);

/// What all parts of a run know.
#[derive(Debug, Default)]
pub struct All {
    pub oracle: Oracle,
    pub calm: bool,
    /// The last position, once everything is published.
    pub end: Option<u64>,
    pub publishers_done: usize,
    pub readers_done: usize,
    pub failures: Vec<String>,
    pub counts: Counts,
    hasher: DefaultHasher,
    events: u64,
    /// The events themselves, where somebody wants to read them.
    told: Option<Vec<String>>,
}

/// What happened in a run, by the names of [`COUNTED`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; COUNTED.len()]);

/// What is counted: entries of the log, ticks that came, the gaps and lags that readers were told, notices that the window
/// is about to move past one, complete snapshots, ticks for which others stand, lives of clients, deeds of the nemesis.
const COUNTED: [&str; 9] = ["entries", "ticks", "gaps", "lags", "notices", "snapshots", "merged", "lives", "deeds"];

impl Counts {
    /// Adds those of another run.
    pub fn sum(&mut self, other: &Counts) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own += other;
        }
    }

    /// Adds to one of them.
    pub fn count(&mut self, name: &str, more: u64) {
        let index = COUNTED.iter().position(|counted| *counted == name).expect("one of them");
        self.0[index] += more;
    }

    /// Adds what a subscriber was told.
    pub fn add(&mut self, record: &Record) {
        let (ticks, gaps) = record.counts();
        self.count("ticks", ticks as u64);
        self.count("gaps", gaps as u64);
        self.count("lags", u64::from(record.lags));
        self.count("notices", u64::from(record.notices));
        self.count("snapshots", u64::from(record.snapshots));
        self.count("merged", record.merged);
    }

    /// Reads the end of a line that was written by [`fmt::Display`].
    pub fn parse(line: &str) -> Option<Counts> {
        let mut counts = Counts::default();
        let (_, told) = line.rsplit_once(": ")?;
        for (own, word) in counts.0.iter_mut().zip(told.split(", ")) {
            *own = word.split(' ').next()?.parse().ok()?;
        }
        Some(counts)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().zip(COUNTED).map(|(count, name)| format!("{count} {name}")).collect();
        out.write_str(&words.join(", "))
    }
}

/// A handle on what all parts know.
#[derive(Clone, Debug)]
pub struct Shared(Rc<RefCell<All>>);

impl Shared {
    pub fn with<T>(&self, look: impl FnOnce(&mut All) -> T) -> T {
        look(&mut self.0.borrow_mut())
    }

    /// Writes an event into the trace.
    pub fn note(&self, event: &str) {
        self.enter(turmoil::sim_elapsed().unwrap_or_default(), event.as_bytes(), || event.to_owned());
    }

    /// Writes the end of a connection into the trace.
    pub fn note_end(&self, who: &str, ended: &Ended, at: u64) {
        self.note(&format!("{who} {ended} at {at}"));
        self.with(|all| all.counts.count("lives", 1));
    }

    /// Writes a message into the trace, every byte of it.
    pub fn note_message(&self, reader: usize, message: &proto::SubscribeTicksResponse) {
        self.enter(turmoil::sim_elapsed().unwrap_or_default(), &message.encode_to_vec(), || {
            let cursor = if message.cursor.is_empty() { 0 } else { position(&message.cursor) };
            let event = match &message.event {
                Some(Event::Rows(rows)) => format!("{} rows", rows.ticks.len()),
                Some(Event::Columns(columns)) => format!("{} columns", columns.instrument_index.len()),
                other => format!("{other:?}"),
            };
            format!("reader {reader} is at {cursor}: {event}")
        });
    }

    fn enter(&self, now: Duration, bytes: &[u8], tell: impl FnOnce() -> String) {
        self.with(|all| {
            all.hasher.write_u128(now.as_nanos());
            all.hasher.write(bytes);
            all.events += 1;
            if let Some(told) = &mut all.told {
                told.push(format!("{now:?} {}", tell()));
            }
        });
    }

    pub fn publisher_is_done(&self) {
        self.with(|all| all.publishers_done += 1);
    }

    /// Fails the run.
    pub fn demand(&self, judged: Result<(), String>) {
        if let Err(problem) = judged {
            self.with(|all| all.failures.push(problem));
        }
    }

    pub fn is_reason(&self, status: &Status, reason: &str) -> bool {
        status.get_details_error_info().is_some_and(|info| info.reason == reason)
    }

    /// A stream may end because its connection did, or because the server says to come back.
    pub fn judge_end(&self, status: &Status, allowed: &[&str]) -> Ended {
        let Some(info) = status.get_details_error_info() else { return Ended::Refused(status.message().to_owned()) };
        let temporary = status.code() == Code::Unavailable && info.reason != "SLOW_CONSUMER";
        if !temporary && !allowed.contains(&info.reason.as_str()) {
            self.with(|all| all.failures.push(format!("nobody may be told {status:?}")));
        }
        Ended::Refused(info.reason)
    }
}

/// How a client's connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It has what it wants.
    Done,
    /// It went away by itself.
    Died,
    /// Nobody answered at the port.
    NoConnection,
    /// It heard nothing for too long.
    Silent,
    /// The server ended it, or the network: with this reason, or these words.
    Refused(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Done => out.write_str("has everything"),
            Ended::Died => out.write_str("dies"),
            Ended::NoConnection => out.write_str("finds nobody"),
            Ended::Silent => out.write_str("gives up"),
            Ended::Refused(reason) => write!(out, "is ended by {reason}"),
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Of every event, with its time.
    pub hash: u64,
    pub events: u64,
    pub counts: Counts,
    pub told: Vec<String>,
    pub simulated: Duration,
}

/// Runs a seed; what went wrong, if anything did.
pub fn run(seed: u64, tell: bool) -> (Result<(), String>, Outcome) {
    let mut dice = SmallRng::seed_from_u64(seed);
    let shared = Shared(Rc::default());
    shared.with(|all| all.told = tell.then(Vec::new));
    let mut sim = turmoil::Builder::new()
        .rng_seed(dice.random())
        .simulation_duration(TROUBLE + 2 * CALM)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(dice.random_range(2..30)))
        .tick_duration(Duration::from_millis(2))
        .tcp_capacity(1_024)
        .udp_capacity(1_024)
        .enable_random_order()
        .build();
    let replicas = dice.random_range(1..=3);
    let store = MemoryStore::new(Arc::new(SimClock { skew: 0 }), Epoch(dice.random_range(1..u64::MAX)));
    let ether = Ether::new(dice.random(), replicas);
    let policy = policy(&mut dice);
    let hub_bytes = dice.random_range(4 << 10..64 << 10);
    let sites: Vec<Arc<Site>> = (0..replicas)
        .map(|number| {
            Arc::new(Site {
                number,
                store: store.reopen(),
                clock: Arc::new(SimClock { skew: dice.random_range(-200_000_000..200_000_000) }),
                weather: Weather::new(dice.random()),
                ether: ether.clone(),
                policy,
                hub_bytes,
                seed: dice.random_range(0..1 << 40),
                starts: AtomicU64::new(0),
                asked: Mutex::default(),
            })
        })
        .collect();
    for site in &sites {
        let site = site.clone();
        sim.host(name(site.number), move || serve(site.clone()));
    }
    let publishers = dice.random_range(1..=2);
    for number in 0..publishers {
        let plan = publisher::Plan {
            number,
            seed: dice.random(),
            batches: dice.random_range(20..80),
            backfill: number == 1 && dice.random(),
            pause: Duration::from_millis(dice.random_range(1..120)),
            replicas,
        };
        sim.client(format!("publisher-{number}"), publish(plan, shared.clone()));
    }
    let readers = dice.random_range(2..=4);
    for number in 0..readers {
        let plan = reader_plan(&mut dice, number, replicas);
        sim.client(format!("reader-{number}"), read(plan, shared.clone()));
    }
    let mut nemesis = Nemesis::new(&mut dice, TROUBLE, replicas, publishers, readers);
    let result = drive(&mut sim, &mut nemesis, &sites, &store, &shared, publishers, &mut dice);
    let simulated = sim.elapsed();
    drop(sim);
    let all = shared.0.take();
    let judged = match (all.failures.first(), result) {
        (Some(failure), _) => Err(failure.clone()),
        (None, Err(problem)) => Err(problem),
        (None, Ok(())) => all.oracle.judge_log(),
    };
    let mut counts = all.counts;
    counts.count("entries", all.oracle.log.len() as u64);
    counts.count("deeds", nemesis.done);
    let told = all.told.unwrap_or_default();
    (judged, Outcome { hash: all.hasher.finish(), events: all.events, counts, told, simulated })
}

fn drive(
    sim: &mut turmoil::Sim<'_>,
    nemesis: &mut Nemesis,
    sites: &[Arc<Site>],
    store: &MemoryStore,
    shared: &Shared,
    publishers: usize,
    dice: &mut SmallRng,
) -> Result<(), String> {
    let mut calm_since = None;
    loop {
        let now = sim.elapsed();
        if now < TROUBLE {
            for deed in nemesis.due(now) {
                let told = format!("{deed:?}");
                shared.enter(now, told.as_bytes(), || told.clone());
                match deed {
                    Deed::Sweep => sweep(store, dice),
                    deed => nemesis.commit(deed, sim, sites),
                }
            }
        } else if calm_since.is_none() {
            calm_since = Some(now);
            nemesis.heal(sim, sites);
            shared.with(|all| all.calm = true);
            shared.enter(now, b"calm", || "calm".to_owned());
        }
        if calm_since.is_some() {
            nemesis.start_all(sim);
        }
        let finished = sim.step().map_err(|error| error.to_string())?;
        shared.with(|all| {
            all.oracle.look(store);
            if all.calm && all.end.is_none() && all.publishers_done == publishers {
                all.end = Some(all.oracle.log.len() as u64);
            }
        });
        if let Some(failure) = shared.with(|all| all.failures.first().cloned()) {
            return Err(failure);
        }
        if finished {
            return Ok(());
        }
        if calm_since.is_some_and(|since| sim.elapsed() > since + CALM) {
            let (end, readers, publishers) = shared.with(|all| (all.end, all.readers_done, all.publishers_done));
            return Err(format!(
                "{CALM:?} of calm were not enough: end {end:?}, done {readers} readers and {publishers}"
            ));
        }
    }
}

/// The window moves, whoever has the upkeep.
fn sweep(store: &MemoryStore, dice: &mut SmallRng) {
    let retention = Retention {
        log_before: UnixNanos::MIN,
        log_bytes: dice.random_range(0..8_000),
        history_before: None,
        chunk_grace: Duration::from_secs(3_600),
        producer_idle: Duration::from_secs(3_600),
    };
    let swept = store.sweep(retention).now_or_never();
    // Held by a writer that pauses: then it does not move.
    if let Some(swept) = swept {
        swept.expect("open");
    }
}

fn policy(dice: &mut SmallRng) -> Policy {
    Policy {
        interval: Duration::from_millis(dice.random_range(20..300)),
        correction_delay: Duration::from_secs(900),
        age_cap: Duration::from_millis(dice.random_range(50..2_000)),
        lag_bytes: dice.random_range(1 << 10..256 << 10),
        merge_delay: Duration::from_millis(dice.random_range(100..2_000)),
        sweep_interval: Duration::from_millis(dice.random_range(100..1_500)),
        log_retention: Duration::from_millis(dice.random_range(500..20_000)),
        log_retention_bytes: dice.random_range(2 << 10..1 << 20),
        history_retention: None,
    }
}

fn reader_plan(dice: &mut SmallRng, number: usize, replicas: usize) -> reader::Plan {
    use proto::{SlowReaderPolicy, UnavailablePolicy};
    let conflated = dice.random_ratio(1, 4).then(|| Duration::from_millis(dice.random_range(0..300)));
    let selector = |dice: &mut SmallRng| {
        let venue = if dice.random() { String::new() } else { VENUES[dice.random_range(0..2)].to_owned() };
        let symbol = if dice.random_ratio(1, 3) { "*" } else { SYMBOLS[dice.random_range(0..SYMBOLS.len())] };
        proto::Selector { venue, symbol: symbol.to_owned() }
    };
    let everything = vec![proto::Selector { venue: String::new(), symbol: "*".to_owned() }];
    let selectors =
        if dice.random() { everything } else { (0..dice.random_range(1..4)).map(|_| selector(dice)).collect() };
    let policies = [UnavailablePolicy::Fail, UnavailablePolicy::FromOldest, UnavailablePolicy::Snapshot];
    let disconnect = conflated.is_none() && dice.random_ratio(1, 5);
    reader::Plan {
        number,
        seed: dice.random(),
        replicas,
        wish: Wish { selectors, include_backfill: dice.random() },
        columns: dice.random_ratio(1, 3),
        snapshot: dice.random_ratio(1, 3),
        conflated,
        if_unavailable: policies[dice.random_range(0..policies.len())],
        slow_reader: if disconnect { SlowReaderPolicy::Disconnect } else { SlowReaderPolicy::CatchUp },
        flush_window: Duration::from_millis([0, 0, 1, 10][dice.random_range(0..4)]),
        window: [1_024, 16_384, 1 << 20][dice.random_range(0..3)],
        deaths: dice.random_range(0..60),
        stalls: dice.random_range(0..40),
        pause: Duration::from_millis([0, 0, 5, 60][dice.random_range(0..4)]),
    }
}
