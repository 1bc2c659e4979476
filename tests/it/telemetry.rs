//! Traces and logs: what a collector is sent, what carries the trace's id, and that a collector can do no harm.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, status};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tapefeed_client::{Averaging, Client, Query};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_proto::v1::publish_ticks_request::Message as Said;
use tapefeed_tests::collector::{Collector, attribute, hex};
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::scrape::Scrape;
use tapefeed_tests::{Options, Publisher, Server, eventually, import, process, values, within};
use tokio::net::TcpListener;
use tonic::{Code, Request};
use tracing::Instrument as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;

const BEGIN: i64 = 1_723_075_200_000_000_000;
/// The caller's trace, and the span of its that calls.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const PATIENCE: Duration = Duration::from_secs(20);

fn traced(endpoint: &str) -> Options {
    Options::serve()
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .variable("OTEL_BSP_SCHEDULE_DELAY", "50")
        .variable("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test%20bed")
}

/// A call that continues the caller's trace.
fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{TRACE}-{CALLER}-01");
    request.metadata_mut().insert("traceparent", parent.parse().expect("hexadecimal digits"));
    request
}

fn ticks(count: usize) -> Vec<proto::Tick> {
    (0..count as i64).map(|index| values::tick("XTRC", "SAP", BEGIN + index, "10.5")).collect()
}

async fn subscribe(server: &Server) -> tonic::Streaming<proto::SubscribeTicksResponse> {
    let request = proto::SubscribeTicksRequest { selectors: vec![values::selector("SAP")], ..Default::default() };
    let mut stream = server.stubs().await.live.subscribe_ticks(request).await.expect("a stream").into_inner();
    within("the first event", PATIENCE, stream.message()).await.expect("no error");
    stream
}

fn named<'a>(name: &'a str, trace_id: &'a [u8]) -> impl Fn(&Span) -> bool + 'a {
    move |span| span.name == name && span.trace_id == trace_id
}

#[tokio::test]
async fn a_batch_is_one_trace_from_the_call_to_its_first_delivery() {
    let collector = Collector::start().await;
    let server = Server::start(traced(&collector.url())).await;
    let mut subscribers = [subscribe(&server).await, subscribe(&server).await];
    let mut ingest = server.stubs().await.ingest;
    let batch = proto::PublishBatch {
        batch_seq: 1,
        content: Some(Content::Rows(proto::TickBatch { ticks: ticks(3), merged_counts: Vec::new() })),
    };
    let claim = proto::ProducerClaim { producer_id: "feed".into(), backfill: false, held_fence: 0 };
    let messages = [Said::Claim(claim), Said::Batch(batch)];
    let requests = messages.map(|message| proto::PublishTicksRequest { message: Some(message) });
    let mut answers = ingest.publish_ticks(call(tokio_stream::iter(requests))).await.expect("a stream").into_inner();
    while within("an answer", PATIENCE, answers.message()).await.expect("no error").is_some() {}
    for subscriber in &mut subscribers {
        within("ticks", PATIENCE, subscriber.message()).await.expect("no error");
    }

    let rpc = collector.span("the call", |span| span.name == "tapefeed.v1.IngestService/PublishTicks").await;
    assert_eq!((hex(&rpc.trace_id).as_str(), hex(&rpc.parent_span_id).as_str()), (TRACE, CALLER));
    assert_eq!(rpc.kind(), SpanKind::Server);
    for (key, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "tapefeed.v1.IngestService/PublishTicks"),
        ("rpc.response.status_code", "OK"),
        ("server.address", "127.0.0.1"),
        ("server.port", &server.address().port().to_string()),
    ] {
        assert_eq!(attribute(&rpc, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(rpc.status.as_ref().map_or(0, |status| status.code), 0, "OK is no error, and not said");

    let trace = rpc.trace_id.clone();
    let batch = collector.span("the batch", named("batch", &trace)).await;
    assert_eq!(batch.parent_span_id, rpc.span_id);
    assert_eq!(attribute(&batch, "tapefeed.batch.ticks").as_deref(), Some("3"));
    assert_eq!(attribute(&batch, "tapefeed.producer.id").as_deref(), Some("feed"));
    let append = collector.span("the append", named("append", &trace)).await;
    assert_eq!(append.parent_span_id, batch.span_id);
    let statement = collector.span("the statement", named("append log", &trace)).await;
    assert_eq!((&statement.parent_span_id, statement.kind()), (&append.span_id, SpanKind::Client));
    for (key, value) in [
        ("db.system.name", "sqlite"),
        ("db.operation.name", "append"),
        ("db.query.summary", "append log"),
        ("db.operation.batch.size", "1"),
    ] {
        assert_eq!(attribute(&statement, key).as_deref(), Some(value), "{key}");
    }
    let deliver = collector.span("the delivery", named("deliver", &trace)).await;
    assert_eq!(deliver.parent_span_id, batch.span_id);
    assert_eq!(attribute(&deliver, "tapefeed.log_seq").as_deref(), Some("3"));
    assert!(batch.start_time_unix_nano >= rpc.start_time_unix_nano);
    assert!(deliver.start_time_unix_nano >= append.start_time_unix_nano);
    assert!(batch.end_time_unix_nano >= append.end_time_unix_nano);
    assert!(rpc.end_time_unix_nano >= batch.end_time_unix_nano, "the span of a stream ends with the stream");

    tokio::time::sleep(Duration::from_millis(300)).await;
    let delivered = collector.spans().iter().filter(|span| span.name == "deliver").count();
    assert_eq!(delivered, 1, "two subscribers, one first delivery");
    assert_eq!(collector.resource("service.name").as_deref(), Some("tapefeed-server"));
    assert_eq!(collector.resource("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(collector.resource("service.instance.id").map_or(0, |id| id.len()), 36);
    assert_eq!(collector.resource("deployment.environment.name").as_deref(), Some("test bed"));
}

#[tokio::test]
async fn without_a_caller_each_batch_is_a_trace_linked_to_the_stream() {
    let collector = Collector::start().await;
    let server = Server::start(traced(&collector.url())).await;
    let mut publisher = Publisher::claim(&server.stubs().await, "feed").await.expect("a claim");
    for _ in 0..2 {
        publisher.rows(ticks(2)).await.expect("stored");
    }
    publisher.close().await.expect("no error");
    let rpc = collector.span("the call", |span| span.name == "tapefeed.v1.IngestService/PublishTicks").await;
    let batches = eventually("the batches", PATIENCE, async || {
        let batches: Vec<Span> = collector.spans().into_iter().filter(|span| span.name == "batch").collect();
        (batches.len() == 2).then_some(batches)
    });
    let batches = batches.await;
    assert_ne!(batches[0].trace_id, batches[1].trace_id);
    for batch in batches {
        assert!(batch.parent_span_id.is_empty());
        let linked: Vec<&[u8]> = batch.links.iter().map(|link| link.span_id.as_slice()).collect();
        assert_eq!(linked, [rpc.span_id.as_slice()]);
    }
    // Statements that nobody caused, and the exporter's own calls, are no traces.
    for span in collector.spans() {
        assert!(!span.parent_span_id.is_empty() || span.kind() != SpanKind::Client, "{span:?}");
        assert!(!span.name.contains("TraceService"), "{span:?}");
    }
}

#[tokio::test]
async fn a_query_a_refusal_and_a_file_carry_the_callers_trace() {
    let collector = Collector::start().await;
    let server = Server::start(traced(&collector.url()).argument("--log-format").argument("json")).await;
    let stubs = server.stubs().await;

    let file = "venue,symbol,time_ms,price,quantity\nXTRC,SAP,1723161255342,195.52,10\n";
    let start = tapefeed_proto::v1::import_file_request::Message::Start(import::start("run-1"));
    let data = tapefeed_proto::v1::import_file_request::Message::Data(file.into());
    let requests = [start, data].map(|message| proto::ImportFileRequest { message: Some(message) });
    let imported = stubs.ingest.clone().import_file(call(tokio_stream::iter(requests))).await.expect("an import");
    let imported = imported.into_inner();
    assert_eq!(imported.run.expect("a run").trace_id, TRACE);

    let mut subject = proto::ListTicksRequest { symbol: "SAP".into(), ..Default::default() };
    let mut history = stubs.history.clone();
    eventually("the tick", PATIENCE, async || {
        let page = history.clone().list_ticks(subject.clone()).await.ok()?.into_inner();
        (!page.ticks.is_empty()).then_some(())
    })
    .await;
    history.list_ticks(call(subject.clone())).await.expect("a page");
    subject.symbol = "NONE".into();
    let refused = history.list_ticks(call(subject)).await.expect_err("no such instrument");
    let refusal = Refusal::of(&refused);
    refusal.assert(Code::NotFound, "INSTRUMENT_UNKNOWN", &["trace_id"]);
    assert_eq!(refusal.metadata["trace_id"], TRACE);

    let trace: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&TRACE[2 * at..2 * at + 2], 16).expect("digits")).collect();
    let import = collector.span("the import", named("import", &trace)).await;
    let rpc = collector.span("its call", named("tapefeed.v1.IngestService/ImportFile", &trace)).await;
    assert_eq!(import.parent_span_id, rpc.span_id);
    for name in ["upload", "batch"] {
        let child = collector.span(name, named(name, &trace)).await;
        assert_eq!(child.parent_span_id, import.span_id, "{name}");
    }
    let of_query = |code: &'static str| {
        let trace = trace.clone();
        move |span: &Span| {
            span.trace_id == trace
                && span.name == "tapefeed.v1.HistoryService/ListTicks"
                && attribute(span, "rpc.response.status_code").as_deref() == Some(code)
        }
    };
    let rpc = collector.span("the query's call", of_query("OK")).await;
    assert_eq!(hex(&rpc.parent_span_id), CALLER);
    collector.span("the query", |span| span.name == "query ticks" && span.parent_span_id == rpc.span_id).await;
    let refused = collector.span("the refused call", of_query("NOT_FOUND")).await;
    let status = refused.status.as_ref().map_or(0, |status| status.code);
    assert_ne!(status, status::StatusCode::Error as i32, "the caller's mistake is no fault of the server");

    let output = server.output();
    let line = output.lines().find(|line| line.contains("an import has ended")).expect("a line of the log");
    let line: serde_json::Value = serde_json::from_str(line).expect("one JSON object a line");
    assert_eq!((&line["trace_id"], &line["run"], &line["level"]), (&TRACE.into(), &"run-1".into(), &"INFO".into()));
}

#[tokio::test]
async fn a_compaction_is_a_trace_with_its_statements() {
    let collector = Collector::start().await;
    let server = Server::start(traced(&collector.url()).argument("--compact-age=100ms")).await;
    let mut publisher = Publisher::claim(&server.stubs().await, "feed").await.expect("a claim");
    publisher.rows(ticks(7)).await.expect("stored");
    let compaction = collector.span("the compaction", |span| span.name == "compact").await;
    assert!(compaction.parent_span_id.is_empty());
    assert_eq!(attribute(&compaction, "tapefeed.compaction.ticks").as_deref(), Some("7"));
    assert_eq!(attribute(&compaction, "tapefeed.compaction.instruments").as_deref(), Some("1"));
    let statement = collector.span("its commit", named("commit manifest", &compaction.trace_id)).await;
    assert_eq!((statement.kind(), &statement.parent_span_id), (SpanKind::Client, &compaction.span_id));
}

/// Keeps the spans of this process.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Memory {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("no holder panics").extend(spans);
        Ok(())
    }
}

#[tokio::test]
async fn the_rust_client_tells_the_server_of_its_callers_trace() {
    let collector = Collector::start().await;
    let server = Server::start(traced(&collector.url())).await;
    let exporter = Memory::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let ours = filter_fn(|metadata| metadata.is_span() && !metadata.target().starts_with("h2"));
    let _entered = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer.with_filter(ours)));

    let client = Client::connect(server.url()).await.expect("a connection");
    let query = Query::symbol("NONE");
    client.average(&query, Averaging::default()).await.expect_err("outside a trace none begins");
    let asked = client.average(&query, Averaging::default());
    asked.instrument(tracing::info_span!("work")).await.expect_err("no such instrument");

    let spans = exporter.0.lock().expect("no holder panics").clone();
    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}"));
    let (work, call) = (find("work"), find("tapefeed.v1.HistoryService/GetAveragePrice"));
    assert_eq!(call.parent_span_id, work.span_context.span_id());
    let code = call.attributes.iter().find(|attribute| attribute.key.as_str() == "rpc.response.status_code");
    assert_eq!(code.map(|code| code.value.to_string()).as_deref(), Some("NOT_FOUND"));
    let span_id = call.span_context.span_id().to_bytes();
    let served = collector.span("the call at the server", |span| span.parent_span_id == span_id).await;
    assert_eq!(served.trace_id, work.span_context.trace_id().to_bytes());
    let calls = collector.spans().into_iter().filter(|span| span.name == served.name);
    assert_eq!(calls.filter(|span| !span.parent_span_id.is_empty()).count(), 1);
}

/// Takes connections and never says a word.
async fn black_hole() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    address
}

#[tokio::test]
async fn a_dead_or_silent_collector_changes_nothing() {
    for endpoint in [format!("http://{}", black_hole().await), "http://127.0.0.1:1".into(), "nonsense".into()] {
        let options = traced(&endpoint).variable("OTEL_BSP_MAX_QUEUE_SIZE", "8");
        let mut server = Server::start(options).await;
        let stubs = server.stubs().await;
        let mut publisher = Publisher::claim(&stubs, "feed").await.expect("a claim");
        for _ in 0..20 {
            publisher.rows(ticks(5)).await.expect("stored");
        }
        publisher.close().await.expect("no error");
        drop(stubs);
        if endpoint != "nonsense" {
            // A queue of eight spans holds what three batches leave.
            eventually("what was dropped", PATIENCE, async || {
                let scrape = Scrape::of(server.address()).await;
                (scrape.series["tapefeed_spans_dropped_total"] > 0.0).then_some(())
            })
            .await;
        }
        let begin = Instant::now();
        let status = server.terminate().await;
        assert!(status.success(), "{endpoint}: {status}");
        // With nobody connected the server itself ends at once.
        assert!(begin.elapsed() < Duration::from_secs(5), "{endpoint}: {:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn a_hang_up_reads_the_filter_of_the_log_again() {
    let server = Server::start(Options::serve()).await;
    let file = server.folder().join("tapefeed.toml");
    let hang_up = async |filter: &str| {
        std::fs::write(&file, format!("log = \"{filter}\"\n")).expect("the folder is the test's");
        process::signal(server.pid(), "HUP").await;
    };
    let printed = async |text: &str| {
        eventually(text, PATIENCE, async || server.output().contains(text).then_some(())).await;
    };
    hang_up("info,tapefeed_server::tape=loud").await;
    printed("the log's filter stays as it is").await;
    hang_up("info,tapefeed_server::tape=debug").await;
    printed("the log has another filter").await;
    // Under the new filter the line about it is left out.
    hang_up("error").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    hang_up("info,tapefeed_server::live=debug").await;
    printed("tapefeed_server::live=debug").await;
    assert_eq!(server.output().matches("the log has another filter").count(), 2, "{}", server.output());
    assert!(server.is_serving().await);
}
