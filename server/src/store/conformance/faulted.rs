//! Every place at which a store may stumble: all or nothing.

use std::time::Duration;

use super::manifest::{chunk, ids};
use super::*;
use crate::store::{Appended, ChunkId, ManifestChange, ManifestCommit, Retention, StoreError, Swept, Verdict, faults};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("an append that fails is stored whole or not at all", append),
        case("an append that is held up acknowledges after it is stored", append_held_up),
        case("a manifest change that fails is stored whole or not at all", manifest_change),
        case("a sweep that fails removes nothing", sweep),
    ]
}

async fn append(fixture: Fixture) {
    let mut store = fixture.open().await;
    let fence = store.claim_producer(&producer_id("p")).await.unwrap().fence;
    let mut expected = 0;
    for (batch_seq, (point, stored)) in (1..).zip([
        (faults::APPEND_BEFORE, false),
        (faults::APPEND_INSIDE, false),
        (faults::APPEND_BEFORE_SYNC, false),
        (faults::APPEND_AFTER, true),
    ]) {
        let group = marked(vec![batch("p", fence, batch_seq)]);
        fixture.faults.next(point, FaultAction::Fail);
        assert!(matches!(store.append(group.clone()).await, Err(StoreError::Unavailable(_))), "{point}");
        let (head, _) = whole_log(&*store).await;
        assert_eq!(head.position, expected + if stored { 2 } else { 0 }, "{point}");
        if batch_seq % 2 == 0 {
            store = fixture.reopen(store).await;
        }
        let again = store.append(group).await.unwrap();
        expected += 2;
        if stored {
            assert_eq!(again, Appended::Refused(vec![Verdict::Duplicate { last_seq: expected }]), "{point}");
        } else {
            assert_eq!(committed(again), expected - 1, "{point}");
        }
        assert_eq!(whole_log(&*store).await.0.position, expected, "{point}");
    }
}

async fn append_held_up(fixture: Fixture) {
    let store = fixture.open().await;
    let pause = Duration::from_millis(200);
    fixture.faults.next(faults::APPEND_BEFORE_SYNC, FaultAction::Delay(pause));
    let started = std::time::Instant::now();
    let append = store.append(group(1, "bytes"));
    let reads = async {
        tokio::time::sleep(pause / 2).await;
        store.head().await.unwrap()
    };
    let (appended, meanwhile) = tokio::join!(append, reads);
    assert!(started.elapsed() >= pause);
    assert_eq!(meanwhile.position, 0);
    assert_eq!(committed(appended.unwrap()), 1);
}

async fn manifest_change(fixture: Fixture) {
    let store = fixture.open().await;
    for (expected_version, (point, stored)) in
        (0..).zip([(faults::MANIFEST_BEFORE, false), (faults::MANIFEST_INSIDE, false), (faults::MANIFEST_AFTER, true)])
    {
        let change = ManifestChange {
            epoch: None,
            expected_version,
            added: vec![chunk(1, 1, expected_version)],
            dropped: (1..=expected_version).next_back().map(ChunkId).into_iter().collect(),
            compacted: Vec::new(),
            hot_floor: 2 + expected_version,
            corrections: Vec::new(),
            venues: Bytes::from(vec![expected_version as u8; 3]),
        };
        let before = store.manifest(0).await.unwrap();
        fixture.faults.next(point, FaultAction::Fail);
        assert!(matches!(store.commit_manifest(change.clone()).await, Err(StoreError::Unavailable(_))), "{point}");
        let after = store.manifest(0).await.unwrap();
        let version = expected_version + 1;
        if stored {
            assert_eq!(store.commit_manifest(change).await.unwrap(), ManifestCommit::Conflict { version }, "{point}");
        } else {
            assert_eq!(after, before, "{point}");
            assert_eq!(store.commit_manifest(change).await.unwrap(), ManifestCommit::Committed { version }, "{point}");
        }
        let delta = store.manifest(0).await.unwrap();
        assert_eq!((delta.version, delta.hot_floor, delta.added.len()), (version, version + 1, 1), "{point}");
        let id = ids(&delta)[0];
        assert_eq!(store.chunk_bytes(&[ChunkId(id)]).await.unwrap().len(), 1, "{point}");
    }
}

async fn sweep(fixture: Fixture) {
    let store = fixture.open().await;
    store.claim_producer(&producer_id("p")).await.unwrap();
    store.append(group(4, "bytes")).await.unwrap();
    let added = vec![chunk(1, 1, 1), chunk(1, 2, 2)];
    store.commit_manifest(ManifestChange { added, hot_floor: 5, ..Default::default() }).await.unwrap();
    let dropped = vec![ChunkId(1)];
    let change = ManifestChange { expected_version: 1, dropped, hot_floor: 5, ..Default::default() };
    store.commit_manifest(change).await.unwrap();
    fixture.clock.advance(Duration::from_secs(60));
    let all = Retention {
        log_before: UnixNanos::MAX,
        log_bytes: 0,
        history_before: Some(fixture.clock.now()),
        chunk_grace: Duration::from_secs(1),
        producer_idle: Duration::from_secs(1),
    };
    let before = (store.head().await.unwrap(), store.manifest(1).await.unwrap());
    fixture.faults.next(faults::SWEEP_INSIDE, FaultAction::Fail);
    assert!(matches!(store.sweep(all).await, Err(StoreError::Unavailable(_))));
    assert_eq!((store.head().await.unwrap(), store.manifest(1).await.unwrap()), before);
    assert_eq!(store.chunk_bytes(&[ChunkId(1), ChunkId(2)]).await.unwrap().len(), 2);
    assert_eq!(store.sweep(all).await.unwrap(), Swept { segments: 1, chunks: 1, producers: 1 });
    assert_eq!(store.manifest(0).await.unwrap().added, []);
}
