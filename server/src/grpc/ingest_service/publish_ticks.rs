//! `PublishTicks`: claims a producer, then takes batches and acknowledges each after its commit.
//!
//! The stream is always read: what a producer may have outstanding is bounded by its credit, not by HTTP/2, which
//! would close a connection over small unread frames.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::domain::{Batch, Clock, Epoch};
use crate::grpc::convert::columns::{self, Columns};
use crate::grpc::convert::{rows, source};
use crate::grpc::error::Refusal;
use crate::grpc::layers::guard::Connection;
use crate::grpc::limits::{MAX_EVENT_TIME_AHEAD, MAX_INGEST_MESSAGE_BYTES};
use crate::grpc::proto::publish_ticks_request::Message;
use crate::grpc::proto::{self, publish_ticks_response};
use crate::grpc::violation::Violations;
use crate::ingest::{Ingest, IngestError, Receipt, Sender, Submission};
use crate::store::{PRODUCER_WINDOW, ProducerId};
use crate::trace;

use super::incoming::Incoming;

/// Batches that may be unacknowledged: as many as the store keeps digests of.
const CREDIT_BATCHES: usize = PRODUCER_WINDOW;

/// Encoded bytes that may be unacknowledged. No message is long enough for so many batches to have more.
const CREDIT_BYTES: usize = CREDIT_BATCHES * MAX_INGEST_MESSAGE_BYTES;

/// The current stream of each producer on this replica, so that a newer claim ends an older stream at once.
#[derive(Debug, Default)]
pub struct Claims {
    /// Guards the map. Never held across an await.
    streams: Mutex<HashMap<ProducerId, (Epoch, u64, CancellationToken)>>,
}

impl Claims {
    /// Enters a stream under its fence and ends the older one. Fences count inside one epoch.
    fn enter(&self, producer: &ProducerId, epoch: Epoch, fence: u64) -> CancellationToken {
        let mut streams = self.streams.lock().expect("no holder of the lock panics");
        let fenced = CancellationToken::new();
        match streams.get(producer) {
            Some((known, newer, _)) if *known == epoch && *newer > fence => fenced.cancel(),
            _ => {
                if let Some((.., older)) = streams.insert(producer.clone(), (epoch, fence, fenced.clone())) {
                    older.cancel();
                }
            }
        }
        fenced
    }

    fn leave(&self, producer: &ProducerId, fence: u64) {
        let mut streams = self.streams.lock().expect("no holder of the lock panics");
        if streams.get(producer).is_some_and(|(_, current, _)| *current == fence) {
            streams.remove(producer);
        }
    }
}

/// What a publishing stream works with.
#[derive(Clone, Debug)]
pub struct Publishing {
    /// The door of the log.
    pub ingest: Ingest,
    /// Judges how far ahead a live tick may be.
    pub clock: Arc<dyn Clock>,
    /// The streams of this replica.
    pub claims: Arc<Claims>,
    /// Cancelled when the server begins to stop.
    pub draining: CancellationToken,
}

type Responses = mpsc::Sender<Result<proto::PublishTicksResponse, Status>>;

/// Starts the stream's task: it owns the stream, and goes on until what was taken is acknowledged.
pub fn publish_ticks<Requests: tokio_stream::Stream<Item = Result<Incoming, Status>> + Unpin + Send + 'static>(
    publishing: &Publishing,
    request: Request<Requests>,
) -> ReceiverStream<Result<proto::PublishTicksResponse, Status>> {
    // Every batch under credit has room for its answer, so that a producer that does not read stops only itself.
    let (responses, stream) = mpsc::channel(CREDIT_BATCHES + 2);
    let publishing = publishing.clone();
    let call = Span::current();
    let continues = trace::has_caller(request.metadata().as_ref());
    let aging = Connection::aging(request.extensions());
    let requests = request.into_inner();
    let batches = BatchSpans { call: call.clone(), continues };
    tokio::spawn(
        async move {
            if let Err(refusal) = publishing.run(requests, &responses, batches, aging).await {
                // A producer that is gone cannot be told.
                let _ = responses.send(Err(refusal.into())).await;
            }
        }
        .instrument(call),
    );
    ReceiverStream::new(stream)
}

/// Where the spans of batches belong.
///
/// A stream may live for days, and a trace of a million batches can be read by nobody: each batch is a trace of its
/// own, linked to the call. A caller that sends a trace with the stream wants to see the batches in that one, so there
/// they are children of the call.
struct BatchSpans {
    call: Span,
    continues: bool,
}

impl BatchSpans {
    fn begin(&self, batch_seq: u64) -> Span {
        let parent = if self.continues { self.call.id() } else { None };
        let span = tracing::debug_span!(
            parent: parent,
            "batch",
            otel.kind = "internal",
            tapefeed.batch.seq = batch_seq,
            tapefeed.producer.id = Empty,
            tapefeed.batch.ticks = Empty,
        );
        if !self.continues
            && let Some(call) = trace::of(&self.call)
        {
            trace::link(&span, call);
        }
        span
    }
}

/// A batch between its receipt and its acknowledgement.
struct Outcome {
    batch_seq: u64,
    receipt: Result<Receipt, IngestError>,
}

impl Publishing {
    async fn run(
        &self,
        mut requests: impl tokio_stream::Stream<Item = Result<Incoming, Status>> + Unpin,
        responses: &Responses,
        spans: BatchSpans,
        aging: CancellationToken,
    ) -> Result<(), Refusal> {
        let Some(first) = requests.next().await.transpose().map_err(from_transport)? else {
            return Ok(());
        };
        let Incoming::Other(proto::PublishTicksRequest { message: Some(Message::Claim(claim)) }) = first else {
            return Err(Refusal::field("claim", "the first message claims a producer id"));
        };
        let producer =
            ProducerId::new(&claim.producer_id).map_err(|problem| Refusal::field("claim.producer_id", problem))?;
        // Before the claim: a stream must not take itself for newer than its claim.
        let epoch = self.ingest.epoch();
        let granted = match claim.held_fence {
            0 => self.ingest.claim(&producer).await,
            held => self.ingest.renew(&producer, held).await,
        };
        let granted = granted.map_err(|error| refusal(error, &producer, 0, 0))?;
        let fenced = self.claims.enter(&producer, epoch, granted.fence);
        let mut stream = Stream {
            publishing: self,
            responses,
            epoch,
            backfill: claim.backfill,
            fence: granted.fence,
            last_batch_seq: granted.last_batch_seq,
            next_batch_seq: granted.last_batch_seq + 1,
            outstanding: FuturesOrdered::new(),
            producer: &producer,
            spans,
        };
        let grant = proto::ProducerGrant {
            last_batch_seq: granted.last_batch_seq,
            fence: granted.fence,
            credit_batches: CREDIT_BATCHES as u32,
            credit_bytes: CREDIT_BYTES as u64,
        };
        stream.send(publish_ticks_response::Message::Grant(grant)).await;
        let ended = stream.work(&mut requests, &fenced, &aging).await;
        self.claims.leave(&producer, granted.fence);
        ended
    }
}

/// What a batch holds.
enum Content {
    Columns(Columns),
    Other(proto::publish_batch::Content),
}

/// One claimed stream.
struct Stream<'a> {
    publishing: &'a Publishing,
    responses: &'a Responses,
    producer: &'a ProducerId,
    /// The log of the claim.
    epoch: Epoch,
    backfill: bool,
    fence: u64,
    /// The last number known to be stored.
    last_batch_seq: u64,
    /// The number that follows everything taken so far.
    next_batch_seq: u64,
    outstanding: FuturesOrdered<BoxFuture<'static, Outcome>>,
    spans: BatchSpans,
}

impl Stream<'_> {
    async fn work(
        &mut self,
        requests: &mut (impl tokio_stream::Stream<Item = Result<Incoming, Status>> + Unpin),
        fenced: &CancellationToken,
        aging: &CancellationToken,
    ) -> Result<(), Refusal> {
        loop {
            tokio::select! {
                biased;
                Some(outcome) = self.outstanding.next() => self.acknowledge(outcome).await?,
                () = fenced.cancelled() => {
                    self.finish().await?;
                    return Err(Refusal::producer_fenced(self.producer.as_str()));
                }
                () = self.publishing.draining.cancelled() => {
                    self.finish().await?;
                    return Err(Refusal::shutting_down(None));
                }
                () = aging.cancelled() => {
                    self.finish().await?;
                    return Err(Refusal::stream_expired(None));
                }
                request = requests.next() => {
                    let taken = match request.transpose().map_err(from_transport) {
                        Ok(None) => return self.finish().await,
                        Ok(Some(request)) => self.take(request).await,
                        Err(refusal) => Err(refusal),
                    };
                    if let Err(refusal) = taken {
                        // What was taken before the defect is stored and acknowledged first.
                        self.finish().await?;
                        return Err(self.with_expected(refusal));
                    }
                }
            }
        }
    }

    /// Waits for everything outstanding and acknowledges it.
    async fn finish(&mut self) -> Result<(), Refusal> {
        while let Some(outcome) = self.outstanding.next().await {
            self.acknowledge(outcome).await?;
        }
        Ok(())
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), Refusal> {
        let (batch_seq, content) = match incoming {
            Incoming::Columns { batch_seq, columns } => (batch_seq, Some(Content::Columns(columns))),
            Incoming::Other(request) => match request.message {
                Some(Message::Batch(batch)) => (batch.batch_seq, batch.content.map(Content::Other)),
                Some(Message::Claim(_)) => {
                    return Err(Refusal::field("claim", "a stream claims one producer, in its first message"));
                }
                None => return Err(Refusal::field("batch", "every message after the claim is a batch")),
            },
        };
        if self.outstanding.len() >= CREDIT_BATCHES {
            let outstanding = self.outstanding.len() as u64 + 1;
            return Err(Refusal::limit_exceeded("credit_batches", CREDIT_BATCHES as u64, Some(outstanding)));
        }
        if self.publishing.ingest.epoch() != self.epoch {
            // The claim ended with its epoch, which is nobody's fault: the producer claims again.
            return Err(Refusal::store_unavailable());
        }
        let span = self.spans.begin(batch_seq);
        let taken = self.submit(batch_seq, content, span.clone()).instrument(span.clone()).await;
        if let Err(refusal) = &taken {
            trace::set(&span, "error.type", refusal.reason_name());
        }
        taken
    }

    /// Queues a batch. Its span goes with it, and ends with the acknowledgement.
    async fn submit(&mut self, batch_seq: u64, content: Option<Content>, span: Span) -> Result<(), Refusal> {
        let ticks = self.parse(content)?;
        span.record("tapefeed.producer.id", self.producer.as_str());
        span.record("tapefeed.batch.ticks", ticks.ticks.len());
        let sender = Sender::Producer { producer: self.producer.clone(), fence: self.fence, batch_seq };
        let submission = Submission { batch: ticks, sender, backfill: self.backfill };
        let submitted = self.publishing.ingest.submit(submission).await;
        let receipt = submitted.map_err(|error| refusal(error, self.producer, batch_seq, self.last_batch_seq + 1))?;
        self.next_batch_seq = self.next_batch_seq.max(batch_seq.saturating_add(1));
        let told = span.clone();
        let outcome = async move {
            let receipt = receipt.await.unwrap_or(Err(IngestError::ShuttingDown));
            match &receipt {
                Ok(receipt) => trace::set(&told, "tapefeed.batch.duplicate", receipt.duplicate),
                Err(error @ IngestError::Unavailable) => trace::fail(&told, error.name()),
                Err(error) => trace::set(&told, "error.type", error.name()),
            };
            Outcome { batch_seq, receipt }
        };
        self.outstanding.push_back(Box::pin(outcome.instrument(span)));
        Ok(())
    }

    fn parse(&self, content: Option<Content>) -> Result<Batch, Refusal> {
        use proto::publish_batch::Content as Wire;
        let now = self.publishing.clock.now();
        let limit = (!self.backfill).then(|| now.saturating_add(MAX_EVENT_TIME_AHEAD));
        let of_columns = |columns| columns::batch("batch.columns", columns, limit);
        let parsed = match content {
            Some(Content::Columns(columns)) => of_columns(columns),
            Some(Content::Other(Wire::Columns(columns))) => of_columns(columns.into()),
            Some(Content::Other(Wire::Rows(batch))) => rows::batch("batch.rows", batch, limit),
            Some(Content::Other(Wire::SourceStatus(status))) => source::status("batch.source_status", status),
            Some(Content::Other(Wire::SourceGap(gap))) => source::gap("batch.source_gap", gap),
            Some(Content::Other(Wire::SourceGapFilled(filled))) => {
                source::gap_filled("batch.source_gap_filled", filled)
            }
            Some(Content::Other(Wire::Watermark(watermark))) => source::watermark("batch.watermark", watermark, limit),
            None => {
                let mut violations = Violations::default();
                violations.add("batch", "has neither ticks nor a source event");
                return Err(Refusal::batch_invalid(violations, self.next_batch_seq));
            }
        };
        parsed.map_err(|violations| Refusal::batch_invalid(violations, self.next_batch_seq))
    }

    /// A refusal that names no number gets the one that is expected next.
    fn with_expected(&self, refusal: Refusal) -> Refusal {
        refusal.with("expected_batch_seq", self.last_batch_seq + 1)
    }

    async fn acknowledge(&mut self, outcome: Outcome) -> Result<(), Refusal> {
        let Outcome { batch_seq, receipt } = outcome;
        let receipt = receipt.map_err(|error| refusal(error, self.producer, batch_seq, self.last_batch_seq + 1))?;
        self.last_batch_seq = self.last_batch_seq.max(batch_seq);
        let ack = proto::PublishAck {
            batch_seq,
            duplicate: receipt.duplicate,
            cursor: receipt.cursor.encode().to_vec().into(),
            credit_batches: CREDIT_BATCHES as u32,
            credit_bytes: CREDIT_BYTES as u64,
        };
        self.send(publish_ticks_response::Message::Ack(ack)).await;
        Ok(())
    }

    /// A producer that is gone misses its answer; what it sent is stored all the same.
    async fn send(&mut self, message: publish_ticks_response::Message) {
        let _ = self.responses.send(Ok(proto::PublishTicksResponse { message: Some(message) })).await;
    }
}

/// A request that could not be read, named as the contract names it.
fn from_transport(status: Status) -> Refusal {
    Refusal::of_transport(status.code(), status.message(), "tapefeed.v1.IngestService/PublishTicks", true)
}

/// What an ingest error means to a producer.
fn refusal(error: IngestError, producer: &ProducerId, batch_seq: u64, expected: u64) -> Refusal {
    match error {
        IngestError::Fenced => Refusal::producer_fenced(producer.as_str()),
        IngestError::Unknown => Refusal::producer_unknown(producer.as_str()),
        IngestError::OutOfOrder { expected } => Refusal::batch_out_of_order(expected),
        IngestError::Conflict => Refusal::batch_conflict(batch_seq, expected),
        IngestError::QueueFull { .. } => Refusal::queue_full(),
        IngestError::TooManyCorrections { kept, limit } => {
            Refusal::limit_exceeded("corrections", limit as u64, Some(kept as u64))
        }
        IngestError::Unavailable | IngestError::EpochChanged(_) => Refusal::store_unavailable(),
        IngestError::ShuttingDown => Refusal::shutting_down(None),
    }
}
