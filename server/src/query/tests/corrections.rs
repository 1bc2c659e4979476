//! Trades that are corrected and taken back, before and after they come, in any order with compaction, merges of days,
//! trimming of the log and restarts: every answer equals that of a list of trades by the definition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::bench::{Backing, Bench};
use super::naive;
use super::oracle::{NAMES, check_totals};
use super::world::{ManualClock, at};
use crate::domain::bar::{Fill, Interval};
use crate::domain::correction::Values;
use crate::domain::statistics::Sums;
use crate::domain::time::NANOS_PER_DAY;
use crate::domain::{
    Action, Batch, Clock as _, Correction, Decimal, Epoch, InstrumentId, NewTick, Origin, Side, Symbol, Tick,
    TimeRange, TradeId, UnixNanos, Venue,
};
use crate::query::{
    AverageError, AverageMethod, AverageRequest, BarsRequest, InstrumentsRequest, MovingMethod, MovingRequest, Order,
    PageTokenInvalid, ReadRequest, Selector, Span, StatisticsRequest, Stretch, Subject, TicksError, TicksRequest,
};
use crate::store::{MemoryStore, TestServer};

const FIRST_DAY: i64 = 19_000;
const HOUR: i64 = 3_600_000_000_000;
const MINUTE: i64 = 60_000_000_000;

/// What was sent, by the definition.
#[derive(Default)]
struct Oracle {
    ticks: Vec<Tick>,
    corrections: Vec<(u64, Correction)>,
}

impl Oracle {
    fn take(&mut self, first_seq: u64, batch: &Batch, ids: &[InstrumentId], origin: Origin) {
        for (index, new) in batch.ticks.iter().enumerate() {
            let log_seq = first_seq + index as u64;
            let instrument = ids[new.instrument as usize];
            let NewTick { event_time, receive_time, price, quantity, side, trade_id, action, .. } = new.clone();
            let receive_time = receive_time.unwrap();
            if action == Action::New {
                let tick =
                    Tick { instrument, log_seq, event_time, receive_time, price, quantity, side, trade_id, origin };
                self.ticks.push(tick);
                continue;
            }
            let values = (action == Action::Correct).then_some(Values { price, quantity, side });
            self.corrections.push((log_seq, Correction { instrument, trade_id, event_time, receive_time, values }));
        }
    }

    /// The trades as they are at a position.
    fn trades(&self, position: u64) -> Vec<Tick> {
        let mut trades = Vec::new();
        for tick in self.ticks.iter().filter(|tick| tick.log_seq <= position) {
            let mut trade = Some(tick.clone());
            for (_, correction) in self.corrections.iter().filter(|(log_seq, _)| *log_seq <= position) {
                let same = (correction.instrument, correction.event_time, &correction.trade_id)
                    == (tick.instrument, tick.event_time, &tick.trade_id);
                match (same, correction.values) {
                    (true, None) => trade = None,
                    (true, Some(Values { price, quantity, side })) => {
                        trade = trade.map(|trade| Tick { price, quantity, side, ..trade });
                    }
                    (false, _) => (),
                }
            }
            trades.extend(trade);
        }
        trades
    }

    /// The greatest position of a correction in a bar.
    fn revision(&self, ids: &[InstrumentId], (start, end): (i64, i64), position: u64) -> u64 {
        let inside = self.corrections.iter().filter(|(log_seq, correction)| {
            let time = correction.event_time.nanos();
            *log_seq <= position && ids.contains(&correction.instrument) && start <= time && time < end
        });
        inside.map(|(log_seq, _)| *log_seq).max().unwrap_or(0)
    }
}

fn name(index: usize) -> (Venue, Symbol) {
    (Venue::new(NAMES[index].0).unwrap(), Symbol::new(NAMES[index].1).unwrap())
}

/// Few instruments, instants and identifiers, so that much is said of the same trades, before and after they come.
fn any_batch(random: &mut SmallRng) -> Batch {
    let mut batch = Batch { instruments: (0..NAMES.len()).map(name).collect(), ..Batch::default() };
    for _ in 0..random.random_range(1..12) {
        let time =
            FIRST_DAY * NANOS_PER_DAY + random.random_range(0..3) * NANOS_PER_DAY / 2 + random.random_range(0..4);
        let action = match random.random_range(0..10) {
            0 => Action::Cancel,
            1 | 2 => Action::Correct,
            _ => Action::New,
        };
        let prices = ["100.25", "100", "-3.75", "0", "0.000000000000000001", "999999999999999"];
        let price: Decimal = prices[random.random_range(0..prices.len())].parse().unwrap();
        let quantities = [None, Some("0"), Some("1.5"), Some("7")];
        let quantity = quantities[random.random_range(0..quantities.len())].map(|text| text.parse().unwrap());
        let number = random.random_range(0..6);
        let id = if number == 5 { TradeId::text("x-5") } else { TradeId::Number(number) };
        let new = NewTick {
            instrument: random.random_range(0..NAMES.len()) as u32,
            event_time: at(time),
            receive_time: Some(at(time + random.random_range(0..1_000))),
            price,
            quantity,
            side: [Side::Unspecified, Side::Buy, Side::Sell][random.random_range(0..3)],
            trade_id: if action == Action::New && random.random_ratio(1, 8) { TradeId::None } else { id },
            action,
        };
        batch.ticks.push(new.canonical());
    }
    batch
}

fn any_range(random: &mut SmallRng) -> TimeRange {
    let bound = |random: &mut SmallRng| {
        let near =
            FIRST_DAY * NANOS_PER_DAY + random.random_range(0..3) * NANOS_PER_DAY / 2 + random.random_range(-1..5);
        random.random_ratio(2, 3).then_some(near)
    };
    let (start, end) = match (bound(random), bound(random)) {
        (Some(a), Some(b)) => (Some(a.min(b)), Some(a.max(b))),
        open => open,
    };
    TimeRange::new(start.map(at), end.map(at)).unwrap()
}

/// A walk over pages that was begun, and what is still to come of it.
struct Walk {
    request: TicksRequest,
    rest: Vec<Tick>,
    begun: UnixNanos,
}

async fn check(bench: &Bench, oracle: &Oracle, random: &mut SmallRng) {
    let position = bench.views.borrow().position();
    let trades = oracle.trades(position);
    let registry = bench.query.registry();
    for (venue, symbol) in [(Some("A"), "X"), (None, "X"), (Some("A"), "Y")] {
        let venue = venue.map(|venue| Venue::new(venue).unwrap());
        let subject = Subject { venue, symbol: Symbol::new(symbol).unwrap() };
        let ids = match &subject.venue {
            Some(venue) => registry.find(venue, &subject.symbol).into_iter().collect(),
            None => registry.with_symbol(&subject.symbol),
        };
        let known = naive::known(&trades, &ids, position);
        let range = any_range(random);
        let expected = naive::inside(&known, range);
        let span = Span::Range(range);

        let request = StatisticsRequest { subject: subject.clone(), span, min_cursor: None };
        check_totals(&bench.query.price_statistics(&request).await.unwrap().totals, &expected);

        for method in [AverageMethod::Mean, AverageMethod::TimeWeighted] {
            let request = AverageRequest { subject: subject.clone(), span, method, decimals: 9, min_cursor: None };
            match bench.query.average(&request).await {
                Ok(average) => {
                    assert_eq!(average.sums.count, expected.len() as u64);
                    assert_eq!(naive::big(average.sums.price_sum), naive::price_sum(&expected));
                    let (count, volume, notional) = naive::volume(&expected);
                    let Sums { volume_count, .. } = average.sums;
                    assert_eq!((volume_count, naive::big(average.sums.volume)), (count, volume));
                    assert_eq!(naive::big(average.sums.notional), notional);
                    if let Some(weighted) = average.time_weighted {
                        let (weight, sum, _) = naive::time_weighted(&known, range, average.now).unwrap();
                        assert_eq!(
                            (weighted.weight.into(), naive::big(weighted.sum)),
                            (weight, sum),
                            "{subject} {range:?}"
                        );
                    }
                }
                Err(AverageError::NoData { .. }) => assert!(expected.is_empty()),
                Err(AverageError::SeveralVenues(2)) => assert_eq!(ids.len(), 2),
                Err(error) => panic!("{error}"),
            }
        }

        for order in [Order::Ascending, Order::Descending] {
            let (mut found, mut token) = (Vec::new(), None);
            loop {
                let request = TicksRequest {
                    subject: subject.clone(),
                    span,
                    order,
                    page_size: random.random_range(1..20),
                    page_token: token.take(),
                    min_cursor: None,
                };
                let page = bench.query.ticks(&request).await.unwrap();
                found.extend(page.ticks);
                token = page.next_page_token;
                if token.is_none() {
                    break;
                }
            }
            if order == Order::Descending {
                found.reverse();
            }
            assert_eq!(found, expected, "{subject} {range:?} {order:?}");
        }

        let request = ReadRequest { subject: subject.clone(), span, page_token: None, min_cursor: None };
        let mut reading = bench.query.read(&request).await.unwrap();
        let mut found = Vec::new();
        while let Some(stretch) = reading.next().await.unwrap() {
            match stretch {
                Stretch::Chunk(chunk, indexes) => found.extend(indexes.map(|index| chunk.tick(index))),
                Stretch::Hot(hot) => found.extend(hot.ticks().cloned()),
            }
            if random.random() {
                reading.pause();
            }
        }
        assert_eq!(found, expected, "{subject} {range:?}");

        check_bars(bench, oracle, (&subject, &ids), &known, position).await;

        let window = random.random_range(1..5);
        let request = MovingRequest {
            subject: subject.clone(),
            span,
            method: MovingMethod::Simple,
            window,
            bars: None,
            decimals: 9,
            page_size: 1_000,
            page_token: None,
            min_cursor: None,
        };
        let found = bench.query.moving_averages(&request).await.unwrap().points;
        let found: Vec<(u64, String)> = found.into_iter().map(|point| (point.log_seq, point.average)).collect();
        let averages = known.windows(window).filter(|ticks| range.contains(ticks[window - 1].event_time));
        let average = |ticks: &[Tick]| {
            let price = naive::quotient(&naive::price_sum(ticks), &(window as u64).into(), 18, 9);
            (ticks[window - 1].log_seq, price)
        };
        assert_eq!(found, averages.map(average).collect::<Vec<_>>(), "{subject} {range:?}");
    }

    let mut newest: BTreeMap<InstrumentId, Tick> = BTreeMap::new();
    for tick in naive::known(&trades, &[1, 2, 3].map(InstrumentId), position) {
        newest.insert(tick.instrument, tick);
    }
    let all = Selector { venue: None, symbol: None };
    let latest = bench.query.latest(std::slice::from_ref(&all), None).await.unwrap().latest;
    let latest: BTreeMap<InstrumentId, Tick> = latest.into_iter().map(|one| (one.instrument.id, one.tick)).collect();
    assert_eq!(latest, newest);
    let request = InstrumentsRequest { selector: all, page_size: 10, page_token: None, min_cursor: None };
    for facts in bench.query.list_instruments(&request).await.unwrap().instruments {
        let known = naive::known(&trades, &[facts.instrument.id], position);
        assert_eq!(facts.tick_count, known.len() as u64);
        assert_eq!((facts.first.as_ref(), facts.last.as_ref()), (known.first(), known.last()));
    }
}

async fn check_bars(
    bench: &Bench,
    oracle: &Oracle,
    (subject, ids): (&Subject, &[InstrumentId]),
    known: &[Tick],
    position: u64,
) {
    let interval = Interval::new(Duration::from_secs(6 * 3_600)).unwrap();
    let length = interval.nanos();
    let start_of = |time: UnixNanos| time.nanos() / length * length;
    let corrected =
        oracle.corrections.iter().filter(|(log_seq, one)| *log_seq <= position && ids.contains(&one.instrument));
    let corrected: BTreeSet<i64> = corrected.map(|(_, correction)| start_of(correction.event_time)).collect();
    for fill in [Fill::Skip, Fill::Null] {
        let range = TimeRange::new(Some(at((FIRST_DAY - 1) * NANOS_PER_DAY)), None).unwrap();
        let request = BarsRequest {
            subject: subject.clone(),
            span: Span::Range(range),
            interval,
            last_count: None,
            include_forming: true,
            fill,
            page_size: 1_000,
            page_token: None,
            min_cursor: None,
        };
        let bars = bench.query.bars(&request).await.unwrap().bars;
        let mut with_ticks = BTreeSet::new();
        for bar in &bars {
            let (start, end) = (bar.start.nanos(), bar.end.nanos());
            let own: Vec<Tick> = known.iter().filter(|tick| start_of(tick.event_time) == start).cloned().collect();
            check_totals(&bar.contents.totals, &own);
            let newest = own.iter().map(|tick| tick.log_seq).max().unwrap_or(0);
            assert_eq!(
                bar.contents.revision,
                newest.max(oracle.revision(ids, (start, end), position)),
                "{subject} {start}"
            );
            if !own.is_empty() || corrected.contains(&start) && fill == Fill::Null {
                with_ticks.insert(start);
            }
        }
        let mut expected: BTreeSet<i64> = known.iter().map(|tick| start_of(tick.event_time)).collect();
        if fill == Fill::Skip {
            assert_eq!(bars.iter().map(|bar| bar.start.nanos()).collect::<BTreeSet<_>>(), expected);
        } else {
            let last = bars.last().map_or(0, |bar| bar.start.nanos());
            expected.extend(corrected.iter().filter(|start| **start <= last));
            assert_eq!(with_ticks, expected);
        }
    }
}

/// Goes on with walks that were begun before, whatever was said since.
async fn turn(bench: &Bench, walks: &mut Vec<Walk>, random: &mut SmallRng, now: UnixNanos) -> usize {
    let mut turned = 0;
    let mut kept = Vec::new();
    for mut walk in walks.drain(..) {
        match bench.query.ticks(&walk.request).await {
            Ok(page) => {
                let rest = walk.rest.split_off(page.ticks.len());
                assert_eq!(page.ticks, walk.rest);
                assert_eq!(page.next_page_token.is_none(), rest.is_empty());
                turned += 1;
                walk.request.page_token = page.next_page_token;
                walk.rest = rest;
                if walk.request.page_token.is_some() && random.random() {
                    kept.push(walk);
                }
            }
            Err(TicksError::PageToken(PageTokenInvalid::Expired)) => {
                assert!(now.nanos() - walk.begun.nanos() > 10 * MINUTE, "a young walk goes on");
            }
            Err(error) => panic!("{error}"),
        }
    }
    *walks = kept;
    turned
}

async fn begin(bench: &Bench, oracle: &Oracle, random: &mut SmallRng, begun: UnixNanos) -> Option<Walk> {
    let subject = Subject { venue: None, symbol: Symbol::new("X").unwrap() };
    let ids = bench.query.registry().with_symbol(&subject.symbol);
    let position = bench.views.borrow().position();
    let order = if random.random() { Order::Ascending } else { Order::Descending };
    let mut expected = naive::known(&oracle.trades(position), &ids, position);
    if order == Order::Descending {
        expected.reverse();
    }
    let span = Span::Range(TimeRange::new(None, None).unwrap());
    let page_size = random.random_range(1..6);
    let mut request = TicksRequest { subject, span, order, page_size, page_token: None, min_cursor: None };
    let page = bench.query.ticks(&request).await.unwrap();
    let rest = expected.split_off(page.ticks.len());
    assert_eq!(page.ticks, expected);
    request.page_token = Some(page.next_page_token?);
    Some(Walk { request, rest, begun })
}

/// What a run met, so that it is known to have met it.
#[derive(Debug, Default)]
struct Met {
    settled: u64,
    unmatched: usize,
    rewritten: u64,
    turned: usize,
    trimmed: bool,
}

async fn run(mut backing: Backing, clock: Arc<ManualClock>, seed: u64, met: &mut Met) {
    let mut random = SmallRng::seed_from_u64(seed);
    // Every other run cuts ticks long before their corrections settle, and trims the log behind them.
    let age_cap = Duration::from_secs([60, 3_600][seed as usize % 2]);
    let mut bench = Bench::start(&mut backing, clock.clone(), age_cap).await;
    let (mut oracle, mut walks) = (Oracle::default(), Vec::new());
    for _ in 0..24 {
        for _ in 0..random.random_range(1..4) {
            let (batch, backfill) = (any_batch(&mut random), random.random_ratio(1, 4));
            let first_seq = bench.submit(batch.clone(), backfill).await;
            let registry = bench.query.registry();
            let ids: Vec<InstrumentId> =
                batch.instruments.iter().map(|(venue, symbol)| registry.find(venue, symbol).unwrap()).collect();
            oracle.take(first_seq, &batch, &ids, if backfill { Origin::Backfill } else { Origin::Live });
        }
        check(&bench, &oracle, &mut random).await;
        met.turned += turn(&bench, &mut walks, &mut random, clock.now()).await;
        walks.extend(begin(&bench, &oracle, &mut random, clock.now()).await);
        let step = [0, MINUTE, 5 * MINUTE, 16 * MINUTE, 2 * HOUR][random.random_range(0..5)];
        clock.advance(step);
        let before = bench.store.head().await.unwrap();
        bench.compact().await;
        let after = bench.store.head().await.unwrap();
        met.rewritten += after.manifest_version - before.manifest_version;
        met.trimmed |= after.oldest > 1;
        if random.random_ratio(1, 5) {
            bench.stop.cancel();
            bench.store.close().await;
            drop(bench);
            bench = Bench::start(&mut backing, clock.clone(), age_cap).await;
        }
        let view = bench.views.borrow().clone();
        met.settled = met.settled.max(view.settled());
        met.unmatched += view.corrections().unmatched;
        check(&bench, &oracle, &mut random).await;
    }
    // Everything settles in the end, and then nothing is left to put right.
    for step in [0, 3 * HOUR, 20 * MINUTE] {
        clock.advance(step);
        bench.compact().await;
    }
    let view = bench.views.borrow().clone();
    assert_eq!((view.corrections().waiting, view.corrections().unstored, view.hot_ticks()), (0, 0, 0));
    assert_eq!(view.corrections().all, oracle.corrections.len());
    let named: BTreeSet<_> =
        oracle.ticks.iter().map(|tick| (tick.instrument.0, tick.event_time, tick.trade_id.to_string())).collect();
    let unmatched = oracle
        .corrections
        .iter()
        .filter(|(_, one)| !named.contains(&(one.instrument.0, one.event_time, one.trade_id.to_string())));
    assert_eq!(view.corrections().unmatched, unmatched.count(), "what waits in vain is counted");
    assert!(view.holdings().all(|(_, holding)| holding.patch(view.position()).is_none()));
    check(&bench, &oracle, &mut random).await;
    bench.stop.cancel();
    bench.store.close().await;
}

fn start() -> Arc<ManualClock> {
    Arc::new(ManualClock::at((FIRST_DAY + 4) * NANOS_PER_DAY))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_the_corrected_trades_at_every_position() {
    let mut met = Met::default();
    for seed in 0..12 {
        let clock = start();
        let store = Arc::new(MemoryStore::new(clock.clone(), Epoch(77)));
        run(Backing::Memory(store), clock, seed, &mut met).await;
    }
    assert!(met.settled > 0 && met.unmatched > 0 && met.rewritten > 50 && met.turned > 20 && met.trimmed, "{met:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_from_a_file_are_those_of_the_corrected_trades_at_every_position() {
    let mut met = Met::default();
    for seed in 100..103 {
        let clock = start();
        let folder = tempfile::tempdir().unwrap();
        run(Backing::Sqlite(folder.path().join("store.db"), clock.clone()), clock, seed, &mut met).await;
    }
    assert!(met.settled > 0 && met.unmatched > 0 && met.rewritten > 10 && met.trimmed, "{met:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_from_a_database_are_those_of_the_corrected_trades_at_every_position() {
    let Some(server) = TestServer::find() else { return };
    let mut met = Met::default();
    for seed in 200..202 {
        let clock = start();
        let url = server.url_of(&server.make_database().await, "");
        run(Backing::Postgres(url, clock.clone()), clock, seed, &mut met).await;
    }
    server.drop_databases().await;
    assert!(met.settled > 0 && met.unmatched > 0 && met.rewritten > 5 && met.trimmed, "{met:?}");
}
