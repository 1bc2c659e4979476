//! Streams that sleep through what is not theirs, and streams that come late and find small blocks joined.

use std::sync::Arc;
use std::time::Duration;

use super::world::*;
use crate::domain::{Block, Cursor, UnixNanos};
use crate::live::{Event, Session, Start, Subscription};

fn narrow(symbol: &str) -> Subscription {
    Subscription { selectors: vec![selector("", symbol)], heartbeat: Duration::from_secs(1), ..wish(Start::Live) }
}

#[tokio::test(start_paused = true)]
async fn whoever_sleeps_through_what_is_not_theirs_gets_all_that_is() {
    let mut world = World::new(TIGHT).await;
    let wishes = [
        narrow("A"),
        narrow("LATER"),
        Subscription { flush_window: Duration::from_millis(2), ..narrow("B") },
        Subscription { include_backfill: true, ..narrow("C") },
        Subscription { definitions: true, ..narrow("D") },
        wish(Start::Live),
    ];
    let mut readers = Vec::new();
    for wish in &wishes {
        let mut session = world.subscribe(wish.clone()).await;
        readers.push(tokio::spawn(async move {
            let mut told = Told::default();
            // All of them wait while the log goes on, through more than the hub keeps.
            while told.cursor().is_none_or(|cursor| cursor.position < 3_000) {
                told.take(session.next().await.unwrap());
            }
            told
        }));
    }
    let mut head = 0;
    while head < 3_000 {
        world.commit_anything().await;
        head = world.publish(&[("V", "B", 1), ("W", if head > 2_000 { "LATER" } else { "B" }, 1)]).await.position;
        if head % 5 == 0 {
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    }
    for (reader, wish) in readers.into_iter().zip(&wishes) {
        let told = reader.await.unwrap();
        let expected: Vec<Entry> = world.expected(wish, 0).await;
        let reached = told.cursor().unwrap().position;
        let expected: Vec<_> = expected.into_iter().filter(|entry| entry.log_seq() <= reached).collect();
        assert_eq!(told.entries, expected, "{:?}", wish.selectors);
        // Time stands still while the log goes on, so a flush window may be longer than what the hub keeps.
        let slow = told.find(|event| matches!(event, Event::SlowConsumer { .. }));
        assert!(slow.is_empty() || !wish.flush_window.is_zero(), "nobody was behind: {slow:?}");
    }
}

/// The blocks of all that is due.
async fn blocks(session: &mut Session, head: u64) -> (Told, Vec<Arc<Block>>) {
    let told = read_to(session, head).await;
    let run = |message: &crate::live::Message| match &message.event {
        Event::Run(run) => Some(run.block.clone()),
        _ => None,
    };
    let blocks = told.messages.iter().filter_map(run).collect();
    (told, blocks)
}

#[tokio::test(start_paused = true)]
async fn late_readers_share_few_blocks_and_get_the_same_entries() {
    let mut world = World::new(ROOMY).await;
    let mut late = [world.subscribe(wish(Start::Live)).await, world.subscribe(wish(Start::Live)).await];
    let mut first = world.subscribe(wish(Start::Live)).await;
    let mut head = world.publish(&[("V", "A", 1)]).await;
    // Somebody reads every block as it comes, and stops where joined blocks will have their middle.
    for _ in 0..20 {
        read_to(&mut first, head.position).await;
        head = world.publish(&[("V", "A", 1), ("V", "B", 1)]).await;
    }
    for _ in 0..100 {
        head = world.publish(&[("V", "A", 1)]).await;
    }
    let expected = world.expected(&wish(Start::Live), 0).await;
    let mut shared = Vec::new();
    for session in &mut late {
        let (told, blocks) = blocks(session, head.position).await;
        assert_eq!(told.entries, expected);
        shared.push(blocks);
    }
    assert!(shared[0].len() < 5, "{} blocks of 121 commits", shared[0].len());
    assert!(shared[0].iter().zip(&shared[1]).all(|(one, other)| Arc::ptr_eq(one, other)));
    let begun = first.cursor().unwrap().position;
    let (told, blocks) = blocks(&mut first, head.position).await;
    assert!(blocks[0].first_seq <= begun, "it goes on inside a joined block");
    assert_eq!(told.entries, world.expected(&wish(Start::Live), begun).await);
    // Every position in joined blocks is one to go on from.
    for position in 0..head.position {
        let mut session = world.subscribe(wish(Start::After(Cursor { position, ..head }))).await;
        let told = read_to(&mut session, head.position).await;
        assert_eq!(told.entries, world.expected(&wish(Start::Live), position).await);
    }
}

#[tokio::test(start_paused = true)]
async fn joined_blocks_remember_when_each_commit_was_appended() {
    let mut world = World::new(ROOMY).await;
    let mut late = world.subscribe(wish(Start::Live)).await;
    let time = UnixNanos::new(START + 20_500_000_000).unwrap();
    let mut early = world.subscribe(wish(Start::Since(time))).await;
    let mut head = world.publish(&[("V", "A", 1)]).await;
    for _ in 0..40 {
        world.advance(Duration::from_secs(1));
        head = world.publish(&[("V", "A", 1)]).await;
    }
    let (_, joined) = blocks(&mut late, head.position).await;
    assert!(joined.iter().any(|block| block.segments.len() > 8), "commits were joined");
    let told = read_to(&mut early, head.position).await;
    assert_eq!(told.entries.iter().map(Entry::log_seq).collect::<Vec<_>>(), (22..=41).collect::<Vec<_>>());
    let hub = world.replica.tapes.get().hub.clone();
    for (block, _) in world.log().await {
        assert_eq!(hub.appended_after(block.first_seq - 1), Some(block.append_time));
        let mut session = world.subscribe(wish(Start::Since(block.append_time))).await;
        let told = read_to(&mut session, head.position).await;
        assert_eq!(told.entries.first().map(Entry::log_seq), Some(block.first_seq));
    }
}
