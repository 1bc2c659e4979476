//! From a producer of one replica to a subscriber of another, over Redis and the same Postgres; beside it Redis Pub/Sub
//! alone, which stores nothing, with the same batches through the same Redis.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::live_service_client::LiveServiceClient;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_server::domain::Cursor;
use tapefeed_tests::redis_server::RedisServer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_stream::StreamExt as _;

use super::cluster::Cluster;
use super::load::{self, Form, OUTSTANDING, micros};
use crate::figure::{Figure, quantile};
use crate::live::load::Load;
use crate::process::Server;
use crate::ticks::{Tape, Trade, columns};

type Problem = Box<dyn std::error::Error>;

/// Ticks of a batch, and time between two, where latency is measured: 10,000 ticks a second.
const PACED: (usize, Duration) = (100, Duration::from_millis(10));

const FLOOD: Form = Form { producers: 8, batch: 1_000, columns: true };

/// Redis alone.
const PEER: &str = "Redis Pub/Sub, nothing stored";

/// Where each message ends, and when it came.
type Seen = mpsc::UnboundedReceiver<(u64, Instant)>;

pub(super) async fn run(cluster: &mut Cluster, binary: &Path, quick: bool) -> Result<(), Problem> {
    let (batches, rounds, count) = if quick { (300, 2, 400_000) } else { (2_000, 5, 2_000_000) };
    let redis = RedisServer::start().await.ok_or("redis-server is missing: apt-get install redis-server")?;
    redis::cmd("CONFIG")
        .arg(&["SET", "client-output-buffer-limit", "pubsub 0 0 0"])
        .exec_async(&mut redis.connect().await?)
        .await?;
    let url = cluster.create("replicas").await?;
    let options = ["--store", &url, "--bus", &redis.url()];
    let first = Server::start_on(binary, &options, &[]).await?;
    let second = Server::start_on(binary, &options, &[]).await?;

    let (mut own, mut peer) = (Vec::new(), Vec::new());
    let (mut own_rates, mut peer_rates) = (Vec::new(), Vec::new());
    let (mut own_cpu, mut peer_cpu) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        own.extend(paced(&first, &second, &format!("paced-{round}"), batches / rounds).await?);
        peer.extend(paced_by_redis(&redis, batches / rounds).await?);
        let before = (cluster.spent(&[&first, &second]).await?, redis_cpu(&redis).await?);
        own_rates.push(flood(&first, &second, &format!("flood-{round}"), count).await?);
        let after = (cluster.spent(&[&first, &second]).await?.since(before.0), redis_cpu(&redis).await?);
        own_cpu.push((after.0.server + after.0.postgres + after.1 - before.1) * 1e9 / count as f64);
        let before = redis_cpu(&redis).await?;
        peer_rates.push(flood_by_redis(&redis, count).await?);
        peer_cpu.push((redis_cpu(&redis).await? - before) * 1e9 / count as f64);
    }
    for (share, metric) in [(0.5, "send at A to receipt at B, p50"), (0.99, "send at A to receipt at B, p99")] {
        Figure {
            case: "two replicas over Redis and Postgres, 10,000 ticks/s in columns of 100",
            metric,
            unit: "us",
            value: quantile(&mut own, share),
            peer: Some((PEER, quantile(&mut peer, share))),
            goal: None,
        }
        .print("ingest");
    }
    let case = "two replicas over Redis and Postgres, columns, 8 producers of 1,000 to one subscriber";
    for (metric, unit, mut own, mut peer) in [
        ("received at B", "ticks/s", own_rates, peer_rates),
        ("CPU of both servers, Postgres and Redis until the last is received", "ns/tick", own_cpu, peer_cpu),
    ] {
        let peer = Some((PEER, quantile(&mut peer, 0.5)));
        Figure { case, metric, unit, value: quantile(&mut own, 0.5), peer, goal: None }.print("ingest");
    }
    Ok(())
}

/// Subscribes to everything, and tells the position of each message with ticks.
async fn subscribe(server: &Server) -> Result<Seen, Problem> {
    let mut client = LiveServiceClient::connect(server.url.clone()).await?;
    let request = proto::SubscribeTicksRequest {
        selectors: vec![proto::Selector { venue: String::new(), symbol: "*".into() }],
        encoding: proto::Encoding::Columns as i32,
        ..proto::SubscribeTicksRequest::default()
    };
    let mut stream = client.subscribe_ticks(request).await?.into_inner();
    stream.message().await?;
    let (sender, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(message)) = stream.message().await {
            let now = Instant::now();
            if matches!(message.event, Some(Event::Columns(_)))
                && let Ok(cursor) = Cursor::decode(&message.cursor)
                && sender.send((cursor.position, now)).is_err()
            {
                return;
            }
        }
    });
    Ok(seen)
}

/// From the sending of each batch at one replica to its receipt at the other, in microseconds.
async fn paced(first: &Server, second: &Server, producer: &str, batches: usize) -> Result<Vec<f64>, Problem> {
    let mut seen = subscribe(second).await?;
    let mut load = Load::start(&first.url, producer).await?;
    let mut due = tokio::time::interval(PACED.1);
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sent = HashMap::new();
    for _ in 0..batches {
        due.tick().await;
        let begun = Instant::now();
        let (_, position) = load.publish(PACED.0).await?;
        sent.insert(position, begun);
    }
    let mut received = Vec::new();
    while received.len() < batches {
        let next = tokio::time::timeout(Duration::from_secs(10), seen.recv()).await?;
        let (position, at) = next.ok_or("the subscription ended")?;
        received.extend(sent.get(&position).map(|begun| micros(at.duration_since(*begun))));
    }
    Ok(received)
}

/// Ticks a second from the first batch until the subscriber of the other replica has all.
async fn flood(first: &Server, second: &Server, producer: &str, count: usize) -> Result<f64, Problem> {
    let trades = load::trades(&mut load::tapes(FLOOD.producers, 0), count);
    let mut seen = subscribe(second).await?;
    // Where the log stands: a tick is sent ahead.
    let (_, start) = Load::start(&first.url, &format!("{producer}-start")).await?.publish(1).await?;
    let begun = Instant::now();
    let published = load::publish(&first.url, FLOOD, producer, trades).await;
    published.map_err(|problem| problem.to_string())?;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(30), seen.recv()).await?;
        let (position, at) = next.ok_or("the subscription ended")?;
        if position >= start + count as u64 {
            return Ok(count as f64 / at.duration_since(begun).as_secs_f64());
        }
    }
}

const CHANNEL: &str = "bench:ticks";

/// Tells when each message of Redis came; they are numbered.
async fn listen(redis: &RedisServer) -> Result<Seen, Problem> {
    let mut subscriber = redis::Client::open(redis.url())?.get_async_pubsub().await?;
    subscriber.subscribe(CHANNEL).await?;
    let (sender, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = subscriber.into_on_message();
        while let Some(message) = messages.next().await {
            let now = Instant::now();
            // As a subscriber of ours does, it reads what it is sent.
            let Ok(batch) = proto::PublishBatch::decode(message.get_payload_bytes()) else { return };
            if sender.send((batch.batch_seq, now)).is_err() {
                return;
            }
        }
    });
    Ok(seen)
}

fn message(batch_seq: u64, trades: &[Trade]) -> Vec<u8> {
    let content = Some(proto::publish_batch::Content::Columns(columns(trades)));
    proto::PublishBatch { batch_seq, content }.encode_to_vec()
}

async fn paced_by_redis(redis: &RedisServer, batches: usize) -> Result<Vec<f64>, Problem> {
    let mut seen = listen(redis).await?;
    let mut connection = redis.connect().await?;
    let mut tape = Tape::new(100, 1e6);
    let mut due = tokio::time::interval(PACED.1);
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut received = Vec::new();
    for number in 0..batches {
        let trades: Vec<Trade> = tape.by_ref().take(PACED.0).collect();
        due.tick().await;
        let begun = Instant::now();
        redis::cmd("PUBLISH").arg(CHANNEL).arg(message(number as u64, &trades)).exec_async(&mut connection).await?;
        let (_, at) = seen.recv().await.ok_or("the subscription ended")?;
        received.push(micros(at.duration_since(begun)));
    }
    Ok(received)
}

async fn flood_by_redis(redis: &RedisServer, count: usize) -> Result<f64, Problem> {
    let trades = load::trades(&mut load::tapes(FLOOD.producers, 0), count);
    let mut seen = listen(redis).await?;
    let mut connections = Vec::new();
    for _ in 0..FLOOD.producers {
        connections.push(redis.connect().await?);
    }
    let begun = Instant::now();
    let mut publishers = JoinSet::new();
    for (connection, trades) in connections.into_iter().zip(trades) {
        // Eight senders on each connection, as a producer of ours has eight batches outstanding.
        let trades = Arc::new(trades);
        for sender in 0..OUTSTANDING {
            let (mut connection, trades) = (connection.clone(), trades.clone());
            publishers.spawn(async move {
                for part in trades.chunks(FLOOD.batch).skip(sender).step_by(OUTSTANDING) {
                    redis::cmd("PUBLISH").arg(CHANNEL).arg(message(0, part)).exec_async(&mut connection).await?;
                }
                redis::RedisResult::Ok(())
            });
        }
    }
    for sent in publishers.join_all().await {
        sent?;
    }
    let mut last = begun;
    for _ in 0..count / FLOOD.batch {
        (_, last) =
            tokio::time::timeout(Duration::from_secs(30), seen.recv()).await?.ok_or("the subscription ended")?;
    }
    Ok(count as f64 / last.duration_since(begun).as_secs_f64())
}

/// CPU seconds of Redis.
async fn redis_cpu(redis: &RedisServer) -> Result<f64, Problem> {
    let info: String = redis::cmd("INFO").arg("cpu").query_async(&mut redis.connect().await?).await?;
    let seconds = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|text| text.trim().parse::<f64>().ok()).unwrap_or(0.0)
    };
    Ok(seconds("used_cpu_sys") + seconds("used_cpu_user"))
}
