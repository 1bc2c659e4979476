//! Moving averages against the definitions in big integers.

use std::time::Duration;

use num_bigint::{BigInt, Sign};
use proptest::prelude::*;

use super::naive;
use super::oracle::{NAMES, any_range, any_steps, any_ticks, run, subjects, take};
use super::world::{World, at, tick};
use crate::domain::bar::Interval;
use crate::domain::{Decimal, TimeRange, UnixNanos};
use crate::query::{MovingMethod, MovingPoint, MovingRequest, Span, Subject};

/// `numerator / denominator` rounded half-even; the denominator is positive.
fn rounded(numerator: &BigInt, denominator: &BigInt) -> BigInt {
    let magnitude = BigInt::from(numerator.magnitude().clone());
    let mut quotient: BigInt = &magnitude / denominator;
    let twice: BigInt = (&magnitude - &quotient * denominator) * 2;
    if twice > *denominator || (twice == *denominator && &quotient % 2 == BigInt::from(1)) {
        quotient += 1;
    }
    if numerator.sign() == Sign::Minus { -quotient } else { quotient }
}

/// Averages of prices with times and positions, from the first one inside on.
fn averaged(
    prices: &[(UnixNanos, u64, Decimal)],
    first: usize,
    (method, window): (MovingMethod, usize),
    decimals: u8,
) -> Vec<MovingPoint> {
    let mut points = Vec::new();
    let mut before: Option<BigInt> = None;
    for index in first..prices.len() {
        let (end, log_seq, price) = prices[index];
        if index + 1 < window {
            continue;
        }
        let last = &prices[index + 1 - window..=index];
        let sum: BigInt = last.iter().map(|(.., price)| naive::units(*price)).sum();
        let fine = BigInt::from(10).pow(18);
        let average = match (method, before.take()) {
            (MovingMethod::Simple, _) => naive::quotient(&sum, &BigInt::from(window), 18, decimals.into()),
            (MovingMethod::Exponential, None) => {
                before = Some(rounded(&(&sum * &fine), &BigInt::from(window)));
                naive::quotient(&sum, &BigInt::from(window), 18, decimals.into())
            }
            (MovingMethod::Exponential, Some(average)) => {
                let weighed = average * (window - 1) + naive::units(price) * fine * 2;
                let next = rounded(&weighed, &BigInt::from(window + 1));
                let text = naive::quotient(&next, &BigInt::from(1), 36, decimals.into());
                before = Some(next);
                text
            }
        };
        points.push(MovingPoint { end, log_seq, average, price });
    }
    points
}

/// Ticks or final bars of a subject, as prices; and where the range begins among them and ends.
fn prices(
    world: &World,
    subject: &Subject,
    range: TimeRange,
    bars: Option<Interval>,
) -> (Vec<(UnixNanos, u64, Decimal)>, usize) {
    let ticks = naive::known(&world.ticks, &world.ids(subject), u64::MAX);
    let before_end = |time: UnixNanos| range.end().is_none_or(|end| time < end);
    let before_start = |time: UnixNanos| range.start().is_some_and(|start| time < start);
    let Some(interval) = bars else {
        let all: Vec<_> = ticks.iter().filter(|tick| before_end(tick.event_time)).collect();
        let first = all.iter().filter(|tick| before_start(tick.event_time)).count();
        return (all.into_iter().map(|tick| (tick.event_time, tick.log_seq, tick.price)).collect(), first);
    };
    let venues: Vec<&str> = ticks.iter().map(|tick| NAMES[tick.instrument.0 as usize - 1].0).collect();
    let newest = world.ticks.iter().filter(|tick| venues.contains(&NAMES[tick.instrument.0 as usize - 1].0));
    let reached = newest.map(|tick| tick.event_time).max().unwrap_or(at(0)).saturating_sub(Duration::from_secs(2));
    let mut all: Vec<(UnixNanos, UnixNanos, u64, Decimal)> = Vec::new();
    for tick in &ticks {
        let start = interval.start_of(tick.event_time);
        let end = interval.end_of(start).unwrap();
        if end > reached || !before_end(start) {
            continue;
        }
        match all.last_mut().filter(|(own, ..)| *own == start) {
            Some((_, _, revision, close)) => (*revision, *close) = (tick.log_seq.max(*revision), tick.price),
            None => all.push((start, end, tick.log_seq, tick.price)),
        }
    }
    let first = all.iter().filter(|(start, ..)| before_start(*start)).count();
    (all.into_iter().map(|(_, end, revision, close)| (end, revision, close)).collect(), first)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn moving_averages_are_those_of_the_raw_ticks_in_pages_of_any_size(
        ticks in any_ticks(),
        steps in any_steps(),
        coming in any_ticks(),
        range in any_range(),
        window in 1usize..9,
        exponential: bool,
        seconds in prop::option::of(proptest::sample::select(&[4_800u64, 9_600, 86_400][..])),
        decimals in 0u8..=36,
        page_size in 1usize..9,
    ) {
        run(async {
            let mut world = World::new(&NAMES, 0).await;
            world.append(ticks).await;
            take(&mut world, &steps).await;
            world.publish().await;
            let method = if exponential { MovingMethod::Exponential } else { MovingMethod::Simple };
            let bars = seconds.map(|seconds| Interval::new(Duration::from_secs(seconds)).unwrap());
            let request = |subject: &Subject, page_size, page_token| MovingRequest {
                subject: subject.clone(),
                span: Span::Range(range),
                method,
                window,
                bars,
                decimals,
                page_size,
                page_token,
                min_cursor: None,
            };
            let mut walks = Vec::new();
            for subject in subjects(&world) {
                let (prices, first) = prices(&world, &subject, range, bars);
                let expected = averaged(&prices, first, (method, window), decimals);
                let whole = world.query.moving_averages(&request(&subject, 10_000, None)).await.unwrap();
                assert_eq!(whole.points, expected);
                let page = world.query.moving_averages(&request(&subject, page_size, None)).await.unwrap();
                walks.push((subject, expected, page));
            }
            world.append(coming).await;
            world.publish().await;
            for (subject, expected, mut page) in walks {
                let mut found = page.points;
                while let Some(token) = page.next_page_token {
                    page = world.query.moving_averages(&request(&subject, page_size, Some(token))).await.unwrap();
                    found.extend(page.points);
                }
                assert_eq!(found, expected);
            }
        });
    }
}

#[tokio::test]
async fn the_first_points_know_what_came_before_the_range() {
    let mut world = World::new(&NAMES, 0).await;
    let prices = [(1, "1"), (2, "2"), (3, "6"), (4, "3")];
    world.append(prices.map(|(second, price)| tick(0, second, price, None)).into()).await;
    world.publish().await;
    let averages = async |method, start: i64| {
        let request = MovingRequest {
            subject: world.one(0),
            span: Span::Range(TimeRange::new(Some(at(start)), None).unwrap()),
            method,
            window: 3,
            bars: None,
            decimals: 2,
            page_size: 10,
            page_token: None,
            min_cursor: None,
        };
        let page = world.query.moving_averages(&request).await.unwrap();
        page.points.into_iter().map(|point| (point.end.nanos(), point.average)).collect::<Vec<_>>()
    };
    let told = |points: [(i64, &str); 2]| points.map(|(end, average)| (end, average.to_owned())).to_vec();
    assert_eq!(averages(MovingMethod::Simple, 0).await, told([(3, "3"), (4, "3.67")]));
    assert_eq!(averages(MovingMethod::Simple, 3).await, told([(3, "3"), (4, "3.67")]));
    assert_eq!(averages(MovingMethod::Simple, 4).await, [(4, "3.67".to_owned())]);
    // 3, then 3 + (3 - 3) / 2.
    assert_eq!(averages(MovingMethod::Exponential, 1).await, told([(3, "3"), (4, "3")]));
    assert_eq!(averages(MovingMethod::Exponential, 4).await, [(4, "3.67".to_owned())]);
}
