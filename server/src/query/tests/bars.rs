//! Bars against bars made from raw ticks one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::naive;
use super::oracle::{NAMES, any_instant, any_range, any_steps, any_ticks, check_totals, run, subjects, take};
use super::world::{World, at, tick};
use crate::domain::bar::{Bar, Fill, Interval};
use crate::domain::source::{Detail, GapCause, Scope, Source, SourceGap, SourceSeqs};
use crate::domain::time::{NANOS_PER_DAY, NANOS_PER_SECOND};
use crate::domain::{Control, InstrumentId, Tick, TimeRange, UnixNanos, Venue};
use crate::query::{BarPage, BarsRequest, Span, Subject};

fn interval(seconds: u64) -> Interval {
    Interval::new(Duration::from_secs(seconds)).unwrap()
}

/// A ninth of a day is the grid of the ticks.
fn any_interval() -> impl Strategy<Value = Interval> {
    proptest::sample::select(&[4_800, 9_600, 14_400, 86_400, 2 * 86_400, 366 * 86_400][..]).prop_map(interval)
}

/// What is asked, but for the subject and the page.
#[derive(Clone, Copy, Debug)]
struct Ask {
    range: TimeRange,
    interval: Interval,
    last: Option<usize>,
    forming: bool,
    fill: Fill,
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let fill = proptest::sample::select(&[Fill::Skip, Fill::Null, Fill::Previous][..]);
    let last = prop::option::weighted(0.3, 1usize..8);
    (any_range(), any_interval(), last, any::<bool>(), fill).prop_map(|(range, interval, last, forming, fill)| {
        // From 1970 on there are too many short intervals to fill them all.
        let early = range.start().is_some_and(|start| start < at(18_990 * NANOS_PER_DAY));
        let fill = if early { Fill::Skip } else { fill };
        Ask { range, interval, last, forming, fill }
    })
}

/// Whether some venue was told to be complete, and up to where.
fn any_watermark() -> impl Strategy<Value = Option<(usize, i64)>> {
    prop::option::weighted(0.3, (0usize..2, any_instant()))
}

/// A bar as the definitions say it: start, ticks, carried close, final.
type Naive = (UnixNanos, Vec<Tick>, Option<crate::domain::Decimal>, bool);

/// All bars that are asked for, of the log up to a position.
fn bars(world: &World, subject: &Subject, ask: Ask, position: u64) -> Vec<Naive> {
    let ids = world.ids(subject);
    let length = ask.interval.nanos();
    let start_of = |time: UnixNanos| time.nanos() / length * length;
    let ticks = naive::known(&world.ticks, &ids, position);
    let mut groups: BTreeMap<i64, Vec<Tick>> = BTreeMap::new();
    for tick in &ticks {
        groups.entry(start_of(tick.event_time)).or_default().push(tick.clone());
    }
    let venues: BTreeSet<&str> = ticks.iter().map(|tick| NAMES[tick.instrument.0 as usize - 1].0).collect();
    let of_venues = |tick: &&Tick| venues.contains(NAMES[tick.instrument.0 as usize - 1].0);
    let newest = world.ticks.iter().filter(|tick| tick.log_seq <= position).filter(of_venues);
    let newest = newest.map(|tick| tick.event_time.nanos() - 2 * NANOS_PER_SECOND).max().unwrap_or(0);
    let told = world.told.iter().filter_map(|(seq, control)| match control {
        Control::Watermark { venue, time } if *seq <= position && venues.contains(venue.as_str()) => Some(time.nanos()),
        _ => None,
    });
    let final_until = told.chain([newest]).max().unwrap();
    let first = match ask.range.start() {
        Some(start) => (start.nanos() + length - 1) / length * length,
        None => groups.keys().next().copied().unwrap_or(i64::MAX),
    };
    let starts: Vec<i64> = match ask.fill {
        Fill::Skip => groups.keys().copied().collect(),
        _ => {
            (0..).map(|n| first + n * length).take_while(|start| *start <= final_until + 2 * NANOS_PER_SECOND).collect()
        }
    };
    let mut found: Vec<Naive> = Vec::new();
    for start in starts {
        let is_final = start + length <= final_until;
        let ended = ask.range.end().is_some_and(|end| start >= end.nanos());
        if start < first || ended || !is_final && !ask.forming {
            continue;
        }
        let own = groups.get(&start).cloned().unwrap_or_default();
        let before = ticks.iter().rfind(|tick| tick.event_time.nanos() < start).map(|tick| tick.price);
        match (ask.fill, own.is_empty(), before) {
            (Fill::Previous, true, None) => (),
            (Fill::Previous, true, before) => found.push((at(start), own, before, is_final)),
            _ => found.push((at(start), own, None, is_final)),
        }
    }
    let skipped = ask.last.map_or(0, |last| found.len().saturating_sub(last));
    found.split_off(skipped)
}

fn check(found: &[Bar], expected: &[Naive], interval: Interval) {
    let starts = |bar: &Bar| bar.start;
    assert_eq!(
        found.iter().map(starts).collect::<Vec<_>>(),
        expected.iter().map(|(start, ..)| *start).collect::<Vec<_>>()
    );
    for (bar, (start, ticks, carried, is_final)) in found.iter().zip(expected) {
        assert_eq!(bar.end.nanos() - start.nanos(), interval.nanos());
        check_totals(&bar.contents.totals, ticks);
        assert_eq!(bar.contents.revision, ticks.iter().map(|tick| tick.log_seq).max().unwrap_or(0));
        assert_eq!((bar.carried, bar.is_final, bar.has_gap), (*carried, *is_final, false), "{start}");
    }
}

async fn page(world: &World, subject: &Subject, ask: Ask, page_size: usize, token: Option<String>) -> BarPage {
    let request = BarsRequest {
        subject: subject.clone(),
        span: Span::Range(ask.range),
        interval: ask.interval,
        last_count: ask.last,
        include_forming: ask.forming,
        fill: ask.fill,
        page_size,
        page_token: token,
        min_cursor: None,
    };
    world.query.bars(&request).await.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn bars_are_those_of_the_raw_ticks_at_the_position_of_the_first_page(
        ticks in any_ticks(),
        steps in any_steps(),
        mut coming in any_ticks(),
        later in any_steps(),
        ask in any_ask(),
        watermark in any_watermark(),
        page_size in 1usize..12,
    ) {
        run(async {
            let mut world = World::new(&NAMES, 0).await;
            let rest = coming.split_off(coming.len() / 2);
            world.append(ticks).await;
            if let Some((index, time)) = watermark {
                let venue = Venue::new(NAMES[index].0).unwrap();
                world.tell(Control::Watermark { venue, time: at(time) }).await;
            }
            world.append(coming).await;
            take(&mut world, &steps).await;
            world.publish().await;
            let pinned = world.head();
            let mut walks = Vec::new();
            for subject in subjects(&world) {
                let expected = bars(&world, &subject, ask, pinned);
                let first = page(&world, &subject, ask, page_size, None).await;
                let whole = page(&world, &subject, ask, 10_000, None).await;
                check(&whole.bars, &expected, ask.interval);
                assert_eq!((whole.next_page_token, first.as_of.position), (None, pinned));
                walks.push((subject, expected, first));
            }
            // Between pages: late ticks, compaction, merged days, and the old chunks' bytes are gone.
            world.append(rest).await;
            take(&mut world, &later).await;
            world.publish().await;
            world.sweep().await;
            for (subject, expected, mut last) in walks {
                let mut found = last.bars;
                while let Some(token) = last.next_page_token {
                    last = page(&world, &subject, ask, page_size, Some(token)).await;
                    assert!(!last.bars.is_empty() && last.as_of.position == pinned);
                    found.extend(last.bars);
                }
                check(&found, &expected, ask.interval);
            }
        });
    }
}

/// Ticks of A X at seconds 0, 30 and 200, of A Y at second 130.
async fn four_ticks() -> World {
    let mut world = World::new(&NAMES, 1_000 * NANOS_PER_SECOND).await;
    let ticks = [(0, 0, "1"), (0, 30, "3"), (2, 130, "9"), (0, 200, "2")];
    world.append(ticks.map(|(index, second, price)| tick(index, second * NANOS_PER_SECOND, price, None)).into()).await;
    world.publish().await;
    world
}

fn minutes(last: Option<usize>, forming: bool, fill: Fill) -> Ask {
    Ask { range: TimeRange::ALL, interval: interval(60), last, forming, fill }
}

fn said(page: &BarPage) -> Vec<(i64, u64, bool)> {
    let said = |bar: &Bar| (bar.start.nanos() / NANOS_PER_SECOND, bar.contents.totals.count, bar.is_final);
    page.bars.iter().map(said).collect()
}

#[tokio::test]
async fn a_bar_is_final_when_its_venue_has_gone_on_by_two_seconds() {
    let mut world = four_ticks().await;
    let (x, y) = (world.one(0), world.one(2));
    let all = |forming| minutes(None, forming, Fill::Skip);
    assert_eq!(said(&page(&world, &x, all(false), 9, None).await), [(0, 2, true)]);
    assert_eq!(said(&page(&world, &x, all(true), 9, None).await), [(0, 2, true), (180, 1, false)]);
    // The venue's other instrument moves it on, and the pooled series with it.
    world.append(vec![tick(2, 241 * NANOS_PER_SECOND, "9", None)]).await;
    world.publish().await;
    assert_eq!(said(&page(&world, &x, all(false), 9, None).await), [(0, 2, true)]);
    world.append(vec![tick(2, 242 * NANOS_PER_SECOND, "9", None)]).await;
    world.publish().await;
    assert_eq!(said(&page(&world, &x, all(false), 9, None).await), [(0, 2, true), (180, 1, true)]);
    let pooled = world.pooled(0);
    assert_eq!(said(&page(&world, &pooled, all(false), 9, None).await), [(0, 2, true), (180, 1, true)]);
    // A quiet venue is told to be complete.
    assert_eq!(said(&page(&world, &y, all(false), 9, None).await), [(120, 1, true)]);
    world.tell(Control::Watermark { venue: Venue::new("A").unwrap(), time: at(300 * NANOS_PER_SECOND) }).await;
    world.publish().await;
    assert_eq!(said(&page(&world, &y, all(false), 9, None).await), [(120, 1, true), (240, 2, true)]);
    // A late tick raises the revision of a bar that stays final.
    let before = page(&world, &x, all(false), 9, None).await.bars[0].contents.revision;
    world.append(vec![tick(0, 59 * NANOS_PER_SECOND, "7", None)]).await;
    world.publish().await;
    let late = page(&world, &x, all(false), 9, None).await;
    assert_eq!(said(&late), [(0, 3, true), (180, 1, true)]);
    assert!(late.bars[0].contents.revision > before);
}

#[tokio::test]
async fn empty_intervals_are_left_out_or_filled() {
    let world = four_ticks().await;
    let x = world.one(0);
    let skip = page(&world, &x, minutes(Some(2), true, Fill::Skip), 9, None).await;
    assert_eq!(said(&skip), [(0, 2, true), (180, 1, false)]);
    let null = page(&world, &x, minutes(Some(3), true, Fill::Null), 9, None).await;
    assert_eq!(said(&null), [(60, 0, true), (120, 0, true), (180, 1, false)]);
    assert!(null.bars.iter().all(|bar| bar.carried.is_none()));
    let previous = page(&world, &x, minutes(Some(2), true, Fill::Previous), 9, None).await;
    assert_eq!(said(&previous), [(120, 0, true), (180, 1, false)]);
    assert_eq!(previous.bars[0].carried, Some("3".parse().unwrap()));
}

#[tokio::test]
async fn bars_over_a_gap_of_the_source_say_so() {
    let mut world = four_ticks().await;
    let gap = |symbols: &[&str], start, end| {
        let symbols = symbols.iter().map(|name| crate::domain::Symbol::new(name).unwrap()).collect();
        let second = |second: i64| Some(at(second * NANOS_PER_SECOND));
        Control::SourceGap(SourceGap {
            scope: Scope { source: Source::new("feed").unwrap(), venue: Venue::new("A").unwrap(), symbols },
            range: TimeRange::new(second(start), second(end)).unwrap(),
            seqs: SourceSeqs::default(),
            cause: GapCause::Disconnected,
            recoverable: true,
            detail: Detail::default(),
        })
    };
    world.tell(gap(&["X"], 70, 80)).await;
    world.tell(gap(&[], 190, 195)).await;
    // What is compacted is read from chunks; what was said stays.
    world.cut(InstrumentId(1), 2, 2).await;
    world.publish().await;
    let gaps = |page: BarPage| page.bars.iter().map(|bar| bar.has_gap).collect::<Vec<_>>();
    let (x, y) = (world.one(0), world.one(2));
    assert_eq!(gaps(page(&world, &x, minutes(None, true, Fill::Null), 9, None).await), [false, true, false, true]);
    assert_eq!(gaps(page(&world, &y, minutes(None, true, Fill::Null), 9, None).await), [false, true]);
}
