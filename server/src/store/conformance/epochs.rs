//! The log's names.

use super::*;
use crate::store::{Appended, EpochStart, StoreError, Verdict};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("a group of another epoch is refused", other_epoch),
        case("a renewed epoch goes on after its fork, and ends every claim", renewed_epoch),
    ]
}

async fn other_epoch(fixture: Fixture) {
    let store = fixture.open().await;
    let fence = store.claim_producer(&producer_id("p")).await.unwrap().fence;
    let other = Group { epoch: Epoch(2), ..marked(vec![batch("p", fence, 1)]) };
    assert!(matches!(store.append(other).await, Err(StoreError::EpochChanged(EPOCH))));
    assert_eq!(store.head().await.unwrap().position, 0);
    assert_eq!(committed(store.append(marked(vec![batch("p", fence, 1)])).await.unwrap()), 1);
}

async fn renewed_epoch(fixture: Fixture) {
    let store = fixture.open().await;
    let fence = store.claim_producer(&producer_id("p")).await.unwrap().fence;
    store.append(marked(vec![batch("p", fence, 1)])).await.unwrap();
    let before = store.head().await.unwrap();
    let first = EpochStart { epoch: EPOCH, parent: None, fork: 0, start_time: at(START) };
    assert_eq!(store.epochs().await.unwrap(), [first]);
    assert_eq!(store.renew_epoch(EPOCH).await.unwrap(), before);
    assert_eq!(store.epochs().await.unwrap(), [first]);

    fixture.clock.set(START + 9);
    let renewed = store.renew_epoch(Epoch(77)).await.unwrap();
    assert_eq!(renewed, LogHead { epoch: Epoch(77), ..before });
    assert_eq!(store.renew_epoch(Epoch(77)).await.unwrap(), renewed);
    assert_eq!(store.head().await.unwrap(), renewed);
    let second = EpochStart { epoch: Epoch(77), parent: Some(EPOCH), fork: 2, start_time: at(START + 9) };
    assert_eq!(store.epochs().await.unwrap(), [second, first]);
    assert_eq!(store.manifest(0).await.unwrap().epoch, Epoch(77));

    let old = marked(vec![batch("p", fence, 2)]);
    assert!(matches!(store.append(old.clone()).await, Err(StoreError::EpochChanged(Epoch(77)))));
    let fenced = store.append(Group { epoch: Epoch(77), ..old }).await.unwrap();
    assert_eq!(fenced, Appended::Refused(vec![Verdict::Fenced]));
    let claim = store.claim_producer(&producer_id("p")).await.unwrap();
    assert_eq!(claim.last_batch_seq, 1);
    let next = Group { epoch: Epoch(77), ..marked(vec![batch("p", claim.fence, 2)]) };
    assert_eq!(committed(store.append(next).await.unwrap()), 3);

    let store = fixture.reopen(store).await;
    let (_, segments) = whole_log(&*store).await;
    assert_eq!(segments.iter().map(|segment| segment.epoch).collect::<Vec<_>>(), [EPOCH, Epoch(77)]);
    assert_eq!(store.epochs().await.unwrap(), [second, first]);
}
