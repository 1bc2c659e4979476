//! ListPublishedBars as a client calls it, over bars that a run has published.

use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::HistoryService;
use crate::domain::{Published, date};
use crate::grpc::proto;
use crate::grpc::proto::history_service_server::HistoryService as _;
use crate::ingest::import::Limits;
use crate::ingest::import::tests::Bench;
use crate::ingest::import::tests::published::{bar, begin_run, submit};

const DAYS: [&str; 4] = ["2024-08-08", "2024-08-09", "2024-08-12", "2025-01-02"];

/// PETR4 with a bar on each of the days and a forward and an option on the second; VALE3 without bars.
async fn service() -> (Bench, HistoryService) {
    let bench = Bench::new(Limits::default()).await;
    begin_run(&bench, "r").await;
    let [first, second, third, fourth] = DAYS.map(|day| date::parse(day).unwrap());
    let mut option = bar(second, 70, 0, "0.55");
    option.strike = "31.25".parse().unwrap();
    option.strike_points = "0.000001".parse().unwrap();
    option.expiry_day = third;
    option.strike_correction = "1".into();
    let bars = vec![
        bar(fourth, 10, 0, "14"),
        bar(third, 10, 0, "13"),
        option,
        bar(second, 30, 60, "12.6"),
        bar(second, 10, 0, "12"),
        bar(first, 10, 0, "11"),
    ];
    let published = Published { bars: bars.into_iter().map(|bar| (0, bar)).collect(), details: Vec::new() };
    submit(&bench, "r", 1, &[("B3", "PETR4"), ("B3", "VALE3")], published, &[]).await;
    let service = HistoryService::new(bench.replica.query.clone());
    (bench, service)
}

fn petr4() -> proto::ListPublishedBarsRequest {
    proto::ListPublishedBarsRequest { venue: "B3".into(), symbol: "PETR4".into(), ..Default::default() }
}

fn between(start: &str, end: &str) -> proto::ListPublishedBarsRequest {
    let bound = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    proto::ListPublishedBarsRequest { start_date: bound(start), end_date: bound(end), ..petr4() }
}

async fn list(
    service: &HistoryService,
    request: proto::ListPublishedBarsRequest,
) -> Result<proto::ListPublishedBarsResponse, Status> {
    Ok(service.list_published_bars(Request::new(request)).await?.into_inner())
}

fn closes(page: &proto::ListPublishedBarsResponse) -> Vec<String> {
    let close =
        |bar: &proto::PublishedBar| crate::domain::Decimal::try_from(bar.close_price.unwrap()).unwrap().to_string();
    page.published_bars.iter().map(close).collect()
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().unwrap().reason.clone()
}

#[tokio::test]
async fn bars_are_told_as_published_and_what_stands_for_nothing_is_absent() {
    let (_bench, service) = service().await;
    let page = list(&service, between("2024-08-09", "2024-08-10")).await.unwrap();
    let decimal = |mantissa, exponent| Some(proto::Decimal { mantissa, exponent });
    let cash = proto::PublishedBar {
        date: "2024-08-09".into(),
        market: 10,
        term_days: None,
        board: "02".into(),
        open_price: decimal(1_001, -2),
        high_price: decimal(105, -1),
        low_price: decimal(999, -2),
        average_price: decimal(1_012, -2),
        close_price: decimal(12, 0),
        bid_price: decimal(102, -1),
        ask_price: None,
        trade_count: 99_999,
        quantity: decimal(12, 2),
        value: decimal(121_445, -1),
        quote_factor: 1_000,
        strike_price: None,
        strike_points: None,
        expiry_date: None,
        strike_correction: String::new(),
        distribution: "114".into(),
    };
    let forward =
        proto::PublishedBar { market: 30, term_days: Some(60), close_price: decimal(126, -1), ..cash.clone() };
    let option = proto::PublishedBar {
        market: 70,
        close_price: decimal(55, -2),
        strike_price: decimal(3_125, -2),
        strike_points: decimal(1, -6),
        expiry_date: Some("2024-08-12".into()),
        strike_correction: "1".into(),
        ..cash.clone()
    };
    assert_eq!(page.published_bars, [cash, forward, option]);
    assert_eq!(page.next_page_token, "");
}

#[tokio::test]
async fn ranges_are_half_open_and_a_known_instrument_without_bars_is_empty() {
    let (_bench, service) = service().await;
    let all = ["11", "12", "12.6", "0.55", "13", "14"];
    for (name, request, expected) in [
        ("everything", petr4(), &all[..]),
        ("from", between("2024-08-12", ""), &all[4..]),
        ("until", between("", "2024-08-09"), &all[..1]),
        ("a day", between("2024-08-08", "2024-08-09"), &all[..1]),
        ("an empty range", between("2024-08-08", "2024-08-08"), &[]),
        ("all of time", between("1970-01-01", "9999-12-31"), &all[..]),
        ("no bars", proto::ListPublishedBarsRequest { symbol: "VALE3".into(), ..petr4() }, &[]),
    ] {
        assert_eq!(closes(&list(&service, request).await.unwrap()), expected, "{name}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_and_show_what_is_imported_meanwhile_behind_them() {
    let (bench, service) = service().await;
    let mut request = proto::ListPublishedBarsRequest { page_size: 2, ..petr4() };
    let first = list(&service, request.clone()).await.unwrap();
    assert_eq!(closes(&first), ["11", "12"]);
    // One before the page's end, one behind it.
    let late = [("1970-01-02", "0.1"), ("2024-08-10", "0.2")];
    let bars = late.map(|(day, close)| (0, bar(date::parse(day).unwrap(), 10, 0, close)));
    let published = Published { bars: bars.to_vec(), details: Vec::new() };
    submit(&bench, "r", 2, &[("B3", "PETR4")], published, &[]).await;
    request.page_token = first.next_page_token;
    let mut rest = Vec::new();
    loop {
        let page = list(&service, request.clone()).await.unwrap();
        rest.extend(closes(&page));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        // The size of later pages is free.
        request.page_size = 1;
    }
    assert_eq!(rest, ["12.6", "0.55", "0.2", "13", "14"]);

    request.page_size = 0;
    for (name, other) in [
        ("another symbol", proto::ListPublishedBarsRequest { symbol: "VALE3".into(), ..request.clone() }),
        ("another start", proto::ListPublishedBarsRequest { start_date: Some("2024-01-01".into()), ..request.clone() }),
        ("another end", proto::ListPublishedBarsRequest { end_date: Some("2024-01-01".into()), ..request.clone() }),
        ("no token", proto::ListPublishedBarsRequest { page_token: "?".into(), ..request.clone() }),
    ] {
        assert_eq!(reason(&list(&service, other).await.unwrap_err()), "PAGE_TOKEN_INVALID", "{name}");
    }
    let ticks = proto::ListTicksRequest {
        venue: "B3".into(),
        symbol: "PETR4".into(),
        page_token: request.page_token.clone(),
        ..Default::default()
    };
    assert_eq!(reason(&service.list_ticks(Request::new(ticks)).await.unwrap_err()), "PAGE_TOKEN_INVALID");
    bench.advance(std::time::Duration::from_secs(601));
    assert_eq!(reason(&list(&service, request).await.unwrap_err()), "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn requests_that_break_a_rule_are_refused_with_their_field() {
    let (_bench, service) = service().await;
    let request = |venue: &str, symbol: &str| proto::ListPublishedBarsRequest {
        venue: venue.into(),
        symbol: symbol.into(),
        ..Default::default()
    };
    type Case = (&'static str, proto::ListPublishedBarsRequest, Code, &'static str, Option<&'static str>);
    let field = |name, request, field| -> Case { (name, request, Code::InvalidArgument, "FIELD_INVALID", Some(field)) };
    let cases: [Case; 9] = [
        field("no venue", request("", "PETR4"), "venue"),
        field("no symbol", request("B3", ""), "symbol"),
        field("all symbols", request("B3", "*"), "symbol"),
        field("a time", between("2024-08-08T00:00:00Z", ""), "start_date"),
        field("no day", between("", "2024-02-30"), "end_date"),
        field("an empty day", proto::ListPublishedBarsRequest { end_date: Some(String::new()), ..petr4() }, "end_date"),
        field("a negative page", proto::ListPublishedBarsRequest { page_size: -1, ..petr4() }, "page_size"),
        ("an inverted range", between("2024-08-09", "2024-08-08"), Code::InvalidArgument, "RANGE_INVERTED", None),
        ("an unknown symbol", request("B3", "PETR3"), Code::NotFound, "INSTRUMENT_UNKNOWN", None),
    ];
    for (name, request, code, expected, field) in cases {
        let status = list(&service, request).await.unwrap_err();
        let details = status.get_error_details();
        let found = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
        assert_eq!((status.code(), reason(&status).as_str(), found.as_deref()), (code, expected, field), "{name}");
    }
    let inverted = list(&service, between("2024-08-09", "2024-08-08")).await.unwrap_err();
    let metadata = inverted.get_error_details().error_info().unwrap().metadata.clone();
    assert_eq!((metadata["start_date"].as_str(), metadata["end_date"].as_str()), ("2024-08-09", "2024-08-08"));
}
