//! An acknowledgement means fsynced: seen in the system calls of the real server.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use sqlx::{ConnectOptions as _, Connection as _};
use tapefeed_proto::v1 as proto;
use tapefeed_tests::power::Record;
use tapefeed_tests::values::tick;
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Options, Publisher, Server, eventually, strace};

use crate::failpoints::oracle::Log;

/// Batches, each sent after the acknowledgement of the one before.
const BATCHES: usize = 1_000;
/// Power cuts.
const CUTS: usize = 60;

/// The calls of a server that acknowledges so many batches of one tick.
async fn recorded(batches: usize) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("calls");
    let calls = format!("trace={}", strace::CALLS);
    let record_argument = record.to_string_lossy().into_owned();
    // With -D the server is this process' own child, and strace a bystander that ends with it.
    let under = ["strace", "-D", "-f", "-ttt", "-yy", "-s", "4096", "-e", &calls, "-o", &record_argument];
    let mut server = Server::start(Options::serve().under(under)).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    for batch in 0..batches {
        let price = format!("{}.5", 100 + batch % 10);
        let tick = proto::Tick { trade_id: batch.to_string(), ..tick("XTST", "SYNC", now_unix_nano(), &price) };
        assert!(!publisher.rows(vec![tick]).await.expect("stored").duplicate);
    }
    server.terminate().await;
    // strace writes its last lines after the server has ended.
    eventually("the end of the record", Duration::from_secs(30), || async {
        let trace = std::fs::read_to_string(&record).ok()?;
        trace.trim_end().lines().last()?.contains("+++").then_some(trace)
    })
    .await
}

#[tokio::test]
async fn every_acknowledgement_leaves_after_the_sync_of_what_it_acknowledges() {
    let trace = recorded(BATCHES).await;
    let finding = strace::check(&trace, "/tapefeed.db-wal");
    println!(
        "{} acknowledgements, {} writes to the write-ahead log and {} syncs between them, in {} calls",
        finding.acknowledged.len(),
        finding.writes,
        finding.syncs,
        trace.lines().count(),
    );
    assert_eq!(finding.problems, Vec::<String>::new());
    let expected: Vec<u64> = (1..=BATCHES as u64).collect();
    assert_eq!(finding.acknowledged, expected);
}

#[tokio::test]
async fn a_power_cut_anywhere_leaves_what_was_acknowledged() {
    let record = Record::read(&recorded(BATCHES).await);
    let mut random = SmallRng::seed_from_u64(1);
    let (mut uncertain, mut unacknowledged) = (0, 0);
    for cut in 0..CUTS {
        let folder = tempfile::tempdir().expect("a folder");
        let line = random.random_range(record.lines());
        // Nothing that was not synced is there, all of it is, or some of it.
        let luck = [0.0, 1.0, 0.5][cut % 3];
        uncertain += record.cut(line, "tapefeed.db", folder.path(), || random.random_bool(luck));
        let path = folder.path().join("tapefeed.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).disable_statement_logging();
        let mut file = options.connect().await.expect("the file opens");
        let sound: String =
            sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut file).await.expect("it can be checked");
        assert_eq!(sound, "ok", "cut at line {line}");
        let log = Log::read(&path).await;
        file.close().await.expect("it can be closed");
        let acknowledged = record.acknowledged_before(line);
        let stored: Vec<usize> = log.ticks.iter().map(|tick| tick.trade_id.parse().expect("ids are numbers")).collect();
        assert_eq!(stored, (0..stored.len()).collect::<Vec<_>>(), "cut at line {line}");
        assert!(stored.len() >= acknowledged, "cut at line {line}: {} of {acknowledged} are left", stored.len());
        assert!(stored.len() <= acknowledged + 1, "one batch is under way at a time");
        unacknowledged += stored.len() - acknowledged;
    }
    println!(
        "{CUTS} cuts, {uncertain} writes that were not synced; everything acknowledged was left each time, and \
         {unacknowledged} times a batch more"
    );
}
