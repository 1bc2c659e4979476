//! One publisher that keeps one batch outstanding, so that every batch is a commit and a message of its own.

use std::time::{Duration, Instant};

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::ingest_service_client::IngestServiceClient;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_proto::v1::{publish_ticks_request, publish_ticks_response};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::ticks::{Tape, columns};

type Problem = Box<dyn std::error::Error>;

/// A publisher of live ticks.
#[derive(Debug)]
pub struct Load {
    requests: mpsc::Sender<proto::PublishTicksRequest>,
    responses: Streaming<proto::PublishTicksResponse>,
    tape: Tape,
    batch_seq: u64,
}

impl Load {
    /// Claims a producer.
    pub async fn start(url: &str, producer: &str) -> Result<Load, Problem> {
        let mut client = IngestServiceClient::connect(url.to_owned()).await?;
        let (requests, receiver) = mpsc::channel(1);
        let claim = proto::ProducerClaim { producer_id: producer.into(), backfill: false };
        let claim = proto::PublishTicksRequest { message: Some(publish_ticks_request::Message::Claim(claim)) };
        requests.send(claim).await?;
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut responses = client.publish_ticks(stream).await?.into_inner();
        let granted = responses.message().await?.and_then(|response| response.message);
        let Some(publish_ticks_response::Message::Grant(grant)) = granted else {
            return Err("a grant was expected".into());
        };
        Ok(Load { requests, responses, tape: Tape::new(100, 1e6), batch_seq: grant.last_batch_seq })
    }

    /// Publishes a batch, and returns when it is on disk: after how long, and the position of its last tick.
    pub async fn publish(&mut self, ticks: usize) -> Result<(Duration, u64), Problem> {
        let trades: Vec<_> = self.tape.by_ref().take(ticks).collect();
        self.batch_seq += 1;
        let batch =
            proto::PublishBatch { batch_seq: self.batch_seq, content: Some(Content::Columns(columns(&trades))) };
        let request = proto::PublishTicksRequest { message: Some(publish_ticks_request::Message::Batch(batch)) };
        let begun = Instant::now();
        self.requests.send(request).await?;
        let response = self.responses.message().await?.ok_or("the stream ended")?;
        let Some(publish_ticks_response::Message::Ack(ack)) = response.message else {
            return Err("an acknowledgement was expected".into());
        };
        let cursor = tapefeed_server::domain::Cursor::decode(&ack.cursor)?;
        Ok((begun.elapsed(), cursor.position))
    }
}
