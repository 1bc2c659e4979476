//! Every question over each store, without failures: late ticks come, chunks are cut, days merged, dropped chunks swept,
//! and replicas started anew, and every answer equals the oracle's over the log up to its position.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tapefeed_server::domain::Epoch;
use tapefeed_server::store::faults::Faults;
use tapefeed_server::store::{PostgresOptions, PostgresStore, PostgresUrl, SqliteOptions, SqliteStore, Store};
use tapefeed_tests::database::FreshDatabase;
use tokio::task::JoinSet;

use super::oracle::Log;
use super::questions::Answered;
use super::replica::{Plan, Stack, TestClock};
use super::{NOON, Test, restless};

/// Rounds of load and questions; after every other one the replica is started anew.
const ROUNDS: usize = 6;

/// Times that all producers send their batches in a round.
const LOADS: usize = 3;

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Database(FreshDatabase),
}

impl Place {
    async fn open(&self, clock: Arc<TestClock>, seed: u64) -> Stack {
        let (epoch, faults) = (Epoch(seed | 1), Faults::default());
        let store: Arc<dyn Store> = match self {
            Place::File(path) => {
                let options = SqliteOptions { clock: clock.clone(), epoch, faults };
                SqliteStore::open(path, options).await.expect("the store opens")
            }
            Place::Database(database) => {
                let options = PostgresOptions { clock: Some(clock.clone()), epoch, seed, faults };
                let url = PostgresUrl::new(database.url()).expect("a URL of Postgres");
                PostgresStore::open(&url, options).await.expect("the store opens")
            }
        };
        let file = match self {
            Place::File(path) => path.clone(),
            Place::Database(_) => PathBuf::new(),
        };
        Stack::over(store, Plan::over(&file), clock, restless(), seed).await
    }

    async fn log(&self) -> Log {
        match self {
            Place::File(path) => Log::read(path).await,
            Place::Database(database) => Log::read_database(database.url()).await,
        }
    }
}

/// What compaction has done to the views that were looked at.
#[derive(Debug, Default)]
struct Seen {
    chunks: usize,
    late: usize,
    versions: u64,
}

impl Seen {
    fn look(&mut self, stack: &Stack) {
        let view = stack.replica.tapes.get().views.borrow().clone();
        self.chunks = self.chunks.max(view.chunks());
        self.late = self.late.max(view.holdings().map(|(_, holding)| holding.late.len()).sum());
        self.versions = self.versions.max(view.manifest_version());
    }
}

async fn rounds(place: Place, seed: u64) {
    let clock = TestClock::at(NOON);
    let stack = place.open(clock.clone(), seed).await;
    let mut test = Test::over(stack, clock, seed);
    test.fill().await;
    let mut seen = Seen::default();
    for round in 0..ROUNDS {
        let mut askers = JoinSet::new();
        for _ in 0..2 {
            askers.spawn(test.asker());
        }
        for _ in 0..LOADS {
            test.load().await;
            seen.look(&test.stack);
            // Merges fall due. Tokens of pages live longer than this.
            test.clock.advance(Duration::from_secs(180));
        }
        let mut answers: Vec<Answered> = askers.join_all().await.into_iter().flatten().collect();
        // Dropped chunks outlive their grace.
        test.clock.advance(Duration::from_secs(660));
        if round % 2 == 1 {
            // One server at a time may have a file.
            test.stack.replica.stop().await;
            test.stack = place.open(test.clock.clone(), seed + round as u64).await;
        }
        answers.extend(test.asker().await);
        seen.look(&test.stack);
        let log = place.log().await;
        answers.iter().for_each(|answer| answer.check(&log));
        let kinds = Answered::kinds(&answers);
        test.answers += answers.len();
        println!("round {round}: {} ticks, {seen:?}, right: {kinds:?}", log.ticks.len());
        test.ledger.lock().expect("no holder of the lock panics").check(&log);
    }
    // More commits of the manifest than loads: late chunks came, and were merged.
    assert!(seen.chunks > 0 && seen.late > 0 && seen.versions > (ROUNDS * LOADS) as u64, "{seen:?}");
    test.stack.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_over_a_file_is_the_oracles_through_compaction_merges_and_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    rounds(Place::File(folder.path().join("tapefeed.db")), 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_over_postgres_is_the_oracles_through_compaction_merges_and_restarts() {
    let Some(database) = FreshDatabase::make().await else { return };
    rounds(Place::Database(database), 6).await;
}
