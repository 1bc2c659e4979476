//! SIGTERM: whatever clients do, the server ends every stream with the place to go on from, and exits with 0 in time.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::{Options, Publisher, Server, values, within};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonic::{Code, Status, Streaming};

const BEGIN: i64 = 1_723_075_200_000_000_000;
/// How long the server may take, whatever clients do.
const EXIT: Duration = Duration::from_secs(20);
/// How many subscribers are there, each on a connection of its own.
const SUBSCRIBERS: usize = 5;

/// What one subscriber saw.
struct Seen {
    log_seqs: Vec<u64>,
    cursor: Bytes,
    end: Status,
}

async fn subscribe(server: &Server, start: Option<Bytes>) -> Streaming<proto::SubscribeTicksResponse> {
    let request = proto::SubscribeTicksRequest {
        selectors: vec![values::selector("*")],
        start: start.map(proto::subscribe_ticks_request::Start::Cursor),
        ..Default::default()
    };
    let mut live = server.stubs().await.live;
    let mut stream = live.subscribe_ticks(request).await.expect("a stream").into_inner();
    let first = within("the first event", Duration::from_secs(10), stream.message()).await;
    let first = first.expect("no error").expect("no end");
    assert!(matches!(first.event, Some(Event::Ack(_))), "{first:?}");
    stream
}

/// Reads a stream to its end.
async fn read(mut stream: Streaming<proto::SubscribeTicksResponse>) -> Seen {
    let mut log_seqs = Vec::new();
    let mut cursor = Bytes::new();
    loop {
        let message = match stream.message().await {
            Ok(message) => message.expect("a subscription never ends with OK"),
            Err(end) => {
                return Seen { log_seqs, cursor, end };
            }
        };
        if !message.cursor.is_empty() {
            cursor = message.cursor;
        }
        if let Some(Event::Rows(rows)) = message.event {
            log_seqs.extend(rows.ticks.iter().map(|tick| tick.log_seq));
        }
    }
}

/// A client that speaks HTTP/2 as far as its settings, and is mute from there on: it neither reads nor answers.
async fn mute_h2_client(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.expect("the server listens");
    // An empty SETTINGS frame: length 0, type 4, no flags, stream 0.
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    stream.write_all(hello).await.expect("the server reads");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_every_stream_with_its_cursor_and_exits_with_zero() {
    let mut server = Server::start(Options::serve()).await;
    let mut readers = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let stream = subscribe(&server, None).await;
        readers.push(tokio::spawn(read(stream)));
    }
    let silent = TcpStream::connect(server.address()).await.expect("the server listens");
    let mute = mute_h2_client(&server).await;
    // Open, and never read.
    let unread = subscribe(&server, None).await;

    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "shutdown").await.expect("a claim");
    let publishing = tokio::spawn(async move {
        let mut acknowledged = 0_u64;
        loop {
            let tick = values::tick("TEST", "AAA", BEGIN + acknowledged as i64, "1.5");
            match publisher.rows(vec![tick]).await {
                Ok(_) => acknowledged += 1,
                Err(end) => return (acknowledged, end),
            }
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;

    let begin = Instant::now();
    let status = server.terminate().await;
    let elapsed = begin.elapsed();
    println!("ended after {elapsed:?}");
    assert_eq!(status.code(), Some(0), "{}", server.output());
    assert!(elapsed <= EXIT, "{elapsed:?}");

    let ended = within("the publisher's end", Duration::from_secs(5), publishing).await;
    let (acknowledged, end) = ended.expect("it does not panic");
    Refusal::of(&end).assert(Code::Unavailable, "SHUTTING_DOWN", &[]);
    assert!(Refusal::has_retry_info(&end), "{end:?}");
    assert!(acknowledged > 0);

    let mut cursors = Vec::new();
    for reader in readers {
        let seen = within("a subscriber's end", Duration::from_secs(5), reader).await;
        let Seen { log_seqs, cursor, end } = seen.expect("it does not panic");
        let refusal = Refusal::of(&end);
        refusal.assert(Code::Unavailable, "SHUTTING_DOWN", &["cursor"]);
        assert!(Refusal::has_retry_info(&end), "{end:?}");
        let told = BASE64.decode(&refusal.metadata["cursor"]).expect("base64 with padding");
        assert_eq!(told, cursor, "the cursor of the last message");
        cursors.push((log_seqs.last().copied(), cursor));
    }
    drop((silent, mute, unread));

    // Nothing acknowledged is lost, and every subscriber goes on where it was.
    server.restart().await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "shutdown").await.expect("a claim");
    assert!(publisher.grant.last_batch_seq >= acknowledged);
    let head = publisher.grant.last_batch_seq;
    for (last, cursor) in cursors {
        let last = last.expect("ticks came for a second");
        let mut stream = subscribe(&server, Some(cursor)).await;
        let tick = values::tick("TEST", "AAA", BEGIN - 1, "1.5");
        let ack = publisher.rows(vec![tick]).await.expect("a good tick");
        let newest = loop {
            let message = within("a tick", Duration::from_secs(10), stream.message()).await;
            let message = message.expect("no error").expect("no end");
            if let Some(Event::Rows(rows)) = message.event {
                assert!(rows.ticks[0].log_seq > last, "nothing comes twice");
                if message.cursor == ack.cursor {
                    break rows.ticks.last().expect("not empty").log_seq;
                }
            }
        };
        assert!(newest > head, "every tick has its own position");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_clients_ends_at_once() {
    let mut server = Server::start(Options::serve()).await;
    let begin = Instant::now();
    let status = server.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", server.output());
    let elapsed = begin.elapsed();
    assert!(elapsed <= Duration::from_secs(5), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_ends_the_server_at_once() {
    let mut server = Server::start(Options::serve()).await;
    let _mute = mute_h2_client(&server).await;
    let _unread = subscribe(&server, None).await;
    tapefeed_tests::process::signal(server.pid(), "TERM").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begin = Instant::now();
    let _ = server.terminate().await;
    let elapsed = begin.elapsed();
    assert!(elapsed <= Duration::from_secs(2), "{elapsed:?}");
}
