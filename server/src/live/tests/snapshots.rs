//! Snapshots: the latest ticks at one position, and then everything after it.

use std::collections::BTreeMap;

use super::world::*;
use crate::domain::{InstrumentId, Tick};
use crate::live::{Event, Start, Subscription};

#[tokio::test(start_paused = true)]
async fn a_snapshot_and_what_follows_have_no_hole_and_no_repeat() {
    for selectors in [vec![selector("", "")], vec![selector("W", ""), selector("", "C")]] {
        let mut world = World::new(TIGHT).await;
        for _ in 0..60 {
            world.commit_anything().await;
        }
        let wish = Subscription { selectors, message_ticks: 2, ..wish(Start::Snapshot) };
        let mut session = world.subscribe(wish.clone()).await;
        let mut snapshot: BTreeMap<InstrumentId, Tick> = BTreeMap::new();
        let (mut promised, mut at) = (0, 0);
        let end = loop {
            // The log goes on while the snapshot is read.
            world.commit_anything().await;
            let message = session.next().await.unwrap();
            match message.event {
                Event::Ack(_) => assert_eq!(message.cursor, None),
                Event::SnapshotBegin { position, tick_count } => {
                    assert_eq!(message.cursor, None);
                    (at, promised) = (position, tick_count);
                }
                Event::Ticks(ticks) => {
                    assert_eq!((message.cursor, ticks.before), (None, None));
                    for tick in ticks.ticks {
                        assert!(snapshot.insert(tick.instrument, tick).is_none(), "each instrument once");
                    }
                }
                Event::SnapshotEnd { position, .. } => {
                    assert_eq!(position, at);
                    break message.cursor.unwrap();
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((end.position, snapshot.len()), (at, promised as usize));
        // The snapshot includes backfill, whatever the stream behind it does.
        let with_backfill = Subscription { include_backfill: true, ..wish.clone() };
        let mut latest: BTreeMap<InstrumentId, Tick> = BTreeMap::new();
        for entry in world.expected(&with_backfill, 0).await {
            if let Entry::Tick(tick) = entry
                && tick.log_seq <= at
                && latest.get(&tick.instrument).is_none_or(|known| known.key() < tick.key())
            {
                latest.insert(tick.instrument, tick);
            }
        }
        assert_eq!(snapshot, latest);
        let head = world.commit_anything().await;
        let told = read_to(&mut session, head.position).await;
        assert_eq!(told.entries, world.expected(&wish, at).await);
    }
}

#[tokio::test(start_paused = true)]
async fn exact_symbols_without_data_are_listed() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 1), ("W", "B", 1)]).await;
    let selectors = vec![
        selector("", "NONE"),
        selector("V", "A"),
        selector("W", "A"),
        selector("", "B"),
        selector("X", ""),
        selector("V", "B"),
    ];
    let mut session = world.subscribe(Subscription { selectors, ..wish(Start::Snapshot) }).await;
    let end = until(&mut session, |event| matches!(event, Event::SnapshotEnd { .. })).await;
    let Event::SnapshotEnd { without_data, .. } = end.event else { panic!() };
    assert_eq!(without_data, [0, 2, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_an_empty_log_is_empty() {
    let mut world = World::new(ROOMY).await;
    let mut session = world.subscribe(wish(Start::Snapshot)).await;
    assert!(matches!(event(&mut session).await, Event::Ack(_)));
    assert!(matches!(event(&mut session).await, Event::SnapshotBegin { position: 0, tick_count: 0 }));
    let end = session.next().await.unwrap();
    assert!(matches!(&end.event, Event::SnapshotEnd { position: 0, .. }));
    assert_eq!(end.cursor.unwrap().position, 0);
    world.publish(&[("V", "A", 1)]).await;
    assert!(matches!(event(&mut session).await, Event::Run(_)));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_reads_what_has_been_compacted() {
    let mut world = World::new(TIGHT).await;
    // Full chunks are cut; the newest tick of A is in one, that of B is hot.
    let mut ticks = vec![("V", "A", 1); 5_000];
    ticks[4_000] = ("V", "A", 900);
    ticks.push(("V", "B", 2));
    world.publish(&ticks).await;
    let mut views = world.replica.tapes.get().views.clone();
    views.wait_for(|view| view.manifest_version() > 0).await.unwrap();
    let mut session = world.subscribe(wish(Start::Snapshot)).await;
    let mut told = Told::default();
    told.read_to(&mut session, 5_001).await;
    assert_eq!(told.entries.iter().map(Entry::log_seq).collect::<Vec<_>>(), [4_001, 5_001]);
}

#[tokio::test(start_paused = true)]
async fn conflated_streams_count_one_for_each_tick_of_their_snapshot() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 1), ("V", "A", 2), ("V", "B", 1)]).await;
    let wish = Subscription { conflated: Some(std::time::Duration::ZERO), definitions: true, ..wish(Start::Snapshot) };
    let mut session = world.subscribe(wish).await;
    assert!(matches!(event(&mut session).await, Event::Ack(_)));
    let definitions = session.next().await.unwrap();
    assert!(definitions.cursor.is_none() && matches!(definitions.event, Event::Definitions(_)));
    let message = until(&mut session, |event| matches!(event, Event::Ticks(_))).await;
    let Event::Ticks(ticks) = message.event else { panic!() };
    assert_eq!(ticks.merged, [1, 1]);
}
