//! Callers who go away.

use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::store::{Appended, Verdict, faults};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("a caller who goes away loses nothing and tears nothing", cancelled_appends),
        case("callers who go away while they wait to read harm nobody", cancelled_reads),
    ]
}

/// Polls a future at most so often, each time after others had their turn; `None` if it was dropped before its end.
async fn poll_at_most<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    for _ in 0..times {
        if let Poll::Ready(output) = futures_util::poll!(&mut future) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    future.now_or_never()
}

/// One publisher per task; each sends every batch until it is acknowledged, and goes away whenever it likes.
async fn cancelled_appends(fixture: Fixture) {
    const TASKS: u64 = 6;
    const BATCHES: u64 = 60;
    let store = fixture.open().await;
    for delay in 0..200 {
        let point = if delay % 2 == 0 { faults::APPEND_INSIDE } else { faults::APPEND_BEFORE_SYNC };
        fixture.faults.next(point, FaultAction::Delay(Duration::from_micros(delay)));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut random = SmallRng::seed_from_u64(task);
            let name = format!("p{task}");
            let fence = store.claim_producer(&producer_id(&name)).await.unwrap().fence;
            let mut abandoned = 0;
            for batch_seq in 1..=BATCHES {
                let mark = batch(&name, fence, batch_seq);
                while random.random_bool(0.5) {
                    let times = random.random_range(0..40);
                    let append = poll_at_most(times, store.append(marked(vec![mark.clone()]))).await;
                    abandoned += usize::from(append.is_none());
                }
                match store.append(marked(vec![mark])).await.unwrap() {
                    Appended::Committed { .. } => (),
                    Appended::Refused(verdicts) => {
                        assert!(matches!(verdicts[..], [Verdict::Duplicate { .. }]))
                    }
                }
            }
            abandoned
        });
    }
    let abandoned: usize = tasks.join_all().await.iter().sum();
    assert!(abandoned > 20, "only {abandoned} appends were abandoned");
    let store = fixture.reopen(store).await;
    let (head, segments) = whole_log(&*store).await;
    assert_eq!(head.position, TASKS * BATCHES * 2);
    for task in 0..TASKS {
        let name = format!("ProducerId(\"p{task}\")");
        let bytes = |segment: &Segment| String::from_utf8(segment.bytes.to_vec()).unwrap();
        let stored: Vec<String> = segments.iter().map(bytes).filter(|bytes| bytes.contains(&name)).collect();
        assert_eq!(stored.len() as u64, BATCHES);
        for (batch_seq, bytes) in (1..).zip(stored) {
            assert!(bytes.contains(&format!("batch_seq: {batch_seq},")));
        }
    }
}

async fn cancelled_reads(fixture: Fixture) {
    let store = fixture.open().await;
    for number in 0..50_u8 {
        store.append(group(3, vec![number; 2_000])).await.unwrap();
    }
    let mut random = SmallRng::seed_from_u64(1);
    for number in 0..300_u64 {
        let times = random.random_range(0..20);
        poll_at_most(times, store.segments(number % 150, 10_000)).await;
        poll_at_most(times, store.manifest(0)).await;
    }
    let before = store.head().await.unwrap();
    assert_eq!(committed(store.append(group(1, "after")).await.unwrap()), before.position + 1);
    assert_eq!(whole_log(&*store).await.0.position, before.position + 1);
}
