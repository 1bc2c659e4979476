//! An acknowledgement means fsynced: seen in the system calls of the real server.

use std::time::Duration;

use tapefeed_tests::values::tick;
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Options, Publisher, Server, eventually, strace};

/// Batches, each sent after the acknowledgement of the one before.
const BATCHES: usize = 1_000;

#[tokio::test]
async fn every_acknowledgement_leaves_after_the_sync_of_what_it_acknowledges() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("calls");
    let calls = format!("trace={}", strace::CALLS);
    let record_argument = record.to_string_lossy().into_owned();
    // With -D the server is this process' own child, and strace a bystander that ends with it.
    let under = ["strace", "-D", "-f", "-ttt", "-yy", "-s", "4096", "-e", &calls, "-o", &record_argument];
    let mut server = Server::start(Options::serve().under(under)).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    for batch in 0..BATCHES {
        let price = format!("{}.5", 100 + batch % 10);
        let ack = publisher.rows(vec![tick("XTST", "SYNC", now_unix_nano(), &price)]).await;
        assert!(!ack.expect("stored").duplicate);
    }
    server.terminate().await;
    // strace writes its last lines after the server has ended.
    let trace = eventually("the end of the record", Duration::from_secs(30), || async {
        let trace = std::fs::read_to_string(&record).ok()?;
        trace.trim_end().lines().last()?.contains("+++").then_some(trace)
    })
    .await;
    let finding = strace::check(&trace, "tapefeed.db-wal");
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
