//! What connections are held to, over real sockets.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::accept::Limits;
use crate::grpc::proto::ingest_service_client::IngestServiceClient;
use crate::grpc::proto::instrument_service_client::InstrumentServiceClient;
use crate::grpc::proto::publish_ticks_request::Message as Said;
use crate::grpc::proto::subscribe_ticks_request::Start;

/// How long anything may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

async fn end<T: std::fmt::Debug>(stream: &mut Streaming<T>) -> Status {
    let read = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => (),
                Ok(None) => panic!("it ended with OK"),
                Err(status) => return status,
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("it ends")
}

#[tokio::test]
async fn an_old_connection_sends_its_streams_away_with_their_cursors() {
    let limits = Limits { age: Duration::from_millis(600), grace: Duration::from_millis(400), ..Limits::default() };
    let fixture = Fixture::start(limits).await;
    let channel = fixture.channel().await;
    let begin = Instant::now();
    let request = proto::SubscribeTicksRequest {
        selectors: vec![proto::Selector { venue: String::new(), symbol: "*".into() }],
        ..proto::SubscribeTicksRequest::default()
    };
    let mut live = LiveServiceClient::new(channel.clone());
    let mut stream = live.subscribe_ticks(request.clone()).await.unwrap().into_inner();
    let of_bars = proto::SubscribeBarsRequest {
        selectors: request.selectors.clone(),
        interval: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        heartbeat_interval: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
        ..proto::SubscribeBarsRequest::default()
    };
    let mut bars = live.subscribe_bars(of_bars).await.unwrap().into_inner();
    let (requests, outgoing) = tokio::sync::mpsc::channel(4);
    let claim = proto::ProducerClaim { producer_id: "feed".into(), backfill: false, held_fence: 0 };
    requests.send(proto::PublishTicksRequest { message: Some(Said::Claim(claim)) }).await.unwrap();
    let mut ingest = IngestServiceClient::new(channel.clone());
    let mut published = ingest.publish_ticks(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let mut health = HealthClient::new(channel.clone());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();

    let status = end(&mut stream).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STREAM_EXPIRED"));
    let details = status.get_error_details();
    assert!(details.retry_info().is_some());
    let cursor = &details.error_info().unwrap().metadata["cursor"];
    let aged = begin.elapsed();
    assert!(aged >= Duration::from_millis(500), "{aged:?}");
    // Long before the heartbeat that it would send next.
    let status = end(&mut bars).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STREAM_EXPIRED"));
    assert!(status.get_error_details().error_info().unwrap().metadata.contains_key("cursor"));
    assert!(begin.elapsed() < aged + Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(reason(&end(&mut published).await), "STREAM_EXPIRED", "a publisher comes back and claims again");
    // What does not end itself has the grace, and is ended then.
    assert_eq!(reason(&end(&mut watch).await), "STREAM_EXPIRED");
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());

    // The next call makes another connection, and the stream goes on there.
    use base64::Engine as _;
    let cursor = base64::engine::general_purpose::STANDARD.decode(cursor).unwrap();
    let again = proto::SubscribeTicksRequest { start: Some(Start::Cursor(cursor.into())), ..request };
    let mut stream = live.subscribe_ticks(again).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    let fixture = Fixture::start(Limits { connections_per_address: Some(2), ..Limits::default() }).await;
    let (first, _second) = (mute_client(&fixture).await, mute_client(&fixture).await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut third = fixture.connect().await;
    let read = tokio::time::timeout(PATIENCE, third.read(&mut [0])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    drop(first);
    let begin = Instant::now();
    loop {
        let mut next = fixture.connect().await;
        next.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        if next.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 200") {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "a place that was left is free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_connection_that_begins_calls_too_fast_is_told_so_and_others_are_not() {
    let fixture = Fixture::start(Limits { streams_per_second: Some(5), ..Limits::default() }).await;
    let (fast, other) = (fixture.channel().await, fixture.channel().await);
    let call = |channel: &Channel| {
        let mut client = InstrumentServiceClient::new(channel.clone());
        async move { client.list_instruments(proto::ListInstrumentsRequest::default()).await }
    };
    let mut refused = Vec::new();
    for _ in 0..40 {
        refused.extend(call(&fast).await.err());
    }
    assert!(refused.len() > 10, "{} of 40 calls were refused", refused.len());
    for status in &refused {
        assert_eq!((status.code(), reason(status).as_str()), (Code::ResourceExhausted, "LIMIT_EXCEEDED"));
        let details = status.get_error_details();
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!((metadata["limit"].as_str(), metadata["max"].as_str()), ("calls_per_second", "5"));
        assert!(details.retry_info().is_some() && details.quota_failure().is_some());
    }
    call(&other).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    call(&fast).await.unwrap();
}

#[tokio::test]
async fn connections_of_an_address_together_begin_calls_no_faster_than_it_may() {
    let limits = Limits { streams_per_second_of_address: Some(10), ..Limits::default() };
    let fixture = Fixture::start(limits).await;
    let (one, other) = (fixture.channel().await, fixture.channel().await);
    let mut refused = [0; 2];
    for _ in 0..20 {
        for (channel, refused) in [&one, &other].into_iter().zip(&mut refused) {
            let mut client = InstrumentServiceClient::new(channel.clone());
            if let Err(status) = client.list_instruments(proto::ListInstrumentsRequest::default()).await {
                assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "LIMIT_EXCEEDED"));
                *refused += 1;
            }
        }
    }
    assert!(refused.iter().all(|refused| *refused > 5), "{refused:?} of 20 calls each were refused");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut client = InstrumentServiceClient::new(other);
    client.list_instruments(proto::ListInstrumentsRequest::default()).await.unwrap();
}

/// The settings that a server begins with, and by how much it widens the connection's window.
async fn greeting(stream: &mut TcpStream) -> (Vec<(u16, u32)>, u32) {
    let (mut settings, mut wider) = (Vec::new(), None);
    while wider.is_none() {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        match (head[3], head[4]) {
            (4, 0) => settings.extend(payload.chunks(6).map(|setting| {
                let value = [setting[2], setting[3], setting[4], setting[5]];
                (u16::from_be_bytes([setting[0], setting[1]]), u32::from_be_bytes(value))
            })),
            (8, _) => wider = Some(u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]])),
            _ => (),
        }
    }
    (settings, wider.unwrap())
}

#[tokio::test]
async fn windows_frames_and_streams_are_as_they_are_set() {
    for (limits, expected) in [
        (Limits::default(), (100, 1 << 20, 16 << 10, 4 << 20)),
        (
            Limits {
                streams: 7,
                stream_window: 80_000,
                frame_size: 65_536,
                connection_window: 200_000,
                ..Limits::default()
            },
            (7, 80_000, 65_536, 200_000),
        ),
    ] {
        let fixture = Fixture::start(limits).await;
        let mut stream = mute_client(&fixture).await;
        let (settings, wider) = tokio::time::timeout(PATIENCE, greeting(&mut stream)).await.unwrap();
        let setting = |id| settings.iter().find(|(known, _)| *known == id).map(|(_, value)| *value);
        // RFC 9113: 3 is the number of streams, 4 the window of each, 5 the size of a frame (16 KiB if it is not told).
        let frame = setting(5).unwrap_or(16_384);
        let told = (setting(3).unwrap(), setting(4).unwrap(), frame, wider + 65_535);
        assert_eq!(told, expected, "{settings:?}");
    }
}

#[tokio::test]
async fn a_connection_that_gives_no_sign_of_life_is_closed() {
    let limits = Limits {
        keepalive_interval: Duration::from_millis(200),
        keepalive_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let fixture = Fixture::start(limits).await;
    let mut mute = mute_client(&fixture).await;
    let begin = Instant::now();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, mute.read_to_end(&mut rest)).await.expect("it is closed");
    assert!(begin.elapsed() >= Duration::from_millis(350), "{:?}", begin.elapsed());
}

/// How many connections were told not to wait.
static TOLD: AtomicUsize = AtomicUsize::new(0);

/// A listener that counts.
struct Counting(TcpListener);

impl Listener for Counting {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }

    fn set_nodelay(io: &TcpStream) {
        io.set_nodelay(true).unwrap();
        TOLD.fetch_add(1, Ordering::Relaxed);
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[tokio::test]
async fn small_segments_leave_at_once_unless_they_shall_not() {
    for (nodelay, told) in [(true, 1), (false, 1)] {
        let listener = Counting(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let stop = accept::Stop::default();
        let limits = Limits { nodelay, ..Limits::default() };
        let serving = tokio::spawn(accept::serve(listener, axum::Router::new(), limits, stop.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 404"), "{answer:?}");
        assert_eq!(TOLD.load(Ordering::Relaxed), told, "{nodelay}");
        stop.accepting.cancel();
        serving.await.unwrap();
    }
}
