//! The task behind a publisher: gathers, numbers, sends within the credit, and sends again after a cut.
//!
//! A batch gets its number when it is first sent, and keeps it until it is acknowledged. It loses the number only when
//! the server says that nothing from this number on is stored: after a refused batch, or when the server has forgotten.

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

use super::batch::{Content, MAX_BATCH_BYTES, bytes_of};
use super::{MAX_REFUSED_BATCHES, Options, PublisherStatus, Receipt, RefusedBatch, RefusedBatches};
use crate::client::ingest_service;
use crate::{Client, Cursor, Error, NewTick, SourceEvent};

/// How long the answer to a claim may take.
const GRANT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the oldest batch may wait for its acknowledgement before the connection counts as dead.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// How many batches may wait for credit. More stay in the command queue, so that senders wait.
const MAX_READY: usize = 2;

/// How many commands are taken at once.
const COMMANDS_AT_ONCE: usize = 256;

/// Answers a question about batches.
pub(super) type Reply = oneshot::Sender<Result<Receipt, Error>>;

#[derive(Debug)]
pub(super) enum Command {
    Tick(NewTick),
    Event(SourceEvent),
    Batch(Content, Reply),
    Flush(Reply),
}

/// A batch that is sealed and not acknowledged.
#[derive(Debug)]
struct Outgoing {
    /// Set from the first time that it is sent.
    number: Option<u64>,
    content: Content,
    bytes: u64,
    sent: Instant,
    reply: Option<Reply>,
}

pub(super) struct Task {
    client: Client,
    options: Options,
    commands: mpsc::Receiver<Command>,
    /// Commands taken and not carried out yet.
    inbox: VecDeque<Command>,
    status: watch::Sender<PublisherStatus>,
    failure: Arc<OnceLock<Error>>,

    /// The batch that grows, its estimated bytes, and when its first tick came.
    gathering: Vec<NewTick>,
    gathering_bytes: usize,
    gathering_since: Instant,
    /// Sealed batches in order, those with numbers first.
    ready: VecDeque<Outgoing>,
    /// Sent and not acknowledged, all with numbers.
    inflight: VecDeque<Outgoing>,
    inflight_bytes: u64,
    pending_ticks: u64,

    /// The last number that was given out, and the last that was acknowledged.
    last_number: u64,
    acknowledged: u64,
    credit_batches: usize,
    credit_bytes: u64,
    last_receipt: Receipt,

    /// How many batches were sealed, and how many of them are acknowledged or refused.
    sealed: u64,
    settled: u64,
    /// Whoever waits until so many batches are settled.
    flushes: VecDeque<(u64, Reply)>,
    refused: Vec<RefusedBatch>,
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
            client,
            options,
            commands,
            inbox: VecDeque::new(),
            status,
            failure,
            gathering: Vec::new(),
            gathering_bytes: 0,
            gathering_since: Instant::now(),
            ready: VecDeque::new(),
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            pending_ticks: 0,
            last_number: 0,
            acknowledged: 0,
            credit_batches: 1,
            credit_bytes: 0,
            last_receipt: Receipt {
                batch_seq: 0,
                duplicate: false,
                cursor: None,
            },
            sealed: 0,
            settled: 0,
            flushes: VecDeque::new(),
            refused: Vec::new(),
        }
    }

    /// Publishes until a fatal error. `granted` learns the outcome of the first claim.
    pub(super) async fn run(mut self, granted: oneshot::Sender<Result<u64, Error>>) {
        let give_up = Instant::now() + self.client.deadline();
        let mut granted = Some(granted);
        let mut backoff = self.client.stream_backoff();
        loop {
            let acknowledged = self.acknowledged;
            let error = match self.session(&mut granted).await {
                Ok(()) => return,
                Err(error) => error,
            };
            self.status.send_modify(|status| status.connected = false);
            let error = match self.take_out(error) {
                Ok(()) => continue,
                Err(error) => error,
            };
            if self.acknowledged > acknowledged {
                backoff.reset();
            }
            let delay = backoff.next(error.retry_delay());
            let too_late = granted.is_some() && Instant::now() + delay >= give_up;
            if !error.is_retryable() || too_late {
                return self.fail(error, granted);
            }
            tracing::debug!(%error, ?delay, producer_id = self.options.producer_id, "publisher was cut");
            tokio::time::sleep(delay).await;
        }
    }

    /// One connection, from the claim to its end. `Ok` if nobody can send any more.
    async fn session(
        &mut self,
        granted: &mut Option<oneshot::Sender<Result<u64, Error>>>,
    ) -> Result<(), Error> {
        let (requests, mut answers, grant) = self.claim().await?;
        let first = granted.take();
        self.granted(grant, first.is_some());
        if let Some(first) = first {
            // A starter that is gone has dropped the publisher, which ends this task.
            let _ = first.send(Ok(self.last_number));
        }
        // After the server has ended the call, requests fail before its status arrives.
        let mut writable = true;
        let mut taken = Vec::with_capacity(COMMANDS_AT_ONCE);
        loop {
            self.carry_out();
            let linger = self.gathering_since + self.options.linger;
            let overdue = self
                .inflight
                .front()
                .map_or(linger, |batch| batch.sent + ACK_TIMEOUT);
            tokio::select! {
                biased;
                answer = answers.message() => match answer?.and_then(|answer| answer.message) {
                    Some(Answer::Ack(ack)) => self.acknowledge(ack)?,
                    Some(Answer::Grant(_)) => return Err(Error::protocol("a second grant")),
                    None => return Err(Error::Transport("the server ended the stream".into())),
                },
                permit = requests.reserve(), if writable && self.may_send() => match permit {
                    Ok(permit) => {
                        if let Some(request) = self.next_request() {
                            permit.send(request);
                        }
                    }
                    Err(_) => writable = false,
                },
                () = sleep_until(linger), if !self.gathering.is_empty() => self.seal(),
                count = self.commands.recv_many(&mut taken, COMMANDS_AT_ONCE), if self.inbox.is_empty() => {
                    if count == 0 {
                        return Ok(());
                    }
                    self.inbox.extend(taken.drain(..));
                }
                () = sleep_until(overdue), if !self.inflight.is_empty() => {
                    let message = format!("no acknowledgement for {ACK_TIMEOUT:?}");
                    return Err(Error::Transport(message));
                }
            }
        }
    }

    async fn claim(
        &self,
    ) -> Result<
        (
            mpsc::Sender<proto::PublishTicksRequest>,
            Streaming<proto::PublishTicksResponse>,
            proto::ProducerGrant,
        ),
        Error,
    > {
        let (requests, receiver) = mpsc::channel(1);
        let claim = Request::Claim(proto::ProducerClaim {
            producer_id: self.options.producer_id.clone(),
            backfill: self.options.backfill,
        });
        let claim = proto::PublishTicksRequest {
            message: Some(claim),
        };
        requests
            .try_send(claim)
            .expect("the channel has room for one message");
        let mut service = ingest_service(self.client.stream_channel());
        let granted = timeout(GRANT_TIMEOUT, async {
            let call = service.publish_ticks(ReceiverStream::new(receiver)).await?;
            let mut answers = call.into_inner();
            let first = answers.message().await?;
            Ok::<_, Error>((answers, first))
        });
        let (answers, first) = granted
            .await
            .map_err(|_| Error::Transport(format!("no grant within {GRANT_TIMEOUT:?}")))??;
        match first.and_then(|first| first.message) {
            Some(Answer::Grant(grant)) => Ok((requests, answers, grant)),
            Some(Answer::Ack(_)) => Err(Error::protocol("an acknowledgement before the grant")),
            None => Err(Error::Transport("the server ended the stream".into())),
        }
    }

    /// Goes on after what the server has.
    fn granted(&mut self, grant: proto::ProducerGrant, first: bool) {
        // What was sent and not acknowledged goes first, with the numbers that it had: the server knows which it has.
        while let Some(batch) = self.inflight.pop_back() {
            self.ready.push_front(batch);
        }
        self.inflight_bytes = 0;
        let last = grant.last_batch_seq;
        let mut forgotten = 0;
        if first {
            self.acknowledged = last;
            self.last_number = last;
            self.last_receipt.batch_seq = last;
        } else if last < self.acknowledged {
            forgotten = self.acknowledged - last;
            tracing::warn!(
                forgotten,
                "the server does not know acknowledged batches any more"
            );
            self.acknowledged = last;
            self.renumber_after(last);
        } else {
            self.last_number = self.last_number.max(last);
        }
        self.credit(grant.credit_batches, grant.credit_bytes);
        self.status.send_modify(|status| {
            status.connected = true;
            status.fence = grant.fence;
            status.batch_seq = self.acknowledged;
            status.reconnects += u64::from(!first);
            status.forgotten_batches += forgotten;
        });
    }

    fn credit(&mut self, batches: u32, bytes: u64) {
        self.credit_batches = batches.max(1) as usize;
        self.credit_bytes = bytes;
    }

    /// Takes the numbers after `last` back.
    fn renumber_after(&mut self, last: u64) {
        for batch in &mut self.ready {
            batch.number = batch.number.filter(|&number| number <= last);
        }
        self.last_number = last;
    }

    /// Carries out commands while there is room for the batches that they make.
    fn carry_out(&mut self) {
        while self.ready.len() < MAX_READY
            && let Some(command) = self.inbox.pop_front()
        {
            match command {
                Command::Tick(tick) => self.gather(tick),
                Command::Event(event) => {
                    self.seal();
                    self.push_ready(Content::Event(event), None);
                }
                Command::Batch(content, reply) => {
                    self.seal();
                    self.pending_ticks += content.tick_count() as u64;
                    self.push_ready(content, Some(reply));
                }
                Command::Flush(reply) => {
                    self.seal();
                    self.flushes.push_back((self.sealed, reply));
                    self.answer_flushes();
                }
            }
        }
    }

    fn gather(&mut self, tick: NewTick) {
        let bytes = bytes_of(&tick);
        if self.gathering_bytes + bytes > MAX_BATCH_BYTES {
            self.seal();
        }
        if self.gathering.is_empty() {
            self.gathering_since = Instant::now();
        }
        self.pending_ticks += 1;
        self.gathering_bytes += bytes;
        self.gathering.push(tick);
        if self.gathering.len() >= self.options.batch_size {
            self.seal();
        }
    }

    fn seal(&mut self) {
        if self.gathering.is_empty() {
            return;
        }
        let ticks = std::mem::take(&mut self.gathering);
        self.gathering_bytes = 0;
        self.push_ready(Content::Ticks(ticks), None);
    }

    fn push_ready(&mut self, content: Content, reply: Option<Reply>) {
        self.sealed += 1;
        self.ready.push_back(Outgoing {
            number: None,
            bytes: content.bytes() as u64,
            content,
            sent: Instant::now(),
            reply,
        });
        let pending = self.pending_ticks;
        self.status
            .send_modify(|status| status.pending_ticks = pending);
    }

    /// Whether there is a batch, and credit for it. One batch may always be on its way.
    fn may_send(&self) -> bool {
        let Some(next) = self.ready.front() else {
            return false;
        };
        self.inflight.is_empty()
            || (self.inflight.len() < self.credit_batches
                && self.inflight_bytes + next.bytes <= self.credit_bytes)
    }

    fn next_request(&mut self) -> Option<proto::PublishTicksRequest> {
        let mut batch = self.ready.pop_front()?;
        let number = match batch.number {
            Some(number) => number,
            None => {
                self.last_number += 1;
                self.last_number
            }
        };
        batch.number = Some(number);
        batch.sent = Instant::now();
        let message = Request::Batch(proto::PublishBatch {
            batch_seq: number,
            content: Some(batch.content.to_wire(self.options.rows)),
        });
        self.inflight_bytes += batch.bytes;
        self.inflight.push_back(batch);
        Some(proto::PublishTicksRequest {
            message: Some(message),
        })
    }

    fn acknowledge(&mut self, ack: proto::PublishAck) -> Result<(), Error> {
        let expected = self.inflight.front().and_then(|batch| batch.number);
        if expected != Some(ack.batch_seq) {
            return Err(Error::protocol(format!(
                "batch {} was acknowledged, expected {expected:?}",
                ack.batch_seq
            )));
        }
        let Some(batch) = self.inflight.pop_front() else {
            return Ok(());
        };
        self.inflight_bytes -= batch.bytes;
        let ticks = batch.content.tick_count() as u64;
        self.pending_ticks -= ticks;
        self.acknowledged = ack.batch_seq;
        self.credit(ack.credit_batches, ack.credit_bytes);
        self.last_receipt = Receipt {
            batch_seq: ack.batch_seq,
            duplicate: ack.duplicate,
            cursor: Cursor::from_bytes(ack.cursor).or(self.last_receipt.cursor.take()),
        };
        let pending_ticks = self.pending_ticks;
        let receipt = &self.last_receipt;
        self.status.send_modify(|status| {
            status.batch_seq = receipt.batch_seq;
            status.cursor.clone_from(&receipt.cursor);
            status.acknowledged_batches += 1;
            status.acknowledged_ticks += ticks;
            status.duplicate_batches += u64::from(receipt.duplicate);
            status.pending_ticks = pending_ticks;
        });
        if let Some(reply) = batch.reply {
            // Whoever asked may have stopped waiting; the batch is stored all the same.
            let _ = reply.send(Ok(self.last_receipt.clone()));
        }
        self.settled += 1;
        self.answer_flushes();
        Ok(())
    }

    fn answer_flushes(&mut self) {
        while let Some((_, reply)) = self
            .flushes
            .pop_front_if(|(target, _)| *target <= self.settled)
        {
            let refused = std::mem::take(&mut self.refused);
            let answer = if refused.is_empty() {
                Ok(self.last_receipt.clone())
            } else {
                Err(batches_refused(refused))
            };
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
        let number = number.and_then(|number| number.parse::<u64>().ok());
        let index = self
            .inflight
            .iter()
            .position(|batch| batch.number == number && number.is_some());
        let Some(batch) = index.and_then(|index| self.inflight.remove(index)) else {
            return Err(error);
        };
        self.inflight_bytes -= batch.bytes;
        let ticks = batch.content.tick_count() as u64;
        self.pending_ticks -= ticks;
        while let Some(batch) = self.inflight.pop_back() {
            self.ready.push_front(batch);
        }
        self.inflight_bytes = 0;
        self.renumber_after(number.unwrap_or_default().saturating_sub(1));
        self.settled += 1;
        let pending_ticks = self.pending_ticks;
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
    fn fail(mut self, error: Error, granted: Option<oneshot::Sender<Result<u64, Error>>>) {
        // The task sets it once, here.
        let _ = self.failure.set(error.clone());
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            self.inbox.push_back(command);
        }
        let mut replies = Vec::new();
        for command in self.inbox.drain(..) {
            match command {
                Command::Tick(_) => self.pending_ticks += 1,
                Command::Event(_) => {}
                Command::Batch(content, reply) => {
                    self.pending_ticks += content.tick_count() as u64;
                    replies.push(reply);
                }
                Command::Flush(reply) => replies.push(reply),
            }
        }
        replies.extend(self.flushes.drain(..).map(|(_, reply)| reply));
        let unsent = self.inflight.drain(..).chain(self.ready.drain(..));
        replies.extend(unsent.filter_map(|batch| batch.reply));
        let pending_ticks = self.pending_ticks;
        self.status
            .send_modify(|status| status.pending_ticks = pending_ticks);
        for reply in replies {
            // Whoever stopped waiting finds the error at the next call.
            let _ = reply.send(Err(error.clone()));
        }
        if let Some(granted) = granted {
            // As above.
            let _ = granted.send(Err(error));
        }
    }
}

fn batches_refused(batches: Vec<RefusedBatch>) -> Error {
    Error::BatchesRefused(Box::new(RefusedBatches { batches }))
}
