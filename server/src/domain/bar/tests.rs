use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::chunk::Chunk;
use crate::domain::samples::any_history;

fn at(nanos: i64) -> UnixNanos {
    UnixNanos::new(nanos).unwrap()
}

fn seconds(seconds: u64) -> Interval {
    Interval::new(Duration::from_secs(seconds)).unwrap()
}

#[test]
fn intervals_are_whole_seconds_or_whole_days() {
    let day = 86_400;
    for length in [1, 2, 7, 60, 3_600, day - 1, day, 2 * day, 7 * day, 366 * day] {
        assert!(Interval::new(Duration::from_secs(length)).is_ok(), "{length} s");
    }
    for length in [0, day + 1, day + 60, 367 * day, u64::MAX] {
        assert_eq!(Interval::new(Duration::from_secs(length)), Err(IntervalInvalid), "{length} s");
    }
    for length in [Duration::from_millis(500), Duration::from_millis(1_500), Duration::new(day, 1), Duration::MAX] {
        assert_eq!(Interval::new(length), Err(IntervalInvalid), "{length:?}");
    }
}

#[test]
fn bars_begin_at_multiples_since_1970() {
    const SECOND: i64 = 1_000_000_000;
    let minute = seconds(60);
    assert_eq!(minute.start_of(at(59 * SECOND)), at(0));
    assert_eq!(minute.start_of(at(60 * SECOND)), at(60 * SECOND));
    assert_eq!(minute.next_start(at(60 * SECOND)), Some(at(60 * SECOND)));
    assert_eq!(minute.next_start(at(60 * SECOND + 1)), Some(at(120 * SECOND)));
    assert_eq!(minute.later(at(60 * SECOND), 2), Some(at(180 * SECOND)));
    assert_eq!(minute.earlier(at(60 * SECOND), 2), at(0));
    // 1970-01-01 was a Thursday.
    let week = seconds(7 * 86_400);
    assert_eq!(week.start_of(at(8 * 86_400 * SECOND)), at(7 * 86_400 * SECOND));
    let last = minute.start_of(UnixNanos::MAX);
    assert_eq!((minute.end_of(last), minute.next_start(UnixNanos::MAX)), (None, None));
}

#[test]
fn a_bar_is_final_by_the_newest_event_time_or_a_watermark() {
    let cases = [
        (None, None, 0),
        (Some(1), None, 0),
        (Some(5_000_000_000), None, 3_000_000_000),
        (Some(5_000_000_000), Some(2_000_000_000), 3_000_000_000),
        (Some(5_000_000_000), Some(4_000_000_000), 4_000_000_000),
        (None, Some(7), 7),
    ];
    for (newest, watermark, expected) in cases {
        assert_eq!(final_until(newest.map(at), watermark.map(at)), at(expected), "{newest:?} {watermark:?}");
    }
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same_bars(
        ticks in any_history(60),
        length in prop_oneof![Just(1u64), Just(7), Just(60), Just(86_400), Just(366 * 86_400)],
        cuts in proptest::collection::vec(0usize..60, 0..4),
    ) {
        let interval = seconds(length);
        let mut one_by_one = BarBuilder::new(interval);
        for tick in ticks.iter().rev() {
            one_by_one.push(tick);
        }
        let mut by_columns = BarBuilder::new(interval);
        for range in crate::domain::chunk::cuts(&ticks, 60) {
            let chunk = Chunk::from_ticks(&ticks[range]);
            let mut edges: Vec<usize> = cuts.iter().map(|cut| cut % (chunk.len() + 1)).collect();
            edges.extend([0, chunk.len()]);
            edges.sort_unstable();
            let mut part = BarBuilder::new(interval);
            for pair in edges.windows(2) {
                part.push_columns(&chunk, pair[0]..pair[1]);
                for time in ticks.iter().map(|tick| tick.event_time).filter(|time| chunk.index_at(*time) >= pair[0]) {
                    prop_assert_eq!(chunk.index_at_from(pair[0], time), chunk.index_at(time));
                }
            }
            by_columns.merge(part);
        }
        prop_assert_eq!(one_by_one.clone().into_bars(), by_columns.into_bars());
        // Every tick is in the bar that holds its time, and every bar is made of such ticks alone.
        for (start, contents) in one_by_one.iter() {
            let inside = |tick: &&Tick| {
                tick.event_time >= start && interval.end_of(start).is_none_or(|end| tick.event_time < end)
            };
            let mut expected = Contents::default();
            for tick in ticks.iter().filter(inside) {
                expected.totals.add(tick);
                expected.revision = expected.revision.max(tick.log_seq);
            }
            prop_assert_eq!(contents, &expected);
        }
        prop_assert_eq!(one_by_one.iter().map(|(_, contents)| contents.totals.count).sum::<u64>(), ticks.len() as u64);
    }
}
