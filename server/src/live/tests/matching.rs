//! Selectors: what they match, what becomes of each, and the names of what they match.

use std::time::Duration;

use super::world::*;
use crate::live::{Ack, Event, Matcher, Outcome, Start, Subscription};

async fn ack(world: &World, wish: Subscription) -> Ack {
    match event(&mut world.subscribe(wish).await).await {
        Event::Ack(ack) => ack,
        other => panic!("the first event is {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn every_selector_is_told_what_became_of_it() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 1), ("V", "B", 1), ("W", "A", 1)]).await;
    let selectors = vec![
        selector("", ""),
        selector("V", ""),
        selector("", "A"),
        selector("V", "B"),
        selector("W", "B"),
        selector("X", ""),
        selector("V", "B"),
    ];
    let wish = Subscription { selectors, ..wish(Start::Live) };
    let served =
        |counts: &[u32]| -> Vec<Outcome> { counts.iter().map(|&matched| Outcome::Served { matched }).collect() };
    assert_eq!(ack(&world, wish.clone()).await.outcomes, served(&[3, 2, 2, 1, 0, 0, 1]));
    world.live.most_instruments = 6;
    let mut limited = served(&[3, 2, 2, 1, 0, 0, 1]);
    limited[2] = Outcome::Limit;
    limited[6] = Outcome::Limit;
    assert_eq!(ack(&world, wish).await.outcomes, limited);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_limited_selector_is_sent() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 1), ("V", "B", 1), ("W", "C", 1)]).await;
    world.live.most_instruments = 2;
    let selectors = vec![selector("W", "C"), selector("V", ""), selector("V", "B")];
    let mut session = world.subscribe(Subscription { selectors, ..wish(Start::Live) }).await;
    let head = world.publish(&[("V", "A", 2), ("V", "B", 2), ("W", "C", 2), ("V", "LATER", 2)]).await;
    let told = read_to(&mut session, head.position).await;
    let seqs: Vec<u64> = told.entries.iter().map(Entry::log_seq).collect();
    assert_eq!(seqs, [5, 6]);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_selectors_match_by_name() {
    let mut world = World::new(ROOMY).await;
    let names: Vec<String> = (0..300).map(|number| format!("S{number}")).collect();
    let ticks: Vec<_> = names.iter().map(|name| ("V", name.as_str(), 1)).collect();
    world.publish(&ticks).await;
    // Every third of the known symbols, and thousands that do not exist.
    let selectors: Vec<_> = (0..10_000).map(|number| selector("V", &format!("S{}", number * 3))).collect();
    let mut session = world.subscribe(Subscription { selectors, ..wish(Start::Live) }).await;
    let Event::Ack(ack) = event(&mut session).await else { panic!() };
    let matched = ack.outcomes.iter().filter(|outcome| **outcome == Outcome::Served { matched: 1 }).count();
    assert_eq!((ack.outcomes.len(), matched), (10_000, 100));
    let head = world.publish(&ticks).await;
    // One that is created later joins.
    let last = world.publish(&[("V", "S29997", 2), ("V", "S29998", 2)]).await;
    let told = read_to(&mut session, last.position).await;
    assert_eq!(told.entries.len(), 101);
    assert_eq!(told.entries[100].log_seq(), head.position + 1);
}

#[tokio::test(start_paused = true)]
async fn a_matcher_of_any_kind_agrees_with_its_selectors() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 1), ("V", "B", 1)]).await;
    let registry = world.replica.tapes.get().registry.clone();
    let kinds = [
        (vec![selector("", "")], [true, true, true, true, true]),
        (vec![selector("W", "")], [false, false, true, true, false]),
        (vec![selector("", "B")], [false, true, false, true, false]),
        (vec![selector("V", "A"), selector("X", "C")], [true, false, false, false, true]),
        (vec![selector("X", ""), selector("", "A")], [true, false, true, false, true]),
        (vec![selector("NONE", "")], [false; 5]),
    ];
    let mut matchers: Vec<_> =
        kinds.iter().map(|(selectors, _)| Matcher::new(selectors, registry.clone(), 100).0).collect();
    // Two were known, three come later.
    world.publish(&[("W", "A", 1), ("W", "B", 1), ("X", "C", 1)]).await;
    for (matcher, (selectors, wanted)) in matchers.iter_mut().zip(&kinds) {
        for (id, wanted) in (1..).zip(wanted) {
            let id = crate::domain::InstrumentId(id);
            assert_eq!(matcher.wants(id), *wanted, "{id:?} by {selectors:?}");
        }
        assert!(!matcher.wants(crate::domain::InstrumentId(6)) || matcher.wants_everything());
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_told_before_the_first_ticks_and_only_of_what_matches() {
    let mut world = World::new(ROOMY).await;
    let names: Vec<String> = (0..1_300).map(|number| format!("S{number}")).collect();
    let ticks: Vec<_> = names.iter().map(|name| ("V", name.as_str(), 1)).collect();
    world.publish(&ticks).await;
    world.publish(&[("W", "A", 1)]).await;
    let selectors = vec![selector("V", ""), selector("", "LATER")];
    let wish = Subscription { selectors, definitions: true, ..wish(Start::Live) };
    let mut session = world.subscribe(wish).await;
    assert!(matches!(event(&mut session).await, Event::Ack(_)));
    let mut defined = Vec::new();
    while defined.len() < 1_300 {
        match event(&mut session).await {
            Event::Definitions(page) => {
                assert!((1..=512).contains(&page.len()));
                defined.extend(page.iter().map(|instrument| instrument.id));
            }
            other => panic!("{other:?}"),
        }
    }
    world.publish(&[("W", "OTHER", 2), ("W", "LATER", 2), ("V", "NEW", 2), ("V", "S7", 2)]).await;
    let mut known = defined.len();
    loop {
        match event(&mut session).await {
            Event::Definitions(page) => {
                assert_eq!(page.iter().map(|it| it.symbol.as_str()).collect::<Vec<_>>(), ["LATER", "NEW"]);
                defined.extend(page.iter().map(|instrument| instrument.id));
                known = defined.len();
            }
            Event::Run(run) => {
                assert!(run.ticks().iter().all(|tick| defined[..known].contains(&tick.instrument)));
                assert_eq!(run.len(), 3);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(defined.len(), 1_302, "each once");
}

#[tokio::test(start_paused = true)]
async fn an_instrument_that_first_comes_in_backfill_joins_a_stream_that_does_not_want_backfill() {
    let mut world = World::new(ROOMY).await;
    let wish = Subscription { selectors: vec![selector("", "LATER")], ..wish(Start::Live) };
    let mut session = world.subscribe(wish.clone()).await;
    let mut told = Told::default();
    for round in 0..3 {
        // It waits whenever something comes.
        while let Ok(message) = tokio::time::timeout(Duration::from_millis(10), session.next()).await {
            told.take(message.unwrap());
        }
        world.backfill(&[("V", "LATER", round), (["W", "X", "Y"][round as usize], "LATER", round)]).await;
        while let Ok(message) = tokio::time::timeout(Duration::from_millis(10), session.next()).await {
            told.take(message.unwrap());
        }
        world.publish(&[("V", "LATER", round), (["W", "X", "Y"][round as usize], "LATER", round)]).await;
    }
    let head = world.publish(&[("V", "OTHER", 1)]).await;
    told.read_to(&mut session, head.position).await;
    assert_eq!(told.entries, world.expected(&wish, 0).await);
    assert_eq!(told.entries.len(), 6);
}
