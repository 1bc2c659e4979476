//! Rounds: the final state is that of the whole log, whatever was left out and wherever the stream was cut.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng as _;
use tokio::time::Instant;

use super::world::*;
use crate::domain::{Control, Cursor, InstrumentId, Tick};
use crate::live::{Event, Message, Start, Subscription};

fn conflated(start: Start, min_interval: Duration) -> Subscription {
    Subscription { conflated: Some(min_interval), ..wish(start) }
}

/// What a reader keeps: of each instrument the greatest tick that it has seen.
#[derive(Debug, Default, PartialEq)]
struct State(BTreeMap<InstrumentId, Tick>);

impl State {
    fn see(&mut self, tick: &Tick) {
        let known = self.0.entry(tick.instrument).or_insert_with(|| tick.clone());
        if known.key() < tick.key() {
            *known = tick.clone();
        }
    }

    fn of(entries: &[Entry]) -> State {
        let mut state = State::default();
        for entry in entries {
            if let Entry::Tick(tick) = entry {
                state.see(tick);
            }
        }
        state
    }
}

/// What feeds say, and corrections.
fn others(entries: &[Entry]) -> (Vec<&Entry>, Vec<&Entry>) {
    let others = entries.iter().filter(|entry| matches!(entry, Entry::Source(..)));
    others.partition(|entry| !matches!(entry, Entry::Source(_, Control::Correction(_))))
}

#[tokio::test(start_paused = true)]
async fn the_final_state_of_rounds_is_that_of_every_tick() {
    for include_backfill in [false, true] {
        let mut world = World::new(TIGHT).await;
        let wish = Subscription { include_backfill, ..conflated(Start::Live, Duration::ZERO) };
        let mut session = world.subscribe(wish.clone()).await;
        let (mut told, mut merged) = (Told::default(), 0u64);
        for _ in 0..40 {
            for _ in 0..world.random.random_range(0..20) {
                world.commit_anything().await;
            }
            let head = world.replica.tapes.get().hub.head().position;
            told.read_to(&mut session, head).await;
        }
        for message in &told.messages {
            if let Event::Ticks(ticks) = &message.event {
                assert_eq!(ticks.ticks.len(), ticks.merged.len());
                assert!(ticks.merged.iter().all(|count| *count >= 1));
                merged += ticks.merged.iter().map(|count| u64::from(*count)).sum::<u64>();
            }
        }
        let expected = world.expected(&wish, 0).await;
        assert_eq!(State::of(&told.entries), State::of(&expected));
        let ticks = expected.iter().filter(|entry| matches!(entry, Entry::Tick(_))).count();
        assert_eq!(merged, ticks as u64, "every tick is counted in one that was sent");
        assert!(told.entries.len() < expected.len(), "something was merged");
        assert_eq!(others(&told.entries), others(&expected), "the word of feeds and corrections are never merged");
        assert!(!others(&expected).1.is_empty());
    }
}

/// The messages of one round, by their cursors.
async fn round(session: &mut crate::live::Session, before: Cursor) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let message = session.next().await.unwrap();
        if !matches!(message.event, Event::Ticks(_) | Event::Source { .. }) {
            continue;
        }
        let last = message.cursor != Some(before);
        messages.push(message);
        if last {
            return messages;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_inside_a_round_carry_the_end_of_the_round_before() {
    let mut world = World::new(ROOMY).await;
    let names: Vec<String> = (0..10).map(|number| format!("S{number}")).collect();
    let ticks: Vec<_> = names.iter().map(|name| ("V", name.as_str(), 1)).collect();
    let wish = Subscription { message_ticks: 4, ..conflated(Start::Live, Duration::ZERO) };
    let mut session = world.subscribe(wish).await;
    let mut before = session.next().await.unwrap().cursor.unwrap();
    for _ in 0..3 {
        world.publish(&ticks).await;
        world.say(status("V", &[], true)).await;
        world.say(status("V", &[], false)).await;
        let head = world.publish(&ticks).await;
        let messages = round(&mut session, before).await;
        let sizes: Vec<usize> = messages
            .iter()
            .map(|message| match &message.event {
                Event::Ticks(ticks) => {
                    assert_eq!(ticks.before, Some(before));
                    assert!(ticks.merged.iter().all(|count| *count == 2));
                    ticks.ticks.len()
                }
                _ => 0,
            })
            .collect();
        assert_eq!(sizes, [0, 0, 4, 4, 2]);
        let (last, inner) = messages.split_last().unwrap();
        assert!(inner.iter().all(|message| message.cursor == Some(before)));
        assert_eq!(last.cursor, Some(head));
        before = head;
    }
}

#[tokio::test(start_paused = true)]
async fn cuts_at_any_message_lose_no_final_state() {
    let mut world = World::new(TIGHT).await;
    let mut cursor = world.replica.tapes.get().hub.head().cursor();
    let mut seen = State::default();
    let mut heard = Vec::new();
    let wish = Subscription { message_ticks: 2, ..conflated(Start::Live, Duration::ZERO) };
    for _ in 0..300 {
        world.commit_anything().await;
        let mut session = world.subscribe(Subscription { start: Start::After(cursor), ..wish.clone() }).await;
        for _ in 0..world.random.random_range(0..7) {
            let message = session.next().await.unwrap();
            cursor = message.cursor.unwrap();
            match &message.event {
                Event::Ticks(ticks) => ticks.ticks.iter().for_each(|tick| seen.see(tick)),
                Event::Source { log_seq, .. } | Event::Correction { log_seq, .. } => heard.push(*log_seq),
                _ => (),
            }
        }
    }
    let head = world.replica.tapes.get().hub.head().position;
    let rest = Subscription { start: Start::After(cursor), ..wish.clone() };
    for entry in read_to(&mut world.subscribe(rest).await, head).await.entries {
        match entry {
            Entry::Tick(tick) => seen.see(&tick),
            Entry::Source(log_seq, _) => heard.push(log_seq),
        }
    }
    let expected = world.expected(&wish, 0).await;
    assert_eq!(seen, State::of(&expected));
    // An entry may repeat after a cut; none is missing.
    heard.sort_unstable();
    heard.dedup();
    let others = expected.iter().filter(|entry| matches!(entry, Entry::Source(..)));
    assert_eq!(heard, others.map(Entry::log_seq).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn rounds_keep_their_distance_and_end_with_the_last_tick() {
    let mut world = World::new(ROOMY).await;
    let wish = conflated(Start::Live, Duration::from_millis(250));
    let mut session = world.subscribe(wish).await;
    event(&mut session).await;
    let reading = tokio::spawn(async move {
        let mut rounds: Vec<(Instant, u64, u32)> = Vec::new();
        while rounds.last().is_none_or(|(_, last, _)| *last < 500) {
            if let Event::Ticks(ticks) = event(&mut session).await {
                rounds.push((Instant::now(), ticks.ticks[0].log_seq, ticks.merged[0]));
            }
        }
        rounds
    });
    for number in 0..500 {
        world.publish(&[("V", "A", number)]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rounds = reading.await.unwrap();
    assert_eq!((rounds[0].1, rounds[0].2), (1, 1), "the first tick does not wait");
    assert!(rounds.windows(2).all(|pair| pair[1].0 - pair[0].0 >= Duration::from_millis(249)), "{rounds:?}");
    assert!((10..=13).contains(&rounds.len()), "{} rounds in 2.5 s", rounds.len());
    assert_eq!(rounds.iter().map(|(_, _, merged)| merged).sum::<u32>(), 500);
}

#[tokio::test(start_paused = true)]
async fn the_greatest_tick_is_by_event_time_then_position() {
    let mut world = World::new(ROOMY).await;
    let mut session = world.subscribe(conflated(Start::Live, Duration::ZERO)).await;
    event(&mut session).await;
    let head = world.publish(&[("V", "A", 5), ("V", "A", 9), ("V", "A", 9), ("V", "A", 7)]).await;
    let told = read_to(&mut session, head.position).await;
    let [Entry::Tick(tick)] = told.entries.as_slice() else { panic!("{told:?}") };
    assert_eq!(tick.log_seq, 3);
}

#[tokio::test(start_paused = true)]
async fn a_round_over_a_window_that_moved_says_what_it_misses() {
    let mut world = World::new(TIGHT).await;
    let first = world.commit_anything().await;
    let mut session = world.subscribe(conflated(Start::After(first), Duration::ZERO)).await;
    event(&mut session).await;
    for _ in 0..200 {
        world.commit_anything().await;
    }
    let edge = world.log().await[150].0.last_seq();
    world.forget_up_to(edge).await;
    let head = world.replica.tapes.get().hub.head().position;
    let told = read_to(&mut session, head).await;
    let gaps = told.find(|event| matches!(event, Event::StreamGap { .. }));
    assert!(matches!(gaps[0].event, Event::StreamGap { from, to } if from == first.position + 1 && to == edge));
    let wish = conflated(Start::Live, Duration::ZERO);
    assert_eq!(State::of(&told.entries), State::of(&world.expected(&wish, edge).await));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_of_rounds_claim_only_what_was_sent() {
    let mut world = World::new(ROOMY).await;
    let wish = Subscription { heartbeat: Duration::from_secs(1), ..conflated(Start::Live, Duration::from_secs(60)) };
    let mut session = world.subscribe(wish).await;
    event(&mut session).await;
    world.publish(&[("V", "A", 1)]).await;
    assert!(matches!(event(&mut session).await, Event::Ticks(_)));
    world.publish(&[("V", "A", 2)]).await;
    for _ in 0..5 {
        let message = session.next().await.unwrap();
        assert!(matches!(message.event, Event::Progress { position: 1, .. }), "{message:?}");
        assert_eq!(message.cursor.unwrap().position, 1);
    }
}
