//! Streams of bars against bars made from the log one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng as _;

use super::world::*;
use crate::domain::bar::{BarBuilder, Contents, Interval, final_until};
use crate::domain::correction::Values;
use crate::domain::source::{Detail, GapCause, Scope, Source, SourceGap, SourceSeqs};
use crate::domain::{Control, Cursor, InstrumentId, Tick, TimeRange, UnixNanos};
use crate::live::{
    BarEvent, BarMessage, BarSession, BarSubscription, Event, IfUnavailable, LiveError, Outcome, Selector, Start,
};

/// Venue, or all, and symbol.
type SeriesName = (Option<String>, String);

/// Start, and whose.
type BarName = (UnixNanos, SeriesName);

/// What a bar is at a position: its contents, and whether it is final.
type Bars = BTreeMap<BarName, (Contents, bool)>;

fn length(seconds: u64) -> Interval {
    Interval::new(Duration::from_secs(seconds)).unwrap()
}

fn wish_bars(start: Start, seconds: u64) -> BarSubscription {
    BarSubscription {
        selectors: vec![selector("", ""), selector("V", "")],
        start,
        if_unavailable: IfUnavailable::Fail,
        interval: length(seconds),
        include_forming: true,
        min_interval: Duration::ZERO,
        heartbeat: Duration::from_secs(1),
    }
}

/// The log, to make bars of it by the definitions.
struct Oracle {
    entries: Vec<Entry>,
    names: BTreeMap<InstrumentId, (String, String)>,
}

impl Oracle {
    async fn read(world: &World) -> Oracle {
        let instruments = crate::store::Store::instruments(&*world.store, InstrumentId(0)).await.unwrap();
        let name = |instrument: crate::domain::Instrument| {
            (instrument.id, (instrument.venue.as_str().to_owned(), instrument.symbol.as_str().to_owned()))
        };
        let entries = world.log().await.into_iter().flat_map(|(_, entries)| entries).collect();
        Oracle { entries, names: instruments.into_iter().map(name).collect() }
    }

    /// Every bar with ticks of the wanted series, of the log up to a position.
    fn bars(&self, wish: &BarSubscription, position: u64) -> Bars {
        let matches = |selector: &Selector, venue: &str, symbol: &str| {
            selector.venue.as_ref().is_none_or(|own| own.as_str() == venue)
                && selector.symbol.as_ref().is_none_or(|own| own.as_str() == symbol)
        };
        let mut newest: BTreeMap<&str, UnixNanos> = BTreeMap::new();
        let mut told: BTreeMap<&str, UnixNanos> = BTreeMap::new();
        let mut series: BTreeMap<SeriesName, (BarBuilder, Vec<&str>)> = BTreeMap::new();
        let known = || self.entries.iter().filter(|entry| entry.log_seq() <= position);
        for entry in known() {
            let instrument = match entry {
                Entry::Tick(tick) => tick.instrument,
                Entry::Source(_, Control::Correction(correction)) => correction.instrument,
                Entry::Source(..) => InstrumentId(0),
            };
            let mut of_series = |take: &dyn Fn(&mut BarBuilder)| {
                let (venue, symbol) = &self.names[&instrument];
                let wanted = |alone: bool| {
                    let own = wish.selectors.iter().filter(|selector| selector.venue.is_some() == alone);
                    own.into_iter().any(|selector| matches(selector, venue, symbol))
                };
                let names = [(wanted(true), Some(venue.clone())), (wanted(false), None)];
                for (_, on) in names.into_iter().filter(|(wanted, _)| *wanted) {
                    let of = series.entry((on, symbol.clone()));
                    let (bars, venues) = of.or_insert_with(|| (BarBuilder::new(wish.interval), Vec::new()));
                    take(bars);
                    venues.push(venue);
                }
            };
            match entry {
                Entry::Tick(tick) => {
                    let latest = newest.entry(&self.names[&tick.instrument].0).or_insert(tick.event_time);
                    *latest = tick.event_time.max(*latest);
                    let mut trade = Some(tick.clone());
                    for other in known() {
                        let Entry::Source(_, Control::Correction(correction)) = other else { continue };
                        let of = (correction.instrument, correction.event_time, &correction.trade_id);
                        if of == (tick.instrument, tick.event_time, &tick.trade_id) {
                            trade = correction.values.and_then(|Values { price, quantity, side }| {
                                trade.map(|trade| Tick { price, quantity, side, ..trade })
                            });
                        }
                    }
                    of_series(&|bars| {
                        trade.iter().for_each(|trade| {
                            bars.push(trade);
                        });
                    });
                }
                Entry::Source(log_seq, Control::Correction(correction)) => {
                    of_series(&|bars| bars.revise(correction.event_time, *log_seq));
                }
                Entry::Source(_, Control::Watermark { venue, time }) => {
                    let (name, _) = self.names.values().find(|(name, _)| name == venue.as_str()).unwrap();
                    let latest = told.entry(name).or_insert(*time);
                    *latest = (*time).max(*latest);
                }
                Entry::Source(..) => (),
            }
        }
        let mut found = Bars::new();
        for (name, (bars, venues)) in series {
            let reached = venues.iter().map(|venue| final_until(newest.get(venue).copied(), told.get(venue).copied()));
            let reached = reached.max().unwrap();
            for (start, contents) in bars.into_bars() {
                let is_final = wish.interval.end_of(start).unwrap() <= reached;
                found.insert((start, name.clone()), (contents, is_final));
            }
        }
        found
    }
}

/// What a reader of bars was told, by positions.
#[derive(Default)]
struct Heard {
    last: Bars,
    /// Told, but the cursor behind it is still to come.
    open: Vec<BarEvent>,
    cursor: Option<Cursor>,
    marks: usize,
    revisions: usize,
}

impl Heard {
    /// Checks a message against the log at its position.
    fn take(&mut self, message: BarMessage, wish: &BarSubscription, oracle: &Oracle) {
        let BarMessage { cursor, event } = message;
        let is_bars = matches!(event, BarEvent::Bars(_) | BarEvent::Complete { .. });
        if is_bars {
            self.open.push(event);
        }
        let place = |cursor: Option<Cursor>| cursor.map(|cursor| cursor.position);
        let moved = place(cursor) > place(self.cursor);
        self.cursor = cursor.or(self.cursor);
        if !moved {
            return;
        }
        let position = cursor.unwrap().position;
        let truth = oracle.bars(wish, position);
        let mut marked = false;
        for event in std::mem::take(&mut self.open) {
            match event {
                BarEvent::Bars(bars) => {
                    assert!(!marked, "marks come behind the bars of their position");
                    for told in bars {
                        let venue = told.instrument.map(|instrument| instrument.venue.as_str().to_owned());
                        let name = (told.bar.start, (venue, told.symbol.as_str().to_owned()));
                        let bar = (told.bar.contents, told.bar.is_final);
                        assert_eq!(truth.get(&name), Some(&bar), "{name:?} at {position}");
                        if let Some((before, was_final)) = self.last.insert(name.clone(), bar.clone()) {
                            assert!(before.revision <= bar.0.revision && was_final <= bar.1, "{name:?} went back");
                            self.revisions += usize::from(was_final && before.revision < bar.0.revision);
                        }
                    }
                }
                BarEvent::Complete { start, end } => {
                    marked = true;
                    self.marks += 1;
                    assert_eq!(wish.interval.end_of(start), Some(end));
                    for (name, bar) in truth.iter().filter(|((of, _), _)| *of == start) {
                        assert!(bar.1, "{name:?} grows behind the mark at {position}");
                    }
                }
                BarEvent::Other(_) => unreachable!("only bars and marks are kept"),
            }
        }
    }

    async fn read_to(&mut self, session: &mut BarSession, head: u64, wish: &BarSubscription, oracle: &Oracle) {
        loop {
            let message = session.next().await.unwrap();
            let end = match &message.event {
                BarEvent::Other(Event::Progress { position, .. }) => *position >= head,
                _ => false,
            };
            self.take(message, wish, oracle);
            if end {
                return;
            }
        }
    }
}

fn any_wish(world: &mut World, start: Start) -> BarSubscription {
    let all = [selector("", ""), selector("V", ""), selector("W", "C"), selector("", "A"), selector("V", "NONE")];
    let count = world.random.random_range(1..4);
    let selectors = (0..count).map(|_| all[world.random.random_range(0..all.len())].clone()).collect();
    let seconds = [1, 3, 10, 60][world.random.random_range(0..4)];
    let include_forming = world.random.random();
    BarSubscription { selectors, include_forming, ..wish_bars(start, seconds) }
}

async fn commit_anything(world: &mut World) -> Cursor {
    let cursor = world.commit_anything().await;
    if world.random.random_ratio(1, 10) {
        let on = ["V", "W"][world.random.random_range(0..2)];
        let second = world.random.random_range(0..50);
        let time = UnixNanos::new(START + second * 1_000_000_000).unwrap();
        return world.say(Control::Watermark { venue: venue(on), time }).await;
    }
    cursor
}

#[tokio::test(start_paused = true)]
async fn bars_at_every_cursor_are_those_of_the_log_and_resume_anywhere() {
    let mut world = World::new(ROOMY).await;
    // Both venues are known to the oracle before they are told to be complete.
    let mut head = world.publish(&[("V", "A", 0), ("W", "A", 0)]).await;
    for _ in 0..60 {
        head = commit_anything(&mut world).await;
    }
    let oracle = Oracle::read(&world).await;
    let (mut marks, mut revisions) = (0, 0);
    for _ in 0..60 {
        let from = Cursor { position: world.random.random_range(0..=20), ..head };
        let wish = any_wish(&mut world, Start::After(from));
        let mut heard = Heard { last: Bars::new(), cursor: Some(from), ..Heard::default() };
        // What is final before the start is known.
        heard.last = oracle.bars(&wish, from.position).into_iter().filter(|(_, (_, is_final))| *is_final).collect();
        let mut session = world.live.subscribe_bars(wish.clone()).await.unwrap();
        // The stream is cut a few times, inside of what belongs to one position too.
        for _ in 0..world.random.random_range(0..4) {
            for _ in 0..world.random.random_range(1..12) {
                heard.take(session.next().await.unwrap(), &wish, &oracle);
            }
            heard.open.clear();
            let start = Start::After(heard.cursor.unwrap());
            session = world.live.subscribe_bars(BarSubscription { start, ..wish.clone() }).await.unwrap();
        }
        heard.read_to(&mut session, head.position, &wish, &oracle).await;
        let mut truth = oracle.bars(&wish, head.position);
        truth.retain(|_, (_, is_final)| wish.include_forming || *is_final);
        assert_eq!(heard.last, truth, "{wish:?}");
        marks += heard.marks;
        revisions += heard.revisions;
    }
    assert!(marks > 20 && revisions > 20, "{marks} marks and {revisions} revisions");
}

#[tokio::test(start_paused = true)]
async fn compaction_and_restarts_change_no_bar() {
    let mut world = World::new(TIGHT).await;
    let mut head = world.publish(&[("V", "A", 0), ("W", "A", 0)]).await;
    let start = head;
    let wish = wish_bars(Start::After(start), 3);
    let mut told: Vec<Bars> = Vec::new();
    for round in 0..3 {
        for _ in 0..15 {
            head = commit_anything(&mut world).await;
        }
        // The ticks so far are old enough to be cut, and the next are late to them.
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.advance(Duration::from_secs(7_200));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(world.live.views.borrow().chunks() > 0);
        if round == 1 {
            world = world.restart().await;
        }
        let oracle = Oracle::read(&world).await;
        let mut heard = Heard { cursor: Some(start), ..Heard::default() };
        let mut session = world.live.subscribe_bars(wish.clone()).await.unwrap();
        heard.read_to(&mut session, head.position, &wish, &oracle).await;
        let before = oracle.bars(&wish, start.position);
        let mut truth = oracle.bars(&wish, head.position);
        truth.retain(|name, bar| before.get(name) != Some(bar) || !bar.1);
        heard.last.retain(|name, bar| before.get(name) != Some(bar) || !bar.1);
        assert_eq!(heard.last, truth);
        told.push(heard.last);
    }
    assert_eq!(told.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn bars_of_trades_that_are_corrected_or_taken_back_are_told_anew() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 1), ("V", "A", 2)]).await;
    let wish = BarSubscription { selectors: vec![selector("V", "A")], ..wish_bars(Start::Live, 10) };
    let mut session = world.live.subscribe_bars(wish).await.unwrap();
    session.next().await.unwrap();
    // Trades are numbered from 1. The bar grows still.
    world.correct(&[("V", "A", 2, 2, None)], false).await;
    assert_eq!(bars(&mut session).await, [(0, 1, false)]);
    // The third comes after its correction, and the bar ends by the fourth.
    world.correct(&[("V", "A", 3, 3, Some(7))], false).await;
    assert_eq!(bars(&mut session).await, [(0, 1, false)]);
    world.publish(&[("V", "A", 3), ("V", "A", 13)]).await;
    assert_eq!(bars(&mut session).await, [(0, 2, true), (10, 1, false)]);
    let revised = world.correct(&[("V", "A", 1, 1, Some(9_000))], true).await;
    let told = loop {
        if let BarEvent::Bars(told) = session.next().await.unwrap().event {
            break told;
        }
    };
    let contents = &told[0].bar.contents;
    assert_eq!((told.len(), contents.revision, told[0].bar.is_final), (1, revised.position, true));
    let price = |point: Option<crate::domain::statistics::PricePoint>| point.map(|point| point.price.to_string());
    assert_eq!((price(contents.totals.high), price(contents.totals.low)), (Some("90".into()), Some("0.07".into())));
    // Nothing is left: told once more, without ticks.
    world.correct(&[("V", "A", 1, 1, None), ("V", "A", 3, 3, None)], false).await;
    assert_eq!(bars(&mut session).await, [(0, 0, true)]);
}

/// Reads until bars come: start in seconds, ticks, final, of each.
async fn bars(session: &mut BarSession) -> Vec<(i64, u64, bool)> {
    loop {
        if let BarEvent::Bars(bars) = session.next().await.unwrap().event {
            let said = |told: crate::live::NamedBar| {
                let start = (told.bar.start.nanos() - START) / 1_000_000_000;
                (start, told.bar.contents.totals.count, told.bar.is_final)
            };
            return bars.into_iter().map(said).collect();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_bar_grows_ends_is_marked_and_is_revised() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 0)]).await;
    let wish = BarSubscription { selectors: vec![selector("V", "A")], ..wish_bars(Start::Live, 10) };
    let mut session = world.live.subscribe_bars(wish).await.unwrap();
    let first = session.next().await.unwrap();
    let BarEvent::Other(Event::Ack(ack)) = first.event else { panic!("{first:?}") };
    assert_eq!(ack.outcomes, [Outcome::Served { matched: 1 }]);
    // The bar had a tick before the stream began.
    world.publish(&[("V", "A", 1), ("W", "A", 30)]).await;
    assert_eq!(bars(&mut session).await, [(0, 2, false)]);
    world.publish(&[("V", "B", 11)]).await;
    world.publish(&[("V", "A", 11)]).await;
    assert_eq!(bars(&mut session).await, [(10, 1, false)]);
    // Another symbol of the venue moves it on.
    let end = world.publish(&[("V", "B", 12)]).await;
    let message = session.next().await.unwrap();
    let BarEvent::Bars(ended) = &message.event else { panic!("{message:?}") };
    assert!(ended.len() == 1 && ended[0].bar.is_final && message.cursor.unwrap().position < end.position);
    let mark = session.next().await.unwrap();
    assert!(matches!(mark.event, BarEvent::Complete { start, .. } if start.nanos() == START), "{mark:?}");
    assert_eq!(mark.cursor, Some(end));
    world.publish(&[("V", "A", 9)]).await;
    assert_eq!(bars(&mut session).await, [(0, 3, true)]);
    // A backfill revises it too.
    world.backfill(&[("V", "A", 8)]).await;
    assert_eq!(bars(&mut session).await, [(0, 4, true)]);
    let time = UnixNanos::new(START + 20_000_000_000).unwrap();
    world.say(Control::Watermark { venue: venue("V"), time }).await;
    assert_eq!(bars(&mut session).await, [(10, 1, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_growing_bar_is_told_at_most_once_in_the_interval_asked_for() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 0)]).await;
    let wish = BarSubscription {
        selectors: vec![selector("", "A")],
        min_interval: Duration::from_secs(10),
        heartbeat: Duration::from_secs(60),
        ..wish_bars(Start::Live, 60)
    };
    let mut session = world.live.subscribe_bars(wish).await.unwrap();
    session.next().await.unwrap();
    world.publish(&[("V", "A", 1)]).await;
    assert_eq!(bars(&mut session).await, [(-20, 2, false)]);
    let begun = tokio::time::Instant::now();
    for second in 2..30 {
        world.publish(&[("V", "A", second)]).await;
    }
    assert_eq!(bars(&mut session).await, [(-20, 30, false)]);
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_has_the_bars_that_grow() {
    let mut world = World::new(ROOMY).await;
    let head = world.publish(&[("V", "A", 0), ("V", "B", 1), ("V", "A", 10), ("V", "A", 13)]).await;
    let selectors = vec![selector("V", "A"), selector("V", "NONE"), selector("", "B")];
    let wish = BarSubscription { selectors, ..wish_bars(Start::Snapshot, 10) };
    let mut session = world.live.subscribe_bars(wish).await.unwrap();
    let ack = session.next().await.unwrap();
    assert!(ack.cursor.is_none() && session.cursor().is_none());
    let begin = session.next().await.unwrap();
    let BarEvent::Other(Event::SnapshotBegin { position, tick_count: 1 }) = begin.event else { panic!("{begin:?}") };
    assert_eq!(position, head.position);
    assert_eq!(bars(&mut session).await, [(10, 2, false)]);
    let end = session.next().await.unwrap();
    let BarEvent::Other(Event::SnapshotEnd { without_data, .. }) = end.event else { panic!("{end:?}") };
    assert_eq!((without_data, end.cursor), (vec![1], Some(head)));
    world.publish(&[("V", "A", 14)]).await;
    assert_eq!(bars(&mut session).await, [(10, 3, false)]);
}

#[tokio::test(start_paused = true)]
async fn bars_over_a_gap_say_so_and_the_gap_is_told() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 0)]).await;
    let wish = BarSubscription { selectors: vec![selector("V", "A")], ..wish_bars(Start::Live, 10) };
    let mut session = world.live.subscribe_bars(wish).await.unwrap();
    session.next().await.unwrap();
    let second = |second: i64| UnixNanos::new(START + second * 1_000_000_000).ok();
    let gap = SourceGap {
        scope: Scope { source: Source::new("feed").unwrap(), venue: venue("V"), symbols: [].into() },
        range: TimeRange::new(second(3), second(5)).unwrap(),
        seqs: SourceSeqs::default(),
        cause: GapCause::Disconnected,
        recoverable: false,
        detail: Detail::default(),
    };
    world.say(Control::SourceGap(gap)).await;
    world.publish(&[("V", "A", 6), ("V", "A", 11), ("V", "A", 12)]).await;
    let told = session.next().await.unwrap();
    assert!(matches!(told.event, BarEvent::Other(Event::Source { .. })), "{told:?}");
    let message = session.next().await.unwrap();
    let BarEvent::Bars(told) = message.event else { panic!("{message:?}") };
    let said: Vec<_> = told.iter().map(|told| (told.bar.is_final, told.bar.has_gap)).collect();
    assert_eq!(said, [(true, true), (false, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_start_before_the_log_is_refused_or_begins_at_its_oldest_entry() {
    let mut world = World::new(TIGHT).await;
    let first = world.publish(&[("V", "A", 0)]).await;
    let gone = world.publish(&[("V", "A", 1)]).await;
    world.publish(&[("V", "A", 2)]).await;
    let head = world.publish(&[("V", "A", 13)]).await;
    world.forget_up_to(gone.position).await;
    let start = Start::After(Cursor { position: first.position - 1, ..first });
    let refused = world.live.subscribe_bars(wish_bars(start, 10)).await.err();
    assert!(matches!(refused, Some(LiveError::Expired { .. })), "{refused:?}");
    let wish = BarSubscription { if_unavailable: IfUnavailable::FromOldest, ..wish_bars(start, 10) };
    let mut session = world.live.subscribe_bars(wish).await.unwrap();
    session.next().await.unwrap();
    let gap = session.next().await.unwrap();
    assert!(matches!(gap.event, BarEvent::Other(Event::StreamGap { from: 1, to }) if to == gone.position), "{gap:?}");
    // What the log has lost is still in history.
    let seen = bars(&mut session).await;
    assert!(seen.contains(&(0, 3, true)), "{seen:?}");
    let wish = BarSubscription { if_unavailable: IfUnavailable::Snapshot, ..wish_bars(start, 10) };
    let mut session = world.live.subscribe_bars(wish).await.unwrap();
    session.next().await.unwrap();
    let begin = session.next().await.unwrap();
    let event = BarEvent::Other(Event::SnapshotBegin { position: head.position, tick_count: 2 });
    assert_eq!(format!("{:?}", begin.event), format!("{event:?}"));
}
