//! From the publisher's send to a subscriber's receipt at 10,000 ticks a second, the commit told apart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::live_service_client::LiveServiceClient;
use tapefeed_server::domain::Cursor;
use tokio::time::MissedTickBehavior;

use super::load::Load;
use crate::figure::{Figure, quantile};
use crate::process::Server;

type Problem = Box<dyn std::error::Error>;

const SUBSCRIBERS: usize = 10;

/// Ticks of a batch, one batch each millisecond.
const BATCH: usize = 10;

/// When a position was seen first by each subscriber.
type Seen = Arc<Mutex<Vec<(u64, Instant)>>>;

pub(super) async fn run(server: &Server, quick: bool) -> Result<(), Problem> {
    let batches = if quick { 3_000 } else { 20_000 };
    let mut load = Load::start(&server.url, "bench-latency").await?;
    let mut tasks = Vec::new();
    let mut all_seen: Vec<Seen> = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut client = LiveServiceClient::connect(server.url.clone()).await?;
        let request = proto::SubscribeTicksRequest {
            selectors: vec![proto::Selector { venue: String::new(), symbol: "*".into() }],
            ..proto::SubscribeTicksRequest::default()
        };
        let mut stream = client.subscribe_ticks(request).await?.into_inner();
        stream.message().await?;
        let seen = Seen::default();
        all_seen.push(seen.clone());
        tasks.push(tokio::spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                let now = Instant::now();
                if let Ok(cursor) = Cursor::decode(&message.cursor) {
                    seen.lock().expect("nobody panics").push((cursor.position, now));
                }
            }
        }));
    }
    let mut due = tokio::time::interval(Duration::from_millis(1));
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut sent, mut commits) = (HashMap::new(), Vec::new());
    for _ in 0..batches {
        due.tick().await;
        let begun = Instant::now();
        let (commit, position) = load.publish(BATCH).await?;
        sent.insert(position, begun);
        commits.push(commit.as_secs_f64() * 1e6);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let mut received = Vec::new();
    for seen in &all_seen {
        for (position, at) in seen.lock().expect("nobody panics").iter() {
            if let Some(begun) = sent.get(position) {
                received.push(at.duration_since(*begun).as_secs_f64() * 1e6);
            }
        }
    }
    for (share, metric) in [(0.5, "publish to receive, p50"), (0.99, "publish to receive, p99")] {
        Figure {
            case: "10,000 ticks/s in batches of 10 to 10 subscribers, rows",
            metric,
            unit: "us",
            value: quantile(&mut received, share),
            peer: Some(("publish to acknowledgement: the commit", quantile(&mut commits, share))),
            goal: None,
        }
        .print("live");
    }
    Ok(())
}
