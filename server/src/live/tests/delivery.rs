//! What a stream says besides its entries: at once, on time, and at its end.

use std::time::Duration;

use tokio::time::Instant;

use super::world::*;
use crate::bus::{Announcement, Bus, BusState, LocalBus, ManifestNews};
use crate::domain::Cursor;
use crate::live::{Event, LiveError, Start, Subscription};

#[tokio::test(start_paused = true)]
async fn the_acknowledgement_is_there_at_once_and_the_first_tick_when_it_is_published() {
    let mut world = World::new(ROOMY).await;
    let begin = Instant::now();
    let mut session = world.subscribe(wish(Start::Live)).await;
    let first = session.next().await.unwrap();
    assert!(matches!(first.event, Event::Ack(_)));
    assert_eq!(first.cursor.unwrap().position, 0);
    assert_eq!(begin.elapsed(), Duration::ZERO);
    world.publish(&[("V", "A", 1)]).await;
    assert!(matches!(event(&mut session).await, Event::Run(_)));
    assert!(begin.elapsed() < Duration::from_millis(100), "nothing waits for a heartbeat");
}

#[tokio::test(start_paused = true)]
async fn progress_comes_on_time_and_moves_past_what_is_filtered() {
    let mut world = World::new(ROOMY).await;
    let wishes = [
        Subscription { selectors: vec![selector("", "NONE")], ..wish(Start::Live) },
        Subscription { selectors: vec![selector("W", "")], ..wish(Start::Live) },
    ];
    let mut sessions = Vec::new();
    for wish in wishes {
        let mut session = world.subscribe(wish).await;
        event(&mut session).await;
        sessions.push(session);
    }
    world.publish(&[("V", "A", 1); 4]).await;
    world.backfill(&[("W", "A", 1); 3]).await;
    let begin = Instant::now();
    for session in &mut sessions {
        let message = session.next().await.unwrap();
        assert!(matches!(message.event, Event::Progress { position: 7, .. }), "{message:?}");
        assert_eq!(message.cursor.unwrap().position, 7);
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(4_900) && took < Duration::from_millis(5_500), "{took:?}");
}

/// A bus that brings nothing.
#[derive(Debug)]
struct DeadBus(LocalBus);

impl Bus for DeadBus {
    fn announce(&self, _: Announcement) {}

    fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Announcement> {
        self.0.subscribe()
    }

    fn announce_manifest(&self, _: ManifestNews) {}

    fn manifests(&self) -> tokio::sync::watch::Receiver<Option<ManifestNews>> {
        self.0.manifests()
    }

    fn state(&self) -> BusState {
        self.0.state()
    }
}

#[tokio::test(start_paused = true)]
async fn progress_stands_behind_what_the_store_has_and_nobody_announced() {
    let world = World::new(ROOMY).await;
    // A second replica over the same store, which the first one's bus does not reach.
    let parts = crate::replica::Parts {
        metrics: Default::default(),
        store: world.store.clone(),
        bus: std::sync::Arc::new(DeadBus(LocalBus::new())),
        prices: None,
        clock: world.clock.clone(),
        seed: 2,
        policy: crate::tape::compactor::Policy::default(),
        hub_bytes: ROOMY,
        hot_tick_limit: usize::MAX,
        chunk_cache_bytes: crate::query::CHUNK_CACHE_BYTES,
        header_cache_bytes: crate::tape::HEADER_CACHE_BYTES,
        bars_table: false,
    };
    let other = crate::replica::Replica::start(parts).await.unwrap();
    let mut session = other.live.get().subscribe(wish(Start::Live)).await.unwrap();
    event(&mut session).await;
    let mut world = world;
    tokio::time::sleep(Duration::from_millis(4_999)).await;
    let head = world.publish(&[("V", "A", 1); 2]).await;
    let mut seen = 0;
    loop {
        match event(&mut session).await {
            Event::Run(run) => seen += run.len(),
            Event::Progress { position, .. } => {
                assert_eq!((position, seen), (head.position, 2), "the head was read before the heartbeat");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_window_gathers_and_loses_nothing() {
    let mut world = World::new(ROOMY).await;
    let wish = Subscription { flush_window: Duration::from_millis(10), ..wish(Start::Live) };
    let mut session = world.subscribe(wish).await;
    event(&mut session).await;
    let begin = Instant::now();
    world.publish(&[("V", "A", 1)]).await;
    let reading = tokio::spawn(async move {
        let first = event(&mut session).await;
        let took = begin.elapsed();
        let rest: Vec<_> = std::iter::from_fn(|| session.ready()).map(|message| message.event).collect();
        (first, took, rest)
    });
    tokio::task::yield_now().await;
    world.publish(&[("V", "A", 2)]).await;
    world.publish(&[("V", "A", 3)]).await;
    let (first, took, rest) = reading.await.unwrap();
    assert!(matches!(first, Event::Run(_)), "{first:?}");
    assert!(matches!(rest[..], [Event::Run(_), Event::Run(_)]), "all are due together: {rest:?}");
    assert!(took >= Duration::from_millis(10) && took < Duration::from_millis(200), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_loses_nothing() {
    let mut world = World::new(TIGHT).await;
    let wish = Subscription {
        flush_window: Duration::from_millis(3),
        heartbeat: Duration::from_secs(1),
        message_ticks: 5,
        ..wish(Start::Live)
    };
    let mut session = world.subscribe(wish.clone()).await;
    let mut told = Told::default();
    let mut head = 0;
    for round in 0..300u64 {
        head = world.commit_anything().await.position;
        // Whoever polls gives up after moments of every length, also while the flush window runs.
        let patience = Duration::from_micros(round * 37 % 5_000);
        if let Ok(message) = tokio::time::timeout(patience, session.next()).await {
            told.take(message.unwrap());
        }
    }
    told.read_to(&mut session, head).await;
    assert_eq!(told.entries, world.expected(&wish, 0).await);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_ends_streams_with_their_cursor_at_once() {
    let mut world = World::new(ROOMY).await;
    let begin = world.publish(&[("V", "A", 1)]).await;
    let small = Subscription { message_ticks: 2, ..wish(Start::After(Cursor { position: 0, ..begin })) };
    let mut busy = world.subscribe(small).await;
    let mut idle = world.subscribe(wish(Start::Live)).await;
    world.publish(&[("V", "A", 1); 9]).await;
    event(&mut idle).await;
    read_to(&mut idle, 10).await;
    let told = read_to(&mut busy, 3).await;
    let waiting = tokio::spawn(async move { (idle.next().await.err(), idle.cursor()) });
    tokio::task::yield_now().await;
    world.replica.draining.cancel();
    let (error, cursor) = waiting.await.unwrap();
    assert!(matches!(error, Some(LiveError::ShuttingDown)));
    assert_eq!(cursor.unwrap().position, 10);
    assert!(matches!(busy.next().await, Err(LiveError::ShuttingDown)), "what is not sent yet waits for the next life");
    assert_eq!(busy.cursor(), told.cursor());
}

#[tokio::test(start_paused = true)]
async fn a_new_instrument_joins_a_running_stream() {
    let mut world = World::new(ROOMY).await;
    let exact = Subscription { selectors: vec![selector("", "LATER")], ..wish(Start::Live) };
    let mut sessions = [world.subscribe(exact).await, world.subscribe(wish(Start::Live)).await];
    let head = world.publish(&[("V", "OTHER", 1), ("V", "LATER", 1), ("W", "LATER", 1)]).await;
    for (session, count) in sessions.iter_mut().zip([2, 3]) {
        assert_eq!(read_to(session, head.position).await.entries.len(), count);
    }
}
