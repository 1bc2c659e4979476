//! Runs: names, leases, continuations.

use std::time::Duration;

use super::*;
use crate::store::faults::{self, Fault, FaultAction, Faults};
use crate::store::{Lease, RunState};

fn status_of(result: Result<Imported, ImportError>) -> (RunStatus, bool) {
    let imported = result.unwrap();
    (imported.run, imported.duplicate)
}

#[tokio::test]
async fn the_same_file_again_is_a_no_op() {
    let bench = Bench::new(Limits::default()).await;
    bench.import(start("first"), &trades(500)).await.unwrap();
    let (run, duplicate) = status_of(bench.import(start("second"), &trades(500)).await);
    assert!(duplicate);
    assert_eq!((run.id.as_str(), run.state), ("first", State::Succeeded));
    let packed = ImportStart { file_name: "other.csv".to_owned(), max_rejects: 5, ..start("third") };
    assert!(status_of(bench.import(packed, &trades(500)).await).1);
    assert_eq!(bench.ticks().await.len(), 500);
}

#[tokio::test]
async fn other_options_need_again() {
    let bench = Bench::new(Limits::default()).await;
    bench.import(start("first"), &trades(500)).await.unwrap();
    let options = ImportOptions { time_unit: Some(TimeUnit::Seconds), ..ImportOptions::default() };
    let other = ImportStart { options: options.clone(), max_rejects: 1_000, ..start("second") };
    let error = bench.import(other.clone(), &trades(500)).await.unwrap_err();
    assert!(matches!(&error, ImportError::Conflict { run, .. } if run.as_str() == "first"), "{error:?}");

    // What is evident from the header is no other option.
    let same =
        ImportOptions { time_unit: Some(TimeUnit::Milliseconds), delimiter: Some(b','), ..ImportOptions::default() };
    assert!(status_of(bench.import(ImportStart { options: same, ..start("third") }, &trades(500)).await).1);

    let again = ImportStart { again: true, ..start("fourth") };
    let (run, duplicate) = status_of(bench.import(again.clone(), &trades(500)).await);
    assert!(!duplicate);
    assert_eq!((run.id.as_str(), run.ticks), ("fourth", 500));
    assert!(status_of(bench.import(again, &trades(500)).await).1);
    assert_eq!(bench.ticks().await.len(), 1_000);
}

#[tokio::test]
async fn an_id_names_one_file() {
    let bench = Bench::new(Limits::default()).await;
    bench.import(start("first"), &trades(500)).await.unwrap();
    let error = bench.import(start("first"), &trades(501)).await.unwrap_err();
    assert_eq!(error.reason(), "RUN_EXISTS");
    let run = bench.imports.status(&start("first").run).await.unwrap();
    assert_eq!((run.state, run.total_lines), (State::Succeeded, Some(500)), "the stored run stands");
}

/// A file of trades in which the lines of these numbers have no price.
fn spoiled(lines: usize, bad: std::ops::Range<usize>) -> Vec<u8> {
    let file = String::from_utf8(trades(lines)).unwrap();
    let spoil = |(number, line): (usize, &str)| match bad.contains(&number) {
        true => format!("{}\n", line.replace(".63000000", "?")),
        false => format!("{line}\n"),
    };
    file.lines().enumerate().map(|(index, line)| spoil((index + 1, line))).collect::<String>().into_bytes()
}

#[tokio::test]
async fn a_run_that_fails_on_its_rejects_lists_all_of_them_and_continues_to_the_same() {
    // The second batch holds lines 10,002 to 20,001: ten rejects in the first, then more than are allowed or kept.
    let file = spoiled(25_000, 9_992..12_500);
    let bench = Bench::new(Limits::default()).await;
    let strict = ImportStart { max_rejects: 1_200, ..start("run-1") };
    for _ in 0..2 {
        let error = bench.import(strict.clone(), &file).await.unwrap_err();
        assert_eq!(error.reason(), "LIMIT_EXCEEDED");
        let run = bench.imports.status(&strict.run).await.unwrap();
        assert_eq!((run.state, run.last_batch, run.lines, run.ticks), (State::Failed, 1, 10_000, 9_990));
        assert_eq!((run.rejected, run.first_rejects.len()), (1_201, 20));
        let page = bench.imports.rejects(&strict.run, 0, 4_000).await.unwrap();
        assert_eq!((page.rejected, page.kept, page.next_after), (1_201, 1_000, None));
        assert!(page.rejects.iter().map(|reject| reject.line).eq(9_992..10_992));
        assert!(page.rejects[999].reason.starts_with("price"), "{}", page.rejects[999].reason);
        assert_eq!(bench.ticks().await.len(), 9_990);
    }
    let patient = ImportStart { max_rejects: 5_000, ..start("run-2") };
    let (run, duplicate) = status_of(bench.import(patient, &file).await);
    assert!(!duplicate);
    assert_eq!((run.id.as_str(), run.state, run.lines), ("run-1", State::Succeeded, 25_000));
    assert_eq!((run.rejected, run.ticks), (2_508, 22_492));
    let page = bench.imports.rejects(&run.id, 0, 4_000).await.unwrap();
    assert_eq!((page.rejected, page.kept, page.next_after), (2_508, 1_000, None));
    assert!(page.rejects.iter().map(|reject| reject.line).eq(9_992..10_992));

    // Of a run that fails in its first batch nothing is stored but why.
    let hopeless = ImportStart { max_rejects: 0, ..start("run-3") };
    bench.import(hopeless.clone(), &spoiled(30, 4..6)).await.unwrap_err();
    let run = bench.imports.status(&hopeless.run).await.unwrap();
    assert_eq!((run.rejected, run.ticks, run.lines), (1, 0, 0));
    assert_eq!(run.first_rejects.iter().map(|reject| reject.line).collect::<Vec<_>>(), [4]);
}

/// A store whose appends take a while, so that a test can act between two of them.
#[derive(Debug)]
struct Slow;

#[async_trait::async_trait]
impl Fault for Slow {
    async fn hit(&self, point: &'static str) -> FaultAction {
        match point {
            faults::APPEND_BEFORE => FaultAction::Delay(Duration::from_millis(50)),
            _ => FaultAction::Continue,
        }
    }
}

/// A store that is away for some appends in a row, before or after they are durable.
#[derive(Debug)]
struct Outages {
    point: &'static str,
    hits: AtomicI64,
}

#[async_trait::async_trait]
impl Fault for Outages {
    async fn hit(&self, point: &'static str) -> FaultAction {
        if point != self.point {
            return FaultAction::Continue;
        }
        // The writer tries five times, so both it and the run have to go on after this.
        match self.hits.fetch_add(1, Ordering::Relaxed) {
            2..9 => FaultAction::Fail,
            _ => FaultAction::Continue,
        }
    }
}

fn store_with(clock: &Arc<StandingClock>, fault: Arc<dyn Fault>) -> MemoryStore {
    MemoryStore::new(clock.clone(), Epoch(7)).with_faults(Faults::new(fault))
}

/// Imports a file in a process that stops after some batches.
async fn abandon(bench: &Bench, file: &[u8], batches: u64) {
    let start = start("abandoned");
    let mut upload = bench.imports.begin(start.clone()).unwrap();
    upload.push(Bytes::copy_from_slice(file)).await;
    upload.complete().await;
    loop {
        match bench.replica.store.run(&start.run).await.unwrap() {
            Some(run) if run.last_batch >= batches => break,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    bench.stop.cancel();
    let error = upload.outcome().await.unwrap_err();
    assert_eq!(error.reason(), "SHUTTING_DOWN");
    bench.imports.finished().await;
}

async fn reference(file: &[u8]) -> Vec<Tick> {
    let bench = Bench::new(Limits::default()).await;
    bench.import(start("reference"), file).await.unwrap();
    bench.ticks().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_continues_after_its_last_batch_and_ends_in_the_reference() {
    let file = trades(85_000);
    let expected = reference(&file).await;
    assert_eq!(expected.len(), 85_000);
    for batches in [1, 4] {
        let clock = StandingClock::new();
        let store = Arc::new(store_with(&clock, Arc::new(Slow)));
        let dead = Bench::over(store.clone(), clock.clone(), Limits::default()).await;
        abandon(&dead, &file, batches).await;
        let left = store.run(&start("abandoned").run).await.unwrap().unwrap();
        assert_eq!(left.state, RunState::Running);
        assert!(left.last_batch >= batches && left.last_batch < 9, "{}", left.last_batch);

        let alive = Bench::over(store.clone(), clock.clone(), Limits::default()).await;
        let (run, duplicate) = status_of(alive.import(start("too-early"), &file).await);
        assert!(duplicate, "the lease still stands");
        assert_eq!((run.id.as_str(), run.state), ("abandoned", State::Running));

        clock.advance(Duration::from_secs(16));
        let (run, duplicate) = status_of(alive.import(start("later"), &file).await);
        assert!(!duplicate);
        assert_eq!((run.id.as_str(), run.state, run.ticks), ("abandoned", State::Succeeded, 85_000));
        assert!(alive.ticks().await == expected, "the log is the reference");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_store_is_waited_for_and_nothing_is_stored_twice() {
    let file = trades(65_000);
    let expected = reference(&file).await;
    for point in [faults::APPEND_BEFORE, faults::APPEND_AFTER] {
        let clock = StandingClock::new();
        let store = store_with(&clock, Arc::new(Outages { point, hits: AtomicI64::new(0) }));
        let bench = Bench::over(Arc::new(store), clock, Limits::default()).await;
        let (run, duplicate) = status_of(bench.import(start("run-1"), &file).await);
        assert!(!duplicate);
        assert_eq!((run.state, run.ticks, run.lines), (State::Succeeded, 65_000, 65_000), "{point}");
        assert!(bench.ticks().await == expected, "{point}: the log is the reference");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_lease_was_taken_ends_with_a_conflict() {
    let clock = StandingClock::new();
    let store = Arc::new(store_with(&clock, Arc::new(Slow)));
    let bench = Bench::over(store, clock, Limits::default()).await;
    let file = trades(60_000);
    let mut upload = bench.imports.begin(start("first")).unwrap();
    upload.push(Bytes::from(file.clone())).await;
    upload.complete().await;
    let store = &bench.replica.store;
    let run = loop {
        match store.run(&start("first").run).await.unwrap() {
            Some(run) => break run,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    // Another process finds the lease expired, because this one was frozen.
    let now = bench.clock.now().saturating_add(Duration::from_secs(20));
    let thief = crate::store::RunOwner(1);
    let lease = Lease { owner: thief, now, until: now.saturating_add(Duration::from_secs(15)) };
    let request = crate::store::RunRequest { run: run.run, lease };
    let claim = store.begin_run(request).await.unwrap();
    assert!(matches!(claim, crate::store::RunClaim::Yours(_)), "{claim:?}");
    let error = upload.outcome().await.unwrap_err();
    assert!(matches!(error, ImportError::Superseded(_)), "{error:?}");
    let run = store.run(&start("first").run).await.unwrap().unwrap();
    assert_eq!((run.owner, run.state), (thief, RunState::Running));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_keeps_what_it_has_and_the_same_file_continues_it() {
    let clock = StandingClock::new();
    let store = Arc::new(store_with(&clock, Arc::new(Slow)));
    let bench = Bench::over(store, clock, Limits::default()).await;
    let file = trades(60_000);
    let mut upload = bench.imports.begin(start("first")).unwrap();
    upload.push(Bytes::from(file.clone())).await;
    upload.complete().await;
    let run = &start("first").run;
    while bench.imports.status(run).await.unwrap().last_batch == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let cancelled = bench.imports.cancel(run).await.unwrap();
    assert_eq!(cancelled.state, State::Cancelled);
    assert_eq!(upload.outcome().await.unwrap_err().reason(), "RUN_CANCELLED");
    let stored = bench.ticks().await.len();
    assert!((10_000..60_000).contains(&stored), "{stored}");
    let (run, _) = status_of(bench.import(start("second"), &file).await);
    assert_eq!((run.id.as_str(), run.state, run.ticks), ("first", State::Succeeded, 60_000));
    assert_eq!(bench.ticks().await.len(), 60_000);
}

#[tokio::test]
async fn an_upload_can_be_watched_and_cancelled_from_its_first_message() {
    let bench = Bench::new(Limits::default()).await;
    let mut upload = bench.imports.begin(start("run-1")).unwrap();
    let run = &start("run-1").run;
    assert_eq!(bench.imports.status(run).await.unwrap().state, State::Uploading);
    let (listed, next) = bench.imports.list(Some(State::Uploading), None, 10).await.unwrap();
    assert_eq!((listed.len(), next), (1, None));
    assert_eq!(bench.imports.cancel(run).await.unwrap().state, State::Cancelled);
    assert_eq!(upload.outcome().await.unwrap_err().reason(), "RUN_CANCELLED");
    assert_eq!(bench.imports.status(run).await.unwrap().state, State::Cancelled);
}

#[tokio::test]
async fn an_upload_that_is_cut_off_stores_nothing() {
    let bench = Bench::new(Limits::default()).await;
    let upload = bench.imports.begin(start("run-1")).unwrap();
    upload.push(Bytes::from(trades(100))).await;
    drop(upload);
    let run = &start("run-1").run;
    while !bench.imports.status(run).await.unwrap().state.is_end() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(bench.ticks().await.is_empty());
    assert_eq!(bench.imports.status(run).await.unwrap().state, State::Failed);
}

#[tokio::test]
async fn a_newer_upload_of_the_same_name_takes_over() {
    let bench = Bench::new(Limits::default()).await;
    let mut older = bench.imports.begin(start("run-1")).unwrap();
    let (run, _) = status_of(bench.import(start("run-1"), &trades(100)).await);
    assert_eq!((run.id.as_str(), run.state), ("run-1", State::Succeeded));
    assert_eq!(older.outcome().await.unwrap_err().reason(), "IMPORT_CONFLICT");
    assert_eq!(bench.imports.status(&run.id).await.unwrap().state, State::Succeeded);
}

#[tokio::test]
async fn uploads_have_a_bound_that_is_named() {
    let bench = Bench::new(Limits { uploads: 2, ..Limits::default() }).await;
    let first = bench.imports.begin(start("a")).unwrap();
    let _second = bench.imports.begin(start("b")).unwrap();
    let error = bench.imports.begin(start("c")).unwrap_err();
    assert!(matches!(error, ImportError::Limit { limit: "import_uploads", max: 2, .. }));
    drop(first);
    while bench.imports.begin(start("c")).is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_announced_size_beyond_the_limit_is_refused_before_a_byte() {
    let bench = Bench::new(Limits::default()).await;
    let huge = ImportStart { size_bytes: Some((2 << 30) + 1), ..start("run-1") };
    let error = bench.imports.begin(huge).unwrap().outcome().await.unwrap_err();
    assert!(matches!(error, ImportError::Limit { limit: "import_bytes", .. }));
}

#[tokio::test]
async fn lists_give_every_run_once_the_newest_first() {
    let bench = Bench::new(Limits::default()).await;
    for number in 0..7 {
        bench.clock.advance(Duration::from_secs(1));
        bench.import(start(&format!("run-{number}")), &trades(number + 1)).await.unwrap();
        if number % 2 == 0 {
            let bad = bench.import(start(&format!("bad-{number}")), b"x\n").await;
            assert!(bad.is_err());
        }
    }
    let expected = ["bad-6", "run-6", "run-5", "bad-4", "run-4", "run-3", "bad-2", "run-2", "run-1", "bad-0", "run-0"];
    for (state, expected) in [
        (None, expected.to_vec()),
        (Some(State::Failed), vec!["bad-6", "bad-4", "bad-2", "bad-0"]),
        (Some(State::Running), vec![]),
    ] {
        for limit in [1, 2, 3, 11, 100] {
            let mut found = Vec::new();
            let mut position = None;
            loop {
                let (runs, next) = bench.imports.list(state, position, limit).await.unwrap();
                assert!(runs.len() <= limit);
                found.extend(runs.into_iter().map(|run| run.id.as_str().to_owned()));
                position = next;
                if position.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "{state:?} {limit}");
        }
    }
}
