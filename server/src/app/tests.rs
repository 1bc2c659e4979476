//! The whole server on real sockets: what a client meets at the door, and how the end is kept short.

mod transport;

use std::time::{Duration, Instant};

use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codec::Streaming;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_types::StatusExt as _;

use super::*;
use crate::config::{LogConfig, ServeConfig};
use crate::grpc::proto;
use crate::grpc::proto::history_service_client::HistoryServiceClient;
use crate::grpc::proto::live_service_client::LiveServiceClient;

/// A server on a free port with a store of its own, which goes with it.
struct Fixture {
    app: App,
    _folder: tempfile::TempDir,
}

/// A fraction of the usual times, so that tests soon see every step of the end. The last one stays long: closing the
/// store syncs it, and a busy disk takes its time.
const QUICK: Times = Times {
    draining: Duration::from_millis(50),
    ending: Duration::from_millis(300),
    abort: Duration::from_millis(800),
    exit: Duration::from_secs(30),
};

impl Fixture {
    async fn start(limits: accept::Limits) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let config = ServeConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            store: StoreUrl::Sqlite(folder.path().join("tapefeed.db")),
            bus: BusUrl::Local,
            log_retention: Duration::from_secs(86_400),
            log_retention_bytes: 8 << 30,
            history_retention: None,
            compact_age: Duration::from_secs(3_600),
            merge_delay: Duration::from_secs(600),
            chunk_cache_bytes: 1 << 20,
            header_cache_bytes: 1 << 20,
            spool: folder.path().join("spool"),
            store_space: None,
            bars_table: false,
            demo: None,
            limits,
            log: LogConfig::default(),
        };
        let outside = Outside { clock: Arc::new(SystemClock), seed: 7, times: QUICK, metrics: Metrics::new() };
        let listener = bind(config.listen).await.unwrap();
        let app = App::start(&config, listener, outside).await.unwrap();
        Fixture { app, _folder: folder }
    }

    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.app.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.app.address).await.unwrap()
    }

    /// An HTTP/1.1 exchange, as text.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        self.exchange(request.as_bytes()).await
    }

    async fn subscribe(&self) -> Streaming<proto::SubscribeTicksResponse> {
        let request = proto::SubscribeTicksRequest {
            selectors: vec![proto::Selector { venue: String::new(), symbol: "*".into() }],
            ..proto::SubscribeTicksRequest::default()
        };
        let mut client = LiveServiceClient::new(self.channel().await);
        client.subscribe_ticks(request).await.unwrap().into_inner()
    }
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().expect("every status has ErrorInfo");
    assert_eq!(info.domain, "tapefeed");
    info.reason.clone()
}

/// An HTTP/2 client that begins, and then never says another word.
async fn mute_client(fixture: &Fixture) -> TcpStream {
    let mut stream = fixture.connect().await;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&settings).await.unwrap();
    stream
}

#[tokio::test]
async fn one_port_serves_pages_probes_and_calls() {
    let fixture = Fixture::start(accept::Limits::default()).await;
    let page = fixture.get("/").await;
    assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
    assert!(page.contains(&fixture.app.address.to_string()), "{page}");
    assert!(!page.contains("{{"), "{page}");
    assert!(fixture.get("/healthz").await.contains("{\"status\":\"alive\"}"));
    let ready = fixture.get("/readyz").await;
    assert!(ready.contains("\"ready\":true"), "{ready}");
    assert!(ready.contains("\"name\":\"store\",\"state\":\"up\""), "{ready}");
    let missing = fixture.get("/nope").await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    assert!(missing.contains("application/json"), "{missing}");

    let channel = fixture.channel().await;
    for service in ["", "tapefeed.v1.LiveService", "tapefeed.store", "tapefeed.bus", "tapefeed.hub"] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = HealthClient::new(channel.clone()).check(request).await.unwrap();
        assert_eq!(answer.get_ref().status, 1, "{service}");
    }
}

#[tokio::test]
async fn grpc_web_works_over_http_1() {
    let fixture = Fixture::start(accept::Limits::default()).await;
    let head = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                origin: http://localhost:5173\r\ncontent-type: application/grpc-web+proto\r\ncontent-length: 5\r\n\r\n";
    let answer = fixture.exchange(&[head.as_bytes(), &[0; 5]].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("access-control-allow-origin: http://localhost:5173"), "{answer}");
    assert!(answer.contains("grpc-status-details-bin"), "{answer}");
    assert!(answer.contains("\u{8}\u{1}"), "the message says SERVING: {answer:?}");
    assert!(answer.contains("grpc-status:0"), "{answer}");

    let unknown = head.replace("Health/Check", "Health/Nope");
    let answer = fixture.exchange(&[unknown.as_bytes(), &[0; 5]].concat()).await;
    assert!(answer.contains("grpc-status: 12"), "{answer}");

    let preflight = "OPTIONS /tapefeed.v1.HistoryService/ListTicks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                     origin: http://localhost:5173\r\naccess-control-request-method: POST\r\n\r\n";
    let answer = fixture.exchange(preflight.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert!(answer.contains("x-grpc-web"), "{answer}");
}

#[tokio::test]
async fn subscribers_in_browsers_get_the_bytes_that_others_get() {
    use proto::ingest_service_client::IngestServiceClient;
    use proto::publish_ticks_request::Message as Published;
    use proto::subscribe_ticks_response::Event;

    let fixture = Fixture::start(accept::Limits::default()).await;
    let tick = |second: i64| proto::Tick {
        venue: "V".into(),
        symbol: "A".into(),
        event_time: Some(prost_types::Timestamp { seconds: 1_700_000_000 + second, nanos: 0 }),
        price: Some(proto::Decimal { mantissa: 1 + second, exponent: 0 }),
        ..proto::Tick::default()
    };
    let rows = proto::TickBatch { ticks: (0..500i64).map(tick).collect(), ..proto::TickBatch::default() };
    let content = Some(proto::publish_batch::Content::Rows(rows));
    let messages = [
        Published::Claim(proto::ProducerClaim { producer_id: "p".into(), ..proto::ProducerClaim::default() }),
        Published::Batch(proto::PublishBatch { batch_seq: 1, content }),
    ];
    let messages = messages.map(|message| proto::PublishTicksRequest { message: Some(message) });
    let published = IngestServiceClient::new(fixture.channel().await).publish_ticks(tokio_stream::iter(messages)).await;
    let mut published = published.unwrap().into_inner();
    while published.message().await.unwrap().is_some() {}

    for encoding in [proto::Encoding::Rows, proto::Encoding::Columns] {
        let request = proto::SubscribeTicksRequest {
            selectors: vec![proto::Selector { venue: String::new(), symbol: "*".into() }],
            start: Some(proto::subscribe_ticks_request::Start::StartTime(prost_types::Timestamp::default())),
            encoding: encoding.into(),
            ..proto::SubscribeTicksRequest::default()
        };
        let mut client = LiveServiceClient::new(fixture.channel().await);
        let mut stream = client.subscribe_ticks(request.clone()).await.unwrap().into_inner();
        let ticks = loop {
            let message = stream.message().await.unwrap().unwrap();
            if matches!(message.event, Some(Event::Rows(_) | Event::Columns(_))) {
                break message.encode_to_vec();
            }
        };
        let request = request.encode_to_vec();
        let head = format!(
            "POST /tapefeed.v1.LiveService/SubscribeTicks HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/grpc-web+proto\r\ncontent-length: {}\r\n\r\n",
            request.len() + 5
        );
        let prefix = [&[0][..], &(request.len() as u32).to_be_bytes()].concat();
        let mut socket = fixture.connect().await;
        socket.write_all(&[head.as_bytes(), &prefix, &request].concat()).await.unwrap();
        let mut answer = Vec::new();
        let arrived = async {
            while !answer.windows(ticks.len()).any(|bytes| bytes == ticks) {
                assert!(socket.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
            }
        };
        tokio::time::timeout(Duration::from_secs(10), arrived).await.expect("the same message comes");
    }
}

#[tokio::test]
async fn statuses_of_the_transport_have_reasons() {
    let fixture = Fixture::start(accept::Limits::default()).await;
    let mut raw = tonic::client::Grpc::new(fixture.channel().await);
    for path in ["/tapefeed.v1.HistoryService/Nope", "/foo.Bar/Baz"] {
        raw.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<proto::ListTicksRequest, proto::ListTicksResponse>::default();
        let request = tonic::Request::new(proto::ListTicksRequest::default());
        let status = raw.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "METHOD_UNKNOWN"));
    }

    let mut history = HistoryServiceClient::new(fixture.channel().await);
    let oversized = proto::ListTicksRequest { page_token: "x".repeat(5 << 20), ..proto::ListTicksRequest::default() };
    let status = history.list_ticks(oversized).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "LIMIT_EXCEEDED"));
    let status = history.list_ticks(proto::ListTicksRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "FIELD_INVALID"));
}

#[tokio::test]
async fn both_versions_of_reflection_know_the_contract_and_its_details() {
    let fixture = Fixture::start(accept::Limits::default()).await;
    let symbol = |name: &str| v1::server_reflection_request::MessageRequest::FileContainingSymbol(name.into());
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(fixture.channel().await);
    for name in ["tapefeed.v1.LiveService", "google.rpc.ErrorInfo", "grpc.health.v1.Health"] {
        let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(symbol(name)) };
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        let answer = answers.into_inner().message().await.unwrap().unwrap();
        let Some(v1::server_reflection_response::MessageResponse::FileDescriptorResponse(_)) = answer.message_response
        else {
            panic!("{name} is not known");
        };
    }
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(fixture.channel().await);
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.message_response
    else {
        panic!("no list of services");
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"tapefeed.v1.IngestService"), "{names:?}");
}

#[tokio::test]
async fn connections_that_never_begin_are_closed() {
    let limits = accept::Limits { opening: Duration::from_millis(200), ..accept::Limits::default() };
    let fixture = Fixture::start(limits).await;
    for begun in [&b""[..], b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: "] {
        let start = Instant::now();
        let mut stream = fixture.connect().await;
        stream.write_all(begun).await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest))
            .await
            .expect("the server closes it");
        assert!(start.elapsed() >= Duration::from_millis(150), "{begun:?}: {:?}", start.elapsed());
    }
    let stream = fixture.subscribe().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut stream = stream;
    assert!(stream.message().await.unwrap().is_some(), "a stream that has begun goes on");
}

#[tokio::test]
async fn connections_over_the_limit_are_refused_and_others_go_on() {
    let limits = accept::Limits { connections: 2, ..accept::Limits::default() };
    let fixture = Fixture::start(limits).await;
    let (_first, _second) = (fixture.connect().await, mute_client(&fixture).await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut third = fixture.connect().await;
    let mut nothing = [0];
    let read = tokio::time::timeout(Duration::from_secs(5), third.read(&mut nothing)).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    drop((_first, _second));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(fixture.get("/healthz").await.contains("alive"));
}

#[tokio::test]
async fn stopping_is_bounded_whatever_clients_do() {
    let fixture = Fixture::start(accept::Limits::default()).await;
    let _idle = fixture.connect().await;
    let _mute = mute_client(&fixture).await;
    let mut stream = fixture.subscribe().await;
    let first = stream.message().await.unwrap().unwrap();
    assert!(!first.cursor.is_empty());
    let mut watch =
        HealthClient::new(fixture.channel().await).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);

    let address = fixture.app.address;
    let start = Instant::now();
    fixture.app.shutdown.asked.cancel();
    let ended = tokio::spawn(fixture.app.ended());

    let told = watch.message().await.unwrap().unwrap();
    assert_eq!(told.status, 2, "health says NOT_SERVING before anything else");
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a subscription never ends with OK"),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
    let details = status.get_error_details();
    assert!(details.retry_info().is_some());
    assert!(details.error_info().unwrap().metadata.contains_key("cursor"));
    assert!(start.elapsed() < QUICK.ending, "the stream ended itself: {:?}", start.elapsed());

    // The watch does not end itself, so it is ended.
    let status = watch.message().await.unwrap_err();
    assert_eq!(reason(&status), "SHUTTING_DOWN");
    assert!(TcpStream::connect(address).await.is_err(), "the port is free");
    ended.await.unwrap();
    let took = start.elapsed();
    assert!(took >= QUICK.abort - Duration::from_millis(50), "the mute client was waited for: {took:?}");
    assert!(took < QUICK.exit, "{took:?}");
}

#[tokio::test]
async fn stopping_with_nobody_connected_is_immediate() {
    let fixture = Fixture::start(accept::Limits::default()).await;
    assert!(fixture.get("/healthz").await.contains("alive"));
    let start = Instant::now();
    fixture.app.shutdown.asked.cancel();
    fixture.app.ended().await;
    assert!(start.elapsed() < QUICK.abort, "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_stands_in_the_way_of_a_start_is_named() {
    let fixture = Fixture::start(accept::Limits::default()).await;
    let taken = bind(fixture.app.address).await.unwrap_err().to_string();
    assert!(taken.contains("--listen"), "{taken}");

    let store = StoreUrl::Sqlite(fixture.app.store.place.clone().into());
    let locked = renew_epoch(&store, &Outside::system()).await.unwrap_err().to_string();
    assert!(locked.contains("--store"), "{locked}");
    let missing = StoreUrl::Sqlite("no/such/file.db".into());
    let missing = renew_epoch(&missing, &Outside::system()).await.unwrap_err().to_string();
    assert!(missing.contains("no/such/file.db"), "{missing}");
}
