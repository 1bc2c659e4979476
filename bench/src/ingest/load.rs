//! Producers: each publishes its own instruments over a connection of its own, with all of its credit in use.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::ingest_service_client::IngestServiceClient;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_proto::v1::{publish_ticks_request, publish_ticks_response};
use tokio::sync::{Barrier, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::ticks::{Tape, Trade, columns, rows};

/// Problems cross threads here.
type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Batches that a producer keeps outstanding: the server's credit.
pub const OUTSTANDING: usize = 8;

/// Instruments of all producers together.
pub const INSTRUMENTS: u32 = 96;

/// How ticks are sent.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// How many send.
    pub producers: usize,
    /// Ticks of a batch.
    pub batch: usize,
    /// Columns, or rows.
    pub columns: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Published {
    /// From the first batch to the last acknowledgement.
    pub seconds: f64,
    /// From each batch's sending to its acknowledgement, in microseconds.
    pub latencies: Vec<f64>,
}

/// A tape for each producer, with instruments of its own from a number on, that goes on from case to case.
pub fn tapes(producers: usize, first: u32) -> Vec<Tape> {
    let each = INSTRUMENTS / producers as u32;
    // Together a million trades in a second.
    let tape = |number| Tape::of_producer(first + number * each, each, 1e3 * producers as f64);
    (0..producers as u32).map(tape).collect()
}

/// The next trades of each tape, so many in all.
pub fn trades(tapes: &mut [Tape], count: usize) -> Vec<Vec<Trade>> {
    let each = count / tapes.len();
    tapes.iter_mut().map(|tape| tape.by_ref().take(each).collect()).collect()
}

/// Publishes the trades of each producer. Batches are made of trades while the clock runs, as a producer does.
pub async fn publish(url: &str, form: Form, name: &str, trades: Vec<Vec<Trade>>) -> Result<Published, Problem> {
    let barrier = Arc::new(Barrier::new(form.producers + 1));
    let mut tasks = Vec::new();
    for (number, trades) in trades.into_iter().enumerate() {
        let (url, producer, barrier) = (url.to_owned(), format!("{name}-{number}"), barrier.clone());
        tasks.push(tokio::spawn(async move { one(url, producer, form, &trades, &barrier).await }));
    }
    barrier.wait().await;
    let begun = Instant::now();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    Ok(Published { seconds: begun.elapsed().as_secs_f64(), latencies })
}

async fn one(
    url: String,
    producer: String,
    form: Form,
    trades: &[Trade],
    barrier: &Barrier,
) -> Result<Vec<f64>, Problem> {
    let mut client = IngestServiceClient::connect(url).await?;
    let (requests, receiver) = mpsc::channel(OUTSTANDING);
    let claim = proto::ProducerClaim { producer_id: producer, backfill: false, held_fence: 0 };
    requests.send(request(publish_ticks_request::Message::Claim(claim))).await?;
    let mut responses = client.publish_ticks(ReceiverStream::new(receiver)).await?.into_inner();
    let granted = responses.message().await?.and_then(|response| response.message);
    let Some(publish_ticks_response::Message::Grant(grant)) = granted else {
        return Err("a grant was expected".into());
    };
    let mut batch_seq = grant.last_batch_seq;
    let mut waiting = trades.chunks(form.batch);
    let mut sent = VecDeque::with_capacity(OUTSTANDING);
    let mut latencies = Vec::with_capacity(waiting.len());
    barrier.wait().await;
    loop {
        while sent.len() < OUTSTANDING {
            let Some(next) = waiting.next() else { break };
            let content = if form.columns { Content::Columns(columns(next)) } else { Content::Rows(rows(next)) };
            batch_seq += 1;
            let batch = proto::PublishBatch { batch_seq, content: Some(content) };
            sent.push_back(Instant::now());
            requests.send(request(publish_ticks_request::Message::Batch(batch))).await?;
        }
        let Some(&begun) = sent.front() else { return Ok(latencies) };
        let response = responses.message().await?.ok_or("the stream ended")?;
        let Some(publish_ticks_response::Message::Ack(_)) = response.message else {
            return Err("an acknowledgement was expected".into());
        };
        sent.pop_front();
        latencies.push(micros(begun.elapsed()));
    }
}

fn request(message: publish_ticks_request::Message) -> proto::PublishTicksRequest {
    proto::PublishTicksRequest { message: Some(message) }
}

/// In microseconds.
pub fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}
