//! Publishing: rows, columns, raw bytes, and JSON lines through the command line.

use bytes::Bytes;
use prost_types::Timestamp;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_tests::{Cli, Publisher, values};
use tonic::{Code, Request};

use crate::raw::RawCodec;

use super::Expected::{Ended, Refused};
use super::{Answer, BEGIN, Bench, Case, Provoked, case, refused};

const INVALID: super::Expected =
    Refused(Code::InvalidArgument, "BATCH_INVALID", &["violation_count", "expected_batch_seq"]);
const CONFLICT: super::Expected = Refused(Code::AlreadyExists, "BATCH_CONFLICT", &["batch_seq", "expected_batch_seq"]);
const HOLE: super::Expected = Refused(Code::FailedPrecondition, "BATCH_OUT_OF_ORDER", &["expected_batch_seq"]);
const LIMIT: super::Expected = Refused(Code::ResourceExhausted, "LIMIT_EXCEEDED", &["limit", "max"]);
const FIELD: super::Expected = Refused(Code::InvalidArgument, "FIELD_INVALID", &[]);
const MALFORMED: super::Expected = Refused(Code::InvalidArgument, "MESSAGE_MALFORMED", &[]);

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case("price 10^15", "PublishTicks, rows", price_in_rows, INVALID),
    case("price 10^15", "PublishTicks, columns", price_in_columns, INVALID),
    case("time in 1969", "PublishTicks, rows", rows_in_1969, INVALID),
    case("time in 2300", "PublishTicks, rows", rows_in_2300, INVALID),
    case("time in 1969", "PublishTicks, columns", columns_in_1969, INVALID),
    case("one bad tick of a thousand", "PublishTicks, rows", one_of_a_thousand, INVALID),
    case("a used number with other content", "PublishTicks, rows", used_number, CONFLICT),
    case("a hole in the numbers", "PublishTicks, rows", hole, HOLE),
    case("a batch before the claim", "PublishTicks, rows", no_claim, FIELD),
    case("5 MiB message", "PublishTicks, rows", large_batch, LIMIT),
    case("Latin-1 bytes in a symbol", "PublishTicks, raw", latin_symbol, MALFORMED),
    case("price NaN", "command line, publish", nan_as_json, Ended(&["line 1", "price"])),
    case("price of 400 digits", "command line, publish", digits_as_json, Ended(&["line 1", "price"])),
];

fn rows(ticks: Vec<proto::Tick>) -> Content {
    Content::Rows(proto::TickBatch { ticks, merged_counts: Vec::new() })
}

fn good() -> proto::Tick {
    values::tick("TEST", "NEW", BEGIN, "1.5")
}

async fn claim(bench: &Bench) -> Publisher {
    Publisher::claim(&bench.stubs, "bad-input").await.expect("a claim")
}

/// Publishes what must be refused, and shows that nothing of it is stored and that its number is still free.
async fn batch_refused(bench: &Bench, content: Content) -> Answer {
    let mut publisher = claim(bench).await;
    let answer = refused(publisher.content(content).await);
    assert_eq!(bench.count("NEW").await, 0, "nothing of the batch is stored");

    let mut publisher = claim(bench).await;
    assert_eq!(publisher.grant.last_batch_seq, 0, "the number is not used up");
    let ack = publisher.rows(vec![good()]).await.expect("a good batch");
    assert_eq!((ack.batch_seq, ack.duplicate), (1, false));
    assert_eq!(bench.count("NEW").await, 1);
    answer
}

fn price_in_rows(bench: &Bench) -> Provoked<'_> {
    let price = proto::Decimal { mantissa: 1, exponent: 15 };
    let tick = proto::Tick { price: Some(price), ..good() };
    Box::pin(batch_refused(bench, rows(vec![good(), tick])))
}

fn columns(event_unix_nano: i64, price_mantissa: i64) -> Content {
    let instrument =
        proto::ColumnInstrument { venue: "TEST".to_owned(), symbol: "NEW".to_owned(), ..Default::default() };
    Content::Columns(proto::TickColumns {
        instruments: vec![instrument],
        instrument_index: vec![0],
        event_time_unix_nano_delta: vec![event_unix_nano],
        price_mantissa: vec![price_mantissa],
        ..Default::default()
    })
}

fn price_in_columns(bench: &Bench) -> Provoked<'_> {
    Box::pin(batch_refused(bench, columns(BEGIN, 1_000_000_000_000_000)))
}

fn columns_in_1969(bench: &Bench) -> Provoked<'_> {
    Box::pin(batch_refused(bench, columns(-1, 15)))
}

fn at(seconds: i64) -> Content {
    let time = Timestamp { seconds, nanos: 0 };
    rows(vec![proto::Tick { event_time: Some(time), ..good() }])
}

fn rows_in_1969(bench: &Bench) -> Provoked<'_> {
    Box::pin(batch_refused(bench, at(-1)))
}

fn rows_in_2300(bench: &Bench) -> Provoked<'_> {
    Box::pin(batch_refused(bench, at(10_413_792_000)))
}

fn one_of_a_thousand(bench: &Bench) -> Provoked<'_> {
    let mut ticks = vec![good(); 1_000];
    ticks[499].price = None;
    Box::pin(async move {
        let answer = batch_refused(bench, rows(ticks)).await;
        if let Answer::Status(status) = &answer {
            use tonic_types::StatusExt as _;
            let refusal = tapefeed_tests::refusal::Refusal::of(status);
            assert_eq!(refusal.metadata["violation_count"], "1");
            assert_eq!(refusal.metadata["expected_batch_seq"], "1");
            let details = status.get_details_bad_request().expect("it names the field");
            let fields: Vec<&str> = details.field_violations.iter().map(|v| v.field.as_str()).collect();
            assert!(fields.len() == 1 && fields[0].contains("499"), "{fields:?}");
        }
        answer
    })
}

fn used_number(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let mut publisher = claim(bench).await;
        publisher.rows(vec![good()]).await.expect("a good batch");
        let other = values::tick("TEST", "NEW", BEGIN, "1.6");
        publisher.send(1, rows(vec![other])).await;
        let answer = refused(publisher.ack().await);
        assert_eq!(bench.count("NEW").await, 1, "the first content stays");

        let mut publisher = claim(bench).await;
        publisher.send(1, rows(vec![good()])).await;
        let again = publisher.ack().await.expect("the same content").expect("an answer");
        assert!(again.duplicate);
        assert_eq!(bench.count("NEW").await, 1, "nothing is stored twice");
        answer
    })
}

fn hole(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let mut publisher = claim(bench).await;
        publisher.send(3, rows(vec![good()])).await;
        refused(publisher.ack().await)
    })
}

fn no_claim(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let batch = proto::PublishBatch { batch_seq: 1, content: Some(rows(vec![good()])) };
        let request = proto::PublishTicksRequest { message: Some(proto::publish_ticks_request::Message::Batch(batch)) };
        let requests = tokio_stream::once(request);
        match bench.stubs.ingest.clone().publish_ticks(requests).await {
            Err(status) => Answer::Status(status),
            Ok(stream) => refused(stream.into_inner().message().await),
        }
    })
}

fn large_batch(bench: &Bench) -> Provoked<'_> {
    let tick = proto::Tick { trade_id: "x".repeat(64), ..good() };
    // Each takes more than 64 bytes.
    Box::pin(batch_refused(bench, rows(vec![tick; 5 * 1024 * 1024 / 64])))
}

fn latin_symbol(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        // `claim { producer_id: "raw" }`, then `batch { rows { ticks { symbol: "caf\xe9" } } }`.
        let claim = Bytes::from_static(b"\x0a\x05\x0a\x03raw");
        let batch = Bytes::from_static(b"\x12\x0a\x12\x08\x0a\x06\x12\x04caf\xe9");
        let mut grpc = tonic::client::Grpc::new(bench.stubs.channel.clone());
        grpc.ready().await.expect("the connection is open");
        let path = http::uri::PathAndQuery::from_static("/tapefeed.v1.IngestService/PublishTicks");
        let requests = tokio_stream::iter([claim, batch]);
        let mut answers = match grpc.streaming(Request::new(requests), path, RawCodec).await {
            Err(status) => return Answer::Status(status),
            Ok(answers) => answers.into_inner(),
        };
        loop {
            match answers.message().await {
                // The grant.
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended with OK"),
                Err(status) => return Answer::Status(status),
            }
        }
    })
}

async fn publish_json(bench: &Bench, price: &str) -> Answer {
    let line = format!(
        "{{\"venue\":\"TEST\",\"symbol\":\"NEW\",\"event_time\":\"2024-08-08T00:00:00Z\",\"price\":\"{price}\"}}\n"
    );
    let printed = Cli::new(&bench.server, ["publish"]).stdin(line).run().await;
    assert_eq!(bench.count("NEW").await, 0, "nothing is stored");
    Answer::Ended(printed.code.unwrap_or(-1), printed.stderr)
}

fn nan_as_json(bench: &Bench) -> Provoked<'_> {
    Box::pin(publish_json(bench, "NaN"))
}

fn digits_as_json(bench: &Bench) -> Provoked<'_> {
    Box::pin(async { publish_json(bench, &"9".repeat(400)).await })
}
