//! Hours in minutes: 500 streams over one server, most of them well, some frozen, some that die and resume, while
//! memory, descriptors, tasks and streams are looked at. What every stream gets is checked position by position.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::live_service_client::LiveServiceClient;
use tapefeed_proto::v1::subscribe_ticks_request::Start;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_server::domain::Cursor;
use tapefeed_tests::scrape::Scrape;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::figure::{Figure, quantile};
use crate::live::load::Load;
use crate::process::Server;
use crate::ticks::symbol;

type Problem = Box<dyn std::error::Error>;

/// Streams of one instrument each, ten on a connection.
const NARROW: usize = 380;

/// Streams of everything on connections of their own.
const WIDE: usize = 20;

/// Streams that are never read, five on a connection.
const FROZEN: usize = 50;

/// Streams of everything that die every few seconds and resume.
const RESUMING: usize = 50;

/// Ticks of a batch, and batches each second.
const BATCH: usize = 50;
const BATCHES: u64 = 100;

/// How often the server is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// The windows of clients: what a frozen reader takes before its server feels it.
const WINDOW: u32 = 65_535;

/// What all streams count.
#[derive(Debug, Default)]
struct Seen {
    ticks: AtomicU64,
    resumes: AtomicU64,
    /// Positions that came twice, out of order, or not at all.
    wrong: AtomicU64,
    gaps: AtomicU64,
}

/// One look at the server.
#[derive(Clone, Copy, Debug)]
struct Look {
    seconds: f64,
    memory_mib: f64,
    descriptors: f64,
    tasks: f64,
    streams: f64,
}

pub async fn run(binary: &Path, quick: bool) -> Result<(), Problem> {
    frozen_beside(binary, quick).await?;
    let length = Duration::from_secs(if quick { 60 } else { 600 });
    let folder = tempfile::tempdir()?;
    let server = Server::start(binary, &folder.path().join("soak.db")).await?;
    let address: SocketAddr = server.url.trim_start_matches("http://").parse()?;
    let mut load = Load::start(&server.url, "soak").await?;
    load.publish(1_000).await?;
    let seen = Arc::new(Seen::default());
    let mut streams = JoinSet::new();
    let mut frozen = Vec::new();
    for index in 0..NARROW / 10 {
        let channel = connect(&server.url).await?;
        for number in 0..10 {
            let name = symbol(((index * 10 + number) % 100) as u32);
            streams.spawn(narrow(channel.clone(), name, seen.clone()));
        }
    }
    for _ in 0..WIDE {
        streams.spawn(wide(connect(&server.url).await?, seen.clone()));
    }
    for _ in 0..FROZEN / 5 {
        let channel = connect(&server.url).await?;
        for _ in 0..5 {
            // Held, and never read.
            frozen.push(subscribe(&channel, "*", None).await?);
        }
    }
    for seed in 0..RESUMING {
        streams.spawn(resuming(server.url.clone(), seed as u64, seen.clone()));
    }

    let begin = Instant::now();
    let publishing = tokio::spawn(async move {
        let mut pace = interval(Duration::from_millis(1_000 / BATCHES));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut latest = Vec::new();
        while begin.elapsed() < length {
            pace.tick().await;
            let (took, _) = load.publish(BATCH).await.map_err(|error| error.to_string())?;
            latest.push(took.as_secs_f64() * 1e3);
        }
        Ok::<Vec<f64>, String>(latest)
    });
    let mut looks = Vec::new();
    let mut clock = interval(LOOK);
    while begin.elapsed() < length {
        clock.tick().await;
        let scrape = Scrape::of(address).await;
        looks.push(Look {
            seconds: begin.elapsed().as_secs_f64(),
            memory_mib: scrape.value("process_resident_memory_bytes") / f64::from(1 << 20),
            descriptors: scrape.value("process_open_fds"),
            tasks: scrape.value("tapefeed_tasks"),
            streams: scrape.value("tapefeed_live_streams"),
        });
        if let Some(ended) = streams.try_join_next() {
            return Err(format!("a stream ended: {ended:?}").into());
        }
    }
    let mut acknowledged = publishing.await??;
    report(&seen, &looks, &mut acknowledged, length);
    drop(frozen);
    streams.shutdown().await;
    Ok(())
}

/// Readers that are well, beside one that is not.
const WELL: usize = 99;

/// Whether a frozen reader is felt by 99 others: their lag without it and with it, in turns.
async fn frozen_beside(binary: &Path, quick: bool) -> Result<(), Problem> {
    let (turns, length) = if quick { (1, Duration::from_secs(5)) } else { (5, Duration::from_secs(10)) };
    let folder = tempfile::tempdir()?;
    let server = Server::start(binary, &folder.path().join("beside.db")).await?;
    let mut load = Load::start(&server.url, "beside").await?;
    let (_, mut last) = load.publish(BATCH).await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for turn in 0..2 * turns {
        let frozen = match turn % 2 {
            0 => None,
            _ => Some(subscribe(&connect(&server.url).await?, "*", None).await?),
        };
        // When each position was sent, by its batch.
        let sent = Arc::new(Mutex::new((last, Vec::<Instant>::new())));
        let mut readers = JoinSet::new();
        for _ in 0..WELL {
            let mut stream = subscribe(&connect(&server.url).await?, "*", None).await?;
            let sent = sent.clone();
            readers.spawn(async move {
                let mut lags = Vec::new();
                while let Ok(Ok(Some(message))) = timeout(Duration::from_secs(1), stream.message()).await {
                    let now = Instant::now();
                    let Some(Event::Columns(columns)) = message.event else { continue };
                    let position: i64 = columns.log_seq_delta.iter().sum();
                    let (first, sent) = &*sent.lock().expect("no holder of the lock panics");
                    let batch = (position.cast_unsigned() - first - 1) as usize / BATCH;
                    lags.push((now - sent[batch]).as_secs_f64() * 1e3);
                }
                lags
            });
        }
        let end = Instant::now() + length;
        let mut pace = interval(Duration::from_millis(1_000 / BATCHES));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < end {
            pace.tick().await;
            sent.lock().expect("no holder of the lock panics").1.push(Instant::now());
            (_, last) = load.publish(BATCH).await?;
        }
        let mut lags: Vec<f64> = readers.join_all().await.into_iter().flatten().collect();
        let p99 = quantile(&mut lags, 0.99);
        if frozen.is_some() { &mut with } else { &mut without }.push(p99);
    }
    let (value, peer) = (quantile(&mut with, 0.5), quantile(&mut without, 0.5));
    Figure {
        case: "99 readers beside one that is frozen",
        metric: "lag from send to receipt, p99, median of turns",
        unit: "ms",
        value,
        peer: Some(("without it", peer)),
        goal: Some(("within 20 %", value <= peer * 1.2)),
    }
    .print("soak");
    Ok(())
}

fn report(seen: &Seen, looks: &[Look], acknowledged: &mut [f64], length: Duration) {
    // The ring of newest blocks and the first hot ticks fill up first: the second half is judged.
    let judged = &looks[looks.len() / 2..];
    let streams = NARROW + WIDE + FROZEN + RESUMING;
    let case = format!("{streams} streams, {FROZEN} frozen, {RESUMING} resuming, {} s", length.as_secs());
    let print = |metric: &str, unit: &str, value: f64, goal: Option<(&str, bool)>| {
        Figure { case: &case, metric, unit, value, peer: None, goal }.print("soak");
    };
    let column = |value: fn(&Look) -> f64| judged.iter().map(value).collect::<Vec<f64>>();
    let spread = |values: &[f64]| {
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
        (least, most)
    };
    let slope = slope(judged, |look| look.memory_mib) * 60.0;
    print("memory resident, first look", "MiB", looks[0].memory_mib, None);
    print(
        "memory resident, median of the second half",
        "MiB",
        quantile(&mut column(|look| look.memory_mib), 0.5),
        None,
    );
    print("growth of memory in the second half", "MiB/min", slope, Some(("flat: at most 1", slope <= 1.0)));
    for (metric, value) in [
        ("descriptors", (|look: &Look| look.descriptors) as fn(&Look) -> f64),
        ("tasks", |look| look.tasks),
        ("streams", |look| look.streams),
    ] {
        let (least, most) = spread(&column(value));
        let flat = Some(("flat: within 10 %", most <= least * 1.1 + 5.0));
        print(&format!("{metric}, least of the second half"), "", least, None);
        print(&format!("{metric}, most of the second half"), "", most, flat);
    }
    let wrong = seen.wrong.load(Ordering::Relaxed) as f64;
    print("ticks that came twice, out of order or not at all", "", wrong, Some(("0", wrong == 0.0)));
    let gaps = seen.gaps.load(Ordering::Relaxed) as f64;
    print("notices of gaps", "", gaps, Some(("0", gaps == 0.0)));
    let (ticks, resumes) = (seen.ticks.load(Ordering::Relaxed) as f64, seen.resumes.load(Ordering::Relaxed) as f64);
    print("delivered", "ticks/s", ticks / length.as_secs_f64(), None);
    print("resumes", "", resumes, None);
    print("acknowledgement, p50", "ms", quantile(acknowledged, 0.5), None);
    print("acknowledgement, p99", "ms", quantile(acknowledged, 0.99), None);
}

/// By how much a value grows each second: the line of least squares.
fn slope(looks: &[Look], value: fn(&Look) -> f64) -> f64 {
    let count = looks.len() as f64;
    let mean = |of: &dyn Fn(&Look) -> f64| looks.iter().map(of).sum::<f64>() / count;
    let (time, level) = (mean(&|look| look.seconds), mean(&|look| value(look)));
    let rise: f64 = looks.iter().map(|look| (look.seconds - time) * (value(look) - level)).sum();
    let run: f64 = looks.iter().map(|look| (look.seconds - time).powi(2)).sum();
    rise / run.max(f64::EPSILON)
}

async fn connect(url: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(url.to_owned())?;
    endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(4 * WINDOW).connect().await
}

async fn subscribe(
    channel: &Channel,
    symbol: &str,
    after: Option<Vec<u8>>,
) -> Result<Streaming<proto::SubscribeTicksResponse>, tonic::Status> {
    let request = proto::SubscribeTicksRequest {
        selectors: vec![proto::Selector { venue: String::new(), symbol: symbol.to_owned() }],
        start: after.map(|cursor| Start::Cursor(cursor.into())),
        encoding: proto::Encoding::Columns.into(),
        ..proto::SubscribeTicksRequest::default()
    };
    Ok(LiveServiceClient::new(channel.clone()).subscribe_ticks(request).await?.into_inner())
}

/// Where a stream is, and whether its positions follow each other.
#[derive(Debug, Default)]
struct Place {
    last: u64,
    /// Whether every position is for this stream.
    dense: bool,
    cursor: Vec<u8>,
}

impl Place {
    fn note(&mut self, message: proto::SubscribeTicksResponse, seen: &Seen) {
        match message.event {
            // The cursor says where the stream begins; the log's head may be a little further on.
            Some(Event::Ack(_)) if self.cursor.is_empty() => {
                self.last = Cursor::decode(&message.cursor).map_or(0, |cursor| cursor.position);
            }
            Some(Event::Columns(columns)) => {
                let mut position = 0i64;
                let mut wrong = 0;
                for delta in &columns.log_seq_delta {
                    position = position.wrapping_add(*delta);
                    let next = position.cast_unsigned();
                    let follows = if self.dense { next == self.last + 1 } else { next > self.last };
                    wrong += u64::from(!follows);
                    self.last = next;
                }
                seen.wrong.fetch_add(wrong, Ordering::Relaxed);
                seen.ticks.fetch_add(columns.log_seq_delta.len() as u64, Ordering::Relaxed);
            }
            Some(Event::StreamGap(_)) => {
                seen.gaps.fetch_add(1, Ordering::Relaxed);
            }
            _ => (),
        }
        self.cursor = message.cursor.to_vec();
    }
}

async fn narrow(channel: Channel, name: String, seen: Arc<Seen>) -> Result<(), tonic::Status> {
    let mut stream = subscribe(&channel, &name, None).await?;
    let mut place = Place::default();
    while let Some(message) = stream.message().await? {
        place.note(message, &seen);
    }
    Ok(())
}

async fn wide(channel: Channel, seen: Arc<Seen>) -> Result<(), tonic::Status> {
    let mut stream = subscribe(&channel, "*", None).await?;
    let mut place = Place { dense: true, ..Place::default() };
    while let Some(message) = stream.message().await? {
        place.note(message, &seen);
    }
    Ok(())
}

/// Lives of two to eight seconds, each on a connection of its own that goes with it, and a pause between two.
async fn resuming(url: String, seed: u64, seen: Arc<Seen>) -> Result<(), tonic::Status> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut place = Place { dense: true, ..Place::default() };
    loop {
        let life = Duration::from_millis(random.random_range(2_000..8_000));
        let after = Some(place.cursor.clone()).filter(|cursor| !cursor.is_empty());
        let channel = connect(&url).await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let mut stream = subscribe(&channel, "*", after).await?;
        let reading = async {
            while let Some(message) = stream.message().await? {
                place.note(message, &seen);
            }
            Ok::<(), tonic::Status>(())
        };
        match timeout(life, reading).await {
            Ok(ended) => return ended,
            Err(_) => seen.resumes.fetch_add(1, Ordering::Relaxed),
        };
        drop(stream);
        tokio::time::sleep(Duration::from_millis(random.random_range(10..500))).await;
    }
}
