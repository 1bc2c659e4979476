//! Publishers against a fake that keeps the contract's rules.

use std::time::Duration;

use tonic::{Code, Status};

use super::*;
use crate::testing::{FakeIngest, builder, refusal, serve_ingest};
use crate::{ErrorReason, SourceStatus, UnixNanos};

fn tick(id: impl ToString) -> NewTick {
    NewTick::new("X", "A", UnixNanos(1), "1".parse().unwrap()).trade_id(id.to_string())
}

fn ids(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|id| id.to_string()).collect()
}

async fn start(fake: &FakeIngest, batch_size: usize) -> Publisher {
    let client = builder(&serve_ingest(fake.clone()).await).lazy().unwrap();
    let publisher = client.publisher("p").batch_size(batch_size);
    publisher.start().await.unwrap()
}

#[tokio::test]
async fn ticks_are_stored_once_and_in_order() {
    let fake = FakeIngest::with(|_| {});
    let publisher = start(&fake, 10).await;
    assert_eq!(publisher.resumed_after(), 0);
    for id in 0..95 {
        publisher.send(tick(id)).await.unwrap();
    }
    let receipt = publisher.flush().await.unwrap();
    assert_eq!(receipt.batch_seq, 10);
    assert_eq!(receipt.cursor.unwrap().as_bytes(), 10u64.to_be_bytes());
    assert_eq!(fake.stored_ids(), ids(0..95));
    let status = publisher.status();
    assert_eq!(status.acknowledged_ticks, 95);
    assert_eq!(status.acknowledged_batches, 10);
    assert_eq!(status.pending_ticks, 0);
    assert!(status.connected);
}

#[tokio::test]
async fn a_lost_acknowledgement_or_cut_at_any_batch_stores_nothing_twice() {
    for batch in 1..=6 {
        for lost in [true, false] {
            let fake = FakeIngest::with(|state| {
                if lost {
                    state.lose_ack_of = vec![batch, batch + 1];
                } else {
                    state.cut_before = vec![batch, batch];
                }
            });
            let publisher = start(&fake, 5).await;
            for id in 0..40 {
                publisher.send(tick(id)).await.unwrap();
            }
            publisher.flush().await.unwrap();
            assert_eq!(fake.stored_ids(), ids(0..40), "batch {batch}, lost {lost}");
            assert_eq!(fake.stored_numbers(), (1..=8).collect::<Vec<_>>());
            let status = publisher.status();
            assert_eq!(status.acknowledged_batches, 8);
            assert_eq!(status.reconnects, 2);
            assert!(status.duplicate_batches > 0 || !lost);
        }
    }
}

#[tokio::test]
async fn credit_is_used_and_never_passed() {
    let fake = FakeIngest::with(|state| {
        state.credit_batches = 3;
        state.ack_delay = Some(Duration::from_millis(10));
    });
    let publisher = start(&fake, 2).await;
    for id in 0..40 {
        publisher.send(tick(id)).await.unwrap();
    }
    publisher.flush().await.unwrap();
    assert_eq!(fake.state.lock().unwrap().most_unacknowledged, 3);
    assert_eq!(fake.stored_ids(), ids(0..40));
}

#[tokio::test]
async fn credit_of_bytes_lets_one_batch_through() {
    let fake = FakeIngest::with(|state| {
        state.credit_bytes = 1;
        state.ack_delay = Some(Duration::from_millis(2));
    });
    let publisher = start(&fake, 2).await;
    for id in 0..10 {
        publisher.send(tick(id)).await.unwrap();
    }
    publisher.flush().await.unwrap();
    assert_eq!(fake.state.lock().unwrap().most_unacknowledged, 1);
}

#[tokio::test]
async fn a_server_that_does_not_acknowledge_stops_the_senders() {
    let fake = FakeIngest::with(|state| state.never_ack = true);
    let publisher = start(&fake, 10).await;
    let sending = async {
        for id in 0..100_000 {
            publisher.send(tick(id)).await.unwrap();
        }
    };
    let blocked = tokio::time::timeout(Duration::from_millis(500), sending).await;
    assert!(blocked.is_err(), "sending waits");
    let taken = publisher.status().pending_ticks;
    assert!(taken <= 200, "{taken} ticks in batches");
}

#[tokio::test]
async fn a_refused_batch_comes_back_and_later_ticks_are_stored() {
    let fake = FakeIngest::with(|_| {});
    let publisher = start(&fake, 5).await;
    for id in 0..5 {
        publisher.send(tick(id)).await.unwrap();
    }
    for id in ["a", "b", "bad", "c", "d"] {
        publisher.send(tick(id)).await.unwrap();
    }
    for id in 5..30 {
        publisher.send(tick(id)).await.unwrap();
    }
    let Err(Error::BatchesRefused(refused)) = publisher.flush().await else {
        panic!("a refused batch is told");
    };
    assert_eq!(refused.batches.len(), 1);
    let batch = &refused.batches[0];
    assert_eq!(batch.ticks.len(), 5);
    assert_eq!(batch.violations[0].index, Some(2));
    assert_eq!(batch.violation_count, 1);
    assert_eq!(batch.error.reason(), ErrorReason::BatchInvalid);
    assert_eq!(fake.stored_ids(), ids(0..30));
    assert_eq!(fake.stored_numbers(), (1..=6).collect::<Vec<_>>());
    // Told once; the publisher goes on.
    publisher.send(tick(30)).await.unwrap();
    publisher.flush().await.unwrap();
    assert_eq!(fake.stored_ids(), ids(0..31));
    assert_eq!(publisher.status().refused_batches, 1);
}

#[tokio::test]
async fn a_publisher_whose_refusals_nobody_reads_stops() {
    let fake = FakeIngest::with(|_| {});
    let publisher = start(&fake, 1).await;
    let mut stopped = None;
    for _ in 0..50 {
        if let Err(error) = publisher.send(tick("bad")).await {
            stopped = Some(error);
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let Some(Error::BatchesRefused(refused)) = stopped else {
        panic!("it stops");
    };
    assert_eq!(refused.batches.len(), MAX_REFUSED_BATCHES + 1);
}

#[tokio::test]
async fn batches_of_one_s_own_have_receipts() {
    let fake = FakeIngest::with(|state| state.lose_ack_of = vec![2]);
    let publisher = start(&fake, 100).await;
    publisher.send(tick("before")).await.unwrap();
    let receipt = publisher.publish_batch(vec![tick("a")]).await.unwrap();
    assert_eq!((receipt.batch_seq, receipt.duplicate), (2, true));
    let refused = publisher.publish_batch(vec![tick("bad")]).await;
    assert!(matches!(refused, Err(Error::BatchesRefused(_))));
    let (one, two) = tokio::join!(publisher.publish_batch(vec![tick("b")]), publisher.publish_batch(vec![tick("c")]));
    assert_eq!((one.unwrap().batch_seq, two.unwrap().batch_seq), (3, 4));
    assert_eq!(fake.stored_ids(), ["before", "a", "b", "c"]);
    let empty = publisher.publish_batch(Vec::new()).await;
    assert!(matches!(empty, Err(Error::Invalid(_))));
    let negative = tick("n").quantity("-1".parse().unwrap());
    assert!(matches!(publisher.send(negative).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn events_keep_their_place_between_ticks() {
    let fake = FakeIngest::with(|_| {});
    let publisher = start(&fake, 100).await;
    let down = SourceEvent::Status(SourceStatus {
        source: "feed".into(),
        venue: "X".into(),
        symbols: Vec::new(),
        up: false,
        change_time: None,
        detail: String::new(),
        log_seq: 0,
    });
    publisher.send(tick("a")).await.unwrap();
    publisher.send_event(down).await.unwrap();
    publisher.send(tick("b")).await.unwrap();
    publisher.close().await.unwrap();
    assert_eq!(fake.stored_ids(), ["a", "event", "b"]);
}

#[tokio::test]
async fn lingering_ticks_go_out_by_themselves() {
    let fake = FakeIngest::with(|_| {});
    let publisher = start(&fake, 1_000).await;
    let mut status = publisher.watch();
    publisher.send(tick("a")).await.unwrap();
    let stored = status.wait_for(|status| status.acknowledged_ticks == 1);
    tokio::time::timeout(Duration::from_secs(5), stored).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_fence_is_fatal_and_told_to_everybody() {
    let fake = FakeIngest::with(|_| {});
    let publisher = start(&fake, 1).await;
    publisher.send(tick("a")).await.unwrap();
    publisher.flush().await.unwrap();
    fake.state.lock().unwrap().refuse_next = Some(refusal(Code::Aborted, "PRODUCER_FENCED", &[]));
    publisher.send(tick("b")).await.unwrap();
    let fenced = publisher.flush().await.unwrap_err();
    assert_eq!(fenced.reason(), ErrorReason::ProducerFenced);
    let later = publisher.send(tick("c")).await.unwrap_err();
    assert_eq!(later.reason(), ErrorReason::ProducerFenced);
    assert_eq!(publisher.status().pending_ticks, 1);
    assert_eq!(fake.state.lock().unwrap().claims, 1);
}

#[tokio::test]
async fn after_a_cut_a_claim_is_renewed_and_never_taken_back() {
    let fake = FakeIngest::with(|state| {
        state.refuse_claims.push_back(Status::unavailable("not yet"));
        state.cut_before = vec![1, 2];
    });
    let publisher = start(&fake, 1).await;
    publisher.send(tick("a")).await.unwrap();
    publisher.flush().await.unwrap();
    fake.state.lock().unwrap().refuse_claims.push_back(refusal(Code::Aborted, "PRODUCER_FENCED", &[]));
    publisher.send(tick("b")).await.unwrap();
    let fenced = publisher.flush().await.unwrap_err();
    assert_eq!(fenced.reason(), ErrorReason::ProducerFenced);
    assert_eq!(fake.state.lock().unwrap().held_fences, [0, 0, 2, 3]);
}

#[tokio::test]
async fn a_full_queue_and_a_forgotten_producer_are_tried_again() {
    for refused in [
        refusal(Code::ResourceExhausted, "QUEUE_FULL", &[]),
        refusal(Code::FailedPrecondition, "PRODUCER_UNKNOWN", &[]),
        Status::unknown("transport error"),
    ] {
        let fake = FakeIngest::with(|state| state.refuse_next = Some(refused));
        let publisher = start(&fake, 2).await;
        for id in 0..10 {
            publisher.send(tick(id)).await.unwrap();
        }
        publisher.flush().await.unwrap();
        assert_eq!(fake.stored_ids(), ids(0..10));
    }
}

#[tokio::test]
async fn batches_that_the_server_forgot_are_counted_and_numbers_go_on() {
    let fake = FakeIngest::with(|_| {});
    let publisher = start(&fake, 1).await;
    for id in 0..3 {
        publisher.publish_batch(vec![tick(id)]).await.unwrap();
    }
    {
        let mut state = fake.state.lock().unwrap();
        state.stored.truncate(1);
        state.refuse_next = Some(Status::unavailable("failed over"));
    }
    let receipt = publisher.publish_batch(vec![tick("after")]).await.unwrap();
    assert_eq!(receipt.batch_seq, 2);
    assert_eq!(publisher.status().forgotten_batches, 2);
    assert_eq!(fake.stored_ids(), ["0", "after"]);
}

#[tokio::test]
async fn a_restart_goes_on_after_what_is_stored() {
    let fake = FakeIngest::with(|_| {});
    let address = serve_ingest(fake.clone()).await;
    let client = builder(&address).lazy().unwrap();
    for expected in 0..3 {
        let publisher = client.publisher("p").start().await.unwrap();
        assert_eq!(publisher.resumed_after(), expected);
        publisher.publish_batch(vec![tick(expected)]).await.unwrap();
    }
    assert_eq!(fake.stored_ids(), ids(0..3));
}

#[tokio::test]
async fn a_claim_that_cannot_succeed_fails_the_start() {
    let invalid = refusal(Code::InvalidArgument, "FIELD_INVALID", &[]);
    let fake = FakeIngest::with(|state| state.refuse_claims.push_back(invalid));
    let client = builder(&serve_ingest(fake).await).lazy().unwrap();
    let error = client.publisher("?").start().await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::FieldInvalid);

    let nobody = builder("http://127.0.0.1:1").deadline(Duration::from_millis(100));
    let error = nobody.lazy().unwrap().publisher("p").start().await;
    assert!(matches!(error, Err(Error::Transport(_))), "{error:?}");
}
