//! Random questions about history, asked while everything else goes on, and judged afterwards by the oracle over the
//! log up to the position at which each was answered.

use std::collections::BTreeMap;

use prost_types::Duration as Span9;
use rand::Rng as _;
use rand::rngs::SmallRng;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::history_service_server::HistoryService as _;
use tapefeed_proto::v1::instrument_service_server::InstrumentService as _;
use tapefeed_server::domain::Cursor;
use tapefeed_server::grpc::history_service::HistoryService;
use tapefeed_server::grpc::instrument_service::InstrumentService;
use tapefeed_tests::exact::{half_even, of_decimal, plain, text, text_at};
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::values::{timestamp, unix_nano};
use tonic::{Code, Request, Status};

use super::oracle::{self, Log, Logged, Span};
use super::workload::{BUSY, DAY, THIN, busy, thin};
use super::{bulk, moving};

/// A question with its answer.
#[derive(Debug)]
pub enum Answered {
    /// GetPriceStatistics.
    Statistics(proto::GetPriceStatisticsRequest, proto::GetPriceStatisticsResponse),
    /// GetAveragePrice; `Err`: nothing to average, asked when the view stood at the position.
    Average(proto::GetAveragePriceRequest, Result<proto::GetAveragePriceResponse, u64>),
    /// ListTicks, some pages.
    Ticks(proto::ListTicksRequest, Vec<proto::ListTicksResponse>),
    /// ListBars, one page.
    Bars(proto::ListBarsRequest, proto::ListBarsResponse),
    /// ListLatestTicks.
    Latest(proto::ListLatestTicksRequest, proto::ListLatestTicksResponse),
    /// ReadTicks.
    Bulk(bulk::Read),
    /// ListMovingAverages, one page.
    Moving(proto::ListMovingAveragesRequest, proto::ListMovingAveragesResponse),
    /// GetInstrument.
    Instrument(proto::GetInstrumentRequest, proto::GetInstrumentResponse),
}

/// Asks questions of one replica.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The history service.
    pub history: HistoryService,
    /// The instrument service.
    pub instruments: InstrumentService,
}

/// The position of a cursor.
pub fn position(cursor: &[u8]) -> u64 {
    Cursor::decode(cursor).expect("the server makes cursors").position
}

/// What a question is about: an instrument, or a symbol on all venues.
fn subject(random: &mut SmallRng) -> (String, String) {
    match random.random_range(0..10) {
        0..5 => busy(random.random_range(0..2 * BUSY)),
        5..8 => (String::new(), busy(random.random_range(0..2 * BUSY)).1),
        _ => thin(random.random_range(0..THIN)),
    }
}

/// No bounds, or a stretch of the last five days.
fn stretch(random: &mut SmallRng, now: i64) -> Span {
    let start = now - random.random_range(0..5 * DAY);
    let end = start + random.random_range(0..2 * DAY);
    Span { start: random.random_bool(0.6).then_some(start), end: random.random_bool(0.6).then_some(end) }
}

impl Asker {
    /// Asks one question. `None`: the store could not answer now, or the next page was asked for too late.
    pub async fn ask(
        &self,
        random: &mut SmallRng,
        now: i64,
        min_cursor: &[u8],
        view: impl Fn() -> u64,
    ) -> Option<Answered> {
        let (venue, symbol) = subject(random);
        let span = stretch(random, now);
        let (start_time, end_time) = (span.start.map(timestamp), span.end.map(timestamp));
        let min_cursor = min_cursor.to_vec().into();
        let outcome = match random.random_range(0..9) {
            0 => {
                let request = proto::GetPriceStatisticsRequest {
                    venue,
                    symbol,
                    start_time,
                    end_time,
                    min_cursor,
                    ..Default::default()
                };
                let answer = self.history.get_price_statistics(Request::new(request.clone())).await;
                answer.map(|answer| Answered::Statistics(request, answer.into_inner()))
            }
            1 | 2 => {
                let methods = 1..=if venue.is_empty() { 2 } else { 3 };
                let method = random.random_range(methods);
                let request = proto::GetAveragePriceRequest {
                    venue,
                    symbol,
                    start_time,
                    end_time,
                    min_cursor,
                    method,
                    ..Default::default()
                };
                let before = view();
                match self.history.get_average_price(Request::new(request.clone())).await {
                    Ok(answer) => Ok(Answered::Average(request, Ok(answer.into_inner()))),
                    Err(status) if status.code() == Code::NotFound => {
                        assert_eq!(Refusal::of(&status).reason, "NO_DATA");
                        Ok(Answered::Average(request, Err(before)))
                    }
                    Err(status) => Err(status),
                }
            }
            3 => {
                let order = random.random_range(1..=2);
                let page_size = random.random_range(1..500);
                let request = proto::ListTicksRequest {
                    venue,
                    symbol,
                    start_time,
                    end_time,
                    min_cursor,
                    order,
                    page_size,
                    ..Default::default()
                };
                self.pages(random, request).await
            }
            4 => {
                let mut selectors = vec![proto::Selector { venue, symbol }];
                for _ in 0..random.random_range(0..20) {
                    let (venue, symbol) = subject(random);
                    selectors.push(proto::Selector { venue, symbol });
                }
                let request = proto::ListLatestTicksRequest { selectors, min_cursor };
                let answer = self.history.list_latest_ticks(Request::new(request.clone())).await;
                answer.map(|answer| Answered::Latest(request, answer.into_inner()))
            }
            5 => {
                let seconds = [1, 60, 3_600, 86_400][random.random_range(0..4)];
                // Of every second of five days there are too many to count them one by one.
                let fills = if seconds < 3_600 { 0..2 } else { 0..4 };
                let request = proto::ListBarsRequest {
                    venue,
                    symbol,
                    start_time,
                    end_time,
                    min_cursor,
                    interval: Some(Span9 { seconds, nanos: 0 }),
                    last_count: [0, 0, 3, 50][random.random_range(0..4)],
                    include_forming: random.random(),
                    page_size: random.random_range(1..500),
                    fill: random.random_range(fills),
                    ..Default::default()
                };
                let answer = self.history.list_bars(Request::new(request.clone())).await;
                answer.map(|answer| Answered::Bars(request, answer.into_inner()))
            }
            6 => {
                let encoding = random.random_range(0..3);
                let request = proto::ReadTicksRequest {
                    venue,
                    symbol,
                    start_time,
                    end_time,
                    min_cursor,
                    encoding,
                    ..Default::default()
                };
                bulk::ask(&self.history, random, request).await.map(Answered::Bulk)
            }
            7 => {
                let seconds = [1, 60, 3_600, 86_400][random.random_range(0..4)];
                let request = proto::ListMovingAveragesRequest {
                    venue,
                    symbol,
                    start_time,
                    end_time,
                    min_cursor,
                    window_count: random.random_range(1..50),
                    bar_interval: random.random_bool(0.5).then_some(Span9 { seconds, nanos: 0 }),
                    page_size: random.random_range(1..500),
                    ..Default::default()
                };
                let answer = self.history.list_moving_averages(Request::new(request.clone())).await;
                answer.map(|answer| Answered::Moving(request, answer.into_inner()))
            }
            _ => {
                let (venue, symbol) = if venue.is_empty() { busy(0) } else { (venue, symbol) };
                let request = proto::GetInstrumentRequest { venue, symbol, min_cursor };
                let answer = self.instruments.get_instrument(Request::new(request.clone())).await;
                answer.map(|answer| Answered::Instrument(request, answer.into_inner()))
            }
        };
        match outcome {
            Ok(answered) => Some(answered),
            Err(status) if status.code() == Code::Unavailable => None,
            // The test's clock ran ahead of a question of several pages.
            Err(status)
                if Refusal::of(&status).reason == "PAGE_TOKEN_INVALID" && status.message().contains("older") =>
            {
                None
            }
            Err(status) => panic!("{status:?}"),
        }
    }

    async fn pages(&self, random: &mut SmallRng, request: proto::ListTicksRequest) -> Result<Answered, Status> {
        let mut pages: Vec<proto::ListTicksResponse> = Vec::new();
        for _ in 0..random.random_range(1..5) {
            let page_token = pages.last().map(|page| page.next_page_token.clone()).unwrap_or_default();
            if !pages.is_empty() && page_token.is_empty() {
                break;
            }
            let request = proto::ListTicksRequest { page_token, ..request.clone() };
            pages.push(self.history.list_ticks(Request::new(request)).await?.into_inner());
        }
        Ok(Answered::Ticks(request, pages))
    }
}

/// The stretch of a request.
pub fn span_of(start: &Option<prost_types::Timestamp>, end: &Option<prost_types::Timestamp>) -> Span {
    Span { start: start.as_ref().map(unix_nano), end: end.as_ref().map(unix_nano) }
}

/// What of a tick is compared.
pub type Facts = (u64, String, String, i64, i128, Option<i128>, String);

/// What is compared of a tick that was told.
pub fn facts_of(tick: &proto::Tick) -> Facts {
    (
        tick.log_seq,
        tick.venue.clone(),
        tick.symbol.clone(),
        tick.event_time.as_ref().map_or(0, unix_nano),
        tick.price.as_ref().map_or(0, of_decimal),
        tick.quantity.as_ref().map(of_decimal),
        tick.trade_id.clone(),
    )
}

/// What is compared of a tick of the log.
pub fn facts(tick: &Logged) -> Facts {
    let (venue, symbol) = tick.name.clone();
    (tick.log_seq, venue, symbol, tick.time, tick.price, tick.quantity, tick.trade_id.clone())
}

impl Answered {
    /// How many answers of each kind there are.
    pub fn kinds(answers: &[Answered]) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        for answer in answers {
            let kind = match answer {
                Answered::Statistics(..) => "statistics",
                Answered::Average(..) => "averages",
                Answered::Ticks(..) => "ticks",
                Answered::Bars(..) => "bars",
                Answered::Latest(..) => "latest",
                Answered::Bulk(..) => "bulk",
                Answered::Moving(..) => "moving averages",
                Answered::Instrument(..) => "instruments",
            };
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }

    /// Compares the answer with the oracle's.
    pub fn check(&self, log: &Log) {
        match self {
            Answered::Statistics(request, answer) => statistics(log, request, answer),
            Answered::Average(request, answer) => average(log, request, answer),
            Answered::Ticks(request, pages) => ticks(log, request, pages),
            Answered::Bars(request, answer) => bars(log, request, answer),
            Answered::Latest(request, answer) => latest(log, request, answer),
            Answered::Bulk(read) => read.check(log),
            Answered::Moving(request, answer) => moving::check(log, request, answer),
            Answered::Instrument(request, answer) => instrument(log, request, answer),
        }
    }
}

fn statistics(log: &Log, request: &proto::GetPriceStatisticsRequest, answer: &proto::GetPriceStatisticsResponse) {
    let span = span_of(&request.start_time, &request.end_time);
    let mut all = log.of(&request.venue, &request.symbol, position(&answer.as_of));
    all.retain(|tick| span.has(tick.time));
    let expected =
        proto::GetPriceStatisticsResponse { now: answer.now, as_of: answer.as_of.clone(), ..oracle::statistics(&all) };
    let told = proto::GetPriceStatisticsResponse {
        mean: answer.mean.as_deref().map(plain),
        vwap: answer.vwap.as_deref().map(plain),
        price_sum: plain(&answer.price_sum),
        volume: plain(&answer.volume),
        notional: plain(&answer.notional),
        ..answer.clone()
    };
    assert_eq!(told, expected, "{request:?}");
}

fn average(log: &Log, request: &proto::GetAveragePriceRequest, answer: &Result<proto::GetAveragePriceResponse, u64>) {
    let span = span_of(&request.start_time, &request.end_time);
    let as_of = answer.as_ref().map_or_else(|view| *view, |answer| position(&answer.as_of));
    let all = log.of(&request.venue, &request.symbol, as_of);
    let inside: Vec<&Logged> = all.iter().copied().filter(|tick| span.has(tick.time)).collect();
    let sums = oracle::statistics(&inside);
    let Ok(answer) = answer else {
        let volume = request.method() == proto::AverageMethod::Vwap;
        let nothing = if volume { sums.vwap.is_none() } else { inside.is_empty() };
        assert!(nothing, "there is something to average for {request:?}");
        return;
    };
    let now = answer.now.as_ref().map_or(0, unix_nano);
    let weighted = match request.method() {
        proto::AverageMethod::Twap => oracle::time_weighted(&all, span, now),
        _ => None,
    };
    let expected = match request.method() {
        proto::AverageMethod::Vwap => sums.vwap.clone(),
        proto::AverageMethod::Twap => weighted.as_ref().map(|weighted| weighted.average.clone()),
        _ => sums.mean.clone(),
    };
    assert_eq!(Some(plain(&answer.average_price)), expected, "{request:?}\n{answer:?}");
    assert_eq!(answer.tick_count, sums.tick_count, "{request:?}");
    let told = [&answer.price_sum, &answer.volume, &answer.notional].map(|sum| plain(sum));
    assert_eq!(told, [sums.price_sum, sums.volume, sums.notional], "{request:?}");
    assert_eq!(answer.first_event_time, sums.first.and_then(|first| first.event_time));
    assert_eq!(answer.last_event_time, sums.last.and_then(|last| last.event_time));
    let weight = answer
        .time_weight
        .as_ref()
        .map(|span: &Span9| i128::from(span.seconds) * 1_000_000_000 + i128::from(span.nanos));
    assert_eq!(weight, weighted.as_ref().map(|weighted| weighted.weight), "{request:?}");
    if let Some(weighted) = weighted {
        assert_eq!(plain(&answer.time_weighted_sum), weighted.sum, "{request:?}");
    }
}

fn ticks(log: &Log, request: &proto::ListTicksRequest, pages: &[proto::ListTicksResponse]) {
    let span = span_of(&request.start_time, &request.end_time);
    let as_of = &pages[0].as_of;
    assert!(pages.iter().all(|page| page.as_of == *as_of), "all pages are answered at one position");
    let mut all = log.of(&request.venue, &request.symbol, position(as_of));
    all.retain(|tick| span.has(tick.time));
    if request.order() == proto::Order::Descending {
        all.reverse();
    }
    let told: Vec<Facts> = pages.iter().flat_map(|page| &page.ticks).map(facts_of).collect();
    let complete = pages.last().is_some_and(|page| page.next_page_token.is_empty());
    let most = if complete { all.len() } else { told.len() };
    let expected: Vec<Facts> = all.into_iter().take(most).map(facts).collect();
    assert!(told == expected, "{request:?}: {} ticks told, {} expected", told.len(), expected.len());
}

fn bars(log: &Log, request: &proto::ListBarsRequest, answer: &proto::ListBarsResponse) {
    let span = span_of(&request.start_time, &request.end_time);
    let length = request.interval.as_ref().map_or(1, |interval| interval.seconds * 1_000_000_000);
    let as_of = position(&answer.as_of);
    let all = log.of(&request.venue, &request.symbol, as_of);
    let mut expected = oracle::bars(log, &all, as_of, length);
    if matches!(request.fill(), proto::BarFill::Null | proto::BarFill::Previous) {
        expected = oracle::filled(expected, &all, (length, span.start), log.reached(&all, as_of), request.fill());
    }
    expected.retain(|bar| {
        let start = bar.start_time.as_ref().map_or(0, unix_nano);
        span.has(start) && (request.include_forming || bar.state() == proto::BarState::Final)
    });
    let skipped = match request.last_count as usize {
        0 => 0,
        last => expected.len().saturating_sub(last),
    };
    expected.drain(..skipped);
    let more = expected.len() > request.page_size as usize;
    expected.truncate(request.page_size as usize);
    assert_eq!(answer.next_page_token.is_empty(), !more, "{request:?}");
    let told = answer.bars.iter().map(|bar| proto::Bar {
        instrument_id: 0,
        volume: plain(&bar.volume),
        notional: plain(&bar.notional),
        vwap: bar.vwap.as_deref().map(plain),
        ..bar.clone()
    });
    let expected = expected.into_iter().map(|bar| proto::Bar {
        venue: request.venue.clone(),
        symbol: request.symbol.clone(),
        ..bar
    });
    assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{request:?}");
}

fn latest(log: &Log, request: &proto::ListLatestTicksRequest, answer: &proto::ListLatestTicksResponse) {
    let as_of = position(&answer.as_of);
    let (mut expected, mut without): (Vec<Facts>, Vec<&proto::Selector>) = (Vec::new(), Vec::new());
    let mut told = std::collections::BTreeSet::new();
    for selector in &request.selectors {
        let mut any = false;
        for name in log.names(&selector.venue, &selector.symbol) {
            let Some(newest) = log.of(&name.0, &name.1, as_of).last().copied() else {
                continue;
            };
            any = true;
            if told.insert(name) {
                expected.push(facts(newest));
            }
        }
        if !any {
            without.push(selector);
        }
    }
    let ticks = answer.latest_ticks.iter().map(|latest| latest.tick.as_ref().expect("a tick"));
    assert_eq!(ticks.map(facts_of).collect::<Vec<_>>(), expected, "{request:?}");
    assert_eq!(answer.selectors_without_data.iter().collect::<Vec<_>>(), without, "{request:?}");
}

fn instrument(log: &Log, request: &proto::GetInstrumentRequest, answer: &proto::GetInstrumentResponse) {
    let told = answer.instrument.as_ref().expect("an instrument");
    let all = log.of(&request.venue, &request.symbol, position(&answer.as_of));
    assert_eq!(told.tick_count, all.len() as u64, "{request:?}");
    assert_eq!(told.first_tick.as_ref().map(facts_of), all.first().map(|tick| facts(tick)), "{request:?}");
    assert_eq!(told.last_tick.as_ref().map(facts_of), all.last().map(|tick| facts(tick)), "{request:?}");
    let decimals = |units: i128| text(units).split_once('.').map_or(0, |(_, fraction)| fraction.len() as u32);
    let prices = all.iter().map(|tick| decimals(tick.price)).max().unwrap_or(0);
    let quantities = all.iter().filter_map(|tick| tick.quantity).map(decimals).max().unwrap_or(0);
    assert_eq!((told.price_decimals, told.quantity_decimals), (prices, quantities), "{request:?}");
}

/// The mean of a few ticks by hand, so that the oracle itself is not taken on trust.
#[test]
fn the_oracle_counts_as_people_do() {
    assert_eq!(text(half_even(7_000_000_000, 3)), "2.333333333");
    assert_eq!(text_at(1_500_000_000_000_000_000, 18), "1.5");
}
