//! Chunks and the versions of their set.

use super::*;
use crate::domain::InstrumentId;
use crate::domain::correction::Standing;
use crate::store::{
    ChunkId, ChunkRow, CorrectionRow, ManifestChange, ManifestCommit, ManifestDelta, NewChunk, Retention, StoreError,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("an empty manifest has version 0", empty_manifest),
        case("a chunk comes back as it was stored", chunk_round_trip),
        case("a change of another version is refused", compare_and_set),
        case("corrections come back with the standing that they had last", corrections),
        case("deltas lead from any version to the current one", deltas),
        case("a change that drops what is not live stores nothing", dropped_twice),
        case("of many concurrent changes of one version one wins", concurrent_changes),
    ]
}

/// A chunk of one instrument and day; its number decides the rest.
pub(super) fn chunk(instrument: u32, day: u32, number: u64) -> NewChunk {
    let bytes = Bytes::from(format!("chunk {number}"));
    let row = ChunkRow {
        id: ChunkId(0),
        instrument: InstrumentId(instrument),
        day,
        late: number % 2 == 1,
        tick_count: 10 + number as u32,
        first_time: at(i64::from(day) * crate::domain::time::NANOS_PER_DAY),
        last_time: at(i64::from(day) * crate::domain::time::NANOS_PER_DAY + number as i64),
        min_seq: number,
        max_seq: number + 100,
        byte_count: bytes.len() as u32,
        statistics: Bytes::from(vec![1, number as u8, 0, 255]),
    };
    NewChunk { row, bytes }
}

/// Commits a change of the current version.
pub(super) async fn commit(store: &dyn Store, added: Vec<NewChunk>, dropped: Vec<u64>) -> u64 {
    let head = store.head().await.unwrap();
    let change = ManifestChange {
        epoch: None,
        expected_version: head.manifest_version,
        added,
        dropped: dropped.into_iter().map(ChunkId).collect(),
        compacted: Vec::new(),
        hot_floor: head.hot_floor,
        venues: Bytes::new(),
        corrections: Vec::new(),
    };
    match store.commit_manifest(change).await.unwrap() {
        ManifestCommit::Committed { version } => version,
        ManifestCommit::Conflict { version } => panic!("the version is {version}"),
    }
}

pub(super) fn ids(delta: &ManifestDelta) -> Vec<u64> {
    delta.added.iter().map(|row| row.id.0).collect()
}

async fn empty_manifest(fixture: Fixture) {
    let store = fixture.open().await;
    let empty = ManifestDelta {
        epoch: EPOCH,
        since: 0,
        version: 0,
        hot_floor: 1,
        added: Vec::new(),
        dropped: Vec::new(),
        compacted: Vec::new(),
        venues: Bytes::new(),
        corrections: Vec::new(),
    };
    assert_eq!(store.manifest(0).await.unwrap(), empty);
    assert_eq!(store.manifest(5).await.unwrap(), empty);
    assert_eq!(store.chunk_bytes(&[]).await.unwrap(), []);
    assert_eq!(store.chunk_bytes(&[ChunkId(1), ChunkId(u64::MAX)]).await.unwrap(), []);
}

async fn chunk_round_trip(fixture: Fixture) {
    let store = fixture.open().await;
    store.append(group(500, "bytes")).await.unwrap();
    let (first, second) = (chunk(7, 19_700, 1), chunk(8, 19_701, 2));
    let change = ManifestChange {
        epoch: None,
        expected_version: 0,
        added: vec![first.clone(), second.clone()],
        dropped: Vec::new(),
        compacted: vec![(InstrumentId(8), 120), (InstrumentId(7), 130)],
        hot_floor: 121,
        venues: Bytes::from_static(b"of venues"),
        corrections: Vec::new(),
    };
    assert_eq!(store.commit_manifest(change).await.unwrap(), ManifestCommit::Committed { version: 1 });
    let store = fixture.reopen(store).await;
    let head = store.head().await.unwrap();
    assert_eq!((head.manifest_version, head.hot_floor, head.position, head.oldest), (1, 121, 500, 1));
    let delta = store.manifest(0).await.unwrap();
    assert_eq!((delta.since, delta.version, delta.hot_floor), (0, 1, 121));
    assert_eq!(delta.added[0], ChunkRow { id: ChunkId(1), ..first.row });
    assert_eq!(delta.added[1], ChunkRow { id: ChunkId(2), ..second.row });
    assert_eq!(delta.compacted, [(InstrumentId(7), 130), (InstrumentId(8), 120)]);
    assert_eq!(delta.venues, "of venues");
    let bytes = store.chunk_bytes(&[ChunkId(2), ChunkId(9), ChunkId(1)]).await.unwrap();
    assert_eq!(bytes, [(ChunkId(2), second.bytes), (ChunkId(1), first.bytes)]);
}

async fn compare_and_set(fixture: Fixture) {
    let store = fixture.open().await;
    assert_eq!(commit(&*store, vec![chunk(1, 1, 1)], Vec::new()).await, 1);
    let before = store.manifest(0).await.unwrap();
    for expected_version in [0, 2, u64::MAX >> 1] {
        let change = ManifestChange {
            epoch: None,
            expected_version,
            added: vec![chunk(1, 1, 2)],
            dropped: vec![ChunkId(1)],
            compacted: vec![(InstrumentId(1), 5)],
            hot_floor: 6,
            venues: Bytes::from_static(b"of another"),
            corrections: vec![correction(9, 1, Standing::Waiting)],
        };
        assert_eq!(store.commit_manifest(change).await.unwrap(), ManifestCommit::Conflict { version: 1 });
        assert_eq!(store.manifest(0).await.unwrap(), before);
    }
    assert_eq!(commit(&*store, vec![chunk(1, 1, 2)], Vec::new()).await, 2);
    assert_eq!(ids(&store.manifest(0).await.unwrap()), [1, 2]);
}

fn correction(log_seq: u64, day: u32, standing: Standing) -> CorrectionRow {
    CorrectionRow {
        log_seq,
        instrument: InstrumentId(7),
        day,
        append_time: at(START + (log_seq % 1_000) as i64),
        standing,
        bytes: Bytes::from(format!("correction {log_seq}")),
    }
}

async fn correct(store: &dyn Store, corrections: Vec<CorrectionRow>) -> u64 {
    let head = store.head().await.unwrap();
    let (expected_version, hot_floor) = (head.manifest_version, head.hot_floor);
    let change = ManifestChange { expected_version, hot_floor, corrections, ..ManifestChange::default() };
    match store.commit_manifest(change).await.unwrap() {
        ManifestCommit::Committed { version } => version,
        ManifestCommit::Conflict { version } => panic!("the version is {version}"),
    }
}

async fn corrections(fixture: Fixture) {
    let store = fixture.open().await;
    let (waiting, settled) =
        (|seq| correction(seq, 20, Standing::Waiting), |seq| correction(seq, 20, Standing::Settled));
    let unmatched = correction(4, 10, Standing::Unmatched);
    assert_eq!(correct(&*store, vec![waiting(9), unmatched.clone(), waiting(u64::MAX >> 1)]).await, 1);
    assert_eq!(commit(&*store, vec![chunk(1, 1, 1)], Vec::new()).await, 2);
    assert_eq!(correct(&*store, vec![settled(9), waiting(5)]).await, 3);
    let store = fixture.reopen(store).await;
    let all = vec![unmatched, waiting(5), settled(9), waiting(u64::MAX >> 1)];
    for (since, expected) in [(0, all.clone()), (1, vec![waiting(5), settled(9)]), (3, Vec::new())] {
        assert_eq!(store.manifest(since).await.unwrap().corrections, expected, "since {since}");
    }
    // Those of days that history has no more go with it.
    let retention = Retention {
        log_before: at(0),
        log_bytes: u64::MAX,
        history_before: Some(at(20 * crate::domain::time::NANOS_PER_DAY)),
        chunk_grace: Duration::MAX,
        producer_idle: Duration::MAX,
    };
    store.sweep(retention).await.unwrap();
    assert_eq!(store.manifest(0).await.unwrap().corrections, all[1..]);
}

async fn deltas(fixture: Fixture) {
    let store = fixture.open().await;
    commit(&*store, vec![chunk(1, 1, 1), chunk(2, 1, 2)], Vec::new()).await; // 1: +1 +2
    commit(&*store, vec![chunk(1, 1, 3)], vec![1]).await; // 2: +3 -1
    commit(&*store, vec![chunk(1, 1, 4)], vec![3]).await; // 3: +4 -3
    let change = ManifestChange {
        epoch: None,
        expected_version: 3,
        compacted: vec![(InstrumentId(2), 50)],
        hot_floor: 9,
        ..ManifestChange::default()
    };
    store.commit_manifest(change).await.unwrap(); // 4
    let store = fixture.reopen(store).await;
    for (since, added, dropped, compacted) in
        [(0, &[2, 4][..], &[][..], 1), (1, &[4], &[1], 1), (2, &[4], &[3], 1), (3, &[], &[], 1), (4, &[], &[], 0)]
    {
        let delta = store.manifest(since).await.unwrap();
        assert_eq!((delta.since, delta.version, delta.hot_floor), (since, 4, 9));
        assert_eq!((ids(&delta), delta.compacted.len()), (added.to_vec(), compacted), "since {since}");
        assert_eq!(delta.dropped.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), dropped, "since {since}");
    }
    let ahead = store.manifest(5).await.unwrap();
    assert_eq!((ahead.since, ahead.version, ids(&ahead)), (0, 4, vec![2, 4]));
    // Dropped chunks can be read until they are swept.
    assert_eq!(store.chunk_bytes(&[ChunkId(1), ChunkId(3)]).await.unwrap().len(), 2);
}

async fn dropped_twice(fixture: Fixture) {
    let store = fixture.open().await;
    commit(&*store, vec![chunk(1, 1, 1), chunk(1, 1, 2)], Vec::new()).await;
    commit(&*store, Vec::new(), vec![1]).await;
    for dropped in [vec![ChunkId(1)], vec![ChunkId(2), ChunkId(3)]] {
        let change = ManifestChange {
            epoch: None,
            expected_version: 2,
            added: vec![chunk(1, 1, 3)],
            dropped,
            hot_floor: 1,
            ..Default::default()
        };
        assert!(matches!(store.commit_manifest(change).await, Err(StoreError::Corrupt { table: "chunks", .. })));
        assert_eq!(store.head().await.unwrap().manifest_version, 2);
        assert_eq!(ids(&store.manifest(0).await.unwrap()), [2]);
    }
    assert_eq!(commit(&*store, Vec::new(), vec![2]).await, 3);
}

async fn concurrent_changes(fixture: Fixture) {
    let store = fixture.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..12 {
        let store = store.clone();
        tasks.spawn(async move {
            let added = vec![chunk(1, 1, number)];
            store.commit_manifest(ManifestChange { added, hot_floor: 1, ..Default::default() }).await.unwrap()
        });
    }
    let outcomes = tasks.join_all().await;
    let won = outcomes.iter().filter(|outcome| **outcome == ManifestCommit::Committed { version: 1 }).count();
    let lost = outcomes.iter().filter(|outcome| **outcome == ManifestCommit::Conflict { version: 1 }).count();
    assert_eq!((won, lost), (1, 11));
    assert_eq!(store.manifest(0).await.unwrap().added.len(), 1);
}
