//! A publisher on the bare stub: the test sees each batch and each acknowledgement.

use std::time::Duration;

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_proto::v1::publish_ticks_request::Message as Said;
use tapefeed_proto::v1::publish_ticks_response::Message as Heard;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::stubs::Stubs;
use crate::wait::within;

/// How long an answer may take, on a busy machine.
const ANSWER: Duration = Duration::from_secs(30);
/// Batches that may wait in this process: the server's credit is 8, and tests may pass it on purpose.
const OUTGOING: usize = 64;

/// A claimed publish stream.
#[derive(Debug)]
pub struct Publisher {
    requests: mpsc::Sender<proto::PublishTicksRequest>,
    answers: Streaming<proto::PublishTicksResponse>,
    /// What the server granted.
    pub grant: proto::ProducerGrant,
    next_batch_seq: u64,
}

impl Publisher {
    /// Claims a producer id for live ticks.
    pub async fn claim(stubs: &Stubs, producer_id: &str) -> Result<Self, Status> {
        Self::claim_as(stubs, producer_id, false).await
    }

    /// Claims a producer id.
    pub async fn claim_as(stubs: &Stubs, producer_id: &str, backfill: bool) -> Result<Self, Status> {
        let claim = proto::ProducerClaim { producer_id: producer_id.to_owned(), backfill, held_fence: 0 };
        Self::begin(stubs, claim).await
    }

    /// Claims a producer id for live ticks again, after a grant with this fence.
    pub async fn renew(stubs: &Stubs, producer_id: &str, held_fence: u64) -> Result<Self, Status> {
        let claim = proto::ProducerClaim { producer_id: producer_id.to_owned(), backfill: false, held_fence };
        Self::begin(stubs, claim).await
    }

    async fn begin(stubs: &Stubs, claim: proto::ProducerClaim) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(OUTGOING);
        let claim = proto::PublishTicksRequest { message: Some(Said::Claim(claim)) };
        requests.send(claim).await.expect("the receiver is ours");
        let mut ingest = stubs.ingest.clone();
        let call = ingest.publish_ticks(ReceiverStream::new(receiver));
        let mut answers = within("the start of a publish stream", ANSWER, call).await?.into_inner();
        let first = within("the grant", ANSWER, answers.message()).await?;
        let Some(Heard::Grant(grant)) = first.and_then(|answer| answer.message) else {
            panic!("the first answer is not the grant");
        };
        Ok(Self { requests, answers, grant, next_batch_seq: grant.last_batch_seq + 1 })
    }

    /// Publishes rows under the next number, and waits until they are acknowledged.
    pub async fn rows(&mut self, ticks: Vec<proto::Tick>) -> Result<proto::PublishAck, Status> {
        let rows = proto::TickBatch { ticks, merged_counts: Vec::new() };
        self.content(Content::Rows(rows)).await
    }

    /// Publishes columns under the next number, and waits until they are acknowledged.
    pub async fn columns(&mut self, columns: proto::TickColumns) -> Result<proto::PublishAck, Status> {
        self.content(Content::Columns(columns)).await
    }

    /// Publishes under the next number, and waits for the acknowledgement.
    pub async fn content(&mut self, content: Content) -> Result<proto::PublishAck, Status> {
        let batch_seq = self.next_batch_seq;
        self.next_batch_seq += 1;
        self.send(batch_seq, content).await;
        let ack = self.ack().await?.expect("the stream is still open");
        assert_eq!(ack.batch_seq, batch_seq, "acknowledgements come in order");
        Ok(ack)
    }

    /// Sends a batch under any number, and waits for nothing. If the stream has ended, the answer tells why.
    pub async fn send(&mut self, batch_seq: u64, content: Content) {
        let batch = proto::PublishBatch { batch_seq, content: Some(content) };
        self.say(Said::Batch(batch)).await;
    }

    /// Sends any message, and waits for nothing.
    pub async fn say(&mut self, message: Said) {
        let request = proto::PublishTicksRequest { message: Some(message) };
        let _ = self.requests.send(request).await;
    }

    /// The next acknowledgement. `None`: the server ended the stream with OK.
    pub async fn ack(&mut self) -> Result<Option<proto::PublishAck>, Status> {
        let answer = within("an acknowledgement", ANSWER, self.answers.message()).await?;
        match answer.map(|answer| answer.message) {
            None => Ok(None),
            Some(Some(Heard::Ack(ack))) => Ok(Some(ack)),
            Some(other) => panic!("an acknowledgement was due, not {other:?}"),
        }
    }

    /// Closes our side, and waits until the server has ended the stream.
    pub async fn close(self) -> Result<(), Status> {
        let Self { requests, mut answers, .. } = self;
        drop(requests);
        while within("the end of a publish stream", ANSWER, answers.message()).await?.is_some() {}
        Ok(())
    }
}
