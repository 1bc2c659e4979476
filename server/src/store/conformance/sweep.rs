//! Forgetting.

use std::time::Duration;

use super::manifest::{chunk, commit, ids};
use super::*;
use crate::domain::InstrumentId;
use crate::store::{Appended, ChunkId, ManifestChange, Retention, Swept, Verdict};

const DAY: Duration = Duration::from_secs(86_400);

/// Keeps everything.
const KEEP: Retention = Retention {
    log_before: UnixNanos::MIN,
    log_bytes: u64::MAX,
    history_before: None,
    chunk_grace: Duration::MAX,
    producer_idle: Duration::MAX,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("the log goes by age, but never past the hot floor", log_by_age),
        case("the log goes by bytes, but never past the hot floor", log_by_bytes),
        case("a log that is swept empty goes on", log_swept_empty),
        case("a long log is swept whole", long_log),
        case("dropped chunks go after their grace, and older readers start from 0", chunk_grace),
        case("history goes by day, through the manifest", history),
        case("idle producers become unknown, and fences still rise", idle_producers),
    ]
}

/// Everything up to a position is in chunks.
async fn compact_to(store: &dyn Store, position: u64) {
    let expected_version = store.head().await.unwrap().manifest_version;
    let change = ManifestChange { expected_version, hot_floor: position + 1, ..ManifestChange::default() };
    store.commit_manifest(change).await.unwrap();
}

/// Ten segments of two entries and 100 bytes, a second apart.
async fn ten_segments(fixture: &Fixture) -> Arc<dyn Store> {
    let store = fixture.open().await;
    for number in 0..10 {
        fixture.clock.set(START + number * 1_000_000_000);
        store.append(group(2, vec![number as u8; 100])).await.unwrap();
    }
    store
}

async fn log_by_age(fixture: Fixture) {
    let store = ten_segments(&fixture).await;
    let old = Retention { log_before: at(START + 5_000_000_000), ..KEEP };
    assert_eq!(store.sweep(old).await.unwrap(), Swept::default());
    compact_to(&*store, 5).await; // inside the third segment
    assert_eq!(store.sweep(old).await.unwrap(), Swept { segments: 2, ..Swept::default() });
    let (head, segments) = whole_log(&*store).await;
    assert_eq!((head.oldest, head.position, segments.len()), (5, 20, 8));
    compact_to(&*store, 20).await;
    assert_eq!(store.sweep(old).await.unwrap(), Swept { segments: 3, ..Swept::default() });
    assert_eq!(store.head().await.unwrap().oldest, 11);
    for (after, first) in [(0, None), (9, None), (10, Some(11)), (19, Some(19)), (20, None)] {
        let page = store.segments(after, usize::MAX).await.unwrap();
        assert_eq!(page.segments.first().map(|segment| segment.first_seq), first, "after {after}");
        assert_eq!(page.head.oldest, 11);
    }
    for time in [UnixNanos::MIN, at(START + 5_000_000_000)] {
        let edge = store.position_at(time).await.unwrap().unwrap();
        assert_eq!((edge.first_seq, edge.append_time), (11, at(START + 5_000_000_000)), "what is swept is not found");
    }
    let store = fixture.reopen(store).await;
    assert_eq!(whole_log(&*store).await.1.len(), 5);
}

async fn log_by_bytes(fixture: Fixture) {
    let store = ten_segments(&fixture).await;
    compact_to(&*store, 12).await;
    let small = Retention { log_bytes: 650, ..KEEP };
    assert_eq!(store.sweep(small).await.unwrap().segments, 4);
    let head = store.head().await.unwrap();
    assert_eq!((head.oldest, head.log_bytes), (9, 600));
    assert_eq!(store.sweep(Retention { log_bytes: 0, ..KEEP }).await.unwrap().segments, 2);
    let (head, _) = whole_log(&*store).await;
    assert_eq!((head.oldest, head.log_bytes), (13, 400));
}

async fn log_swept_empty(fixture: Fixture) {
    let store = ten_segments(&fixture).await;
    compact_to(&*store, 20).await;
    let before = store.head().await.unwrap();
    assert_eq!(store.sweep(Retention { log_bytes: 0, ..KEEP }).await.unwrap().segments, 10);
    let store = fixture.reopen(store).await;
    let head = store.head().await.unwrap();
    assert_eq!(head, LogHead { oldest: 21, log_bytes: 0, ..before });
    assert!(store.segments(20, 1).await.unwrap().segments.is_empty());
    assert_eq!(committed(store.append(group(3, "next")).await.unwrap()), 21);
    let (head, segments) = whole_log(&*store).await;
    assert_eq!((head.oldest, head.hot_floor, head.position, segments.len()), (21, 21, 23, 1));
    assert_eq!(segments[0].chain, link(&before.chain, &segments[0]));
}

async fn long_log(fixture: Fixture) {
    let store = fixture.open().await;
    for number in 0..400_u64 {
        store.append(group(1, number.to_le_bytes().to_vec())).await.unwrap();
    }
    compact_to(&*store, 390).await;
    assert_eq!(store.sweep(Retention { log_bytes: 0, ..KEEP }).await.unwrap().segments, 390);
    assert_eq!(whole_log(&*store).await.1.len(), 10);
    for _ in 0..6 {
        store.append(group(1, vec![1; 7 << 20])).await.unwrap();
    }
    compact_to(&*store, 405).await;
    let bytes = 7 << 20;
    assert_eq!(store.sweep(Retention { log_bytes: 2 * bytes, ..KEEP }).await.unwrap().segments, 14);
    assert_eq!(store.head().await.unwrap().log_bytes, 2 * bytes);
}

async fn chunk_grace(fixture: Fixture) {
    let store = fixture.open().await;
    let grace = Retention { chunk_grace: Duration::from_secs(600), ..KEEP };
    commit(&*store, vec![chunk(1, 1, 1), chunk(1, 1, 2), chunk(1, 1, 3)], Vec::new()).await; // 1
    commit(&*store, vec![chunk(1, 1, 4)], vec![1]).await; // 2
    fixture.clock.advance(Duration::from_secs(300));
    commit(&*store, Vec::new(), vec![2]).await; // 3
    fixture.clock.advance(Duration::from_secs(300));
    assert_eq!(store.sweep(grace).await.unwrap(), Swept::default());
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(store.sweep(grace).await.unwrap(), Swept { chunks: 1, ..Swept::default() });
    let left = store.chunk_bytes(&[ChunkId(1), ChunkId(2), ChunkId(3), ChunkId(4)]).await.unwrap();
    assert_eq!(left.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [2, 3, 4]);

    // Chunk 1 was dropped by version 2: who knows version 2 misses nothing, who knows 1 must start anew.
    let store = fixture.reopen(store).await;
    let known = store.manifest(2).await.unwrap();
    assert_eq!((known.since, ids(&known), known.dropped.clone()), (2, Vec::new(), vec![(ChunkId(2), InstrumentId(1))]));
    for since in [0, 1] {
        let anew = store.manifest(since).await.unwrap();
        assert_eq!((anew.since, ids(&anew), anew.dropped.len()), (0, vec![3, 4], 0));
    }
    fixture.clock.advance(Duration::from_secs(300));
    assert_eq!(store.sweep(grace).await.unwrap().chunks, 1);
    assert_eq!(store.manifest(2).await.unwrap().since, 0);
    assert_eq!(store.manifest(3).await.unwrap().since, 3);
    // Ids are never used again, not even the last one's.
    commit(&*store, Vec::new(), vec![3, 4]).await;
    fixture.clock.advance(Duration::from_secs(601));
    assert_eq!(store.sweep(grace).await.unwrap().chunks, 2);
    commit(&*store, vec![chunk(1, 1, 5)], Vec::new()).await;
    assert_eq!(ids(&store.manifest(0).await.unwrap()), [5]);
}

async fn history(fixture: Fixture) {
    let store = fixture.open().await;
    let chunks = (1..=300).map(|number| chunk(1, 100 + (number % 3) as u32, number)).collect();
    assert_eq!(commit(&*store, chunks, Vec::new()).await, 1);
    let day = crate::domain::time::NANOS_PER_DAY;
    let just_before = Retention { history_before: Some(at(101 * day - 1)), ..KEEP };
    assert_eq!(store.sweep(just_before).await.unwrap(), Swept::default());
    assert_eq!(store.head().await.unwrap().manifest_version, 1);
    let two_days = Retention { history_before: Some(at(102 * day)), chunk_grace: DAY, ..KEEP };
    assert_eq!(store.sweep(two_days).await.unwrap(), Swept::default());
    let delta = store.manifest(1).await.unwrap();
    assert!(delta.version > 1);
    assert_eq!((delta.added.len(), delta.dropped.len()), (0, 200));
    let left = store.manifest(0).await.unwrap();
    assert_eq!((left.version, left.added.len()), (delta.version, 100));
    assert!(left.added.iter().all(|row| row.day == 102));
    assert!(delta.dropped.iter().all(|(_, instrument)| *instrument == InstrumentId(1)));
    let dropped: Vec<ChunkId> = delta.dropped.iter().map(|(id, _)| *id).collect();
    assert_eq!(store.chunk_bytes(&dropped).await.unwrap().len(), 200);
    fixture.clock.advance(DAY + Duration::from_secs(1));
    assert_eq!(store.sweep(two_days).await.unwrap(), Swept { chunks: 200, ..Swept::default() });
    assert_eq!(store.chunk_bytes(&dropped).await.unwrap().len(), 0);
    assert_eq!(store.head().await.unwrap().manifest_version, delta.version);
}

async fn idle_producers(fixture: Fixture) {
    let store = fixture.open().await;
    let idle = store.claim_producer(&producer_id("idle")).await.unwrap().fence;
    let busy = store.claim_producer(&producer_id("busy")).await.unwrap().fence;
    store.append(marked(vec![batch("idle", idle, 1), batch("busy", busy, 1)])).await.unwrap();
    let week = Retention { producer_idle: 7 * DAY, ..KEEP };
    fixture.clock.advance(7 * DAY);
    assert_eq!(store.sweep(week).await.unwrap(), Swept::default());
    store.append(marked(vec![batch("busy", busy, 2)])).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(store.sweep(week).await.unwrap(), Swept { producers: 1, ..Swept::default() });
    let refused = store.append(marked(vec![batch("idle", idle, 2), batch("busy", busy, 3)])).await.unwrap();
    assert_eq!(refused, Appended::Refused(vec![Verdict::Unknown, Verdict::New]));
    let claim = store.claim_producer(&producer_id("idle")).await.unwrap();
    assert_eq!(claim.last_batch_seq, 0);
    assert!(claim.fence > busy);
    let refused = store.append(marked(vec![batch("idle", idle, 1)])).await.unwrap();
    assert_eq!(refused, Appended::Refused(vec![Verdict::Fenced]));
}
