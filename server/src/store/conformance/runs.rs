//! Ingestion runs.

use super::*;
use crate::domain::Published;
use crate::store::{
    Appended, Ignored, Lease, NewRun, Reject, Run, RunClaim, RunEnd, RunError, RunFailure, RunId, RunOwner,
    RunProgress, RunRequest, RunState, Verdict,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("a new run begins, and a restart knows it", new_run),
        case("claims follow the table", claim_table),
        case("other options, other parsers and taken ids are refused", refused_claims),
        case("an expired lease passes to the next upload, and the old owner is fenced", expired_lease),
        case("leases are renewed and runs finished by their owner only", owners_only),
        case("a cancelled run keeps what is committed and fences its owner", cancelled_run),
        case("progress and rejects are stored with their batch", progress),
        case("a failed run has the rejects of its unstored batch until it is continued", unstored_rejects),
        case("a batch without ticks moves the run and not the log", batch_without_ticks),
        case("runs are listed from the newest", listed_runs),
    ]
}

pub(super) const SECOND: i64 = 1_000_000_000;

pub(super) fn run_id(name: &str) -> RunId {
    RunId::new(name).unwrap()
}

/// A wish at a time, for a content, an identity and a parser's version.
pub(super) fn request(name: &str, content: u8, identity: u8, parser_version: u32, owner: u64, now: i64) -> RunRequest {
    let run = NewRun {
        id: run_id(name),
        identity: [identity; 32],
        content: [content; 32],
        parser_version,
        options: vec![0, 1, 255],
        file_name: "trades \u{2603}.csv".to_owned(),
        size_bytes: 12_345,
        total_lines: 678,
        trace_id: "trace".to_owned(),
        again: false,
    };
    RunRequest { run, lease: lease(owner, now) }
}

/// Fifteen seconds from a time on.
fn lease(owner: u64, now: i64) -> Lease {
    Lease { owner: RunOwner(owner), now: at(now), until: at(now + 15 * SECOND) }
}

pub(super) fn yours(claim: RunClaim) -> Run {
    match claim {
        RunClaim::Yours(run) => run,
        other => panic!("{other:?}"),
    }
}

fn reject(line: &u64) -> Reject {
    Reject {
        line: *line,
        code: "ACTION_NOT_SUPPORTED".into(),
        reason: "price: not a number".to_owned(),
        text: format!("line {line}\0"),
    }
}

/// An end by an error, in a batch with so many rejects, of which these are kept.
fn failed(rejected: u64, kept: &[u64]) -> RunEnd {
    let error = RunError { reason: "LIMIT_EXCEEDED".to_owned(), message: "too many\0".to_owned() };
    RunEnd::Failed(RunFailure { error, rejected, rejects: kept.iter().map(reject).collect() })
}

fn run_mark(name: &str, owner: u64, batch: u64, ticks: u64, rejects: &[u64]) -> Mark {
    let progress = RunProgress {
        lines: ticks + rejects.len() as u64 + 1,
        ticks,
        published: 0,
        ignored: Ignored([("quote".into(), 1)].into()),
        rejected: rejects.len() as u64,
        rejects: rejects.iter().map(reject).collect(),
    };
    Mark::Run {
        run: run_id(name),
        owner: RunOwner(owner),
        batch,
        progress,
        published: Published::default(),
        entry_count: ticks as u32,
    }
}

async fn verdict(store: &dyn Store, mark: Mark) -> Verdict {
    match store.append(marked(vec![mark])).await.unwrap() {
        Appended::Committed { .. } => Verdict::New,
        Appended::Refused(verdicts) => verdicts[0],
    }
}

async fn new_run(fixture: Fixture) {
    let store = fixture.open().await;
    let owner = 0x8000_0000_0000_0001;
    let asked = request("r", 1, 1, 3, owner, START);
    let expected = Run {
        run: asked.run.clone(),
        state: RunState::Running,
        owner: RunOwner(owner),
        lease_until: at(START + 15 * SECOND),
        last_batch: 0,
        progress: RunProgress::default(),
        unstored_rejected: 0,
        last_seq: 0,
        error: None,
        create_time: at(START),
        finish_time: None,
    };
    assert_eq!(store.begin_run(asked).await.unwrap(), RunClaim::Yours(expected.clone()));
    let store = fixture.reopen(store).await;
    // A store with one server at a time ends leases when it is opened, a shared one keeps them.
    let known = store.run(&run_id("r")).await.unwrap().unwrap();
    assert_eq!(known, Run { lease_until: known.lease_until, ..expected });
    assert_eq!(store.run(&run_id("s")).await.unwrap(), None);
    assert_eq!(store.rejects(&run_id("r"), 0, 10).await.unwrap(), []);
    assert_eq!(store.rejects(&run_id("s"), 0, 10).await.unwrap(), []);
}

async fn claim_table(fixture: Fixture) {
    let store = fixture.open().await;
    yours(store.begin_run(request("r", 1, 1, 1, 1, START)).await.unwrap());
    store.append(marked(vec![run_mark("r", 1, 1, 4, &[])])).await.unwrap();
    let running = store.run(&run_id("r")).await.unwrap().unwrap();

    // Leased, by whatever id it is asked for, also for its own owner.
    for (name, owner) in [("r", 2), ("other", 2), ("r", 1)] {
        let claim = store.begin_run(request(name, 1, 1, 1, owner, START + 15 * SECOND - 1)).await.unwrap();
        assert_eq!(claim, RunClaim::Leased(running.clone()));
    }
    // Failed, cancelled: continued after the last batch.
    let error = RunError { reason: "FILE_MALFORMED".to_owned(), message: "cut short".to_owned() };
    for (state, error, owner) in [(RunState::Failed, Some(error), 2), (RunState::Cancelled, None, 3)] {
        fixture.clock.advance(std::time::Duration::from_secs(1));
        match error.clone() {
            Some(error) => {
                let end = RunEnd::Failed(RunFailure { error, rejected: 0, rejects: Vec::new() });
                assert!(store.finish_run(&run_id("r"), &RunOwner(owner - 1), end).await.unwrap());
            }
            None => assert!(store.cancel_run(&run_id("r")).await.unwrap().is_some()),
        }
        let ended = store.run(&run_id("r")).await.unwrap().unwrap();
        assert_eq!((ended.state, &ended.error, ended.finish_time), (state, &error, Some(fixture.clock.now())));
        let continued = yours(store.begin_run(request("other", 1, 1, 1, owner, START + 20)).await.unwrap());
        let expected = Run { owner: RunOwner(owner), lease_until: at(START + 20 + 15 * SECOND), ..running.clone() };
        assert_eq!(continued, expected);
        assert_eq!(store.run(&run_id("r")).await.unwrap(), Some(expected));
        assert_eq!(store.run(&run_id("other")).await.unwrap(), None);
    }
    // Succeeded: done for good.
    assert!(store.finish_run(&run_id("r"), &RunOwner(3), RunEnd::Succeeded).await.unwrap());
    let done = store.run(&run_id("r")).await.unwrap().unwrap();
    assert_eq!(done.state, RunState::Succeeded);
    let claim = store.begin_run(request("other", 1, 1, 1, 9, START + 1_000 * SECOND)).await.unwrap();
    assert_eq!(claim, RunClaim::Done(done.clone()));
    assert_eq!(store.run(&run_id("r")).await.unwrap(), Some(done));
}

async fn refused_claims(fixture: Fixture) {
    let store = fixture.open().await;
    let first = yours(store.begin_run(request("first", 1, 1, 1, 1, START)).await.unwrap());
    // Other bytes under a known id.
    let claim = store.begin_run(request("first", 2, 2, 1, 1, START)).await.unwrap();
    assert_eq!(claim, RunClaim::IdTaken(first.clone()));
    // The same bytes, another parser, not finished: refused even with `again`.
    for again in [false, true] {
        let mut other = request("second", 1, 3, 2, 1, START);
        other.run.again = again;
        assert_eq!(store.begin_run(other).await.unwrap(), RunClaim::OtherParser(first.clone()));
    }
    // The same bytes, other options: refused in every state, unless asked for again.
    let other = request("second", 1, 4, 1, 1, START);
    assert_eq!(store.begin_run(other.clone()).await.unwrap(), RunClaim::OtherOptions(first.clone()));
    assert!(store.finish_run(&run_id("first"), &RunOwner(1), RunEnd::Succeeded).await.unwrap());
    let first = store.run(&run_id("first")).await.unwrap().unwrap();
    assert_eq!(store.begin_run(other.clone()).await.unwrap(), RunClaim::OtherOptions(first.clone()));
    let other_parser = request("second", 1, 3, 2, 1, START);
    assert_eq!(store.begin_run(other_parser.clone()).await.unwrap(), RunClaim::OtherOptions(first));
    assert_eq!(store.runs(None, 10).await.unwrap().len(), 1);
    let mut again = other;
    again.run.again = true;
    let second = yours(store.begin_run(again.clone()).await.unwrap());
    assert_eq!(second.run, again.run);
    assert_eq!(store.begin_run(again).await.unwrap(), RunClaim::Leased(second));
    assert_eq!(store.runs(None, 10).await.unwrap().len(), 2);
}

async fn expired_lease(fixture: Fixture) {
    let store = fixture.open().await;
    yours(store.begin_run(request("r", 1, 1, 1, 1, START)).await.unwrap());
    assert_eq!(verdict(&*store, run_mark("r", 1, 1, 3, &[])).await, Verdict::New);
    let expiry = START + 15 * SECOND;
    let taken = yours(store.begin_run(request("r", 1, 1, 1, 2, expiry)).await.unwrap());
    assert_eq!((taken.last_batch, taken.last_seq, taken.owner), (1, 3, RunOwner(2)));
    assert_eq!(verdict(&*store, run_mark("r", 1, 2, 3, &[])).await, Verdict::Fenced);
    assert_eq!(verdict(&*store, run_mark("r", 1, 1, 3, &[])).await, Verdict::Fenced);
    assert!(!store.renew_lease(&run_id("r"), lease(1, expiry)).await.unwrap());
    assert_eq!(verdict(&*store, run_mark("r", 2, 2, 3, &[])).await, Verdict::New);
    assert_eq!(store.head().await.unwrap().position, 6);
}

async fn owners_only(fixture: Fixture) {
    let store = fixture.open().await;
    yours(store.begin_run(request("r", 1, 1, 1, 1, START)).await.unwrap());
    let later = START + 10 * SECOND;
    assert!(store.renew_lease(&run_id("r"), lease(1, later)).await.unwrap());
    assert_eq!(store.run(&run_id("r")).await.unwrap().unwrap().lease_until, at(later + 15 * SECOND));
    let claim = store.begin_run(request("r", 1, 1, 1, 2, START + 15 * SECOND)).await.unwrap();
    assert!(matches!(claim, RunClaim::Leased(_)));
    assert!(!store.renew_lease(&run_id("r"), lease(2, later)).await.unwrap());
    assert!(!store.renew_lease(&run_id("s"), lease(1, later)).await.unwrap());
    for (name, owner) in [("r", 2), ("s", 1)] {
        assert!(!store.finish_run(&run_id(name), &RunOwner(owner), failed(1, &[9])).await.unwrap());
        assert_eq!(store.rejects(&run_id(name), 0, 9).await.unwrap(), []);
    }
    assert!(store.finish_run(&run_id("r"), &RunOwner(1), RunEnd::Succeeded).await.unwrap());
    assert!(!store.finish_run(&run_id("r"), &RunOwner(1), failed(1, &[9])).await.unwrap());
    assert_eq!(store.rejects(&run_id("r"), 0, 9).await.unwrap(), []);
    assert!(!store.renew_lease(&run_id("r"), lease(1, later)).await.unwrap());
    assert_eq!(verdict(&*store, run_mark("r", 1, 1, 1, &[])).await, Verdict::Fenced);
    assert_eq!(store.run(&run_id("r")).await.unwrap().unwrap().state, RunState::Succeeded);
}

async fn cancelled_run(fixture: Fixture) {
    let store = fixture.open().await;
    yours(store.begin_run(request("r", 1, 1, 1, 1, START)).await.unwrap());
    store.append(marked(vec![run_mark("r", 1, 1, 3, &[7])])).await.unwrap();
    fixture.clock.set(START + 5);
    assert_eq!(store.cancel_run(&run_id("s")).await.unwrap(), None);
    let cancelled = store.cancel_run(&run_id("r")).await.unwrap().unwrap();
    assert_eq!((cancelled.state, cancelled.finish_time), (RunState::Cancelled, Some(at(START + 5))));
    assert_eq!(verdict(&*store, run_mark("r", 1, 2, 3, &[])).await, Verdict::Fenced);
    assert!(!store.finish_run(&run_id("r"), &RunOwner(1), RunEnd::Succeeded).await.unwrap());
    fixture.clock.set(START + 6);
    assert_eq!(store.cancel_run(&run_id("r")).await.unwrap(), Some(cancelled));
    assert_eq!((store.head().await.unwrap().position, store.rejects(&run_id("r"), 0, 9).await.unwrap().len()), (3, 1));
    let continued = yours(store.begin_run(request("r", 1, 1, 1, 2, START)).await.unwrap());
    assert_eq!((continued.last_batch, continued.finish_time), (1, None));
    assert_eq!(verdict(&*store, run_mark("r", 2, 2, 3, &[])).await, Verdict::New);
}

async fn progress(fixture: Fixture) {
    let store = fixture.open().await;
    yours(store.begin_run(request("r", 1, 1, 1, 1, START)).await.unwrap());
    store.append(group(10, "others")).await.unwrap();
    assert_eq!(verdict(&*store, run_mark("r", 1, 2, 3, &[])).await, Verdict::OutOfOrder { expected: 1 });
    let two = marked(vec![run_mark("r", 1, 1, 3, &[2, 4]), run_mark("r", 1, 2, 5, &[9])]);
    assert_eq!(committed(store.append(two).await.unwrap()), 11);
    let store = fixture.reopen(store).await;
    let run = store.run(&run_id("r")).await.unwrap().unwrap();
    let ignored = Ignored([("quote".into(), 2)].into());
    let expected = RunProgress { lines: 13, ticks: 8, published: 0, ignored, rejected: 3, rejects: Vec::new() };
    assert_eq!((run.last_batch, run.last_seq, run.progress), (2, 18, expected));
    let rejects = store.rejects(&run_id("r"), 0, 100).await.unwrap();
    assert_eq!(rejects.iter().map(|reject| reject.line).collect::<Vec<_>>(), [2, 4, 9]);
    assert_eq!((&*rejects[0].reason, &*rejects[0].text), ("price: not a number", "line 2\0"));
    assert!(rejects.iter().all(|reject| reject.code == "ACTION_NOT_SUPPORTED"));
    for (after_line, limit, expected) in [
        (0, 2, &rejects[..2]),
        (1, 9, &rejects[..]),
        (2, 1, &rejects[1..2]),
        (4, 9, &rejects[2..]),
        (9, 9, &[]),
        (u64::MAX, 9, &[]),
        (0, 0, &[]),
    ] {
        let page = store.rejects(&run_id("r"), after_line, limit).await.unwrap();
        assert_eq!(page, expected, "after {after_line}, at most {limit}");
    }

    // A batch sent again is told, and neither counted nor stored again.
    for batch in [1, 2] {
        let again = run_mark("r", 1, batch, 3, &[2, 77]);
        assert_eq!(verdict(&*store, again).await, Verdict::Duplicate { last_seq: 18 });
    }
    assert_eq!(verdict(&*store, run_mark("r", 1, 4, 3, &[])).await, Verdict::OutOfOrder { expected: 3 });
    assert_eq!(verdict(&*store, run_mark("r", 2, 3, 3, &[])).await, Verdict::Fenced);
    assert_eq!(verdict(&*store, run_mark("s", 1, 1, 3, &[])).await, Verdict::Unknown);
    assert_eq!(store.rejects(&run_id("r"), 0, 100).await.unwrap(), rejects);
    assert_eq!(store.run(&run_id("r")).await.unwrap().unwrap().progress.lines, 13);
    let (_, segments) = whole_log(&*store).await;
    assert_eq!(segments.iter().map(|segment| segment.run_id.clone()).collect::<Vec<_>>(), [None, Some(run_id("r"))]);
}

async fn unstored_rejects(fixture: Fixture) {
    let mut store = fixture.open().await;
    let r = run_id("r");
    yours(store.begin_run(request("other", 2, 2, 1, 1, START)).await.unwrap());
    store.append(marked(vec![run_mark("other", 1, 1, 0, &[1, 50])])).await.unwrap();
    yours(store.begin_run(request("r", 1, 1, 1, 1, START)).await.unwrap());
    store.append(marked(vec![run_mark("r", 1, 1, 3, &[2, 40])])).await.unwrap();

    // It fails twice in its second batch: the same lines are rejected both times, and listed once.
    for owner in [1, 2] {
        assert!(store.finish_run(&r, &RunOwner(owner), failed(5, &[7_000, 7_001, 7_005])).await.unwrap());
        let fresh = fixture.reopen(store).await;
        let run = fresh.run(&r).await.unwrap().unwrap();
        assert_eq!((run.state, run.progress.rejected, run.unstored_rejected), (RunState::Failed, 2, 5));
        assert_eq!((run.rejected(), run.error.unwrap().message), (7, "too many\0".to_owned()));
        assert_eq!(
            (run.last_batch, run.progress.lines, run.progress.ticks),
            (1, 6, 3),
            "the batch itself is not stored"
        );
        let rejects = fresh.rejects(&r, 0, 100).await.unwrap();
        assert_eq!(rejects, [2, 40, 7_000, 7_001, 7_005].map(|line| reject(&line)));
        assert_eq!(fresh.rejects(&r, 40, 2).await.unwrap(), rejects[2..4]);
        let continued = yours(fresh.begin_run(request("r", 1, 1, 1, owner + 1, START + 100 * SECOND)).await.unwrap());
        assert_eq!((continued.rejected(), continued.unstored_rejected, continued.error), (2, 0, None));
        assert_eq!(fresh.run(&r).await.unwrap().unwrap().rejected(), 2);
        assert_eq!(fresh.rejects(&r, 0, 100).await.unwrap(), rejects[..2]);
        store = fresh;
    }
    // The batch is stored at last, with the rejects that its lines have.
    assert_eq!(verdict(&*store, run_mark("r", 3, 2, 3, &[7_000, 7_001, 7_005, 7_006])).await, Verdict::New);
    assert!(store.finish_run(&r, &RunOwner(3), RunEnd::Succeeded).await.unwrap());
    let run = store.run(&r).await.unwrap().unwrap();
    assert_eq!((run.state, run.rejected(), run.unstored_rejected), (RunState::Succeeded, 6, 0));
    let rejects = store.rejects(&r, 0, 100).await.unwrap();
    assert_eq!(rejects, [2, 40, 7_000, 7_001, 7_005, 7_006].map(|line| reject(&line)));
    assert_eq!(store.rejects(&run_id("other"), 0, 100).await.unwrap(), [1, 50].map(|line| reject(&line)));

    // Where fewer are kept than counted, none is of an unstored batch, and all stay.
    let mut many = run_mark("other", 1, 2, 1, &[60]);
    if let Mark::Run { progress, .. } = &mut many {
        progress.rejected = 2_000;
    }
    assert_eq!(verdict(&*store, many).await, Verdict::New);
    assert!(store.finish_run(&run_id("other"), &RunOwner(1), failed(9, &[])).await.unwrap());
    assert_eq!(store.run(&run_id("other")).await.unwrap().unwrap().rejected(), 2_011);
    yours(store.begin_run(request("other", 2, 2, 1, 2, START)).await.unwrap());
    assert_eq!(store.rejects(&run_id("other"), 0, 100).await.unwrap(), [1, 50, 60].map(|line| reject(&line)));
    assert_eq!(store.run(&run_id("other")).await.unwrap().unwrap().rejected(), 2_002);
}

async fn batch_without_ticks(fixture: Fixture) {
    let store = fixture.open().await;
    yours(store.begin_run(request("r", 1, 1, 1, 1, START)).await.unwrap());
    store.append(marked(vec![run_mark("r", 1, 1, 2, &[])])).await.unwrap();
    let before = store.head().await.unwrap();
    fixture.clock.set(START + 100);
    let appended = store.append(marked(vec![run_mark("r", 1, 2, 0, &[5, 6])])).await.unwrap();
    let stood = Appended::Committed { first_seq: 3, append_time: before.append_time, chain: before.chain };
    assert_eq!(appended, stood);
    assert_eq!(store.head().await.unwrap(), before);
    let store = fixture.reopen(store).await;
    let run = store.run(&run_id("r")).await.unwrap().unwrap();
    assert_eq!((run.last_batch, run.last_seq, run.progress.rejected), (2, 2, 2));
    assert_eq!(store.rejects(&run_id("r"), 0, 100).await.unwrap().len(), 2);
    assert_eq!(verdict(&*store, run_mark("r", 1, 2, 0, &[5])).await, Verdict::Duplicate { last_seq: 2 });
    assert_eq!(committed(store.append(marked(vec![run_mark("r", 1, 3, 1, &[])])).await.unwrap()), 3);
}

async fn listed_runs(fixture: Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.runs(None, 10).await.unwrap(), []);
    for number in 1..=5 {
        yours(store.begin_run(request(&format!("r{number}"), number, number, 1, 1, START)).await.unwrap());
    }
    let store = fixture.reopen(store).await;
    for (before, limit, expected) in [
        (None, 10, &["r5", "r4", "r3", "r2", "r1"][..]),
        (None, 2, &["r5", "r4"]),
        (Some("r4"), 2, &["r3", "r2"]),
        (Some("r1"), 2, &[]),
        (Some("unknown"), 2, &[]),
        (None, 0, &[]),
    ] {
        let runs = store.runs(before.map(run_id).as_ref(), limit).await.unwrap();
        assert_eq!(runs.iter().map(|run| run.run.id.as_str()).collect::<Vec<_>>(), expected, "before {before:?}");
    }
}
