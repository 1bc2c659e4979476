//! Appending and reading the log.

use std::time::Duration;

use super::*;
use crate::store::{Appended, LogEdge, LogHead, PAGE_SEGMENTS, RunId, StoreError};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("an empty log has its epoch and position 0", empty_log),
        case("appends get dense positions, and times that never go back", dense_positions),
        case("a segment comes back as it was appended", round_trip),
        case("a page begins with the segment that holds the position", page_from_the_middle),
        case("a page ends at its bytes, after at least one segment", page_by_bytes),
        case("a page of tiny segments ends at their number", page_by_number),
        case("the first segment since a time is found", position_at),
        case("concurrent appends are dense and whole", concurrent_appends),
        case("a reopened store has the same log", reopened_log),
        case("a closed store refuses everything", closed_store),
    ]
}

async fn empty_log(fixture: Fixture) {
    let store = fixture.open().await;
    let head = LogHead {
        epoch: EPOCH,
        position: 0,
        chain: [0; 16],
        append_time: UnixNanos::MIN,
        oldest: 1,
        hot_floor: 1,
        manifest_version: 0,
        log_bytes: 0,
    };
    assert_eq!(store.head().await.unwrap(), head);
    for after in [0, 1, 1000] {
        let page = store.segments(after, usize::MAX).await.unwrap();
        assert_eq!((page.head, page.segments), (head, Vec::new()));
    }
    store.ping().await.unwrap();
    let store = fixture.reopen(store).await;
    assert_eq!(store.head().await.unwrap(), head);
}

async fn dense_positions(fixture: Fixture) {
    let store = fixture.open().await;
    let mut expected = 1;
    for (count, now, time) in [(3, 100, 100), (1, 50, 100), (2, 100, 100), (7, 101, 101), (1, 0, 101)] {
        fixture.clock.set(START + now);
        let appended = store.append(group(count, "bytes")).await.unwrap();
        let head = store.head().await.unwrap();
        let committed = Appended::Committed { first_seq: expected, append_time: at(START + time), chain: head.chain };
        assert_eq!(appended, committed);
        expected += u64::from(count);
        assert_eq!((head.position, head.append_time), (expected - 1, at(START + time)));
        assert_eq!((head.oldest, head.hot_floor), (1, 1));
    }
    let (_, segments) = whole_log(&*store).await;
    assert_eq!(segments[0].chain, link(&[0; 16], &segments[0]));
}

async fn position_at(fixture: Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.position_at(UnixNanos::MIN).await.unwrap(), None);
    // Groups of several sizes; some share their time with the one before.
    let mut segments = Vec::new();
    for number in 0..40u32 {
        fixture.clock.set(START + i64::from(number / 3) * 10);
        let first_seq = committed(store.append(group(1 + number % 4, "bytes")).await.unwrap());
        segments.push(LogEdge { first_seq, append_time: at(START + i64::from(number / 3) * 10) });
    }
    let times = (START - 5..START + 150).map(at).chain([UnixNanos::MIN, UnixNanos::MAX]);
    for time in times {
        let expected = segments.iter().find(|segment| segment.append_time >= time);
        assert_eq!(store.position_at(time).await.unwrap().as_ref(), expected, "{time}");
    }
    let store = fixture.reopen(store).await;
    assert_eq!(store.position_at(at(START + 1)).await.unwrap(), Some(segments[3]));
}

async fn round_trip(fixture: Fixture) {
    let store = fixture.open().await;
    let bytes: Bytes = (0..=255_u8).cycle().take(70_000).collect();
    let run_id = RunId::new("a-run").unwrap();
    let sent = Group { backfill: true, tick_count: 4, run_id: Some(run_id), ..group(9, bytes) };
    store.append(group(5, "before")).await.unwrap();
    store.append(sent.clone()).await.unwrap();
    let page = store.segments(5, 0).await.unwrap();
    let [segment] = &page.segments[..] else { panic!("{} segments", page.segments.len()) };
    assert_eq!((segment.epoch, segment.first_seq, segment.last_seq()), (EPOCH, 6, 14));
    assert_eq!((segment.entry_count, segment.tick_count, segment.backfill), (9, 4, true));
    assert_eq!((&segment.run_id, &segment.bytes), (&sent.run_id, &sent.bytes));
    assert_eq!((segment.chain, segment.append_time), (page.head.chain, at(START)));
}

async fn page_from_the_middle(fixture: Fixture) {
    let store = fixture.open().await;
    for count in [3, 4, 5] {
        store.append(group(count, "bytes")).await.unwrap();
    }
    for (after, firsts) in [(0, &[1, 4, 8][..]), (2, &[1, 4, 8]), (3, &[4, 8]), (4, &[4, 8]), (11, &[8]), (12, &[])] {
        let page = store.segments(after, usize::MAX).await.unwrap();
        assert_eq!(page.segments.iter().map(|segment| segment.first_seq).collect::<Vec<_>>(), firsts, "after {after}");
    }
}

async fn page_by_bytes(fixture: Fixture) {
    let store = fixture.open().await;
    for length in [100, 200, 300, 1] {
        store.append(group(1, vec![7; length])).await.unwrap();
    }
    for (after, max_bytes, count) in
        [(0, 0, 1), (0, 299, 1), (0, 300, 2), (0, 599, 2), (0, 600, 3), (0, 601, 4), (2, 0, 1), (2, 301, 2), (3, 1, 1)]
    {
        let page = store.segments(after, max_bytes).await.unwrap();
        assert_eq!(page.segments.len(), count, "after {after}, {max_bytes} bytes");
    }
}

async fn page_by_number(fixture: Fixture) {
    let store = fixture.open().await;
    for _ in 0..PAGE_SEGMENTS + 3 {
        store.append(group(1, "x")).await.unwrap();
    }
    let page = store.segments(0, usize::MAX).await.unwrap();
    assert_eq!(page.segments.len(), PAGE_SEGMENTS);
    let rest = store.segments(PAGE_SEGMENTS as u64, usize::MAX).await.unwrap();
    assert_eq!(rest.segments.len(), 3);
}

async fn concurrent_appends(fixture: Fixture) {
    let store = fixture.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16_u8 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut placed = Vec::new();
            for number in 0..20_u8 {
                let count = 1 + u32::from((task * 7 + number) % 5);
                let first_seq = committed(store.append(group(count, vec![task, number])).await.unwrap());
                placed.push((first_seq, count, Bytes::from(vec![task, number])));
                let head = store.head().await.unwrap();
                assert!(head.position >= first_seq + u64::from(count) - 1);
            }
            placed
        });
    }
    let mut placed = tasks.join_all().await.concat();
    placed.sort();
    let (_, segments) = whole_log(&*store).await;
    let stored: Vec<_> =
        segments.iter().map(|segment| (segment.first_seq, segment.entry_count, segment.bytes.clone())).collect();
    assert_eq!(stored, placed);
}

async fn reopened_log(fixture: Fixture) {
    let mut store = fixture.open().await;
    for number in 0..5_u8 {
        store.append(group(2, vec![number; 40])).await.unwrap();
        let before = whole_log(&*store).await;
        store = fixture.reopen(store).await;
        assert_eq!(whole_log(&*store).await, before);
        fixture.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(committed(store.append(group(1, "last")).await.unwrap()), 11);
}

async fn closed_store(fixture: Fixture) {
    let store = fixture.open().await;
    store.append(group(1, "bytes")).await.unwrap();
    store.close().await;
    store.close().await;
    assert!(matches!(store.head().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.append(group(1, "bytes")).await, Err(StoreError::Unavailable(_))));
    assert_eq!(fixture.open().await.head().await.unwrap().position, 1);
}
