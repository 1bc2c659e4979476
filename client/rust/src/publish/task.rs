//! The task behind a publisher: owns the stream, sends within the credit, and sends again after a cut.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::ErrorReason;
use tapefeed_proto::v1::publish_ticks_request::Message as Request;
use tapefeed_proto::v1::publish_ticks_response::Message as Answer;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::backlog::Backlog;
use super::batch::Content;
use super::{MAX_REFUSED_BATCHES, Options, PublisherStatus, Receipt, RefusedBatch, RefusedBatches};
use crate::client::ingest_service;
use crate::{Client, Cursor, Error, NewTick, SourceEvent};

/// How long the answer to a claim may take.
const GRANT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the oldest batch may wait for its acknowledgement before the connection counts as dead.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// How many commands are taken at once.
const COMMANDS_AT_ONCE: usize = 256;

/// Answers a question about batches.
pub(super) type Reply = oneshot::Sender<Result<Receipt, Error>>;

/// Learns the outcome of the first claim: the number of the last batch that the server has.
pub(super) type Started = oneshot::Sender<Result<u64, Error>>;

#[derive(Debug)]
pub(super) enum Command {
    Tick(NewTick),
    Event(SourceEvent),
    Batch(Content, Reply),
    Flush(Reply),
}

pub(super) struct Task {
    client: Client,
    options: Options,
    commands: mpsc::Receiver<Command>,
    /// Commands taken and not carried out yet.
    inbox: VecDeque<Command>,
    backlog: Backlog,
    status: watch::Sender<PublisherStatus>,
    failure: Arc<OnceLock<Error>>,
    last_receipt: Receipt,
    /// Whoever waits until so many batches are settled.
    flushes: VecDeque<(u64, Reply)>,
    refused: Vec<RefusedBatch>,
}

/// A granted claim.
struct Session {
    requests: mpsc::Sender<proto::PublishTicksRequest>,
    answers: Streaming<proto::PublishTicksResponse>,
    grant: proto::ProducerGrant,
}

impl Task {
    pub(super) fn new(
        client: Client,
        options: Options,
        commands: mpsc::Receiver<Command>,
        status: watch::Sender<PublisherStatus>,
        failure: Arc<OnceLock<Error>>,
    ) -> Task {
        Task {
            backlog: Backlog::new(options.batch_size),
            client,
            options,
            commands,
            inbox: VecDeque::new(),
            status,
            failure,
            last_receipt: Receipt { batch_seq: 0, duplicate: false, cursor: None },
            flushes: VecDeque::new(),
            refused: Vec::new(),
        }
    }

    /// Publishes until a fatal error.
    pub(super) async fn run(mut self, started: Started) {
        let give_up = Instant::now() + self.client.deadline();
        let mut started = Some(started);
        let mut backoff = self.client.stream_backoff();
        loop {
            let settled = self.backlog.settled();
            let error = match self.session(&mut started).await {
                Ok(()) => return,
                Err(error) => error,
            };
            self.status.send_modify(|status| status.connected = false);
            let error = match self.take_out(error) {
                Ok(()) => continue,
                Err(error) => error,
            };
            if self.backlog.settled() > settled {
                backoff.reset();
            }
            let delay = backoff.next(error.retry_delay());
            let too_late = started.is_some() && Instant::now() + delay >= give_up;
            if !error.is_retryable() || too_late {
                return self.fail(error, started);
            }
            tracing::debug!(%error, ?delay, producer_id = self.options.producer_id, "publisher was cut");
            tokio::time::sleep(delay).await;
        }
    }

    /// One connection, from the claim to its end. `Ok` if nobody can send any more.
    async fn session(&mut self, started: &mut Option<Started>) -> Result<(), Error> {
        let Session { requests, mut answers, grant } = self.claim().await?;
        self.begin(grant, started.take());
        // After the server has ended the call, requests fail before its status arrives.
        let mut writable = true;
        let mut taken = Vec::with_capacity(COMMANDS_AT_ONCE);
        loop {
            self.carry_out();
            let gathering = self.backlog.gathering_since();
            let oldest = self.backlog.oldest_sent();
            let now = Instant::now();
            let lingered = gathering.unwrap_or(now) + self.options.linger;
            let overdue = oldest.unwrap_or(now) + ACK_TIMEOUT;
            tokio::select! {
                biased;
                answer = answers.message() => match answer?.and_then(|answer| answer.message) {
                    Some(Answer::Ack(ack)) => self.acknowledge(ack)?,
                    Some(Answer::Grant(_)) => return Err(Error::protocol("a second grant")),
                    None => return Err(Error::Transport("the server ended the stream".into())),
                },
                permit = requests.reserve(), if writable && self.backlog.may_send() => match permit {
                    Ok(permit) => {
                        if let Some((number, content)) = self.backlog.send_next() {
                            permit.send(batch(number, content, self.options.rows));
                        }
                    }
                    Err(_) => writable = false,
                },
                () = sleep_until(lingered), if gathering.is_some() => self.backlog.seal(),
                count = self.commands.recv_many(&mut taken, COMMANDS_AT_ONCE), if self.inbox.is_empty() => {
                    if count == 0 {
                        return Ok(());
                    }
                    self.inbox.extend(taken.drain(..));
                }
                () = sleep_until(overdue), if oldest.is_some() => {
                    let message = format!("no acknowledgement for {ACK_TIMEOUT:?}");
                    return Err(Error::Transport(message));
                }
            }
        }
    }

    /// Claims the producer id on a connection of its own.
    async fn claim(&self) -> Result<Session, Error> {
        let (requests, receiver) = mpsc::channel(1);
        let claim = Request::Claim(proto::ProducerClaim {
            producer_id: self.options.producer_id.clone(),
            backfill: self.options.backfill,
            // None yet: 0, which takes the id from whoever holds it.
            held_fence: self.status.borrow().fence,
        });
        requests
            .try_send(proto::PublishTicksRequest { message: Some(claim) })
            .expect("the channel has room for one message");
        let mut service = ingest_service(self.client.stream_channel());
        let granted = timeout(GRANT_TIMEOUT, async {
            let call = service.publish_ticks(ReceiverStream::new(receiver)).await?;
            let mut answers = call.into_inner();
            let first = answers.message().await?;
            Ok::<_, Error>((answers, first))
        });
        let (answers, first) =
            granted.await.map_err(|_| Error::Transport(format!("no grant within {GRANT_TIMEOUT:?}")))??;
        match first.and_then(|first| first.message) {
            Some(Answer::Grant(grant)) => Ok(Session { requests, answers, grant }),
            Some(Answer::Ack(_)) => Err(Error::protocol("an acknowledgement before the grant")),
            None => Err(Error::Transport("the server ended the stream".into())),
        }
    }

    /// Goes on after what the server has.
    fn begin(&mut self, grant: proto::ProducerGrant, started: Option<Started>) {
        let last = grant.last_batch_seq;
        let reconnected = started.is_none();
        let mut forgotten = 0;
        match started {
            Some(started) => {
                self.backlog.begin(last);
                self.last_receipt.batch_seq = last;
                // A starter that is gone has dropped the publisher, which ends this task.
                let _ = started.send(Ok(last));
            }
            None => forgotten = self.backlog.resume(last),
        }
        if forgotten > 0 {
            tracing::warn!(forgotten, "the server does not know acknowledged batches any more");
        }
        self.backlog.credit(grant.credit_batches, grant.credit_bytes);
        let acknowledged = self.backlog.acknowledged();
        self.status.send_modify(|status| {
            status.connected = true;
            status.fence = grant.fence;
            status.batch_seq = acknowledged;
            status.reconnects += u64::from(reconnected);
            status.forgotten_batches += forgotten;
        });
    }

    /// Carries out commands while there is room for the batches that they make.
    fn carry_out(&mut self) {
        let sealed = self.backlog.sealed();
        while self.backlog.has_room()
            && let Some(command) = self.inbox.pop_front()
        {
            match command {
                Command::Tick(tick) => self.backlog.gather(tick),
                Command::Event(event) => self.backlog.push(Content::Event(event), None),
                Command::Batch(content, reply) => self.backlog.push(content, Some(reply)),
                Command::Flush(reply) => {
                    self.backlog.seal();
                    self.flushes.push_back((self.backlog.sealed(), reply));
                    self.answer_flushes();
                }
            }
        }
        if self.backlog.sealed() > sealed {
            let pending_ticks = self.backlog.pending_ticks();
            self.status.send_modify(|status| status.pending_ticks = pending_ticks);
        }
    }

    fn acknowledge(&mut self, ack: proto::PublishAck) -> Result<(), Error> {
        let batch = self.backlog.acknowledge(ack.batch_seq)?;
        self.backlog.credit(ack.credit_batches, ack.credit_bytes);
        self.last_receipt = Receipt {
            batch_seq: ack.batch_seq,
            duplicate: ack.duplicate,
            cursor: Cursor::from_bytes(ack.cursor).or(self.last_receipt.cursor.take()),
        };
        let receipt = &self.last_receipt;
        let pending_ticks = self.backlog.pending_ticks();
        self.status.send_modify(|status| {
            status.batch_seq = receipt.batch_seq;
            status.cursor.clone_from(&receipt.cursor);
            status.acknowledged_batches += 1;
            status.acknowledged_ticks += batch.content.tick_count() as u64;
            status.duplicate_batches += u64::from(receipt.duplicate);
            status.pending_ticks = pending_ticks;
        });
        if let Some(reply) = batch.reply {
            // Whoever asked may have stopped waiting; the batch is stored all the same.
            let _ = reply.send(Ok(self.last_receipt.clone()));
        }
        self.answer_flushes();
        Ok(())
    }

    /// Answers those whose batches are all settled. The first of them gets what was refused.
    fn answer_flushes(&mut self) {
        let settled = self.backlog.settled();
        while let Some((_, reply)) = self.flushes.pop_front_if(|(target, _)| *target <= settled) {
            let refused = std::mem::take(&mut self.refused);
            let answer = if refused.is_empty() { Ok(self.last_receipt.clone()) } else { Err(batches_refused(refused)) };
            if let Err(Err(Error::BatchesRefused(unseen))) = reply.send(answer) {
                // Nobody waited for this answer: the next to ask gets it.
                self.refused = unseen.batches;
            }
        }
    }

    /// Takes a refused batch out, so that those behind it can go on under its number. Any other error is given back.
    fn take_out(&mut self, error: Error) -> Result<(), Error> {
        if error.reason() != ErrorReason::BatchInvalid {
            return Err(error);
        }
        let number = error.metadata("expected_batch_seq");
        let number = number.and_then(|number| number.parse().ok());
        let Some(batch) = number.and_then(|number| self.backlog.take_out(number)) else {
            return Err(error);
        };
        let pending_ticks = self.backlog.pending_ticks();
        self.status.send_modify(|status| {
            status.refused_batches += 1;
            status.pending_ticks = pending_ticks;
        });
        let refused = batch.content.refused(error);
        match batch.reply {
            Some(reply) => {
                let answer = Err(batches_refused(vec![refused]));
                if let Err(Err(Error::BatchesRefused(unseen))) = reply.send(answer) {
                    self.refused.extend(unseen.batches);
                }
            }
            None => self.refused.push(refused),
        }
        if self.refused.len() > MAX_REFUSED_BATCHES {
            return Err(batches_refused(std::mem::take(&mut self.refused)));
        }
        self.answer_flushes();
        Ok(())
    }

    /// Ends: whoever waits or comes later gets the error.
    fn fail(mut self, error: Error, started: Option<Started>) {
        // The task sets it once, here.
        let _ = self.failure.set(error.clone());
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            self.inbox.push_back(command);
        }
        let mut pending_ticks = self.backlog.pending_ticks();
        let mut replies: Vec<Reply> = self.flushes.drain(..).map(|(_, reply)| reply).collect();
        replies.extend(self.backlog.drain().filter_map(|batch| batch.reply));
        for command in self.inbox.drain(..) {
            match command {
                Command::Tick(_) => pending_ticks += 1,
                Command::Event(_) => {}
                Command::Batch(content, reply) => {
                    pending_ticks += content.tick_count() as u64;
                    replies.push(reply);
                }
                Command::Flush(reply) => replies.push(reply),
            }
        }
        self.status.send_modify(|status| status.pending_ticks = pending_ticks);
        for reply in replies {
            // Whoever stopped waiting finds the error at the next call.
            let _ = reply.send(Err(error.clone()));
        }
        if let Some(started) = started {
            // As above.
            let _ = started.send(Err(error));
        }
    }
}

fn batch(number: u64, content: &Content, rows: bool) -> proto::PublishTicksRequest {
    let batch = Request::Batch(proto::PublishBatch { batch_seq: number, content: Some(content.to_wire(rows)) });
    proto::PublishTicksRequest { message: Some(batch) }
}

fn batches_refused(batches: Vec<RefusedBatch>) -> Error {
    Error::BatchesRefused(Box::new(RefusedBatches { batches }))
}
