//! Subscribers on bare stubs: cut again and again while ticks flow, and resumed from their last cursor.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::live_service_client::LiveServiceClient;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_proto::v1::subscribe_ticks_request::Start;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_tests::checker::{Findings, Scope, Seen, judge};
use tapefeed_tests::values::{decimal, timestamp};
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Options, Publisher, Server, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Endpoint;

/// Ticks of the whole run.
const TICKS: u64 = 200_000;

/// Ticks of one batch.
const BATCH: u64 = 100;

/// How often the subscriber is cut.
const CUTS: usize = 50;

/// Bytes that a connection carries before it is cut: fifty of them end well before the last tick.
const CUT_AFTER: std::ops::Range<usize> = 20_000..250_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_is_cut_fifty_times_sees_exactly_the_log() {
    let server = Server::start(Options::serve()).await;
    let address = server.address();
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "resume").await.expect("a claim");
    let (started, mut starts) = tokio::sync::mpsc::channel(4);
    let followers = [
        tokio::spawn(cut_again_and_again(address, started.clone())),
        tokio::spawn(follow(address, "*", Duration::ZERO, started.clone())),
        tokio::spawn(follow(address, "*", Duration::from_millis(15), started.clone())),
        tokio::spawn(follow(address, "S3", Duration::ZERO, started)),
    ];
    for _ in 0..followers.len() {
        within("a subscription", Duration::from_secs(30), starts.recv()).await.expect("an acknowledgement");
    }

    let mut published = Vec::new();
    let mut positions = Vec::new();
    for first in (0..TICKS).step_by(BATCH as usize) {
        let ticks: Vec<_> = (first..first + BATCH).map(tick).collect();
        published.extend(ticks.iter().cloned());
        let content = Content::Rows(proto::TickBatch { ticks, merged_counts: Vec::new() });
        publisher.send(first / BATCH + 1, content).await;
        // Two batches outstanding, and a pace that leaves the cuts their time.
        if positions.len() as u64 + 2 <= first / BATCH {
            positions.push(publisher.ack().await.expect("an acknowledgement").expect("the stream is open"));
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }

    let expected = [
        ("cut", Scope::Everything, ""),
        ("never cut", Scope::Everything, ""),
        ("slow", Scope::Everything, ""),
        ("of one symbol", Scope::Some, "S3"),
    ];
    for (follower, (name, scope, symbol)) in followers.into_iter().zip(expected) {
        let record = within("the last tick", Duration::from_secs(120), follower).await.expect("the subscriber ran");
        let mine: Vec<_> =
            published.iter().filter(|tick| symbol.is_empty() || tick.symbol == symbol).cloned().collect();
        let findings = judge(&mine, &record.seen, scope);
        println!(
            "{name}: {} ticks, {} cuts, {} of them before the last tick, {findings:?}",
            record.ticks(),
            record.cuts,
            record.cuts_before_the_end
        );
        assert_eq!(findings, Findings::default(), "{name}");
        assert_eq!(record.ticks(), mine.len(), "{name}");
        if name == "cut" {
            assert_eq!(record.cuts, CUTS);
            assert!(record.cuts_before_the_end >= 45, "only {} cuts before the end", record.cuts_before_the_end);
        }
    }
}

fn tick(number: u64) -> proto::Tick {
    proto::Tick {
        venue: "XTST".to_owned(),
        symbol: format!("S{}", number % 7),
        event_time: Some(timestamp(now_unix_nano())),
        price: Some(decimal(&format!("{}.{}7", 100 + number % 13, number % 10))),
        quantity: Some(decimal("2.5")),
        trade_id: number.to_string(),
        ..proto::Tick::default()
    }
}

/// What one subscriber was told, over all its connections.
#[derive(Debug, Default)]
struct Record {
    seen: Vec<Seen>,
    cursor: Vec<u8>,
    /// Everything up to here came, or was claimed to be complete.
    position: u64,
    cuts: usize,
    cuts_before_the_end: usize,
}

impl Record {
    fn ticks(&self) -> usize {
        self.seen.iter().filter(|seen| matches!(seen, Seen::Tick(_))).count()
    }

    fn note(&mut self, response: proto::SubscribeTicksResponse) {
        self.cursor = response.cursor.to_vec();
        match response.event {
            Some(Event::Rows(rows)) => {
                self.position = rows.ticks.last().map_or(self.position, |tick| tick.log_seq);
                self.seen.extend(rows.ticks.into_iter().map(Seen::Tick));
            }
            Some(Event::Progress(progress)) => {
                self.position = self.position.max(progress.log_seq);
                self.seen.push(Seen::Complete(progress.log_seq));
            }
            Some(Event::StreamGap(gap)) => self.seen.push(Seen::Gap(gap.from_log_seq, gap.to_log_seq)),
            _ => (),
        }
    }
}

type Started = tokio::sync::mpsc::Sender<()>;

fn request(symbol: &str, cursor: &[u8]) -> proto::SubscribeTicksRequest {
    proto::SubscribeTicksRequest {
        selectors: vec![proto::Selector { venue: String::new(), symbol: symbol.to_owned() }],
        start: (!cursor.is_empty()).then(|| Start::Cursor(cursor.to_vec().into())),
        heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..proto::SubscribeTicksRequest::default()
    }
}

/// Follows over one connection until the last tick.
async fn follow(address: SocketAddr, symbol: &'static str, pause: Duration, started: Started) -> Record {
    let mut record = Record::default();
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect().await;
    let mut live = LiveServiceClient::new(channel.expect("the server accepts"));
    let mut events = live.subscribe_ticks(request(symbol, &[])).await.expect("a subscription").into_inner();
    while record.position < TICKS {
        let response = events.message().await.expect("nobody cuts this one").expect("a subscription has no end");
        if matches!(response.event, Some(Event::Ack(_))) {
            started.send(()).await.expect("the test waits");
        }
        record.note(response);
        tokio::time::sleep(pause).await;
    }
    record
}

/// Follows through connections that break in the middle of what they carry.
async fn cut_again_and_again(address: SocketAddr, started: Started) -> Record {
    let mut random = SmallRng::seed_from_u64(50);
    let mut record = Record::default();
    while record.position < TICKS {
        let budget = if record.cuts < CUTS { random.random_range(CUT_AFTER) } else { usize::MAX };
        let proxy = cut_after(address, budget).await;
        let outcome: Result<(), tonic::Status> = async {
            let endpoint = Endpoint::from_shared(format!("http://{proxy}")).expect("an address");
            let channel = endpoint.connect().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            let mut live = LiveServiceClient::new(channel);
            let mut events = live.subscribe_ticks(request("*", &record.cursor)).await?.into_inner();
            while record.position < TICKS {
                let response = events.message().await?.expect("a subscription has no end");
                if matches!(response.event, Some(Event::Ack(_))) && record.cuts == 0 && record.seen.is_empty() {
                    let _ = started.try_send(());
                }
                record.note(response);
            }
            Ok(())
        }
        .await;
        if outcome.is_err() {
            record.cuts += 1;
            record.cuts_before_the_end += usize::from(record.position < TICKS);
        }
    }
    record
}

/// A proxy for one connection that breaks both ends, without a word, after it has carried some bytes to the client.
async fn cut_after(server: SocketAddr, budget: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("the subscriber connects");
        let upstream = TcpStream::connect(server).await.expect("the server accepts");
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = upstream.into_split();
        let up = tokio::spawn(async move {
            let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        });
        let mut left = budget;
        let mut buffer = vec![0; 16 << 10];
        while left > 0 {
            let Ok(count) = from_server.read(&mut buffer).await else {
                break;
            };
            let count = count.min(left);
            if count == 0 || to_client.write_all(&buffer[..count]).await.is_err() {
                break;
            }
            left -= count;
        }
        up.abort();
    });
    address
}
