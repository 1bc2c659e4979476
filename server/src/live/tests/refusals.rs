//! Starts that are not in the log: refused with what the reader needs to go on, or begun otherwise by choice.

use super::world::*;
use crate::domain::{Cursor, Epoch, UnixNanos};
use crate::live::{Event, IfUnavailable, LiveError, LogFacts, Start, Subscription};
use crate::store::Store as _;

const EPOCH: Epoch = Epoch(7);

fn after(position: u64) -> Start {
    Start::After(Cursor { epoch: EPOCH, position })
}

/// A log of 30 entries, one a second, of which the first ten are gone.
async fn swept() -> World {
    let mut world = World::new(TIGHT).await;
    for second in 0..30 {
        world.publish(&[("V", if second % 2 == 0 { "A" } else { "B" }, second)]).await;
        world.advance(std::time::Duration::from_secs(1));
    }
    world.forget_up_to(10).await;
    // A replica that starts now has nothing in its hub, as one that runs for longer than its window.
    world.restart().await
}

#[tokio::test(start_paused = true)]
async fn an_expired_start_is_refused_with_the_oldest_cursor() {
    let world = swept().await;
    let oldest = Cursor { epoch: EPOCH, position: 10 };
    for start in [after(0), after(9), Start::Since(UnixNanos::new(START + 3_000_000_000).unwrap())] {
        match world.refused(wish(start)).await {
            LiveError::Expired { oldest: told } => assert_eq!(told, oldest, "{start:?}"),
            other => panic!("{start:?}: {other}"),
        }
    }
    // The oldest cursor itself is good, and so is the time of the oldest entry.
    for start in [Start::After(oldest), Start::Since(UnixNanos::new(START + 10_000_000_000).unwrap())] {
        let told = read_to(&mut world.subscribe(wish(start)).await, 30).await;
        assert_eq!((told.entries.len(), told.entries[0].log_seq()), (20, 11));
    }
}

#[tokio::test(start_paused = true)]
async fn by_choice_an_expired_start_begins_at_the_oldest_entry_behind_a_gap() {
    let world = swept().await;
    let time = UnixNanos::new(START + 3_000_000_000).unwrap();
    for (start, asked) in [(after(0), 0), (after(4), 4), (Start::Since(time), 0)] {
        let wish = Subscription { if_unavailable: IfUnavailable::FromOldest, ..wish(start) };
        let mut session = world.subscribe(wish).await;
        // A cut before the gap has been told must not hide it.
        let ack = session.next().await.unwrap();
        assert!(matches!(ack.event, Event::Ack(_)));
        assert_eq!(ack.cursor.unwrap().position, asked);
        let gap = session.next().await.unwrap();
        assert!(matches!(gap.event, Event::StreamGap { from, to: 10 } if from == asked + 1), "{gap:?}");
        assert_eq!(gap.cursor.unwrap().position, 10);
        let told = read_to(&mut session, 30).await;
        assert_eq!((told.entries.len(), told.entries[0].log_seq()), (20, 11));
    }
    // Where nothing is missing there is no gap.
    let wish = Subscription { if_unavailable: IfUnavailable::FromOldest, ..wish(after(10)) };
    let told = read_to(&mut world.subscribe(wish).await, 30).await;
    assert!(told.find(|event| matches!(event, Event::StreamGap { .. })).is_empty());
}

#[tokio::test(start_paused = true)]
async fn by_choice_an_expired_start_begins_with_a_snapshot() {
    let mut world = World::new(TIGHT).await;
    for second in 0..30 {
        world.publish(&[("V", if second % 2 == 0 { "A" } else { "B" }, second)]).await;
    }
    world.forget_up_to(10).await;
    let choice = |start| Subscription { if_unavailable: IfUnavailable::Snapshot, ..wish(start) };
    let mut session = world.subscribe(choice(after(3))).await;
    let told = read_to(&mut session, 30).await;
    assert!(told.messages[0].cursor.is_none() && matches!(told.messages[0].event, Event::Ack(_)));
    assert!(matches!(told.messages[1].event, Event::SnapshotBegin { position: 30, tick_count: 2 }));
    assert_eq!(told.entries.iter().map(Entry::log_seq).collect::<Vec<_>>(), [29, 30]);
    // A start that is there begins there.
    let told = read_to(&mut world.subscribe(choice(after(10))).await, 30).await;
    assert_eq!(told.entries.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn positions_of_parents_go_on_up_to_their_fork_and_are_refused_above_it() {
    let mut world = World::new(TIGHT).await;
    world.publish(&[("V", "A", 1); 10]).await;
    world.store.renew_epoch(Epoch(8)).await.unwrap();
    let mut world = world.restart().await;
    world.publish(&[("V", "A", 2); 10]).await;
    world.store.renew_epoch(Epoch(9)).await.unwrap();
    let mut world = world.restart().await;
    world.publish(&[("V", "A", 3); 10]).await;

    let at = |epoch, position| Start::After(Cursor { epoch: Epoch(epoch), position });
    let everything = world.expected(&wish(Start::Live), 0).await;
    for (epoch, position) in [(7, 0), (7, 4), (7, 10), (8, 3), (8, 13), (8, 20), (9, 0), (9, 15), (9, 30)] {
        let mut session = world.subscribe(wish(at(epoch, position))).await;
        let ack = session.next().await.unwrap();
        assert_eq!(ack.cursor, Some(Cursor { epoch: Epoch(9), position }), "the same place by its new name");
        let mut told = Told::default();
        told.take(ack);
        told.read_to(&mut session, 30).await;
        assert_eq!(told.entries, everything[position as usize..], "from {position} of {epoch}");
    }
    for (epoch, position) in [(7, 11), (7, 25), (8, 21), (9, 31), (6, 1), (1, 0)] {
        match world.refused(wish(at(epoch, position))).await {
            LiveError::EpochChanged(facts) => {
                let cursor = |position| Cursor { epoch: Epoch(9), position };
                let expected =
                    LogFacts { epoch: Epoch(9), fork: Some((Epoch(8), 20)), oldest: cursor(0), newest: cursor(30) };
                assert_eq!(facts, expected);
            }
            other => panic!("{position} of {epoch}: {other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_log_gets_another_name_comes_back_and_goes_on() {
    let mut world = World::new(TIGHT).await;
    let head = world.publish(&[("V", "A", 1); 10]).await;
    let mut session = world.subscribe(wish(Start::Live)).await;
    event(&mut session).await;
    world.store.renew_epoch(Epoch(8)).await.unwrap();
    let error = loop {
        match session.next().await {
            Ok(message) => assert!(matches!(message.event, Event::Progress { .. }), "{message:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LiveError::EpochRenewed), "{error}");
    assert_eq!(session.cursor(), Some(head));
}

#[tokio::test(start_paused = true)]
async fn the_replay_window_names_its_edges() {
    let empty = World::new(TIGHT).await;
    let window = empty.live.window().await.unwrap();
    assert_eq!((window.epoch, window.fork, window.oldest, window.newest), (EPOCH, None, None, None));

    let world = swept().await;
    world.store.renew_epoch(Epoch(8)).await.unwrap();
    let world = world.restart().await;
    let window = world.live.window().await.unwrap();
    assert_eq!((window.epoch, window.fork), (Epoch(8), Some((EPOCH, 30))));
    let (oldest, newest) = (window.oldest.unwrap(), window.newest.unwrap());
    assert_eq!((oldest.cursor.position, oldest.append_time.nanos()), (11, START + 10_000_000_000));
    assert_eq!((newest.cursor.position, newest.append_time.nanos()), (30, START + 29_000_000_000));
    // The cursor of an edge is the one that has seen the entry.
    let told = read_to(&mut world.subscribe(wish(Start::After(oldest.cursor))).await, 30).await;
    assert_eq!(told.entries[0].log_seq(), 12);
}
