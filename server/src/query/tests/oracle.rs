//! Random ticks, split at random, asked at random: every answer equals the oracle's.

use num_bigint::BigInt;
use proptest::prelude::*;

use super::naive;
use super::world::{World, at, tick};
use crate::domain::statistics::{PricePoint, Sums, Totals};
use crate::domain::time::NANOS_PER_DAY;
use crate::domain::{InstrumentId, Tick, TimeRange, UnixNanos};
use crate::query::average::{TimeWeighted, weigh};
use crate::query::integral::Ticks;
use crate::query::keys::Key;
use crate::query::totals::{Reach, totals};
use crate::query::{
    AverageError, AverageMethod, AverageRequest, Extent, InstrumentsRequest, Order, Scan, Selector, Span,
    StatisticsRequest, Subject, TicksRequest,
};
use crate::tape::View;

pub(super) const NAMES: [(&str, &str); 3] = [("A", "X"), ("B", "X"), ("A", "Y")];

const PRICES: [&str; 8] =
    ["100.25", "100.5", "100", "0", "-3.75", "0.000000000000000001", "999999999999999", "-61234.567"];

const QUANTITIES: [Option<&str>; 6] =
    [None, Some("0"), Some("1"), Some("0.5"), Some("0.000000000000000001"), Some("123456789012345")];

/// An instant on a coarse grid of three days, so that many ticks share one.
pub(super) fn any_instant() -> impl Strategy<Value = i64> {
    (0i64..3, 0i64..9).prop_map(|(day, slot)| (19_000 + day) * NANOS_PER_DAY + slot * (NANOS_PER_DAY / 9))
}

/// An instant on the grid or beside it.
fn any_bound() -> impl Strategy<Value = Option<i64>> {
    let near = (any_instant(), -1i64..=1).prop_map(|(instant, beside)| instant + beside);
    prop_oneof![1 => Just(None), 3 => near.prop_map(Some)]
}

pub(super) fn any_range() -> impl Strategy<Value = TimeRange> {
    (any_bound(), any_bound()).prop_map(|(a, b)| {
        let (start, end) = match (a, b) {
            (Some(a), Some(b)) => (Some(a.min(b)), Some(a.max(b))),
            open => open,
        };
        TimeRange::new(start.map(at), end.map(at)).unwrap()
    })
}

fn any_tick() -> impl Strategy<Value = Tick> {
    let price = proptest::sample::select(&PRICES[..]);
    let quantity = proptest::sample::select(&QUANTITIES[..]);
    (0usize..3, any_instant(), price, quantity)
        .prop_map(|(index, time, price, quantity)| tick(index, time, price, quantity))
}

/// Ticks mostly in the order of time, some late.
pub(super) fn any_ticks() -> impl Strategy<Value = Vec<Tick>> {
    let swaps = prop::collection::vec((0usize..60, 0usize..60), 0..6);
    let ticks = prop::collection::vec(any_tick(), 0..60);
    (ticks, swaps, prop::bool::weighted(0.8)).prop_map(|(mut ticks, swaps, sorted)| {
        if sorted {
            ticks.sort_by_key(|tick| tick.event_time);
        }
        for (a, b) in swaps {
            if a < ticks.len() && b < ticks.len() {
                ticks.swap(a, b);
            }
        }
        ticks
    })
}

/// One move of the compactor.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The nth instrument, how many ticks, and how many to a chunk.
    Cut(usize, usize, usize),
    Tidy(usize, usize),
}

pub(super) fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let cut = (0usize..3, 1usize..20, 1usize..8).prop_map(|(i, take, most)| Step::Cut(i, take, most));
    let tidy = (0usize..3, 1usize..8).prop_map(|(i, most)| Step::Tidy(i, most));
    prop::collection::vec(prop_oneof![5 => cut, 1 => tidy], 0..10)
}

pub(super) async fn take(world: &mut World, steps: &[Step]) {
    for step in steps {
        match *step {
            Step::Cut(index, ticks, most) => {
                world.cut(InstrumentId(index as u32 + 1), ticks, most).await;
            }
            Step::Tidy(index, most) => world.tidy(InstrumentId(index as u32 + 1), most).await,
        }
    }
}

/// One instrument, another, and the pool of both.
pub(super) fn subjects(world: &World) -> [Subject; 3] {
    [world.one(0), world.one(2), world.pooled(0)]
}

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(future)
}

fn check_sums(sums: &Sums, expected: &[Tick]) {
    assert_eq!(sums.count, expected.len() as u64);
    assert_eq!(naive::big(sums.price_sum), naive::price_sum(expected));
    let (count, volume, notional) = naive::volume(expected);
    assert_eq!(sums.volume_count, count);
    assert_eq!(naive::big(sums.volume), volume);
    assert_eq!(naive::big(sums.notional), notional);
}

pub(super) fn check_totals(totals: &Totals, expected: &[Tick]) {
    let point = |tick: Option<&Tick>| tick.map(PricePoint::of);
    let decimals = |tick: &Tick| tick.price.decimals();
    let quantity_decimals = |tick: &Tick| tick.quantity.map_or(0, |quantity| quantity.decimals());
    let most = |decimals: fn(&Tick) -> u8| expected.iter().map(decimals).max().unwrap_or(0);
    assert_eq!(totals.price_decimals, most(decimals));
    assert_eq!(totals.quantity_decimals, most(quantity_decimals));
    check_sums(&Sums::from(totals), expected);
    assert_eq!(totals.first, point(expected.first()));
    assert_eq!(totals.last, point(expected.last()));
    // min_by_key takes the first of equals, and the ticks are in order.
    let high = expected.iter().min_by_key(|tick| std::cmp::Reverse(tick.price));
    assert_eq!(totals.low, point(expected.iter().min_by_key(|tick| tick.price)));
    assert_eq!(totals.high, point(high));
}

async fn check_parts(world: &World, view: &View, position: u64, range: TimeRange, now: UnixNanos) {
    let chunks = &world.query.chunks;
    for subject in subjects(world) {
        let ids = world.ids(&subject);
        let known = naive::known(&world.ticks, &ids, position);
        let expected = naive::inside(&known, range);
        let parts = totals(chunks, view, &ids, Reach { range, position }).await;
        let whole = crate::query::statistics::sum(&parts.unwrap());
        check_totals(&whole, &expected);

        let ([id], Some(holding)) = (ids.as_slice(), view.holding(ids[0])) else {
            continue;
        };
        let current = position >= view.position();
        let ticks = Ticks { chunks, instrument: *id, holding, position, current };
        let weighted = weigh(ticks, &whole, range, now).await.unwrap();
        let weighted = weighted.map(|found| {
            let TimeWeighted { weight, sum } = found.weighted;
            (BigInt::from(weight), naive::big(sum), found.last.price)
        });
        assert_eq!(weighted, naive::time_weighted(&known, range, now));
    }
}

async fn check_scans(world: &World, view: &View, (extent, most): (Extent, usize)) {
    for subject in subjects(world) {
        let ids = world.ids(&subject);
        let known = naive::known(&world.ticks, &ids, extent.position);
        let mut expected = naive::inside(&known, extent.range);
        if extent.order == Order::Descending {
            expected.reverse();
        }
        expected.retain(|tick| {
            extent.after.is_none_or(|after| match extent.order {
                Order::Ascending => tick.key() > after,
                Order::Descending => tick.key() < after,
            })
        });
        let mut found = Vec::new();
        let mut scan = Scan::new(view, &ids, extent);
        loop {
            let mut batch = Vec::new();
            scan.read(&world.query.chunks, most, &mut batch).await.unwrap();
            let ended = batch.len() < most;
            found.append(&mut batch);
            if ended {
                break;
            }
            // Every other batch begins anew from what the scan remembers.
            if found.len() / most % 2 == 0 {
                scan = scan.resume(view, &ids);
            }
        }
        assert_eq!(found, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn sums_at_any_position_are_those_of_the_raw_ticks(
        ticks in any_ticks(),
        steps in any_steps(),
        position in 0.0..1.01f64,
        range in any_range(),
        now in any_instant(),
    ) {
        run(async {
            let mut world = World::new(&NAMES, now).await;
            world.append(ticks).await;
            take(&mut world, &steps).await;
            let view = world.publish().await;
            let position = (view.position() as f64 * position) as u64;
            check_parts(&world, &view, position, range, at(now)).await;
        });
    }

    #[test]
    fn scans_at_any_position_give_the_raw_ticks_in_order(
        ticks in any_ticks(),
        steps in any_steps(),
        position in 0.0..1.01f64,
        range in any_range(),
        descending: bool,
        after in prop::option::of((any_instant(), 0u64..60)),
        most in 1usize..20,
    ) {
        run(async {
            let mut world = World::new(&NAMES, 0).await;
            world.append(ticks).await;
            take(&mut world, &steps).await;
            let view = world.publish().await;
            let position = (view.position() as f64 * position) as u64;
            let order = if descending { Order::Descending } else { Order::Ascending };
            let after: Option<Key> = after.map(|(time, seq)| (at(time), seq));
            check_scans(&world, &view, (Extent { range, position, order, after }, most)).await;
        });
    }

    #[test]
    fn calls_answer_as_the_definitions_say(
        ticks in any_ticks(),
        steps in any_steps(),
        range in any_range(),
        now in any_instant(),
        decimals in 0u8..=36,
    ) {
        run(async {
            let mut world = World::new(&NAMES, now).await;
            world.append(ticks).await;
            take(&mut world, &steps).await;
            world.publish().await;
            for subject in subjects(&world) {
                check_averages(&world, &subject, range, now, decimals).await;
                check_statistics(&world, &subject, range).await;
            }
            check_latest(&world).await;
        });
    }

    #[test]
    fn walks_keep_their_position_while_the_log_and_the_chunks_change(
        before in any_ticks(),
        after in any_ticks(),
        steps in any_steps(),
        later in any_steps(),
        range in any_range(),
        descending: bool,
        page_size in 1usize..30,
    ) {
        run(async {
            let mut world = World::new(&NAMES, 0).await;
            world.append(before).await;
            take(&mut world, &steps).await;
            world.publish().await;
            check_walk(&mut world, (range, descending, page_size), after, &later).await;
        });
    }
}

async fn check_averages(world: &World, subject: &Subject, range: TimeRange, now: i64, decimals: u8) {
    let ids = world.ids(subject);
    let known = naive::known(&world.ticks, &ids, u64::MAX);
    let ticks = naive::inside(&known, range);
    let (_, volume, notional) = naive::volume(&ticks);
    let digits = u32::from(decimals);
    for method in [AverageMethod::Mean, AverageMethod::VolumeWeighted, AverageMethod::TimeWeighted] {
        let expected = match method {
            AverageMethod::Mean => (!ticks.is_empty()).then(|| {
                let count = BigInt::from(ticks.len());
                naive::quotient(&naive::price_sum(&ticks), &count, 18, digits)
            }),
            AverageMethod::VolumeWeighted => {
                (volume != BigInt::ZERO).then(|| naive::quotient(&notional, &volume, 18, digits))
            }
            AverageMethod::TimeWeighted => {
                let weighted = naive::time_weighted(&known, range, at(now));
                weighted.map(|(weight, sum, last)| {
                    if weight == BigInt::ZERO {
                        naive::quotient(&naive::units(last), &BigInt::from(1), 18, digits)
                    } else {
                        naive::quotient(&sum, &weight, 18, digits)
                    }
                })
            }
        };
        let request =
            AverageRequest { subject: subject.clone(), span: Span::Range(range), method, decimals, min_cursor: None };
        match world.query.average(&request).await {
            Ok(average) => {
                assert_eq!(Some(average.price), expected, "{method:?}");
                check_sums(&average.sums, &ticks);
                assert_eq!(average.first_event_time, ticks.first().map(|tick| tick.event_time));
                assert_eq!(average.last_event_time, ticks.last().map(|tick| tick.event_time));
            }
            Err(AverageError::NoData { .. }) => assert_eq!(None, expected, "{method:?}"),
            Err(AverageError::SeveralVenues(2)) => {
                assert_eq!((method, ids.len()), (AverageMethod::TimeWeighted, 2));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn check_statistics(world: &World, subject: &Subject, range: TimeRange) {
    let known = naive::known(&world.ticks, &world.ids(subject), u64::MAX);
    let request = StatisticsRequest { subject: subject.clone(), span: Span::Range(range), min_cursor: None };
    let found = world.query.price_statistics(&request).await.unwrap();
    check_totals(&found.totals, &naive::inside(&known, range));
    for (point, owner) in [
        (found.totals.first, found.owners.first),
        (found.totals.last, found.owners.last),
        (found.totals.low, found.owners.low),
        (found.totals.high, found.owners.high),
    ] {
        let tick = point.map(|point| &world.ticks[point.log_seq as usize - 1]);
        assert_eq!(tick.map(|tick| tick.instrument), owner.map(|owner| owner.id));
    }
}

async fn check_latest(world: &World) {
    let all = Selector { venue: None, symbol: None };
    let found = world.query.latest(&[all], None).await.unwrap();
    let mut expected: Vec<Tick> = Vec::new();
    // By venue, then symbol: A X, A Y, B X.
    for id in [1, 3, 2] {
        expected.extend(naive::known(&world.ticks, &[InstrumentId(id)], u64::MAX).pop());
    }
    let ticks: Vec<Tick> = found.latest.into_iter().map(|latest| latest.tick).collect();
    assert_eq!(ticks, expected);
}

async fn check_walk(
    world: &mut World,
    (range, descending, page_size): (TimeRange, bool, usize),
    mut coming: Vec<Tick>,
    steps: &[Step],
) {
    let mut subjects = subjects(world).map(|subject| {
        let known = naive::known(&world.ticks, &world.ids(&subject), u64::MAX);
        let mut expected = naive::inside(&known, range);
        if descending {
            expected.reverse();
        }
        (subject, expected, Vec::new(), None::<String>, false)
    });
    let facts: Vec<_> = [1, 3, 2].map(|id| naive::known(&world.ticks, &[InstrumentId(id)], u64::MAX)).into();
    let (mut instruments, mut instruments_token) = (Vec::new(), None::<String>);
    let mut steps = steps.iter();
    for round in 0.. {
        for (subject, _, found, token, ended) in &mut subjects {
            if *ended {
                continue;
            }
            let order = if descending { Order::Descending } else { Order::Ascending };
            let request = TicksRequest {
                subject: subject.clone(),
                span: Span::Range(range),
                order,
                page_size,
                page_token: token.take(),
                min_cursor: None,
            };
            let page = world.query.ticks(&request).await.unwrap();
            assert!(page.ticks.len() == page_size || page.next_page_token.is_none());
            found.extend(page.ticks);
            *token = page.next_page_token;
            *ended = token.is_none();
        }
        if round == 0 || instruments_token.is_some() {
            let request = InstrumentsRequest {
                selector: Selector { venue: None, symbol: None },
                page_size: 1,
                page_token: instruments_token.take(),
                min_cursor: None,
            };
            let page = world.query.list_instruments(&request).await.unwrap();
            instruments.extend(page.instruments);
            instruments_token = page.next_page_token;
        }
        if subjects.iter().all(|(.., ended)| *ended) && instruments_token.is_none() {
            break;
        }
        // Between pages: new ticks, compaction, merged days, and the old chunks' bytes are gone.
        let rest = coming.split_off(coming.len().min(7));
        world.append(std::mem::replace(&mut coming, rest)).await;
        if let Some(step) = steps.next() {
            take(world, std::slice::from_ref(step)).await;
        }
        world.publish().await;
        world.sweep().await;
    }
    for (_, expected, found, ..) in subjects {
        assert_eq!(found, expected);
    }
    assert_eq!(instruments.len(), 3);
    for (found, known) in instruments.iter().zip(facts) {
        assert_eq!(found.tick_count, known.len() as u64);
        assert_eq!(found.first.as_ref(), known.first());
        assert_eq!(found.last.as_ref(), known.last());
    }
}
