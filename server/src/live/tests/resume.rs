//! Starts: from any position, and from times.

use std::time::Duration;

use rand::Rng as _;

use super::world::*;
use crate::domain::{Cursor, UnixNanos};
use crate::live::{Event, Selector, Start, Subscription};

const RESUMES: usize = 10_000;

fn any_selectors(world: &mut World) -> Vec<Selector> {
    let all = [
        selector("", ""),
        selector("V", ""),
        selector("W", ""),
        selector("", "A"),
        selector("", "C"),
        selector("V", "B"),
        selector("W", "D"),
        selector("V", "NONE"),
    ];
    let count = world.random.random_range(1..4);
    (0..count).map(|_| all[world.random.random_range(0..all.len())].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_resumes_anywhere_get_exactly_what_follows() {
    // Half of the log has left the hub, so that resumes begin in the store and end in the hub.
    let mut world = World::new(40 << 10).await;
    let mut head = Cursor { epoch: crate::domain::Epoch(7), position: 0 };
    while head.position < 400 {
        head = world.commit_anything().await;
    }
    let reference = world.reference().await;
    for resume in 0..RESUMES {
        let after = world.random.random_range(0..=head.position);
        let wish = Subscription {
            selectors: any_selectors(&mut world),
            include_backfill: world.random.random(),
            message_ticks: world.random.random_range(1..30),
            ..wish(Start::After(Cursor { position: after, ..head }))
        };
        let mut session = world.subscribe(wish.clone()).await;
        let mut told = Told::default();
        loop {
            let message = session.next().await.unwrap();
            let last = matches!(message.event, Event::ReplayCompleted { .. });
            told.take(message);
            if last {
                break;
            }
        }
        assert_eq!(told.cursor(), Some(head), "the replay ends at the head");
        assert_eq!(told.entries, reference.expected(&wish, after), "resume {resume} after {after}: {wish:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_cut_again_and_again_gets_every_entry_once() {
    let mut world = World::new(TIGHT).await;
    for filtered in [false, true] {
        let selectors = if filtered { vec![selector("V", ""), selector("", "A")] } else { vec![selector("", "")] };
        let mut cursor = world.replica.tapes.get().hub.head().cursor();
        let begin = cursor.position;
        let mut entries = Vec::new();
        for _ in 0..200 {
            world.commit_anything().await;
            // A life of a few messages, which ends inside a block as often as between two.
            let wish = Subscription { selectors: selectors.clone(), message_ticks: 3, ..wish(Start::After(cursor)) };
            let mut session = world.subscribe(wish).await;
            for _ in 0..world.random.random_range(1..9) {
                let message = session.next().await.unwrap();
                cursor = message.cursor.unwrap();
                let mut told = Told::default();
                told.take(message);
                entries.extend(told.entries);
            }
        }
        let rest = Subscription { selectors: selectors.clone(), ..wish(Start::After(cursor)) };
        let head = world.replica.tapes.get().hub.head().position;
        entries.extend(read_to(&mut world.subscribe(rest.clone()).await, head).await.entries);
        assert_eq!(entries, world.expected(&rest, begin).await);
    }
}

#[tokio::test(start_paused = true)]
async fn live_and_replay_are_the_same_sequence() {
    let mut world = World::new(TIGHT).await;
    let wishes: Vec<Subscription> = [vec![selector("", "")], vec![selector("W", "C"), selector("", "B")]]
        .into_iter()
        .flat_map(|selectors| {
            [false, true].map(|include_backfill| Subscription {
                selectors: selectors.clone(),
                include_backfill,
                ..wish(Start::Live)
            })
        })
        .collect();
    let mut live = Vec::new();
    for wish in &wishes {
        live.push((world.subscribe(wish.clone()).await, Told::default()));
    }
    let mut head = 0;
    for _ in 0..150 {
        head = world.commit_anything().await.position;
        for (session, told) in &mut live {
            told.read_to(session, head).await;
        }
    }
    for (wish, (_, told)) in wishes.into_iter().zip(live) {
        let start = Start::After(Cursor { epoch: crate::domain::Epoch(7), position: 0 });
        let replay = Subscription { start, ..wish.clone() };
        let replayed = read_to(&mut world.subscribe(replay).await, head).await;
        assert_eq!(told.entries, replayed.entries);
        assert_eq!(told.entries, world.expected(&wish, 0).await);
    }
}

#[tokio::test(start_paused = true)]
async fn every_cursor_between_ticks_is_exact() {
    let mut world = World::new(ROOMY).await;
    let head = world.publish(&[("V", "A", 1), ("V", "B", 1), ("V", "A", 2), ("V", "A", 3)]).await;
    let mut session = world.subscribe(wish(Start::After(Cursor { position: 0, ..head }))).await;
    let message = until(&mut session, |event| matches!(event, Event::Run(_))).await;
    let Event::Run(run) = message.event else { panic!() };
    assert_eq!(run.len(), 4);
    assert_eq!(message.cursor, Some(head));
}

#[tokio::test(start_paused = true)]
async fn the_replay_ends_exactly_where_the_log_ended() {
    let mut world = World::new(ROOMY).await;
    let first = world.publish(&[("V", "A", 1); 5]).await;
    world.publish(&[("V", "B", 1); 5]).await;
    let mut session = world.subscribe(wish(Start::After(first))).await;
    // These come before the reader asks for the first message.
    world.publish(&[("V", "A", 2); 3]).await;
    let told = read_to(&mut session, 13).await;
    let at = told.messages.iter().position(|message| matches!(message.event, Event::ReplayCompleted { position: 10 }));
    let before: usize = told.messages[..at.unwrap()]
        .iter()
        .map(|message| if let Event::Run(run) = &message.event { run.len() } else { 0 })
        .sum();
    assert_eq!((before, told.entries.len()), (5, 8));
}

#[tokio::test(start_paused = true)]
async fn a_start_time_is_exact_by_append_time() {
    let mut world = World::new(TIGHT).await;
    for _ in 0..60 {
        world.commit_anything().await;
    }
    let log = world.log().await;
    let head = log.last().unwrap().0.last_seq();
    let mut times = vec![START - 1, START];
    for (block, _) in &log {
        times.extend([-1, 0, 1].map(|step| block.append_time.nanos() + step));
    }
    for time in times {
        let time = UnixNanos::new(time).unwrap();
        let wish = Subscription { include_backfill: true, ..wish(Start::Since(time)) };
        let mut session = world.subscribe(wish.clone()).await;
        let told = read_to(&mut session, head).await;
        let after = log.iter().filter(|(block, _)| block.append_time < time).map(|(block, _)| block.last_seq()).max();
        assert_eq!(told.entries, world.expected(&wish, after.unwrap_or(0)).await, "since {time}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_time_ahead_passes_over_what_comes_before_it() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 1)]).await;
    let due = UnixNanos::new(START + 2_000_000_000).unwrap();
    let mut session = world.subscribe(wish(Start::Since(due))).await;
    world.advance(Duration::from_secs(1));
    world.publish(&[("V", "A", 2)]).await;
    world.say(status("V", &[], false)).await;
    world.advance(Duration::from_secs(1));
    let last = world.publish(&[("V", "A", 3)]).await;
    let told = read_to(&mut session, last.position).await;
    let seqs: Vec<u64> = told.entries.iter().map(Entry::log_seq).collect();
    assert_eq!(seqs, [last.position]);
}
