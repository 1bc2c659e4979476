//! The calls as a client makes them: requests that break a rule, and answers in full.

use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::HistoryService;
use crate::domain::time::NANOS_PER_SECOND;
use crate::domain::{Cursor, Epoch};
use crate::grpc::proto;
use crate::grpc::proto::history_service_server::HistoryService as _;
use crate::query::tests::world::{World, tick};

/// X on venues A and B, Y on A; ticks of both X at seconds 10 to 12.
async fn service() -> HistoryService {
    let names = [("A", "X"), ("B", "X"), ("A", "Y")];
    let mut world = World::new(&names, 100 * NANOS_PER_SECOND).await;
    let second = |index, second: i64, price, quantity| tick(index, second * NANOS_PER_SECOND, price, quantity);
    world
        .append(vec![second(0, 10, "100.5", Some("2")), second(1, 11, "-1", None), second(0, 12, "101", Some("0.5"))])
        .await;
    world.publish().await;
    HistoryService::new(world.stop())
}

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

/// Code, reason, and the field of the first violation if there is one.
fn told(status: &Status) -> (Code, String, Option<String>) {
    let details = status.get_error_details();
    let reason = details.error_info().unwrap().reason.clone();
    let field = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
    (status.code(), reason, field)
}

fn ticks(venue: &str, symbol: &str) -> proto::ListTicksRequest {
    proto::ListTicksRequest { venue: venue.into(), symbol: symbol.into(), ..Default::default() }
}

#[tokio::test]
async fn requests_that_break_a_rule_are_refused_with_their_field() {
    let service = service().await;
    let minute = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let ok = || ticks("A", "X");
    type Case = (&'static str, proto::ListTicksRequest, Code, &'static str, Option<&'static str>);
    let field = |name, request, field| -> Case { (name, request, Code::InvalidArgument, "FIELD_INVALID", Some(field)) };
    let plain = |name, request, code, reason| -> Case { (name, request, code, reason, None) };
    let foreign = Cursor { epoch: Epoch(1), position: 1 };
    let cases = [
        field("no symbol", ticks("A", ""), "symbol"),
        field("all symbols", ticks("A", "*"), "symbol"),
        field("a slash in the venue", ticks("A/B", "X"), "venue"),
        field("1969", proto::ListTicksRequest { start_time: at(-1), ..ok() }, "start_time"),
        field("2300", proto::ListTicksRequest { end_time: at(10_413_792_000), ..ok() }, "end_time"),
        field("a range and a period", proto::ListTicksRequest { end_time: at(9), period: minute, ..ok() }, "period"),
        field("no time at all", proto::ListTicksRequest { period: Some(Default::default()), ..ok() }, "period"),
        field("a negative page", proto::ListTicksRequest { page_size: -1, ..ok() }, "page_size"),
        field("a foreign order", proto::ListTicksRequest { order: 3, ..ok() }, "order"),
        plain(
            "a broken cursor",
            proto::ListTicksRequest { min_cursor: vec![1; 20].into(), ..ok() },
            Code::InvalidArgument,
            "CURSOR_INVALID",
        ),
        plain(
            "another log's cursor",
            proto::ListTicksRequest { min_cursor: foreign.into(), ..ok() },
            Code::FailedPrecondition,
            "EPOCH_CHANGED",
        ),
        plain(
            "a broken token",
            proto::ListTicksRequest { page_token: "?".into(), ..ok() },
            Code::InvalidArgument,
            "PAGE_TOKEN_INVALID",
        ),
        plain(
            "an inverted range",
            proto::ListTicksRequest { start_time: at(9), end_time: at(8), ..ok() },
            Code::InvalidArgument,
            "RANGE_INVERTED",
        ),
        plain("an unknown symbol", ticks("", "Z"), Code::NotFound, "INSTRUMENT_UNKNOWN"),
        plain("an unknown venue", ticks("Z", "X"), Code::NotFound, "INSTRUMENT_UNKNOWN"),
    ];
    for (name, request, code, reason, field) in cases {
        let status = service.list_ticks(Request::new(request)).await.unwrap_err();
        let expected = (code, reason.to_owned(), field.map(str::to_owned));
        assert_eq!(told(&status), expected, "{name}");
    }
}

#[tokio::test]
async fn averages_and_latest_ticks_are_refused_with_their_reasons() {
    let service = service().await;
    let average = |symbol: &str, method: i32, decimals: Option<i32>| proto::GetAveragePriceRequest {
        symbol: symbol.into(),
        method,
        decimals,
        ..Default::default()
    };
    let cases = [
        ("a foreign method", average("X", 4, None), Code::InvalidArgument, "FIELD_INVALID", Some("method")),
        ("37 decimals", average("X", 0, Some(37)), Code::InvalidArgument, "FIELD_INVALID", Some("decimals")),
        ("TWAP of two venues", average("X", 3, None), Code::InvalidArgument, "FIELD_INVALID", Some("venue")),
        ("nothing there", average("Y", 1, None), Code::NotFound, "NO_DATA", None),
    ];
    for (name, request, code, reason, field) in cases {
        let status = service.get_average_price(Request::new(request)).await.unwrap_err();
        let expected = (code, reason.to_owned(), field.map(str::to_owned));
        assert_eq!(told(&status), expected, "{name}");
    }
    let latest = |selectors: Vec<proto::Selector>| {
        service.list_latest_ticks(Request::new(proto::ListLatestTicksRequest {
            selectors,
            min_cursor: Default::default(),
        }))
    };
    let none = latest(Vec::new()).await.unwrap_err();
    assert_eq!(told(&none).2.as_deref(), Some("selectors"));
    let many = latest(vec![proto::Selector::default(); 1_001]).await.unwrap_err();
    let limit = many.get_error_details().error_info().unwrap().metadata.clone();
    assert_eq!(
        (many.code(), limit["max"].as_str(), limit["actual"].as_str()),
        (Code::ResourceExhausted, "1000", "1001")
    );
}

#[tokio::test]
async fn answers_carry_all_that_the_contract_names() {
    let service = service().await;
    let as_of: bytes::Bytes = Cursor { epoch: Epoch(77), position: 3 }.into();

    let page = proto::ListTicksRequest { page_size: 2, order: 2, ..ticks("", "X") };
    let page = service.list_ticks(Request::new(page)).await.unwrap().into_inner();
    let rows: Vec<_> = page.ticks.iter().map(|tick| (tick.venue.as_str(), tick.instrument_id, tick.log_seq)).collect();
    assert_eq!(rows, [("A", 1, 3), ("B", 2, 2)]);
    assert_eq!((page.as_of, page.now), (as_of.clone(), at(100)));
    assert_eq!(page.next_page_token.len(), 83);

    let request = proto::GetAveragePriceRequest {
        venue: "A".into(),
        symbol: "X".into(),
        method: proto::AverageMethod::Twap.into(),
        decimals: Some(2),
        end_time: at(15),
        ..Default::default()
    };
    let average = service.get_average_price(Request::new(request)).await.unwrap().into_inner();
    let expected = proto::GetAveragePriceResponse {
        // 2 s of 100.5 and 3 s of 101.
        average_price: "100.8".into(),
        method: proto::AverageMethod::Twap.into(),
        tick_count: 2,
        price_sum: "201.5".into(),
        volume: "2.5".into(),
        notional: "251.5".into(),
        first_event_time: at(10),
        last_event_time: at(12),
        time_weight: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        time_weighted_sum: "504".into(),
        now: at(100),
        as_of: as_of.clone(),
    };
    assert_eq!(average, expected);

    let request = proto::GetPriceStatisticsRequest { symbol: "X".into(), ..Default::default() };
    let statistics = service.get_price_statistics(Request::new(request)).await.unwrap().into_inner();
    let point = |venue: &str, mantissa, exponent, second, log_seq| {
        Some(proto::PricePoint {
            price: Some(proto::Decimal { mantissa, exponent }),
            event_time: at(second),
            log_seq,
            venue: venue.into(),
            symbol: "X".into(),
        })
    };
    let expected = proto::GetPriceStatisticsResponse {
        tick_count: 3,
        first: point("A", 1_005, -1, 10, 1),
        last: point("A", 101, 0, 12, 3),
        highest: point("A", 101, 0, 12, 3),
        lowest: point("B", -1, 0, 11, 2),
        mean: Some("66.833333333".into()),
        vwap: Some("100.6".into()),
        price_sum: "200.5".into(),
        volume: "2.5".into(),
        notional: "251.5".into(),
        now: at(100),
        as_of: as_of.clone(),
    };
    assert_eq!(statistics, expected);

    let selector = |venue: &str, symbol: &str| proto::Selector { venue: venue.into(), symbol: symbol.into() };
    let request = proto::ListLatestTicksRequest {
        selectors: vec![selector("B", "X"), selector("A", "Y"), selector("A", "*")],
        min_cursor: as_of.clone(),
    };
    let latest = service.list_latest_ticks(Request::new(request)).await.unwrap().into_inner();
    let found: Vec<_> = latest
        .latest_ticks
        .iter()
        .map(|latest| (latest.tick.as_ref().unwrap().log_seq, latest.age.unwrap().seconds))
        .collect();
    assert_eq!(found, [(2, 89), (3, 88)]);
    assert_eq!(latest.selectors_without_data, [selector("A", "Y")]);
    assert_eq!((latest.as_of, latest.now), (as_of, at(100)));
}

#[tokio::test]
async fn bars_and_moving_averages_are_checked_and_written_out() {
    let service = service().await;
    let length = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    type Bars = proto::ListBarsRequest;
    let bars = || Bars { symbol: "X".into(), interval: length(10), include_forming: true, ..Default::default() };
    for (field, wish) in [
        ("symbol", Bars { symbol: "*".into(), ..bars() }),
        ("interval", Bars { interval: None, ..bars() }),
        ("interval", Bars { interval: length(86_401), ..bars() }),
        ("last_count", Bars { last_count: -1, ..bars() }),
        ("last_count", Bars { last_count: 100_001, ..bars() }),
        ("fill", Bars { fill: 4, ..bars() }),
        ("decimals", Bars { decimals: Some(37), ..bars() }),
        ("page_size", Bars { page_size: -1, ..bars() }),
    ] {
        let refused = service.list_bars(Request::new(wish)).await.unwrap_err();
        assert_eq!(told(&refused).2.as_deref(), Some(field), "{refused:?}");
    }
    let answer = service.list_bars(Request::new(Bars { decimals: Some(2), ..bars() })).await.unwrap().into_inner();
    let [bar] = answer.bars.as_slice() else { panic!("{answer:?}") };
    let price = |price: &Option<proto::Decimal>| price.map(|price| (price.mantissa, price.exponent));
    let prices = [&bar.open_price, &bar.high_price, &bar.low_price, &bar.close_price].map(price);
    assert_eq!(prices, [Some((1_005, -1)), Some((101, 0)), Some((-1, 0)), Some((101, 0))]);
    assert_eq!([bar.open_time, bar.high_time, bar.low_time, bar.close_time], [at(10), at(12), at(11), at(12)]);
    assert_eq!((bar.venue.as_str(), bar.symbol.as_str(), bar.instrument_id), ("", "X", 0));
    assert_eq!((bar.volume.as_str(), bar.notional.as_str(), bar.vwap.as_deref()), ("2.5", "251.5", Some("100.6")));
    assert_eq!((bar.start_time, bar.end_time, bar.tick_count, bar.revision), (at(10), at(20), 3, 3));
    assert_eq!((bar.state, bar.has_source_gap), (proto::BarState::Forming.into(), false));
    let alone = Bars { venue: "A".into(), interval: length(1), fill: 2, start_time: at(9), ..bars() };
    let answer = service.list_bars(Request::new(alone)).await.unwrap().into_inner();
    let counts: Vec<_> =
        answer.bars.iter().map(|bar| (bar.instrument_id, bar.tick_count, price(&bar.open_price))).collect();
    assert_eq!(counts, [(1, 0, None), (1, 1, Some((1_005, -1))), (1, 0, None), (1, 1, Some((101, 0)))]);

    type Averages = proto::ListMovingAveragesRequest;
    let averages = || Averages { symbol: "X".into(), window_count: 2, ..Default::default() };
    for (field, wish) in [
        ("method", Averages { method: 3, ..averages() }),
        ("window_count", Averages { window_count: 0, ..averages() }),
        ("window_count", Averages { window_count: 10_001, ..averages() }),
        ("bar_interval", Averages { bar_interval: length(0), ..averages() }),
    ] {
        let refused = service.list_moving_averages(Request::new(wish)).await.unwrap_err();
        assert_eq!(told(&refused).2.as_deref(), Some(field), "{refused:?}");
    }
    let answer = service.list_moving_averages(Request::new(averages())).await.unwrap().into_inner();
    let points = answer.points.iter().map(|point| (point.end_time, point.log_seq, point.average_price.as_str()));
    assert_eq!(points.collect::<Vec<_>>(), [(at(11), 2, "49.75"), (at(12), 3, "50")]);
}
