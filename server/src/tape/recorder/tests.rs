//! The table of bars against the lists of final bars, over a whole replica in memory. Time stands still unless every
//! task waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Follower, INTERVALS, MARK_INTERVAL, READ_BARS, RETRY_WAIT, Recorder, STANDBY_WAIT, STEP_BYTES};
use crate::domain::bar::{Fill, Interval};
use crate::domain::source::{Detail, GapCause, Scope, Source, SourceGap, SourceGapFilled, SourceSeqs};
use crate::domain::{Control, Cursor, Decimal, Epoch, InstrumentId, TimeRange, UnixNanos};
use crate::live::tests::world::{ROOMY, START, TIGHT, World, status, symbol, venue};
use crate::query::{BarsRequest, Span, Subject};
use crate::store::faults::{self, Fault, FaultAction, Faults};
use crate::store::{BarKey, BarRow, BarsChange, Store};
use crate::tape::View;

/// Long enough for a look at everything.
const SETTLED: Duration = Duration::from_secs(4);

/// A recorder that runs beside a replica.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(world: &World) -> Running {
        Running::over(world, world.store.clone())
    }

    fn over(world: &World, store: Arc<dyn Store>) -> Running {
        let replica = &world.replica;
        let tape = crate::tape::Tape::clone(&replica.tapes.get());
        let recorder = Recorder::new(tape, store, replica.query.get(), Default::default());
        let stop = CancellationToken::new();
        Running { task: tokio::spawn(recorder.run(stop.clone())), stop }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// What ListBars says of every instrument, by instrument, interval and start.
async fn listed(world: &World) -> Vec<BarRow> {
    let mut rows = Vec::new();
    for instrument in world.store.instruments(InstrumentId(0)).await.unwrap() {
        for interval in INTERVALS {
            let mut request = BarsRequest {
                subject: Subject { venue: Some(instrument.venue.clone()), symbol: instrument.symbol.clone() },
                span: Span::Range(TimeRange::ALL),
                interval,
                last_count: None,
                include_forming: false,
                fill: Fill::Skip,
                page_size: 900,
                page_token: None,
                min_cursor: None,
            };
            loop {
                let page = world.replica.query.get().bars(&request).await.unwrap();
                rows.extend(page.bars.iter().map(|bar| BarRow::of(instrument.id, interval, bar).unwrap()));
                request.page_token = page.next_page_token;
                if request.page_token.is_none() {
                    break;
                }
            }
        }
    }
    rows
}

/// Waits until the recorder has looked, and compares. Returns how many bars there are.
async fn check(world: &World, when: &str) -> usize {
    tokio::time::sleep(SETTLED).await;
    let (listed, table) = (listed(world).await, world.store.bars());
    for (listed, row) in listed.iter().zip(&table) {
        assert_eq!(listed, row, "{when}");
    }
    assert_eq!(listed.len(), table.len(), "{when}");
    table.len()
}

fn at(second: i64) -> UnixNanos {
    UnixNanos::new(START + second * 1_000_000_000).unwrap()
}

fn scope(on: &str, symbols: &[&str]) -> Scope {
    let symbols = symbols.iter().map(|name| symbol(name)).collect();
    Scope { source: Source::new("feed").unwrap(), venue: venue(on), symbols }
}

fn gap(on: &str, symbols: &[&str], from: i64, until: Option<i64>) -> Control {
    Control::SourceGap(SourceGap {
        scope: scope(on, symbols),
        range: TimeRange::new(Some(at(from)), until.map(at)).unwrap(),
        seqs: SourceSeqs::default(),
        cause: GapCause::Disconnected,
        recoverable: true,
        detail: Detail::default(),
    })
}

fn filled(on: &str, from: i64, until: Option<i64>) -> Control {
    let range = TimeRange::new(Some(at(from)), until.map(at)).unwrap();
    Control::SourceGapFilled(SourceGapFilled {
        scope: scope(on, &[]),
        range,
        seqs: SourceSeqs::default(),
        gap_log_seq: None,
    })
}

const NAMES: [(&str, &str); 4] = [("V", "A"), ("V", "B"), ("W", "A"), ("W", "C")];

/// Days of a market in a few steps: ticks that come in time, late or as backfill, corrections, and words of feeds.
struct Market {
    random: SmallRng,
    /// How far the market has come, in seconds.
    now: i64,
    /// Each trade: its identifier is its place, from 1.
    trades: Vec<(&'static str, &'static str, i64)>,
}

impl Market {
    async fn step(&mut self, world: &mut World) {
        let random = &mut self.random;
        match random.random_range(0..10) {
            0..6 => {
                let (late, backfill) = (random.random_ratio(1, 4), random.random_ratio(1, 5));
                let mut ticks = Vec::new();
                for _ in 0..random.random_range(1..40) {
                    if !late {
                        self.now += random.random_range(0..400);
                    }
                    let behind = if late { random.random_range(0..self.now + 1) } else { random.random_range(0..20) };
                    let (on, of) = NAMES[random.random_range(0..NAMES.len())];
                    ticks.push((on, of, (self.now - behind).max(0)));
                }
                self.trades.extend(&ticks);
                match backfill {
                    true => world.backfill(&ticks).await,
                    false => world.publish(&ticks).await,
                };
            }
            6..8 if !self.trades.is_empty() => {
                // Some of all trades, or all of one minute.
                let one = self.trades[random.random_range(0..self.trades.len())];
                let whole = random.random_ratio(1, 2);
                let minute = |second: i64| at(second).nanos() / Interval::MINUTE.nanos();
                let all = self.trades.iter().zip(1u64..);
                let mut corrections = Vec::new();
                for (&(on, of, second), trade) in all {
                    let same = (on, of, minute(second)) == (one.0, one.1, minute(one.2));
                    if if whole { same } else { random.random_ratio(1, 40) } {
                        let cents = (!whole).then(|| random.random_range(0..9_000));
                        corrections.push((on, of, second, trade, cents));
                    }
                }
                corrections.truncate(200);
                if !corrections.is_empty() {
                    world.correct(&corrections, random.random_ratio(1, 4)).await;
                }
            }
            8 => {
                let on = NAMES[random.random_range(0..NAMES.len())].0;
                let from = random.random_range(0..self.now + 1);
                let until = random.random_ratio(3, 4).then(|| from + random.random_range(1..9_000));
                let control = match random.random_range(0..5) {
                    0 => filled(on, from, until),
                    1 => status(on, &[], random.random()),
                    2 => gap(on, &["A"], from, until),
                    _ => gap(on, &[], from, until),
                };
                world.say(control).await;
            }
            _ => {
                let on = NAMES[random.random_range(0..NAMES.len())].0;
                world.say(Control::Watermark { venue: venue(on), time: at(self.now - 50) }).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_table_is_the_list_of_final_bars_whatever_comes_late_and_whenever_it_is_interrupted() {
    for seed in 0..6 {
        let mut world = World::new(if seed % 2 == 0 { ROOMY } else { TIGHT }).await;
        let mut market = Market { random: SmallRng::seed_from_u64(seed), now: 60, trades: Vec::new() };
        let mut recorder = Some(Running::start(&world));
        let mut most = 0;
        for round in 0..25 {
            for _ in 0..market.random.random_range(1..12) {
                market.step(&mut world).await;
                if market.random.random_ratio(1, 3) {
                    let pause = market.random.random_range(0..3_000);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
            match market.random.random_range(0..5) {
                0 => recorder.take().unwrap().stop().await,
                1 => {
                    recorder.take().unwrap().stop().await;
                    world = world.restart().await;
                }
                _ => (),
            }
            if recorder.is_none() {
                market.step(&mut world).await;
                recorder = Some(Running::start(&world));
            }
            most = most.max(check(&world, &format!("seed {seed}, round {round}")).await);
        }
        assert!(most > 300, "{most}");
    }
}

/// As many minutes with a tick as there are, for an instrument.
fn minutes(count: usize) -> Vec<(&'static str, &'static str, i64)> {
    (0..count as i64).map(|minute| ("V", "A", minute * 60)).collect()
}

#[tokio::test(start_paused = true)]
async fn where_the_log_does_not_reach_back_to_the_mark_everything_is_read_from_history() {
    let mut world = World::new(TIGHT).await;
    let ticks = minutes(READ_BARS * 5 / 2);
    for part in ticks.chunks(100) {
        world.backfill(part).await;
    }
    // Without a mark, a history of several pages.
    let recorder = Running::start(&world);
    let bars = check(&world, "filled").await;
    assert!(bars > READ_BARS * 2, "{bars}");
    tokio::time::sleep(MARK_INTERVAL).await;
    recorder.stop().await;
    let before = world.store.bars_mark().await.unwrap();
    assert_eq!(before.position, Some(world.store.head().await.unwrap().position));

    // Meanwhile: late ticks, a minute without any trade left, new minutes, and the log goes.
    world.publish(&[("V", "A", 65), ("V", "A", 130), ("W", "B", 60)]).await;
    world.correct(&[("V", "A", 600, 11, None), ("V", "A", 1_200, 21, Some(5))], false).await;
    let end = ticks.len() as i64 * 60;
    let more: Vec<_> = (0..1_500).map(|minute| ("V", "A", end + minute * 60)).collect();
    for part in more.chunks(100) {
        world.publish(part).await;
    }
    let last = world.publish(&[("W", "B", end)]).await;
    world.forget_up_to(last.position - 1).await;
    let recorder = Running::start(&world);
    assert!(check(&world, "filled again").await > bars + 1_400);
    // One change that takes the position back, four pages, and one that sets it.
    let after = world.store.bars_mark().await.unwrap();
    assert!(after.version >= before.version + 6, "{before:?}, {after:?}");
    world.publish(&[("V", "A", end + 1_500 * 60), ("W", "B", end + 200)]).await;
    check(&world, "followed").await;
    recorder.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bar_whose_trades_were_taken_back_goes_though_neither_log_nor_history_has_them_any_more() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 0), ("V", "A", 70), ("V", "A", 140), ("V", "A", 300)]).await;
    let recorder = Running::start(&world);
    let bars = check(&world, "before").await;
    tokio::time::sleep(MARK_INTERVAL * 2).await;
    recorder.stop().await;
    let mark = world.store.bars_mark().await.unwrap();
    // The first one: no page of what is left reaches back to it.
    let cancel = world.correct(&[("V", "A", 0, 1, None)], false).await;
    // Past every delay: the correction is in the chunks, and then the log goes.
    world.advance(Duration::from_secs(1 << 31));
    let mut views = world.replica.tapes.get().views.clone();
    let is_settled = |view: &Arc<View>| view.hot_ticks() == 0 && view.corrections().waiting == 0;
    tokio::time::timeout(Duration::from_secs(3_600), views.wait_for(is_settled)).await.unwrap().unwrap();
    world.forget_up_to(cancel.position).await;
    assert!(mark.position < Some(cancel.position));
    let world = world.restart().await;
    let recorder = Running::start(&world);
    assert_eq!(check(&world, "after").await, bars - 1);
    recorder.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_hub_has_beyond_a_view_is_taken_in_with_the_next_one() {
    let mut world = World::new(ROOMY).await;
    let tape = crate::tape::Tape::clone(&world.replica.tapes.get());
    let mut views = Vec::new();
    for second in [0, 100, 200] {
        world.publish(&[("V", "A", second), ("V", "B", second)]).await;
        tokio::time::sleep(SETTLED).await;
        views.push(tape.views.borrow().clone());
    }
    let after = Cursor { epoch: Epoch(7), position: 0 };
    let mut follower = Follower::new(tape.hub.clone(), world.store.clone(), after, STEP_BYTES);
    let mut recorder = Recorder::new(tape, world.store.clone(), world.replica.query.get(), Default::default());
    for (view, minutes) in views.iter().zip([1, 2, 3]) {
        let taken = tokio::time::timeout(SETTLED, recorder.take(&mut follower, view)).await;
        taken.expect("it has everything at hand").unwrap();
        assert_eq!((recorder.taken, recorder.pending.len()), (view.position(), 2 * (minutes + 2)));
    }
}

/// Fails about every other change of the table, before it is made or before that is told.
#[derive(Debug, Default)]
struct Trouble(AtomicUsize);

#[async_trait]
impl Fault for Trouble {
    async fn hit(&self, point: &'static str) -> FaultAction {
        let is_of_bars = matches!(point, faults::BARS_BEFORE | faults::BARS_AFTER);
        let fails = is_of_bars && matches!(self.0.fetch_add(1, Ordering::Relaxed) % 7, 2 | 5);
        if fails { FaultAction::Fail } else { FaultAction::Continue }
    }
}

#[tokio::test(start_paused = true)]
async fn a_filling_goes_on_where_the_store_failed() {
    let mut world = World::new(ROOMY).await;
    for name in ["A", "B", "C", "D"] {
        let minutes: Vec<_> = (0..1_200).map(|minute| ("V", name, 60 * minute)).collect();
        world.publish(&minutes).await;
    }
    let recorder =
        Running::over(&world, Arc::new(world.store.reopen().with_faults(Faults::new(Arc::<Trouble>::default()))));
    tokio::time::sleep(RETRY_WAIT * 60).await;
    assert!(check(&world, "filled").await > 4_800);
    recorder.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_recorders_one_writes_and_the_other_takes_over() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 0), ("V", "A", 70)]).await;
    let (one, other) = (Running::start(&world), Running::start(&world));
    let mut now = 70;
    let mut on = async |world: &mut World, rounds: i64, when: &str| {
        for _ in 0..rounds {
            now += 70;
            world.publish(&[("V", "A", now), ("W", "A", now)]).await;
            check(world, when).await;
        }
    };
    on(&mut world, 3, "both").await;
    // Whoever came too late does not write: one change a look at most.
    let version = world.store.bars_mark().await.unwrap().version;
    on(&mut world, 5, "one of two").await;
    assert_eq!(world.store.bars_mark().await.unwrap().version, version + 5);
    one.stop().await;
    tokio::time::sleep(STANDBY_WAIT * 3).await;
    world.publish(&[("V", "A", 10_000)]).await;
    tokio::time::sleep(STANDBY_WAIT * 3).await;
    on(&mut world, 3, "the other alone").await;
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_fork_below_the_mark_rows_above_it_go_and_everything_is_read_anew() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 0), ("V", "A", 30), ("V", "A", 70)]).await;
    let fork = world.publish(&[("V", "A", 150)]).await;
    world.publish(&[("V", "A", 300), ("V", "A", 400)]).await;
    let recorder = Running::start(&world);
    check(&world, "before").await;
    tokio::time::sleep(MARK_INTERVAL * 2).await;
    recorder.stop().await;

    // A bar that only the lost log had, and one that was final there alone.
    let mark = world.store.bars_mark().await.unwrap();
    let mut lost = world.store.bars()[0].clone();
    lost.key = BarKey { instrument: InstrumentId(7), interval: Interval::MINUTE, start: at(-20) };
    lost.revision = fork.position + 1;
    let mut early = world.store.bars()[0].clone();
    early.key.start = Interval::MINUTE.start_of(at(400));
    early.close = Decimal::ZERO;
    let change = BarsChange {
        epoch: Epoch(7),
        version: mark.version,
        position: mark.position,
        forget_above: None,
        gone: Vec::new(),
        rows: vec![lost, early],
    };
    assert!(world.store.record_bars(change).await.unwrap());
    world.store.fork_epoch(Epoch(8), Cursor { epoch: Epoch(7), position: fork.position }).await.unwrap();
    let mut world = world.restart().await;
    let recorder = Running::start(&world);
    check(&world, "filled after the fork").await;
    let mark = world.store.bars_mark().await.unwrap();
    assert_eq!(mark.epoch, Some(Epoch(8)));

    // A fork above the mark loses nothing that it covers: the next recorder goes on from it.
    tokio::time::sleep(MARK_INTERVAL * 2).await;
    recorder.stop().await;
    let mark = world.store.bars_mark().await.unwrap();
    world.store.renew_epoch(Epoch(9)).await.unwrap();
    world = world.restart().await;
    let recorder = Running::start(&world);
    world.publish(&[("V", "A", 500)]).await;
    check(&world, "followed after the fork").await;
    let after = world.store.bars_mark().await.unwrap();
    assert_eq!((after.epoch, after.version), (Some(Epoch(9)), mark.version + 1));
    recorder.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_outrun_stands_by_until_the_table_stands_still() {
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 0), ("V", "A", 70)]).await;
    let recorder = Running::start(&world);
    check(&world, "before").await;
    // A change of somebody else, which this recorder knows nothing of: it learns so by its next one.
    let mark = world.store.bars_mark().await.unwrap();
    let change = BarsChange {
        epoch: Epoch(7),
        version: mark.version,
        position: mark.position,
        forget_above: None,
        gone: Vec::new(),
        rows: Vec::new(),
    };
    assert!(world.store.record_bars(change).await.unwrap());
    world.publish(&[("V", "A", 150)]).await;
    tokio::time::sleep(STANDBY_WAIT * 3).await;
    check(&world, "after standing by").await;
    recorder.stop().await;
}
