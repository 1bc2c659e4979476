//! Servers that die: a child process of this test appends, and is killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use async_trait::async_trait;

use super::*;
use crate::store::Verdict;
use crate::store::faults::{self, Fault, FaultAction};

/// Tells the child what to do: a fault's point or nothing, and after a colon the store's path.
const TASK: &str = "TAPEFEED_STORE_TEST_CHILD";

/// Ends the process when a point is reached for the third time.
#[derive(Debug)]
struct AbortAt {
    point: String,
    reached: std::sync::atomic::AtomicU32,
}

#[async_trait]
impl Fault for AbortAt {
    async fn hit(&self, point: &'static str) -> FaultAction {
        let reached = point == self.point && self.reached.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 2;
        if reached { FaultAction::Abort } else { FaultAction::Continue }
    }
}

/// Not a test: what the others start. Appends batches for ever and names each that is acknowledged.
#[tokio::test]
async fn child() {
    #[expect(clippy::disallowed_methods, reason = "the parent test has no other way to reach its child")]
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let (point, path) = task.split_once(':').unwrap();
    let faults = Faults::new(Arc::new(AbortAt { point: point.to_owned(), reached: 0.into() }));
    let store = SqliteStore::open(&PathBuf::from(path), options(faults)).await.unwrap();
    let claim = store.claim_producer(&producer()).await.unwrap();
    for batch_seq in claim.last_batch_seq + 1.. {
        assert!(is_committed(&store.append(batch(claim.fence, batch_seq)).await.unwrap()));
        println!("acknowledged {batch_seq}");
        std::io::stdout().flush().unwrap();
    }
}

/// Runs the child until it dies, or kills it after some acknowledgements; returns the last one.
fn run_child(point: &str, path: &Path, kill_after: Option<u64>) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::sqlite::tests::kills::child", "--nocapture", "--test-threads=1"])
        .env(TASK, format!("{point}:{}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let (mut acknowledged, mut seen) = (0, 0);
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        if let Some((_, number)) = line.trim().split_once("acknowledged ") {
            acknowledged = number.parse().unwrap();
            seen += 1;
            if Some(seen) == kill_after {
                child.kill().unwrap();
                let mut rest = String::new();
                lines.read_to_string(&mut rest).unwrap();
                // A line that the kill has torn has no end.
                let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
                let last = whole.lines().filter_map(|line| line.split_once("acknowledged ")).next_back();
                acknowledged = last.map_or(acknowledged, |(_, number)| number.parse().unwrap());
                break;
            }
        }
        line.clear();
    }
    assert!(!child.wait().unwrap().success());
    acknowledged
}

/// Everything acknowledged is there, whole, once; at most one batch more, whole too.
async fn check(path: &Path, acknowledged: u64, more: Option<bool>, label: &str) -> u64 {
    let store = open(path).await.unwrap();
    let head = store.head().await.unwrap();
    let stored = head.position / 3;
    match more {
        Some(more) => assert_eq!(stored, acknowledged + u64::from(more), "{label}"),
        None => assert!(stored == acknowledged || stored == acknowledged + 1, "{label}: {stored} of {acknowledged}"),
    }
    let segments = store.segments(0, usize::MAX).await.unwrap().segments;
    assert_eq!(segments.len() as u64, stored, "{label}");
    for (batch_seq, segment) in (1_u64..).zip(&segments) {
        assert_eq!(segment.bytes[..], batch_seq.to_le_bytes(), "{label}");
    }
    let claim = store.claim_producer(&producer()).await.unwrap();
    assert_eq!(claim.last_batch_seq, stored, "{label}");
    if stored > 0 {
        let again = store.append(batch(claim.fence, stored)).await.unwrap();
        assert_eq!(again, Appended::Refused(vec![Verdict::Duplicate { last_seq: stored * 3 }]), "{label}");
    }
    let mut connection = outside(path, true).await;
    let checked: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
    assert_eq!(checked, "ok", "{label}");
    store.close().await;
    stored
}

#[tokio::test]
async fn process_that_aborts_inside_an_append_leaves_all_of_it_or_nothing() {
    for (point, stored) in [
        (faults::APPEND_BEFORE, false),
        (faults::APPEND_INSIDE, false),
        (faults::APPEND_BEFORE_SYNC, false),
        (faults::APPEND_AFTER, true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let acknowledged = run_child(point, &path, None);
        assert_eq!(acknowledged, 2, "{point}");
        check(&path, acknowledged, Some(stored), point).await;
    }
}

#[tokio::test]
async fn killed_process_loses_no_acknowledged_batch() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut last = 0;
    for round in 0..10 {
        let acknowledged = run_child("", &path, Some(1 + round * 17));
        assert!(acknowledged > last);
        last = check(&path, acknowledged, None, &format!("round {round}")).await;
    }
}
