//! The log's names.

use super::*;
use crate::domain::Cursor;
use crate::store::{Appended, EpochStart, ManifestChange, ManifestCommit, StoreError, Verdict};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("a group of another epoch is refused", other_epoch),
        case("a renewed epoch goes on after its fork, and ends every claim", renewed_epoch),
        case("a forked epoch names what it shares with its parent, once", forked_epoch),
        case("a change of the manifest under another epoch is refused", other_manifest),
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

async fn forked_epoch(fixture: Fixture) {
    let store = fixture.open().await;
    let fence = store.claim_producer(&producer_id("p")).await.unwrap().fence;
    store.append(marked(vec![batch("p", fence, 1)])).await.unwrap();
    store.append(marked(vec![batch("p", fence, 2)])).await.unwrap();
    let before = store.head().await.unwrap();
    // Followers agree with the log up to its first batch only.
    let common = Cursor { epoch: EPOCH, position: 2 };
    let forked = store.fork_epoch(Epoch(78), common).await.unwrap();
    assert_eq!(forked, LogHead { epoch: Epoch(78), ..before });
    let start = EpochStart { epoch: Epoch(78), parent: Some(EPOCH), fork: 2, start_time: at(START) };
    assert_eq!(store.epochs().await.unwrap()[0], start);
    // A second replica that noticed the same was too late.
    assert_eq!(store.fork_epoch(Epoch(79), common).await.unwrap(), forked);
    assert_eq!(store.epochs().await.unwrap().len(), 2);
    let fenced = store.append(Group { epoch: Epoch(78), ..marked(vec![batch("p", fence, 3)]) }).await.unwrap();
    assert_eq!(fenced, Appended::Refused(vec![Verdict::Fenced]));
    // Positions that only followers have seen are above the head: what is shared ends with it.
    let seen = Cursor { epoch: Epoch(78), position: before.position + 10 };
    store.fork_epoch(Epoch(80), seen).await.unwrap();
    assert_eq!(store.epochs().await.unwrap()[0].fork, before.position);
    let store = fixture.reopen(store).await;
    assert_eq!(store.head().await.unwrap().epoch, Epoch(80));
}

async fn other_manifest(fixture: Fixture) {
    let store = fixture.open().await;
    let change = |epoch| ManifestChange { epoch: Some(epoch), hot_floor: 1, ..ManifestChange::default() };
    assert!(matches!(store.commit_manifest(change(Epoch(2))).await, Err(StoreError::EpochChanged(EPOCH))));
    assert!(matches!(store.commit_manifest(change(EPOCH)).await, Ok(ManifestCommit::Committed { version: 1 })));
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
