//! Failures before, inside and after everything that the server does to its store, under a random load with late
//! ticks, several venues, 5,000 thin and 10 busy instruments.
//!
//! After each failure, and after each crash in its copy of the file: the log holds every acknowledged batch and any
//! other whole or not at all, and every answer given meanwhile equals the oracle's over the log up to its position.

pub(crate) mod bulk;
pub(crate) mod bus;
mod moving;
pub(crate) mod oracle;
pub(crate) mod questions;
pub(crate) mod replica;
mod stores;
mod workload;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_server::store::faults;
use tapefeed_server::tape::compactor::Policy;
use tokio::task::JoinSet;

use self::oracle::Log;
use self::questions::{Answered, Asker};
use self::replica::{Sin, Stack, TestClock};
use self::workload::{BUSY, Producer, Shared, THIN, busy, thin};
use tapefeed_tests::stumbling::{QUERY_CHUNKS, VIEW_LOG, VIEW_MANIFEST};

/// 9 August 2024, 12:00 UTC.
const NOON: i64 = 1_723_204_800_000_000_000;
/// Batches that each producer sends in a round.
const BATCHES: usize = 8;
/// Questions that each asker asks in a round.
const QUESTIONS: usize = 40;
/// How long one round may wait for its failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything is cut, merged and swept as soon as it can be.
fn restless() -> Policy {
    Policy {
        interval: Duration::from_millis(5),
        age_cap: Duration::from_millis(150),
        merge_delay: Duration::from_millis(200),
        sweep_interval: Duration::from_millis(100),
        ..Policy::default()
    }
}

struct Test {
    clock: Arc<TestClock>,
    stack: Stack,
    producers: Vec<Producer>,
    ledger: Shared,
    random: SmallRng,
    answers: usize,
}

impl Test {
    async fn begin(folder: &Path, seed: u64) -> Test {
        let clock = TestClock::at(NOON);
        let stack = Stack::open(&folder.join("tapefeed.db"), clock.clone(), restless(), seed).await;
        Test::over(stack, clock, seed)
    }

    fn over(stack: Stack, clock: Arc<TestClock>, seed: u64) -> Test {
        let ledger = Shared::default();
        let producers = (0..4).map(|number| Producer::new(number, seed, ledger.clone())).collect();
        Test { clock, stack, producers, ledger, random: SmallRng::seed_from_u64(seed), answers: 0 }
    }

    /// Every instrument gets a tick, the busy ones more than a chunk.
    async fn fill(&mut self) {
        let now = self.clock.unix_nano();
        for (part, producer) in self.producers.iter_mut().enumerate() {
            let share = THIN / 4;
            let mut ticks: Vec<_> =
                (part * share..(part + 1) * share).map(|number| (thin(number), now - 1_000_000)).collect();
            for number in 0..2 * BUSY {
                ticks.extend((0..1_100).map(|index| (busy(number), now - index * 1_000_000)));
            }
            for batch in ticks.chunks(2_000) {
                producer.batch(batch.to_vec());
            }
            producer.send(&self.stack.replica.ingest, || false).await.expect("nothing is armed");
        }
    }

    /// One round: load and questions while a sin waits at a place.
    async fn round(&mut self, point: &'static str, sin: Sin) {
        let crash = matches!(sin, Sin::Crash);
        let skip = self.random.random_range(0..3);
        self.stack.plan.arm(point, skip, sin);
        // Dropped chunks outlive their grace, merges fall due.
        self.clock.advance(Duration::from_secs(660));
        let mut askers = JoinSet::new();
        for _ in 0..2 {
            askers.spawn(self.asker());
        }
        let begin = std::time::Instant::now();
        loop {
            self.load().await;
            let plan = &self.stack.plan;
            let done = if crash { plan.image().is_some() } else { plan.fired() > 0 };
            if done {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{point} is not reached: {:?}", plan.hits());
            self.clock.advance(Duration::from_secs(60));
        }
        let mut answers: Vec<Answered> = askers.join_all().await.into_iter().flatten().collect();
        let fired = self.stack.plan.disarm();
        if let Some(image) = self.stack.plan.image() {
            let next = Stack::open(&image, self.clock.clone(), restless(), self.random.random()).await;
            std::mem::replace(&mut self.stack, next).replica.stop().await;
        }
        // What the dead have answered holds for those who come after them, and the living answer on.
        answers.extend(self.asker().await);
        let log = Log::read(&self.stack.store).await;
        for answer in &answers {
            answer.check(&log);
        }
        self.answers += answers.len();
        let (stored, unacknowledged) = self.ledger.lock().expect("no holder of the lock panics").check(&log);
        println!(
            "{point:<18} fired {fired:>2} {:<7} {stored:>5} batches, {unacknowledged:>2} of them unacknowledged, \
             {:>6} ticks, {:>3} answers right",
            if crash { "crashed" } else { "" },
            log.ticks.len(),
            answers.len(),
        );
    }

    /// All producers send some batches at once, until all is acknowledged or the process is dead.
    async fn load(&mut self) {
        let mut tasks = JoinSet::new();
        for mut producer in self.producers.drain(..) {
            for _ in 0..BATCHES {
                producer.random_batch(self.clock.unix_nano());
            }
            let ingest = self.stack.replica.ingest.clone();
            let plan = self.stack.plan.clone();
            tasks.spawn(async move {
                let _ = producer.send(&ingest, || plan.image().is_some()).await;
                producer
            });
        }
        self.producers = tasks.join_all().await;
    }

    /// Asks questions.
    fn asker(&mut self) -> impl Future<Output = Vec<Answered>> + Send + use<> {
        let asker = Asker { history: self.stack.history.clone(), instruments: self.stack.instruments.clone() };
        let (clock, views) = (self.clock.clone(), self.stack.replica.tapes.get().views.clone());
        let mut random = SmallRng::seed_from_u64(self.random.random());
        async move {
            let mut answers = Vec::new();
            for _ in 0..QUESTIONS {
                let view = || views.borrow().position();
                if let Some(answer) = asker.ask(&mut random, clock.unix_nano(), &[], view).await {
                    answers.push(answer);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            answers
        }
    }
}

/// More failures than the writer has patience for, so that producers see them too.
const MANY: u32 = 7;

async fn rounds(points: &[&'static str], seed: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut test = Test::begin(folder.path(), seed).await;
    test.fill().await;
    for point in points {
        for sin in [Sin::Fail(1), Sin::Fail(MANY), Sin::Crash] {
            test.round(point, sin).await;
        }
    }
    let acknowledged = test.ledger.lock().expect("no holder of the lock panics").acknowledged();
    println!("{acknowledged} batches acknowledged, {} answers right", test.answers);
    test.stack.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_appends_tear_no_batch_and_falsify_no_answer() {
    let points = [faults::APPEND_BEFORE, faults::APPEND_INSIDE, faults::APPEND_BEFORE_SYNC, faults::APPEND_AFTER];
    rounds(&points, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_compaction_and_sweep_falsify_no_answer() {
    let points = [faults::MANIFEST_BEFORE, faults::MANIFEST_INSIDE, faults::MANIFEST_AFTER, faults::SWEEP_INSIDE];
    rounds(&points, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_view_swaps_and_reads_falsify_no_answer() {
    rounds(&[VIEW_MANIFEST, VIEW_LOG, QUERY_CHUNKS], 3).await;
}

/// Not a failure but a wait: what the disk has not synced is not acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_takes_200_ms_holds_back_every_acknowledgement_of_its_group() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut test = Test::begin(folder.path(), 4).await;
    let wait = Duration::from_millis(200);
    test.stack.plan.arm(faults::APPEND_BEFORE_SYNC, 0, Sin::Delay(wait));
    let mut tasks = JoinSet::new();
    for mut producer in test.producers.drain(..) {
        let ingest = test.stack.replica.ingest.clone();
        let now = test.clock.unix_nano();
        tasks.spawn(async move {
            let mut waits = Vec::new();
            for _ in 0..5 {
                producer.batch(vec![(busy(0), now)]);
                let begin = std::time::Instant::now();
                producer.send(&ingest, || false).await.expect("a wait is no failure");
                waits.push(begin.elapsed());
            }
            waits
        });
    }
    let waits: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let appends = test.stack.plan.disarm();
    println!("20 acknowledgements in {appends} appends, after {:?} to {:?}", waits.iter().min(), waits.iter().max());
    assert_eq!(waits.len(), 20);
    assert!(waits.iter().all(|took| *took >= wait), "{waits:?}");
    assert!(appends < 20, "batches that wait for a sync share the next one");
    let log = Log::read(&test.stack.store).await;
    test.ledger.lock().expect("no holder of the lock panics").check(&log);
    test.stack.replica.stop().await;
}
