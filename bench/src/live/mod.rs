//! Live fan-out: CPU of the sender for each delivered tick, beside raw TCP, plain tonic, Redis Pub/Sub and NATS.
//!
//! The server is the real one, over a store file in memory, so that the disk does not set the pace; one publisher keeps
//! one batch outstanding, so that each batch is one commit and one message. What it costs to take and store the ticks is
//! measured without subscribers and subtracted. Nobody runs ahead of the slowest reader by more than [`AHEAD`] ticks.

mod child;
mod h2;
mod latency;
pub mod load;
pub mod peer;
mod text;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use tapefeed_proto::v1 as proto;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::figure::{Figure, quantile};
use crate::process::Server;
use crate::ticks::symbol;
use child::Peer;
use h2::{Received, Window};
use load::Load;

type Problem = Box<dyn std::error::Error>;

/// How many ticks the publisher may be ahead of the slowest reader.
const AHEAD: u64 = 50_000;

/// How many bytes may be on their way to the slowest subscriber of Redis or NATS.
const AHEAD_BYTES: u64 = 4 << 20;

const SUBSCRIBE: &str = "/tapefeed.v1.LiveService/SubscribeTicks";

/// Which instruments each subscriber asks for, of 100.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    Everything,
    /// The same few for all.
    Few(u32),
    /// So many each, and each another set.
    Sets(u32),
}

/// One point of an axis.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    subscribers: usize,
    connections: usize,
    ticks: usize,
    columns: bool,
    wanted: Wanted,
    window: u32,
    flush_micros: i32,
}

const BASE: Case = Case {
    name: "base: 100 subscribers of everything on own connections, rows, 64 ticks a message",
    subscribers: 100,
    connections: 100,
    ticks: 64,
    columns: false,
    wanted: Wanted::Everything,
    window: 16 << 20,
    flush_micros: 0,
};

/// One axis at a time from the base case.
const CASES: &[Case] = &[
    BASE,
    Case { name: "columns, 64 ticks a message", columns: true, ..BASE },
    Case { name: "1 tick a message", ticks: 1, ..BASE },
    Case { name: "columns, 1 tick a message", ticks: 1, columns: true, ..BASE },
    Case { name: "16 ticks a message", ticks: 16, ..BASE },
    Case { name: "256 ticks a message", ticks: 256, ..BASE },
    Case { name: "1 subscriber", subscribers: 1, connections: 1, ..BASE },
    Case { name: "10 subscribers", subscribers: 10, connections: 10, ..BASE },
    Case { name: "1,000 subscribers", subscribers: 1_000, connections: 1_000, ..BASE },
    Case { name: "100 subscribers on 4 connections", connections: 4, ..BASE },
    Case { name: "10 of 100 instruments each, the same", wanted: Wanted::Few(10), ..BASE },
    Case { name: "1 of 100 instruments each", wanted: Wanted::Sets(1), ..BASE },
    Case { name: "10 of 100 instruments each, other sets", wanted: Wanted::Sets(10), ..BASE },
    Case { name: "windows of 64 KiB, as grpcio, grpc-js and C++ have them", window: 65_535, ..BASE },
    Case { name: "1 tick a message, flush window of 1 ms", ticks: 1, flush_micros: 1_000, ..BASE },
];

/// How many of [`CASES`] a quick run has.
const QUICK_CASES: usize = 4;

/// What was measured of a sender.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    /// CPU nanoseconds a delivered tick.
    cpu: f64,
    /// Delivered ticks a second.
    rate: f64,
    /// Bytes a delivered tick on the wire, without HTTP/2's frames.
    bytes: f64,
}

pub async fn run(binary: &Path, quick: bool, nats: Option<&Path>) -> Result<(), Problem> {
    let (rounds, span) = if quick { (3, Duration::from_millis(1_000)) } else { (5, Duration::from_millis(2_500)) };
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let server = Server::start(binary, &folder.path().join("live.db")).await?;
    let cases = if quick { &CASES[..QUICK_CASES] } else { CASES };
    for case in cases {
        let mut ours = Vec::new();
        let (mut raw, mut plain, mut redis, mut with_nats) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        // Peers do not filter and do not wait: they are compared where that makes no difference.
        let compared = case.wanted == Wanted::Everything && case.flush_micros == 0;
        for _ in 0..rounds {
            let measured = tapefeed(&server, case, span).await?;
            ours.push(measured);
            if !compared {
                continue;
            }
            let message = (measured.bytes * case.ticks as f64) as usize;
            raw.push(raw_tcp(case, message, span).await?);
            if !case.columns {
                plain.push(plain_tonic(case, span).await?);
            }
            redis.push(by_text(case, message, span, None).await?);
            if let Some(binary) = nats {
                with_nats.push(by_text(case, message, span, Some(binary)).await?);
            }
        }
        report(
            case,
            &ours,
            &[
                ("raw TCP, the same bytes and writes", &raw),
                ("tonic, a channel and an encoding each", &plain),
                ("Redis Pub/Sub, the same payload", &redis),
                ("NATS, the same payload", &with_nats),
            ],
        );
    }
    latency::run(&server, quick).await
}

fn median(measured: &[Measured], of: fn(&Measured) -> f64) -> f64 {
    quantile(&mut measured.iter().map(of).collect::<Vec<_>>(), 0.5)
}

fn report(case: &Case, ours: &[Measured], peers: &[(&str, &Vec<Measured>)]) {
    let cpu = median(ours, |measured| measured.cpu);
    let figure =
        |metric, unit, value, peer, goal| Figure { case: case.name, metric, unit, value, peer, goal }.print("live");
    figure("delivered", "ticks/s", median(ours, |measured| measured.rate), None, None);
    figure("message bytes", "B/tick", median(ours, |measured| measured.bytes), None, None);
    let metric = "server CPU a delivered tick";
    let mut alone = true;
    for (index, (name, peer)) in peers.iter().enumerate() {
        if peer.is_empty() {
            continue;
        }
        alone = false;
        let theirs = median(peer, |measured| measured.cpu);
        let ratio = cpu / theirs;
        let goal = match (index, case.columns, case.ticks, case.subscribers) {
            (0, _, 64, 100) => Some(("at most 2x raw TCP", ratio <= 2.0)),
            (0, _, 1, 100) => Some(("at most 3x raw TCP", ratio <= 3.0)),
            (2, true, 64, 100) => Some(("8x under Redis", ratio <= 1.0 / 8.0)),
            (3, true, 1, 100) => Some(("15x under NATS", ratio <= 1.0 / 15.0)),
            _ => None,
        };
        figure(metric, "ns", cpu, Some((name, theirs)), goal);
    }
    if alone {
        figure(metric, "ns", cpu, None, None);
    }
}

/// The request of one subscriber.
fn request(case: &Case, subscriber: usize) -> Vec<u8> {
    let any = || vec![proto::Selector { venue: String::new(), symbol: "*".into() }];
    let some = |first: u32, count: u32| -> Vec<proto::Selector> {
        let named = |index| proto::Selector { venue: "BENCH".into(), symbol: symbol((first + index * 7) % 100) };
        (0..count).map(named).collect()
    };
    let selectors = match case.wanted {
        Wanted::Everything => any(),
        Wanted::Few(count) => some(0, count),
        Wanted::Sets(count) => some(subscriber as u32 % 100, count),
    };
    let encoding = if case.columns { proto::Encoding::Columns } else { proto::Encoding::Rows };
    proto::SubscribeTicksRequest {
        selectors,
        encoding: encoding as i32,
        heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        flush_window: Some(prost_types::Duration { seconds: 0, nanos: case.flush_micros * 1_000 }),
        ..proto::SubscribeTicksRequest::default()
    }
    .encode_to_vec()
}

/// Readers of a case: their counts, and the tasks that read.
struct Readers {
    received: Vec<Arc<Received>>,
    tasks: Vec<JoinHandle<std::io::Error>>,
}

impl Readers {
    async fn open(address: &str, case: &Case) -> Result<Readers, Problem> {
        let received: Vec<Arc<Received>> = (0..case.subscribers).map(|_| Arc::default()).collect();
        let mut tasks = Vec::new();
        for (index, streams) in received.chunks(case.subscribers.div_ceil(case.connections)).enumerate() {
            let request = request(case, index);
            let window = Window(case.window);
            tasks.push(h2::subscribe(address, SUBSCRIBE, &request, streams.to_vec(), window).await?);
        }
        Ok(Readers { received, tasks })
    }

    fn slowest(&self, of: fn(&Received) -> &AtomicU64) -> u64 {
        self.received.iter().map(|received| of(received).load(Ordering::Acquire)).min().unwrap_or(0)
    }

    fn bytes(&self) -> u64 {
        self.received.iter().map(|received| received.bytes.load(Ordering::Acquire)).sum()
    }

    /// Waits until everybody has something.
    async fn reach(&self, of: fn(&Received) -> &AtomicU64, least: u64) -> Result<(), Problem> {
        let begun = Instant::now();
        while self.slowest(of) < least {
            if self.tasks.iter().any(JoinHandle::is_finished) {
                return Err("a reader's connection has ended".into());
            }
            if begun.elapsed() > Duration::from_secs(30) {
                return Err(format!("readers stand at {} of {least}", self.slowest(of)).into());
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        Ok(())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn tapefeed(server: &Server, case: &Case, span: Duration) -> Result<Measured, Problem> {
    let mut load = Load::start(&server.url, "bench-live").await?;
    // Every instrument exists, and what a start costs is over.
    load.publish(10_000).await?;
    let begun = Instant::now();
    let (mut ticks, cpu) = (0, server.cpu_seconds());
    while begun.elapsed() < span / 2 {
        load.publish(case.ticks).await?;
        ticks += case.ticks;
    }
    let storing = (server.cpu_seconds() - cpu) / ticks as f64;

    let address = server.url.trim_start_matches("http://");
    let readers = Readers::open(address, case).await?;
    readers.reach(|received| &received.bytes, 1).await?;
    let (_, warm) = load.publish(case.ticks).await?;
    readers.reach(|received| &received.position, warm).await?;
    let (bytes, cpu, begun) = (readers.bytes(), server.cpu_seconds(), Instant::now());
    let (mut ticks, mut last) = (0, warm);
    while begun.elapsed() < span {
        (_, last) = load.publish(case.ticks).await?;
        ticks += case.ticks;
        if case.wanted == Wanted::Everything {
            readers.reach(|received| &received.position, last.saturating_sub(AHEAD)).await?;
        }
    }
    readers.reach(|received| &received.position, last).await?;
    let (seconds, cpu, bytes) = (begun.elapsed().as_secs_f64(), server.cpu_seconds() - cpu, readers.bytes() - bytes);
    let share = match case.wanted {
        Wanted::Everything => 1.0,
        Wanted::Few(count) | Wanted::Sets(count) => f64::from(count) / 100.0,
    };
    let delivered = ticks as f64 * case.subscribers as f64 * share;
    Ok(Measured {
        cpu: (cpu - storing * ticks as f64) * 1e9 / delivered,
        rate: delivered / seconds,
        bytes: bytes as f64 / delivered,
    })
}

/// Messages that a peer of our own sends at once before its readers are looked at.
const SENT_AT_ONCE: usize = 64;

async fn raw_tcp(case: &Case, message: usize, span: Duration) -> Result<Measured, Problem> {
    let arguments =
        ["raw".to_owned(), case.subscribers.to_string(), message.to_string(), message.min(16 << 10).to_string()];
    let mut peer = Peer::own(&arguments).await?;
    let bytes: Vec<Arc<AtomicU64>> = (0..case.subscribers).map(|_| Arc::default()).collect();
    for bytes in &bytes {
        text::drain(&peer.address, b"!", bytes.clone()).await?;
    }
    let (cpu, begun) = (peer.cpu_seconds(), Instant::now());
    let mut sent = 0;
    while begun.elapsed() < span {
        peer.send(SENT_AT_ONCE).await?;
        sent += SENT_AT_ONCE;
        reach(&bytes, ((sent - SENT_AT_ONCE) * message) as u64).await?;
    }
    reach(&bytes, (sent * message) as u64).await?;
    Ok(measured(&peer, cpu, begun, sent, case, message))
}

async fn plain_tonic(case: &Case, span: Duration) -> Result<Measured, Problem> {
    let mut peer = Peer::own(&["tonic".to_owned(), case.ticks.to_string()]).await?;
    let readers = Readers::open(&peer.address.clone(), case).await?;
    // The first message tells that everybody is there, and how long messages are.
    tokio::time::sleep(Duration::from_millis(300)).await;
    peer.send(1).await?;
    readers.reach(|received| &received.bytes, 1).await?;
    let (cpu, begun) = (peer.cpu_seconds(), Instant::now());
    let mut sent = 0;
    while begun.elapsed() < span {
        peer.send(SENT_AT_ONCE).await?;
        sent += SENT_AT_ONCE;
        // Its own channels hold it back; here only its commands are.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let least = readers.slowest(|received| &received.bytes);
        while readers.slowest(|received| &received.bytes) == least && begun.elapsed() < span {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
    let mut bytes = readers.bytes();
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = readers.bytes();
        if now == bytes {
            break;
        }
        bytes = now;
    }
    let message = bytes as usize / case.subscribers / (sent + 1);
    Ok(measured(&peer, cpu, begun, sent, case, message))
}

/// Redis, or NATS if its program is given.
async fn by_text(case: &Case, message: usize, span: Duration, nats: Option<&Path>) -> Result<Measured, Problem> {
    let payload: Vec<u8> = (0..message).map(|index| (index * 31 % 251) as u8).collect();
    let (peer, subscribe, hello, publish, wire) = match nats {
        None => (
            Peer::redis().await?,
            text::redis_subscribe(),
            Vec::new(),
            text::redis_publish(&payload),
            text::redis_bytes(message),
        ),
        Some(binary) => {
            let peer = Peer::nats(binary).await?;
            (
                peer,
                text::nats_subscribe(),
                text::nats_connect(),
                text::nats_publish(&payload),
                text::nats_bytes(message),
            )
        }
    };
    let bytes: Vec<Arc<AtomicU64>> = (0..case.subscribers).map(|_| Arc::default()).collect();
    for bytes in &bytes {
        text::drain(&peer.address, &subscribe, bytes.clone()).await?;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let greeted: Vec<u64> = bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).collect();
    let mut socket = TcpStream::connect(&peer.address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(&hello).await?;
    let (mut reading, mut writing) = socket.into_split();
    let answers = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while matches!(reading.read(&mut buffer).await, Ok(read) if read > 0) {}
    });
    let (cpu, begun) = (peer.cpu_seconds(), Instant::now());
    let mut sent = 0;
    let arrived = |sent: usize| {
        let each = greeted.iter().zip(&bytes).map(|(greeted, bytes)| bytes.load(Ordering::Relaxed) - greeted);
        ((sent * wire) as u64).saturating_sub(each.min().unwrap_or(0))
    };
    while begun.elapsed() < span {
        writing.write_all(&publish).await?;
        sent += 1;
        while arrived(sent) > AHEAD_BYTES {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
    let waited = Instant::now();
    while arrived(sent) > 0 {
        if waited.elapsed() > Duration::from_secs(30) {
            return Err("the peer has lost messages".into());
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    answers.abort();
    Ok(measured(&peer, cpu, begun, sent, case, wire))
}

async fn reach(bytes: &[Arc<AtomicU64>], least: u64) -> Result<(), Problem> {
    let begun = Instant::now();
    while bytes.iter().any(|bytes| bytes.load(Ordering::Relaxed) < least) {
        if begun.elapsed() > Duration::from_secs(30) {
            return Err("a peer's readers do not get what was sent".into());
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    Ok(())
}

fn measured(peer: &Peer, cpu: f64, begun: Instant, sent: usize, case: &Case, message: usize) -> Measured {
    let delivered = (sent * case.ticks * case.subscribers) as f64;
    Measured {
        cpu: (peer.cpu_seconds() - cpu) * 1e9 / delivered,
        rate: delivered / begun.elapsed().as_secs_f64(),
        bytes: message as f64 / case.ticks as f64,
    }
}
