//! What feeds say, between the ticks.

use super::world::*;
use crate::domain::{Control, Cursor, Epoch};
use crate::live::{Event, Start, Subscription};

fn feeds(told: &Told) -> Vec<u64> {
    let source = |entry: &Entry| matches!(entry, Entry::Source(..)).then_some(entry.log_seq());
    told.entries.iter().filter_map(source).collect()
}

#[tokio::test(start_paused = true)]
async fn the_word_of_a_feed_comes_in_the_order_of_the_log_to_those_it_concerns() {
    let mut world = World::new(TIGHT).await;
    let kinds = [
        (vec![selector("", "")], vec![2, 4, 5, 7]),
        (vec![selector("V", "")], vec![2, 4, 5]),
        (vec![selector("", "A")], vec![2, 4, 7]),
        (vec![selector("V", "B")], vec![2, 5]),
        (vec![selector("W", "A")], vec![7]),
        (vec![selector("W", "Z")], vec![7]),
        (vec![selector("X", ""), selector("X", "A")], vec![]),
    ];
    let mut live = Vec::new();
    for (selectors, _) in &kinds {
        live.push(world.subscribe(Subscription { selectors: selectors.clone(), ..wish(Start::Live) }).await);
    }
    world.publish(&[("V", "A", 1)]).await;
    world.say(status("V", &[], false)).await; // 2: all of V
    world.publish(&[("V", "A", 2)]).await;
    world.say(status("V", &["A", "C"], true)).await; // 4
    world.say(status("V", &["B"], true)).await; // 5
    world.publish(&[("V", "B", 2)]).await;
    let head = world.say(status("W", &[], false)).await; // 7: all of W
    for ((selectors, expected), session) in kinds.iter().zip(&mut live) {
        let told = read_to(session, head.position).await;
        assert_eq!(feeds(&told), *expected, "{selectors:?}");
        assert!(told.entries.windows(2).all(|pair| pair[0].log_seq() < pair[1].log_seq()));
        let start = Start::After(Cursor { epoch: Epoch(7), position: 0 });
        let wish = Subscription { selectors: selectors.clone(), ..wish(start) };
        let replayed = read_to(&mut world.subscribe(wish).await, head.position).await;
        assert_eq!(replayed.entries, told.entries);
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_fills_in_history_is_heard_all_the_same() {
    let mut world = World::new(ROOMY).await;
    let mut session = world.subscribe(wish(Start::Live)).await;
    let batch = crate::domain::Batch { controls: vec![status("V", &[], true)], ..Default::default() };
    world.backfill(&[("V", "A", 1)]).await;
    let head = world.submit(batch, true).await;
    let told = read_to(&mut session, head.position).await;
    assert_eq!(told.entries.iter().map(Entry::log_seq).collect::<Vec<_>>(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_status_without_a_time_is_stamped_once() {
    let mut world = World::new(ROOMY).await;
    let mut session = world.subscribe(wish(Start::Live)).await;
    world.say(status("V", &[], false)).await;
    let message = until(&mut session, |event| matches!(event, Event::Source { .. })).await;
    let Event::Source { control: Control::SourceStatus(status), .. } = message.event else { panic!() };
    assert_eq!(status.change_time.unwrap().nanos(), START);
    assert_eq!(world.log().await[0].0.entries.controls[0].1, Control::SourceStatus(status));
}
