//! Queries, subscriptions, and the server's own start.

use bytes::Bytes;
use prost_types::Timestamp;
use tapefeed_proto::v1 as proto;
use tapefeed_tests::{Cli, Options, Server, values};
use tonic::{Code, Request, Status};

use crate::raw::RawCodec;

use super::Expected::{Ended, Refused};
use super::{Answer, BEGIN, Bench, Case, Provoked, SECOND, case, refused};

const UNKNOWN: super::Expected = Refused(Code::NotFound, "INSTRUMENT_UNKNOWN", &["venue", "symbol"]);
const INVERTED: super::Expected = Refused(Code::InvalidArgument, "RANGE_INVERTED", &["start_time", "end_time"]);
const TOKEN: super::Expected = Refused(Code::InvalidArgument, "PAGE_TOKEN_INVALID", &[]);
const CURSOR: super::Expected = Refused(Code::InvalidArgument, "CURSOR_INVALID", &[]);
const FIELD: super::Expected = Refused(Code::InvalidArgument, "FIELD_INVALID", &[]);
const LIMIT: super::Expected = Refused(Code::ResourceExhausted, "LIMIT_EXCEEDED", &["limit", "max"]);
const MALFORMED: super::Expected = Refused(Code::InvalidArgument, "MESSAGE_MALFORMED", &[]);

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case("unknown symbol", "GetInstrument", unknown_instrument, UNKNOWN),
    case("unknown symbol", "ListTicks", unknown_in_list, UNKNOWN),
    case("unknown symbol", "ListLatestTicks", unknown_latest, UNKNOWN),
    case("unknown symbol", "GetAveragePrice", unknown_average, UNKNOWN),
    case("unknown symbol", "GetPriceStatistics", unknown_statistics, UNKNOWN),
    case("unknown symbol", "command line", unknown_on_the_command_line, Ended(&["NOPE"])),
    case("inverted range", "ListTicks", inverted_list, INVERTED),
    case("inverted range", "GetAveragePrice", inverted_average, INVERTED),
    case("inverted range", "GetPriceStatistics", inverted_statistics, INVERTED),
    case("page token of another symbol", "ListTicks", token_of_another_symbol, TOKEN),
    case("page token of another RPC", "ListInstruments", token_of_another_rpc, TOKEN),
    case("page token that is noise", "ListTicks", token_of_noise, TOKEN),
    case("cursor with one bit flipped", "ListTicks", cursor_with_a_flipped_bit, CURSOR),
    case("cursor that is noise", "GetAveragePrice", cursor_of_noise, CURSOR),
    case("cursor with one bit flipped", "SubscribeTicks", cursor_of_a_subscription, CURSOR),
    case("5 MiB message", "ListTicks", large_list, LIMIT),
    case("5 MiB message", "SubscribeTicks", large_subscription, LIMIT),
    case("start in 1969", "ListTicks", start_in_1969, FIELD),
    case("end in 2300", "GetAveragePrice", end_in_2300, FIELD),
    case("Latin-1 bytes in a symbol", "ListTicks", latin_symbol, MALFORMED),
    case("a second server on the same file", "start", second_server, Ended(&["is open in another", "--store"])),
];

fn unknown_instrument(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let request = proto::GetInstrumentRequest {
            venue: "TEST".to_owned(),
            symbol: "NOPE".to_owned(),
            min_cursor: Bytes::new(),
        };
        refused(bench.stubs.instruments.clone().get_instrument(request).await)
    })
}

fn list(symbol: &str) -> proto::ListTicksRequest {
    proto::ListTicksRequest { symbol: symbol.to_owned(), ..Default::default() }
}

fn average(symbol: &str) -> proto::GetAveragePriceRequest {
    proto::GetAveragePriceRequest { symbol: symbol.to_owned(), ..Default::default() }
}

fn statistics(symbol: &str) -> proto::GetPriceStatisticsRequest {
    proto::GetPriceStatisticsRequest { symbol: symbol.to_owned(), ..Default::default() }
}

async fn list_refused(bench: &Bench, request: proto::ListTicksRequest) -> Answer {
    refused(bench.stubs.history.clone().list_ticks(request).await)
}

async fn average_refused(bench: &Bench, request: proto::GetAveragePriceRequest) -> Answer {
    refused(bench.stubs.history.clone().get_average_price(request).await)
}

async fn statistics_refused(bench: &Bench, request: proto::GetPriceStatisticsRequest) -> Answer {
    refused(bench.stubs.history.clone().get_price_statistics(request).await)
}

fn unknown_in_list(bench: &Bench) -> Provoked<'_> {
    Box::pin(list_refused(bench, list("NOPE")))
}

fn unknown_latest(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let request = proto::ListLatestTicksRequest {
            selectors: vec![values::selector("AAA"), values::selector("NOPE")],
            min_cursor: Bytes::new(),
        };
        refused(bench.stubs.history.clone().list_latest_ticks(request).await)
    })
}

fn unknown_average(bench: &Bench) -> Provoked<'_> {
    Box::pin(average_refused(bench, average("NOPE")))
}

fn unknown_statistics(bench: &Bench) -> Provoked<'_> {
    Box::pin(statistics_refused(bench, statistics("NOPE")))
}

fn unknown_on_the_command_line(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let printed = Cli::new(&bench.server, ["latest", "NOPE"]).run().await;
        Answer::Ended(printed.code.unwrap_or(-1), printed.stderr)
    })
}

fn later() -> Option<Timestamp> {
    Some(values::timestamp(BEGIN + SECOND))
}

fn earlier() -> Option<Timestamp> {
    Some(values::timestamp(BEGIN))
}

fn inverted_list(bench: &Bench) -> Provoked<'_> {
    let request = proto::ListTicksRequest { start_time: later(), end_time: earlier(), ..list("AAA") };
    Box::pin(list_refused(bench, request))
}

fn inverted_average(bench: &Bench) -> Provoked<'_> {
    let request = proto::GetAveragePriceRequest { start_time: later(), end_time: earlier(), ..average("AAA") };
    Box::pin(average_refused(bench, request))
}

fn inverted_statistics(bench: &Bench) -> Provoked<'_> {
    let request = proto::GetPriceStatisticsRequest { start_time: later(), end_time: earlier(), ..statistics("AAA") };
    Box::pin(statistics_refused(bench, request))
}

/// The first page of AAA, two of its five ticks.
async fn first_page(bench: &Bench) -> proto::ListTicksResponse {
    let request = proto::ListTicksRequest { page_size: 2, ..list("AAA") };
    let answer = bench.stubs.history.clone().list_ticks(request).await;
    let page = answer.expect("a good list").into_inner();
    assert!(!page.next_page_token.is_empty(), "there is more to read");
    page
}

fn token_of_another_symbol(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let request = proto::ListTicksRequest {
            page_size: 2,
            page_token: first_page(bench).await.next_page_token,
            ..list("BBB")
        };
        list_refused(bench, request).await
    })
}

fn token_of_another_rpc(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let request =
            proto::ListInstrumentsRequest { page_token: first_page(bench).await.next_page_token, ..Default::default() };
        refused(bench.stubs.instruments.clone().list_instruments(request).await)
    })
}

fn token_of_noise(bench: &Bench) -> Provoked<'_> {
    let request = proto::ListTicksRequest { page_token: "bm9pc2U=".to_owned(), ..list("AAA") };
    Box::pin(list_refused(bench, request))
}

/// A real cursor, but for one bit of its position.
async fn flipped(bench: &Bench) -> Bytes {
    let mut cursor = first_page(bench).await.as_of.to_vec();
    let middle = cursor.len() / 2;
    cursor[middle] ^= 1;
    cursor.into()
}

fn cursor_with_a_flipped_bit(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let request = proto::ListTicksRequest { min_cursor: flipped(bench).await, ..list("AAA") };
        list_refused(bench, request).await
    })
}

fn cursor_of_noise(bench: &Bench) -> Provoked<'_> {
    let request = proto::GetAveragePriceRequest { min_cursor: Bytes::from_static(b"noise"), ..average("AAA") };
    Box::pin(average_refused(bench, request))
}

/// The status that a subscription ends with, at once or by its first message.
async fn subscription_refused(bench: &Bench, request: proto::SubscribeTicksRequest) -> Answer {
    match bench.stubs.live.clone().subscribe_ticks(request).await {
        Err(status) => Answer::Status(status),
        Ok(stream) => refused(stream.into_inner().message().await),
    }
}

fn cursor_of_a_subscription(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let request = proto::SubscribeTicksRequest {
            selectors: vec![values::selector("AAA")],
            start: Some(proto::subscribe_ticks_request::Start::Cursor(flipped(bench).await)),
            ..Default::default()
        };
        subscription_refused(bench, request).await
    })
}

const FIVE_MIB: usize = 5 * 1024 * 1024;

fn large_list(bench: &Bench) -> Provoked<'_> {
    Box::pin(list_refused(bench, list(&"A".repeat(FIVE_MIB))))
}

fn large_subscription(bench: &Bench) -> Provoked<'_> {
    let selectors = vec![values::selector(&"A".repeat(64)); FIVE_MIB / 64];
    let request = proto::SubscribeTicksRequest { selectors, ..Default::default() };
    Box::pin(subscription_refused(bench, request))
}

fn start_in_1969(bench: &Bench) -> Provoked<'_> {
    let request = proto::ListTicksRequest { start_time: Some(Timestamp { seconds: -1, nanos: 0 }), ..list("AAA") };
    Box::pin(list_refused(bench, request))
}

fn end_in_2300(bench: &Bench) -> Provoked<'_> {
    let request = proto::GetAveragePriceRequest {
        end_time: Some(Timestamp { seconds: 10_413_792_000, nanos: 0 }),
        ..average("AAA")
    };
    Box::pin(average_refused(bench, request))
}

fn latin_symbol(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        // Field 2, a string of 4 bytes: `caf\xe9`.
        let request = Bytes::from_static(b"\x12\x04caf\xe9");
        refused(raw_unary(bench, "/tapefeed.v1.HistoryService/ListTicks", request).await)
    })
}

/// A unary call whose request is any bytes.
async fn raw_unary(bench: &Bench, path: &'static str, request: Bytes) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(bench.stubs.channel.clone());
    grpc.ready().await.expect("the connection is open");
    let path = http::uri::PathAndQuery::from_static(path);
    let answer = grpc.unary(Request::new(request), path, RawCodec).await?;
    Ok(answer.into_inner())
}

fn second_server(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let options = Options::serve().store(bench.server.store());
        match Server::try_start(options).await {
            Ok(_) => panic!("two servers on one file"),
            Err(refused) => Answer::Ended(refused.status.code().unwrap_or(-1), refused.output),
        }
    })
}
