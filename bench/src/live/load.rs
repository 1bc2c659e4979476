//! A publisher.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::ingest_service_client::IngestServiceClient;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_proto::v1::{publish_ticks_request, publish_ticks_response};
use tapefeed_server::domain::Cursor;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::ticks::{Tape, columns};

type Problem = Box<dyn std::error::Error>;

/// Batches that may be unacknowledged: the server's credit.
pub const CREDIT: usize = 8;

/// Mean nanoseconds between ticks of a load, by their event times.
pub const GAP: f64 = 1e6;

/// A publisher of live ticks.
#[derive(Debug)]
pub struct Load {
    requests: mpsc::Sender<proto::PublishTicksRequest>,
    responses: Streaming<proto::PublishTicksResponse>,
    tape: Tape,
    batch_seq: u64,
    /// When each batch was sent that is not acknowledged yet.
    outstanding: VecDeque<Instant>,
}

impl Load {
    /// Claims a producer of ticks of 100 instruments.
    pub async fn start(url: &str, producer: &str) -> Result<Load, Problem> {
        Load::of(url, producer, Tape::new(100, GAP)).await
    }

    /// Claims a producer of the ticks of a tape.
    pub async fn of(url: &str, producer: &str, tape: Tape) -> Result<Load, Problem> {
        let mut client = IngestServiceClient::connect(url.to_owned()).await?;
        let (requests, receiver) = mpsc::channel(CREDIT);
        let claim = proto::ProducerClaim { producer_id: producer.into(), backfill: false, held_fence: 0 };
        let claim = proto::PublishTicksRequest { message: Some(publish_ticks_request::Message::Claim(claim)) };
        requests.send(claim).await?;
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut responses = client.publish_ticks(stream).await?.into_inner();
        let granted = responses.message().await?.and_then(|response| response.message);
        let Some(publish_ticks_response::Message::Grant(grant)) = granted else {
            return Err("a grant was expected".into());
        };
        Ok(Load { requests, responses, tape, batch_seq: grant.last_batch_seq, outstanding: VecDeque::new() })
    }

    /// Sends a batch. While [`CREDIT`] are outstanding, wait for an acknowledgement first.
    pub async fn send(&mut self, ticks: usize) -> Result<(), Problem> {
        let trades: Vec<_> = self.tape.by_ref().take(ticks).collect();
        self.batch_seq += 1;
        let batch =
            proto::PublishBatch { batch_seq: self.batch_seq, content: Some(Content::Columns(columns(&trades))) };
        let request = proto::PublishTicksRequest { message: Some(publish_ticks_request::Message::Batch(batch)) };
        self.outstanding.push_back(Instant::now());
        self.requests.send(request).await?;
        Ok(())
    }

    /// The tape of what is not sent yet.
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// How many batches are not acknowledged.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// The acknowledgement of the oldest batch: how long it took, and the position of the batch's last tick.
    pub async fn acknowledged(&mut self) -> Result<(Duration, u64), Problem> {
        let response = self.responses.message().await?.ok_or("the stream ended")?;
        let sent = self.outstanding.pop_front().ok_or("nothing was sent")?;
        let Some(publish_ticks_response::Message::Ack(ack)) = response.message else {
            return Err("an acknowledgement was expected".into());
        };
        Ok((sent.elapsed(), Cursor::decode(&ack.cursor)?.position))
    }

    /// Publishes a batch, and returns when it is stored: after how long, and the position of its last tick.
    pub async fn publish(&mut self, ticks: usize) -> Result<(Duration, u64), Problem> {
        self.send(ticks).await?;
        self.acknowledged().await
    }
}
