//! Claims, fences, windows, verdicts.

use super::*;
use crate::store::{Appended, PRODUCER_WINDOW, ProducerClaim, Verdict};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("each claim's fence is greater than every earlier one", fences_rise),
        case("a claim is renewed until another has claimed the producer", renewals),
        case("verdicts follow the table", verdict_table),
        case("the window keeps the last eight batches", window),
        case("a group's batches of one producer are judged one after the other", batches_of_one_producer),
        case("one refused batch refuses its group", one_refuses_all),
        case("producers keep their state across a restart", reopened_producers),
    ]
}

async fn verdict(store: &dyn Store, mark: Mark) -> Verdict {
    let before = store.head().await.unwrap();
    match store.append(marked(vec![mark])).await.unwrap() {
        Appended::Committed { .. } => Verdict::New,
        Appended::Refused(verdicts) => {
            assert_eq!(store.head().await.unwrap(), before);
            assert_eq!(verdicts.len(), 1);
            verdicts[0]
        }
    }
}

async fn fences_rise(fixture: Fixture) {
    let store = fixture.open().await;
    let mut last = 0;
    for producer in ["a", "b", "a", "a", "c", "b"] {
        let claim = store.claim_producer(&producer_id(producer)).await.unwrap();
        assert!(claim.fence > last);
        assert_eq!(claim.last_batch_seq, 0);
        last = claim.fence;
    }
}

async fn renewals(fixture: Fixture) {
    let store = fixture.open().await;
    let id = producer_id("p");
    let renew = async |held| store.claim_or_renew(&id, Some(held)).await.unwrap();
    let first = store.claim_producer(&id).await.unwrap().fence;
    assert_eq!(verdict(&*store, batch("p", first, 1)).await, Verdict::New);
    let second = renew(first).await.unwrap();
    assert!(second.fence > first);
    assert_eq!(second.last_batch_seq, 1);
    let third = renew(first).await.expect("the second grant may have been lost on its way").fence;
    assert!(third > second.fence);
    assert_eq!(verdict(&*store, batch("p", second.fence, 2)).await, Verdict::Fenced);
    assert_eq!(verdict(&*store, batch("p", third, 2)).await, Verdict::New);

    let other = store.claim_producer(&id).await.unwrap().fence;
    for held in [first, second.fence, third] {
        assert_eq!(renew(held).await, None);
    }
    assert_eq!(verdict(&*store, batch("p", other, 3)).await, Verdict::New, "a refused renewal ends no claim");
    // A batch between two claims keeps who holds the producer.
    let other = renew(other).await.unwrap().fence;
    assert_eq!(renew(third).await, None);
    let store = fixture.reopen(store).await;
    assert_eq!(store.claim_or_renew(&id, Some(third)).await.unwrap(), None);
    assert_eq!(verdict(&*store, batch("p", other, 4)).await, Verdict::New);

    // A producer that is not known any more is whose claim comes first, however often the grant is lost.
    let forgotten = producer_id("q");
    for _ in 0..2 {
        assert_eq!(store.claim_or_renew(&forgotten, Some(third)).await.unwrap().unwrap().last_batch_seq, 0);
    }

    // A fence of a log that is lost renews nothing, and who comes with it is held for new: so is what it is granted.
    for lost in [1_000, u64::MAX] {
        let granted = store.claim_or_renew(&id, Some(lost)).await.unwrap().unwrap().fence;
        assert_eq!(store.claim_or_renew(&id, Some(other)).await.unwrap(), None);
        let again = store.claim_or_renew(&id, Some(lost)).await.unwrap().unwrap().fence;
        assert_eq!(store.claim_or_renew(&id, Some(granted)).await.unwrap(), None);
        assert!(store.claim_or_renew(&id, Some(again)).await.unwrap().is_some());
    }
    let unknown = producer_id("r");
    let granted = store.claim_or_renew(&unknown, Some(1_000)).await.unwrap().unwrap().fence;
    assert!(store.claim_or_renew(&unknown, Some(granted)).await.unwrap().is_some());
}

async fn verdict_table(fixture: Fixture) {
    let store = fixture.open().await;
    let old = store.claim_producer(&producer_id("p")).await.unwrap().fence;
    let fence = store.claim_producer(&producer_id("p")).await.unwrap().fence;
    assert_eq!(verdict(&*store, batch("p", fence, 2)).await, Verdict::OutOfOrder { expected: 1 });
    assert_eq!(verdict(&*store, batch("p", fence, 0)).await, Verdict::Conflict);
    assert_eq!(verdict(&*store, batch("p", fence, 1)).await, Verdict::New);
    assert_eq!(verdict(&*store, batch("p", fence, 2)).await, Verdict::New);
    for (mark, expected) in [
        (batch("p", fence, 1), Verdict::Duplicate { last_seq: 2 }),
        (batch("p", fence, 2), Verdict::Duplicate { last_seq: 4 }),
        (other_batch("p", fence, 2, digest(99)), Verdict::Conflict),
        (batch("p", fence, 4), Verdict::OutOfOrder { expected: 3 }),
        (batch("p", fence, u64::MAX), Verdict::OutOfOrder { expected: 3 }),
        (batch("p", old, 3), Verdict::Fenced),
        (batch("p", old, 1), Verdict::Fenced),
        (batch("p", fence + 1, 3), Verdict::Fenced),
        (batch("q", fence, 1), Verdict::Unknown),
    ] {
        assert_eq!(verdict(&*store, mark.clone()).await, expected, "{mark:?}");
    }
    let claim = store.claim_producer(&producer_id("p")).await.unwrap();
    assert_eq!(claim.last_batch_seq, 2);
    assert_eq!(verdict(&*store, batch("p", fence, 3)).await, Verdict::Fenced);
    assert_eq!(verdict(&*store, batch("p", claim.fence, 2)).await, Verdict::Duplicate { last_seq: 4 });
    assert_eq!(verdict(&*store, batch("p", claim.fence, 3)).await, Verdict::New);
    assert_eq!(whole_log(&*store).await.1.len(), 3);
}

async fn window(fixture: Fixture) {
    let store = fixture.open().await;
    let fence = store.claim_producer(&producer_id("p")).await.unwrap().fence;
    let last = 3 * PRODUCER_WINDOW as u64;
    for batch_seq in 1..=last {
        assert_eq!(verdict(&*store, batch("p", fence, batch_seq)).await, Verdict::New);
    }
    let oldest = last + 1 - PRODUCER_WINDOW as u64;
    for batch_seq in 1..=last {
        let known = Verdict::Duplicate { last_seq: 2 * batch_seq };
        let expected = if batch_seq >= oldest { known } else { Verdict::Conflict };
        assert_eq!(verdict(&*store, batch("p", fence, batch_seq)).await, expected, "batch {batch_seq}");
    }
}

async fn batches_of_one_producer(fixture: Fixture) {
    let store = fixture.open().await;
    let fence = store.claim_producer(&producer_id("p")).await.unwrap().fence;
    let marks = (1..=10).map(|batch_seq| batch("p", fence, batch_seq)).collect();
    assert_eq!(committed(store.append(marked(marks)).await.unwrap()), 1);
    assert_eq!(verdict(&*store, batch("p", fence, 2)).await, Verdict::Conflict);
    assert_eq!(verdict(&*store, batch("p", fence, 3)).await, Verdict::Duplicate { last_seq: 6 });
    assert_eq!(verdict(&*store, batch("p", fence, 10)).await, Verdict::Duplicate { last_seq: 20 });

    let marks = vec![
        batch("p", fence, 11),
        batch("p", fence, 10),
        batch("p", fence, 13),
        batch("p", fence, 12),
        batch("p", fence, 11),
        other_batch("p", fence, 12, digest(0)),
        batch("p", fence, 13),
    ];
    let expected = vec![
        Verdict::New,
        Verdict::Duplicate { last_seq: 20 },
        Verdict::OutOfOrder { expected: 12 },
        Verdict::New,
        Verdict::Duplicate { last_seq: 22 },
        Verdict::Conflict,
        Verdict::New,
    ];
    assert_eq!(store.append(marked(marks)).await.unwrap(), Appended::Refused(expected));
    assert_eq!(store.head().await.unwrap().position, 20);
    assert_eq!(verdict(&*store, batch("p", fence, 11)).await, Verdict::New);
}

async fn one_refuses_all(fixture: Fixture) {
    let store = fixture.open().await;
    let first = store.claim_producer(&producer_id("first")).await.unwrap().fence;
    let second = store.claim_producer(&producer_id("second")).await.unwrap().fence;
    let marks = vec![batch("first", first, 1), batch("second", second, 2), batch("third", 1, 1)];
    let expected = vec![Verdict::New, Verdict::OutOfOrder { expected: 1 }, Verdict::Unknown];
    assert_eq!(store.append(marked(marks)).await.unwrap(), Appended::Refused(expected));
    assert_eq!(store.head().await.unwrap().position, 0);
    let store = fixture.reopen(store).await;
    let marks = vec![batch("first", first, 1), batch("second", second, 1), batch("first", first, 2)];
    assert_eq!(committed(store.append(marked(marks)).await.unwrap()), 1);
    assert_eq!(verdict(&*store, batch("first", first, 1)).await, Verdict::Duplicate { last_seq: 2 });
    assert_eq!(verdict(&*store, batch("second", second, 1)).await, Verdict::Duplicate { last_seq: 4 });
    assert_eq!(verdict(&*store, batch("first", first, 2)).await, Verdict::Duplicate { last_seq: 6 });
}

async fn reopened_producers(fixture: Fixture) {
    let store = fixture.open().await;
    let fence = store.claim_producer(&producer_id("p")).await.unwrap().fence;
    for batch_seq in 1..=12 {
        store.append(marked(vec![batch("p", fence, batch_seq)])).await.unwrap();
    }
    let store = fixture.reopen(store).await;
    assert_eq!(verdict(&*store, batch("p", fence, 12)).await, Verdict::Duplicate { last_seq: 24 });
    assert_eq!(verdict(&*store, batch("p", fence, 5)).await, Verdict::Duplicate { last_seq: 10 });
    assert_eq!(verdict(&*store, batch("p", fence, 4)).await, Verdict::Conflict);
    assert_eq!(verdict(&*store, batch("p", fence, 13)).await, Verdict::New);
    let claim = store.claim_producer(&producer_id("p")).await.unwrap();
    assert_eq!(claim, ProducerClaim { fence: fence + 1, last_batch_seq: 13 });
}
