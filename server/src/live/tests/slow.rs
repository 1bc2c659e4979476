//! Readers that do not keep up: late, never wrong, and told.

use std::time::Duration;

use super::world::*;
use crate::domain::Cursor;
use crate::live::{Event, LiveError, SlowReader, Start, Subscription};
use crate::store::Store as _;
use crate::tape::compactor::{Compactor, Policy};

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_the_hub_is_told_and_misses_nothing() {
    let mut world = World::new(TIGHT).await;
    let mut session = world.subscribe(wish(Start::Live)).await;
    let mut told = Told::default();
    for _ in 0..3 {
        told.read_to(&mut session, told.cursor().map_or(0, |cursor| cursor.position)).await;
        for _ in 0..200 {
            world.commit_anything().await;
        }
        let head = world.replica.tapes.get().hub.head().position;
        told.read_to(&mut session, head).await;
        // The end of catching up stands behind what was caught up with.
        told.take(session.next().await.unwrap());
    }
    assert_eq!(told.entries, world.expected(&wish(Start::Live), 0).await);
    let notices: Vec<bool> = told
        .messages
        .iter()
        .filter_map(|message| match &message.event {
            Event::SlowConsumer { catching_up, lag, .. } => {
                assert!(*lag > 0 || !catching_up);
                Some(*catching_up)
            }
            _ => None,
        })
        .collect();
    assert_eq!(notices, [true, false, true, false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_reader_holds_nobody_up() {
    let mut world = World::new(TIGHT).await;
    let mut frozen = world.subscribe(wish(Start::Live)).await;
    event(&mut frozen).await;
    let mut others = Vec::new();
    for _ in 0..99 {
        others.push((world.subscribe(wish(Start::Live)).await, Told::default()));
    }
    for _ in 0..40 {
        let head = world.commit_anything().await.position;
        for (session, told) in &mut others {
            told.read_to(session, head).await;
        }
    }
    let expected = world.expected(&wish(Start::Live), 0).await;
    for (_, told) in &others {
        assert_eq!(told.entries, expected);
        assert!(told.find(|event| matches!(event, Event::SlowConsumer { .. })).is_empty());
    }
    let head = world.replica.tapes.get().hub.head().position;
    assert_eq!(read_to(&mut frozen, head).await.entries, expected, "and the frozen one gets all of it later");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_that_asked_for_it_is_disconnected_and_resumes() {
    let mut world = World::new(TIGHT).await;
    let wish = Subscription { slow_reader: SlowReader::Disconnect, ..wish(Start::Live) };
    let mut session = world.subscribe(wish.clone()).await;
    let first = world.commit_anything().await;
    let mut told = read_to(&mut session, first.position).await;
    for _ in 0..200 {
        world.commit_anything().await;
    }
    let head = world.replica.tapes.get().hub.head();
    let cursor = loop {
        match session.next().await {
            Ok(message) => told.take(message),
            Err(LiveError::Slow { cursor }) => break cursor,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!((Some(cursor), session.cursor()), (told.cursor(), Some(cursor)));
    assert!(cursor.position < head.position);
    // Coming back begins in the log, which is the server's way and not the reader's fault.
    let again = Subscription { start: Start::After(cursor), ..wish.clone() };
    told.read_to(&mut world.subscribe(again).await, head.position).await;
    assert_eq!(told.entries, world.expected(&wish, 0).await);
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_lag_takes_too_much_memory_is_slow_before_it_leaves_the_hub() {
    let mut world = World::new(ROOMY).await;
    let wish = Subscription { slow_reader: SlowReader::Disconnect, ..wish(Start::Live) };
    let mut slow = world.subscribe(wish.clone()).await;
    event(&mut slow).await;
    let ticks = vec![("V", "A", 1); 20_000];
    while world.replica.tapes.get().hub.head().position * crate::domain::block::TICK_BYTES as u64
        <= crate::live::SLOW_LAG_BYTES
    {
        world.publish(&ticks).await;
    }
    assert!(matches!(slow.next().await, Err(LiveError::Slow { .. })));
    let mut fast = world.subscribe(wish).await;
    event(&mut fast).await;
    world.publish(&ticks).await;
    assert!(matches!(event(&mut fast).await, Event::Run(_)));
}

#[tokio::test(start_paused = true)]
async fn the_window_that_moves_past_a_slow_reader_is_told_as_a_gap() {
    for read_before in [0, 1, 60] {
        let mut world = World::new(TIGHT).await;
        let mut session = world.subscribe(Subscription { message_ticks: 7, ..wish(Start::Live) }).await;
        let mut told = Told::default();
        for _ in 0..30 {
            world.commit_anything().await;
        }
        told.read_to(&mut session, read_before).await;
        let stopped = told.cursor().unwrap().position;
        for _ in 0..200 {
            world.commit_anything().await;
        }
        let log = world.log().await;
        let kept_after = log[180].0.last_seq();
        let before = world.reference().await;
        world.forget_up_to(kept_after).await;
        let head = world.replica.tapes.get().hub.head().position;
        told.read_to(&mut session, head).await;
        let gaps = told.find(|event| matches!(event, Event::StreamGap { .. }));
        let [gap] = gaps.as_slice() else { panic!("{gaps:?}") };
        let Event::StreamGap { from, to } = gap.event else { panic!() };
        assert_eq!((to, gap.cursor.unwrap().position), (kept_after, kept_after));
        // What was in its hands already still came; behind it everything up to the window's edge is named.
        assert!(from > stopped && from <= to);
        let delivered: Vec<u64> = told.entries.iter().map(Entry::log_seq).collect();
        let expected = before.expected(&wish(Start::Live), 0);
        let expected: Vec<u64> = expected.iter().map(Entry::log_seq).filter(|seq| !(from..=to).contains(seq)).collect();
        assert_eq!(delivered, expected, "the gap is exactly what is missing");
        // A resume at the edge of the window is whole, one position before it is refused.
        let at = |position| Start::After(Cursor { position, epoch: gap.cursor.unwrap().epoch });
        let whole = read_to(&mut world.subscribe(wish(at(to))).await, head).await;
        assert_eq!(whole.entries, world.expected(&wish(at(to)), to).await);
        assert!(matches!(world.refused(wish(at(to - 1))).await, LiveError::Expired { .. }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_told_before_the_window_moves_past_it() {
    let hours = |count: u64| Duration::from_secs(count * 3_600);
    for conflated in [None, Some(Duration::ZERO)] {
        let mut world = World::new(ROOMY).await;
        let wish = Subscription { conflated, ..wish(Start::Live) };
        let mut behind = world.subscribe(wish.clone()).await;
        let mut reading = world.subscribe(wish.clone()).await;
        event(&mut behind).await;
        let mut head = world.commit_anything().await;
        for _ in 0..20 {
            head = world.commit_anything().await;
        }
        let mut read = read_to(&mut reading, head.position).await;
        // The log is kept for 24 hours, and looked at every few seconds.
        world.advance(hours(21));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let early = behind.next().await.unwrap();
        assert!(!is_expiring(&early.event), "{early:?}");
        let mut told = Told::default();
        told.take(early);
        world.advance(hours(1));
        tokio::time::sleep(Duration::from_secs(10)).await;
        told.read_to(&mut behind, head.position).await;
        let notices = told.find(is_expiring);
        let [notice] = notices.as_slice() else { panic!("{notices:?}") };
        let Event::SlowConsumer { catching_up, lag, .. } = notice.event else { panic!() };
        assert!(!catching_up && lag > 0, "{notice:?}");
        assert!(notice.cursor.unwrap().position < head.position, "it stands before what is about to leave");
        // Who has everything is told nothing, also when everything leaves.
        let head = world.commit_anything().await;
        read.read_to(&mut reading, head.position).await;
        assert!(read.find(is_expiring).is_empty());
        told.read_to(&mut behind, head.position).await;
        if conflated.is_none() {
            assert_eq!(told.entries, world.expected(&wish, 0).await, "nothing was lost yet");
        }
        // Who falls behind again is told again.
        for _ in 0..5 {
            world.commit_anything().await;
        }
        world.advance(hours(23));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let again = behind.next().await.unwrap();
        assert!(is_expiring(&again.event), "{again:?}");
    }
}

fn is_expiring(event: &Event) -> bool {
    matches!(event, Event::SlowConsumer { expiring: true, .. })
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_nearly_full_is_told_like_one_that_is_nearly_over() {
    let mut world = World::new(ROOMY).await;
    let mut session = world.subscribe(wish(Start::Live)).await;
    event(&mut session).await;
    for _ in 0..100 {
        world.commit_anything().await;
    }
    let head = world.store.head().await.unwrap();
    // Three quarters of what there is fit nine tenths of what is kept.
    let policy = Policy { log_retention_bytes: head.log_bytes * 10 / 12, ..Policy::default() };
    let tape = world.replica.tapes.get();
    let parts = (world.store.clone(), tape.views.clone(), Default::default(), world.clock.clone());
    let mut compactor = Compactor::new(parts.0, parts.1, parts.2, parts.3, policy, Default::default());
    compactor = compactor.telling(tape.hub.clone());
    compactor.round().await.unwrap();
    let told = read_to(&mut session, head.position).await;
    assert_eq!(told.find(is_expiring).len(), 1);
    let left = tape.hub.expiring();
    assert!(left > head.position / 8 && left < head.position / 2, "{left} of {}", head.position);
}
