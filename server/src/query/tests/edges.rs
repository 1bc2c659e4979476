//! Named cases of single calls.

use std::time::Duration;

use super::world::{World, at, tick};
use crate::domain::time::NANOS_PER_SECOND;
use crate::domain::{Cursor, Epoch, InstrumentId, Symbol, TimeRange, Venue, ratio};
use crate::query::{
    Average, AverageError, AverageMethod, AverageRequest, InstrumentError, LatestError, Selector, Span,
    StatisticsError, StatisticsRequest, Subject, TicksError, TicksRequest, ViewError,
};
use crate::store::{Store, StoreError};

const NAMES: [(&str, &str); 3] = [("A", "X"), ("B", "X"), ("A", "Y")];

fn seconds(start: Option<i64>, end: Option<i64>) -> Span {
    let bound = |seconds: Option<i64>| seconds.map(|seconds| at(seconds * NANOS_PER_SECOND));
    Span::Range(TimeRange::new(bound(start), bound(end)).unwrap())
}

/// Three ticks of A X at seconds 10, 20 and 40; nothing else.
async fn three_ticks() -> World {
    let mut world = World::new(&NAMES, 100 * NANOS_PER_SECOND).await;
    let ticks = [(10, "100", None), (20, "200", Some("0")), (40, "50", None)];
    let ticks = ticks.map(|(second, price, quantity)| tick(0, second * NANOS_PER_SECOND, price, quantity));
    world.append(ticks.into()).await;
    world.publish().await;
    world
}

async fn average(world: &World, subject: Subject, method: AverageMethod, span: Span) -> Result<Average, AverageError> {
    let request = AverageRequest { subject, span, method, decimals: 3, min_cursor: None };
    world.query.average(&request).await
}

#[tokio::test]
async fn time_weights_end_where_the_definition_says() {
    let mut world = three_ticks().await;
    let period = |seconds| Span::Period(Duration::from_secs(seconds));
    let all = seconds(None, None);
    // Name, now, span; then price, ticks, seconds of weight, price times seconds.
    type Expected = Option<(&'static str, u64, u64, &'static str)>;
    let cases: [(&str, i64, Span, Expected); 13] = [
        ("to the last tick", 100, all, Some(("166.667", 3, 30, "5000"))),
        ("an end after the last tick", 100, seconds(None, Some(60)), Some(("120", 3, 50, "6000"))),
        ("an end after now", 100, seconds(None, Some(500)), Some(("88.889", 3, 90, "8000"))),
        ("now before the last tick", 30, seconds(None, Some(500)), Some(("150", 3, 20, "3000"))),
        ("now before every tick", 5, all, Some(("50", 3, 0, "0"))),
        ("a price carried in", 100, seconds(Some(15), Some(30)), Some(("166.667", 1, 15, "2500"))),
        ("only a price carried in", 100, seconds(Some(50), Some(60)), None),
        ("a start on a tick", 100, seconds(Some(20), Some(40)), Some(("200", 1, 20, "4000"))),
        ("no time after the last tick", 100, seconds(Some(40), None), Some(("50", 1, 0, "0"))),
        ("a start after everything", 100, seconds(Some(60), None), None),
        ("a period", 45, period(30), Some(("158.333", 2, 30, "4750"))),
        ("before the first tick", 100, seconds(Some(0), Some(10)), None),
        ("an empty range", 100, seconds(Some(20), Some(20)), None),
    ];
    for compacted in [0, 2, 3] {
        world.cut(InstrumentId(1), compacted, 2).await;
        world.publish().await;
        for (name, now, span, expected) in &cases {
            world.set_now(now * NANOS_PER_SECOND);
            let found = average(&world, world.one(0), AverageMethod::TimeWeighted, *span).await;
            match (found, expected) {
                (Ok(found), Some((price, count, weight, sum))) => {
                    let weighted = found.time_weighted.unwrap();
                    assert_eq!(found.price, *price, "{name}");
                    assert_eq!(found.sums.count, *count, "{name}");
                    assert_eq!(weighted.weight, weight * NANOS_PER_SECOND as u64, "{name}");
                    assert_eq!(ratio::fixed_point(weighted.sum, 27), *sum, "{name}");
                    assert_eq!(found.now, at(now * NANOS_PER_SECOND), "{name}");
                }
                (Err(AverageError::NoData { .. }), None) => {}
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }
}

#[tokio::test]
async fn averages_without_data_say_what_is_missing() {
    use AverageMethod::{Mean, TimeWeighted, VolumeWeighted};
    let world = three_ticks().await;
    let all = seconds(None, None);
    let cases = [
        (world.one(0), VolumeWeighted, "X on A has nothing to average: no tick in the range has a quantity above zero"),
        (world.one(1), Mean, "X on B has nothing to average: no tick lies in the range"),
        (world.one(2), TimeWeighted, "Y on A has nothing to average: no tick lies in the range"),
        (
            world.pooled(0),
            TimeWeighted,
            "a time-weighted average is over one instrument, and 2 venues have the symbol: name one",
        ),
    ];
    for (subject, method, expected) in cases {
        let error = average(&world, subject, method, all).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let pooled = average(&world, world.pooled(0), Mean, all).await.unwrap();
    assert_eq!(pooled.price, "116.667");
    // The only venue of a symbol need not be named.
    let alone = average(&world, world.pooled(2), TimeWeighted, all).await.unwrap_err();
    assert!(matches!(alone, AverageError::NoData { .. }));
}

#[tokio::test]
async fn a_range_without_ticks_has_empty_statistics() {
    let world = three_ticks().await;
    let request = StatisticsRequest { subject: world.pooled(0), span: seconds(Some(50), None), min_cursor: None };
    let found = world.query.price_statistics(&request).await.unwrap();
    assert_eq!(found.totals, Default::default());
    assert!(found.owners.first.is_none() && found.owners.high.is_none());
    assert_eq!(found.as_of.position, 3);
}

#[tokio::test]
async fn unknown_instruments_are_named_and_new_ones_found() {
    let world = three_ticks().await;
    let (venue, symbol) = (Venue::new("C").unwrap(), Symbol::new("Z").unwrap());
    let subject = Subject { venue: Some(venue.clone()), symbol: symbol.clone() };
    let all = seconds(None, None);
    let unknown = average(&world, subject.clone(), AverageMethod::Mean, all).await;
    assert_eq!(unknown.unwrap_err().to_string(), "no instrument Z on C is known");
    let facts = world.query.instrument(venue.clone(), symbol.clone(), None).await;
    assert!(matches!(facts, Err(InstrumentError::InstrumentUnknown(_))));
    let selectors =
        [Selector { venue: None, symbol: Some(symbol.clone()) }, Selector { venue: Some(venue.clone()), symbol: None }];
    let latest = world.query.latest(&selectors, None).await;
    assert!(matches!(latest, Err(LatestError::InstrumentUnknown(_))));
    let nothing = world.query.latest(&selectors[1..], None).await.unwrap();
    assert!(nothing.latest.is_empty() && nothing.without_data.is_empty());

    // Another replica registers it: this one asks the store before it says unknown.
    world.store.register(&[(venue.clone(), symbol.clone())]).await.unwrap();
    let known = average(&world, subject, AverageMethod::Mean, all).await;
    assert!(matches!(known, Err(AverageError::NoData { .. })));
    let (facts, _) = world.query.instrument(venue, symbol, None).await.unwrap();
    assert_eq!((facts.tick_count, facts.first), (0, None));
}

#[tokio::test]
async fn the_newest_ticks_come_once_in_the_order_of_the_selectors() {
    let mut world = World::new(&[("B", "X"), ("A", "X"), ("A", "Y"), ("A", "Z")], 0).await;
    // The newest by event time is not the newest of the log.
    world.append(vec![tick(0, 9, "1", None), tick(1, 5, "2", None), tick(2, 7, "3", None)]).await;
    world.append(vec![tick(0, 3, "4", None), tick(1, 5, "5", None)]).await;
    for cut in [0, 1, 1] {
        world.cut(InstrumentId(1), cut, 1).await;
        world.cut(InstrumentId(2), cut, 1).await;
        world.publish().await;
        let select = |venue: Option<&str>, symbol: Option<&str>| Selector {
            venue: venue.map(|venue| Venue::new(venue).unwrap()),
            symbol: symbol.map(|symbol| Symbol::new(symbol).unwrap()),
        };
        let selectors = [
            select(None, Some("Y")),
            select(Some("A"), Some("Z")),
            select(None, Some("X")),
            select(Some("A"), None),
            select(None, Some("Y")),
        ];
        let found = world.query.latest(&selectors, None).await.unwrap();
        let ticks: Vec<_> = found.latest.iter().map(|latest| latest.tick.log_seq).collect();
        assert_eq!(ticks, [3, 5, 1]);
        let owners = found.latest.iter().map(|latest| latest.instrument.id == latest.tick.instrument);
        assert!(owners.into_iter().all(|own| own));
        assert_eq!(found.without_data, [1]);
    }
}

#[tokio::test]
async fn calls_wait_for_the_cursor_they_must_include() {
    let mut world = three_ticks().await;
    let cursor = |epoch, position| Cursor { epoch: Epoch(epoch), position };
    let request = |min_cursor| StatisticsRequest {
        subject: world.one(0),
        span: seconds(None, None),
        min_cursor: Some(min_cursor),
    };
    let (foreign, seen, coming) = (request(cursor(78, 1)), request(cursor(77, 3)), request(cursor(77, 4)));
    let refused = world.query.price_statistics(&foreign).await;
    let current = cursor(77, 3);
    assert!(matches!(
        refused,
        Err(StatisticsError::View(ViewError::EpochChanged { current: found, fork: None })) if found == current
    ));
    assert_eq!(world.query.price_statistics(&seen).await.unwrap().totals.count, 3);

    world.append(vec![tick(0, 1, "1", None)]).await;
    let early = tokio::time::timeout(Duration::from_millis(20), world.query.price_statistics(&coming));
    assert!(early.await.is_err(), "the view has not come yet");
    let (found, _) = tokio::join!(world.query.price_statistics(&coming), world.publish());
    assert_eq!(found.unwrap().totals.count, 4);

    let waiting = request_after(&world, 5);
    let query = world.stop();
    let stopped = query.price_statistics(&waiting).await;
    assert!(matches!(stopped, Err(StatisticsError::View(ViewError::Stopping))));
}

fn request_after(world: &World, position: u64) -> StatisticsRequest {
    StatisticsRequest {
        subject: world.one(0),
        span: seconds(None, None),
        min_cursor: Some(Cursor { epoch: Epoch(77), position }),
    }
}

#[tokio::test]
async fn a_chunk_that_went_away_is_found_again_in_a_newer_view() {
    // Without a cache every call reads the store.
    let mut world = World::with_cache(&NAMES, 100 * NANOS_PER_SECOND, 0).await;
    let ticks = (0..40).map(|second| tick(0, second * NANOS_PER_SECOND, "7", None));
    world.append(ticks.collect()).await;
    world.cut(InstrumentId(1), 40, 5).await;
    world.publish().await;
    world.tidy(InstrumentId(1), 7).await;
    assert!(world.sweep().await > 0);

    let page = TicksRequest {
        subject: world.one(0),
        span: seconds(None, None),
        order: crate::query::Order::Ascending,
        page_size: 100,
        page_token: None,
        min_cursor: None,
    };
    let lagging = world.query.ticks(&page).await;
    assert!(matches!(&lagging, Err(TicksError::Store(StoreError::Unavailable(_)))), "{lagging:?}");
    let late = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.publish().await
    };
    let edge = average(&world, world.one(0), AverageMethod::TimeWeighted, seconds(Some(3), Some(33)));
    let (venue, symbol) = (Venue::new("A").unwrap(), Symbol::new("X").unwrap());
    let x = [Selector { venue: None, symbol: Some(symbol.clone()) }];
    let (ticks, edge, facts, latest, _) = tokio::join!(
        world.query.ticks(&page),
        edge,
        world.query.instrument(venue, symbol, None),
        world.query.latest(&x, None),
        late
    );
    assert_eq!(ticks.unwrap().ticks, world.ticks);
    assert_eq!(edge.unwrap().sums.count, 30);
    assert_eq!(facts.unwrap().0.last.as_ref(), world.ticks.last());
    assert_eq!(latest.unwrap().latest[0].tick, world.ticks[39]);
}
