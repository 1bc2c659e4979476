//! What queries keep of chunks stays within its bytes, however much is read, and a scan holds what overlaps where it is.

use super::world::{World, at, tick};
use crate::domain::time::{NANOS_PER_DAY, NANOS_PER_SECOND};
use crate::domain::{Control, Correction, InstrumentId, TimeRange, TradeId};
use crate::query::ahead::AHEAD_CHUNKS;
use crate::query::{
    AverageMethod, AverageRequest, Extent, Held, Order, ReadRequest, Scan, Span, StatisticsRequest, TicksRequest,
};

/// Chunks, each of so many ticks.
const CHUNKS: i64 = 300;
const EACH: i64 = 400;

/// Bytes of both caches together: some of the chunks decoded, and some as stored.
const BYTES: u64 = 512 << 10;

fn check((decoded, stored): (Held, Held)) {
    for held in [decoded, stored] {
        assert!(held.bytes <= held.byte_limit && held.byte_limit <= BYTES / 2, "{held:?}");
        assert!(held.entries < CHUNKS as usize, "{held:?}");
    }
}

#[tokio::test]
async fn caches_of_chunks_are_bounded_by_bytes() {
    let mut world = World::with_cache(&[("A", "X")], 0, BYTES).await;
    // Numbers in which no codec finds anything, so that chunks take their room as stored, too.
    let noise =
        |n: i64| (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let price = |n: i64| format!("{}.{:02}", 100 + (noise(n) >> 40) % 1_000, (noise(n) >> 20) % 100);
    let quantity = |n: i64| format!("{}", 1 + (noise(n) >> 30) % 9_973);
    let ticks = (0..CHUNKS * EACH).map(|n| tick(0, n * NANOS_PER_SECOND / 10, &price(n), Some(&quantity(n))));
    world.append(ticks.collect()).await;
    world.cut(InstrumentId(1), (CHUNKS * EACH) as usize, EACH as usize).await;
    let view = world.publish().await;
    let query = world.query.clone();

    // Everything in pages, backward and forward: decoded chunks come and go.
    for order in [Order::Descending, Order::Ascending] {
        let extent = Extent { range: TimeRange::ALL, position: view.position(), order, after: None };
        let mut scan = Scan::new(&view, &[InstrumentId(1)], extent);
        let mut ticks = Vec::new();
        while scan.next(&query.chunks, 1_000).await.unwrap().is_some() {
            check(query.chunks.held());
        }
        scan.read(&query.chunks, 1, &mut ticks).await.unwrap();
        assert!(ticks.is_empty());
    }
    let (decoded, stored) = query.chunks.held();
    assert!(decoded.bytes > BYTES / 4 && stored.entries > 0, "what is asked again is kept: {decoded:?} {stored:?}");

    // Edges at every chunk: stored bytes come and go.
    for n in 0..CHUNKS {
        let start = at((n * EACH + EACH / 2) * NANOS_PER_SECOND / 10);
        let span = Span::Range(TimeRange::new(Some(start), None).unwrap());
        let (subject, method) = (world.one(0), AverageMethod::Mean);
        let average = AverageRequest { subject: subject.clone(), span, method, decimals: 9, min_cursor: None };
        assert_eq!(query.average(&average).await.unwrap().sums.count as i64, (CHUNKS - n) * EACH - EACH / 2);
        let statistics = StatisticsRequest { subject, span, min_cursor: None };
        assert_eq!(
            query.price_statistics(&statistics).await.unwrap().totals.count as i64,
            (CHUNKS - n) * EACH - EACH / 2
        );
        check(query.chunks.held());
    }

    // A reading in bulk leaves nothing behind.
    let before = query.chunks.held();
    let request =
        ReadRequest { subject: world.one(0), span: Span::Range(TimeRange::ALL), page_token: None, min_cursor: None };
    let mut reading = query.read(&request).await.unwrap();
    while reading.next().await.unwrap().is_some() {}
    let after = query.chunks.held();
    assert_eq!((before.0.entries, before.1.entries), (after.0.entries, after.1.entries));

    // A page that is pushed out is read again.
    let request = TicksRequest {
        subject: world.one(0),
        span: Span::Range(TimeRange::ALL),
        order: Order::Ascending,
        page_size: 3,
        page_token: None,
        min_cursor: None,
    };
    assert_eq!(query.ticks(&request).await.unwrap().ticks, world.ticks[..3]);
    check(query.chunks.held());
}

#[tokio::test]
async fn a_chunk_is_decoded_as_far_as_it_is_needed() {
    let mut world = World::new(&[("A", "X")], 0).await;
    world.append((0..EACH).map(|n| tick(0, n * NANOS_PER_SECOND, "1.5", Some("2"))).collect()).await;
    world.cut(InstrumentId(1), EACH as usize, EACH as usize).await;
    world.publish().await;
    let query = world.query.clone();
    let range = TimeRange::new(Some(at(NANOS_PER_SECOND)), None).unwrap();
    let statistics = StatisticsRequest { subject: world.one(0), span: Span::Range(range), min_cursor: None };
    let page = TicksRequest {
        subject: world.one(0),
        span: Span::Range(range),
        order: Order::Ascending,
        page_size: 3,
        page_token: None,
        min_cursor: None,
    };
    assert_eq!(query.price_statistics(&statistics).await.unwrap().totals.count as i64, EACH - 1);
    let points = query.chunks.held().0;
    assert_eq!(query.ticks(&page).await.unwrap().ticks, world.ticks[1..4]);
    let whole = query.chunks.held().0;
    assert!(points.entries == 1 && whole.entries == 1 && points.bytes < whole.bytes, "{points:?} {whole:?}");
    // The whole serves who needs less.
    assert_eq!(query.price_statistics(&statistics).await.unwrap().totals.count as i64, EACH - 1);
    assert_eq!(query.chunks.held().0.bytes, whole.bytes);
}

/// The whole of a subject from a world whose chunks each lie in a minute of their own, in a scan that may decode `most`
/// chunks for its first tick.
async fn check_first(world: &World, instruments: &[InstrumentId], order: Order, most: usize) {
    let view = world.publish().await;
    let chunks = world.query.chunks();
    let extent = Extent { range: TimeRange::ALL, position: view.position(), order, after: None };
    let mut scan = Scan::new(&view, instruments, extent);
    let before = chunks.held().0.entries;
    let mut found = Vec::new();
    scan.read(chunks, 1, &mut found).await.unwrap();
    let decoded = chunks.held().0.entries - before;
    assert!(decoded <= most, "{decoded} of {} chunks were decoded for one tick", view.chunks());
    scan.read(chunks, usize::MAX, &mut found).await.unwrap();
    let mut expected = world.ticks.clone();
    expected.sort_by_key(|tick| tick.key());
    if order == Order::Descending {
        expected.reverse();
    }
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_scan_holds_only_late_chunks_that_overlap_where_it_is() {
    for order in [Order::Ascending, Order::Descending] {
        let mut world = World::with_cache(&[("A", "X")], 0, 64 << 20).await;
        let minute = |number: i64| 60 * number * NANOS_PER_SECOND;
        // Trading began before a part of its day was filled in, minute by minute.
        for number in std::iter::once(1_000).chain(0..100) {
            let ticks = (0..10).map(|n| tick(0, minute(number) + n, "100", None));
            world.append(ticks.collect()).await;
            world.cut(InstrumentId(1), 10, 10).await;
        }
        check_first(&world, &[InstrumentId(1)], order, 1).await;
    }
}

#[tokio::test]
async fn corrections_outside_a_range_cost_nothing_inside() {
    let mut world = World::with_cache(&[("A", "X")], 0, 64 << 20).await;
    let ticks = (0..1_000).map(|n| tick(0, n * NANOS_PER_SECOND, "100", None));
    world.append(ticks.collect()).await;
    world.cut(InstrumentId(1), 1_000, 10).await;
    // A trade of each chunk is taken back.
    for event_time in (0..100).map(|number| at(10 * number * NANOS_PER_SECOND)) {
        let trade_id = TradeId::Number(event_time.nanos() as u64);
        let correction =
            Correction { instrument: InstrumentId(1), trade_id, event_time, receive_time: event_time, values: None };
        world.tell(Control::Correction(correction)).await;
    }
    world.publish().await;
    let range = TimeRange::new(Some(at(505 * NANOS_PER_SECOND)), Some(at(525 * NANOS_PER_SECOND))).unwrap();
    let (subject, span) = (world.one(0), Span::Range(range));
    let request = TicksRequest {
        subject: subject.clone(),
        span,
        order: Order::Ascending,
        page_size: 1_000,
        page_token: None,
        min_cursor: None,
    };
    assert_eq!(world.query.ticks(&request).await.unwrap().ticks.len(), 18);
    let request = StatisticsRequest { subject, span, min_cursor: None };
    assert_eq!(world.query.price_statistics(&request).await.unwrap().totals.count, 18);
    assert_eq!(world.query.chunks().held().0.entries, 3, "chunks are decoded that lie in the range");
}

#[tokio::test]
async fn a_scan_over_venues_holds_chunks_of_those_whose_turn_it_is() {
    let venues: Vec<String> = (0..100).map(|number| format!("V{number}")).collect();
    let names: Vec<(&str, &str)> = venues.iter().map(|venue| (venue.as_str(), "X")).collect();
    let ids: Vec<InstrumentId> = (1..=100).map(InstrumentId).collect();
    for order in [Order::Ascending, Order::Descending] {
        let mut world = World::with_cache(&names, 0, 64 << 20).await;
        for (index, &id) in ids.iter().enumerate() {
            let day = index as i64 * NANOS_PER_DAY;
            world.append((0..10).map(|n| tick(index, day + n, "100", None)).collect()).await;
            world.cut(id, 10, 10).await;
        }
        check_first(&world, &ids, order, 1).await;
    }
}

#[tokio::test]
async fn what_a_scan_reads_ahead_is_bounded_for_all_its_venues() {
    for venues in [1, 3, AHEAD_CHUNKS + 8] {
        let venues: Vec<String> = (0..venues).map(|number| format!("V{number}")).collect();
        let names: Vec<(&str, &str)> = venues.iter().map(|venue| (venue.as_str(), "X")).collect();
        let ids: Vec<InstrumentId> = (1..=venues.len() as u32).map(InstrumentId).collect();
        let mut world = World::with_cache(&names, 0, 64 << 20).await;
        // All trade at the same time, and fill a chunk each minute.
        for (index, &id) in ids.iter().enumerate() {
            let time = |n: i64| n / 10 * 60 * NANOS_PER_SECOND + n;
            world.append((0..500).map(|n| tick(index, time(n), "100", None)).collect()).await;
            world.cut(id, 500, 10).await;
        }
        let view = world.publish().await;
        let extent = Extent { range: TimeRange::ALL, position: view.position(), order: Order::Ascending, after: None };
        let mut scan = Scan::new(&view, &ids, extent).in_bulk();
        let (mut found, mut most) = (Vec::new(), 0);
        while found.len() < world.ticks.len() {
            let before = found.len();
            scan.read(world.query.chunks(), before + 5, &mut found).await.unwrap();
            assert!(found.len() > before);
            most = most.max(scan.ahead.as_ref().unwrap().held.len());
        }
        assert!(most > AHEAD_CHUNKS / 2 && most <= AHEAD_CHUNKS, "{most} chunks were held for {} venues", ids.len());
    }
}
