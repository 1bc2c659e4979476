//! The task behind a subscription: reads the network, resumes after cuts, and drops what comes twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::live_service_client::LiveServiceClient;
use tapefeed_proto::v1::subscribe_bars_request::Start as BarStart;
use tapefeed_proto::v1::subscribe_bars_response::Event as BarWireEvent;
use tapefeed_proto::v1::subscribe_ticks_request::Start as WireStart;
use tapefeed_proto::v1::subscribe_ticks_response::Event as WireEvent;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::event::{Delivery, Event, StreamGapCause, SubscriptionAck};
use super::queue::{ConsumerGone, Sender};
use crate::backoff::Backoff;
use crate::client::live_service;
use crate::columns::{self, Definitions};
use crate::instrument::Selector;
use crate::time::duration_from_wire;
use crate::transport::Transport;
use crate::{Bar, Client, Cursor, Error, SourceGap, SourceGapFilled, SourceStatus, Tick, UnixNanos};

/// What the server sends at least once in, unless it grants something else.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);

/// After how many heartbeats without any message the connection counts as dead.
const MISSED_HEARTBEATS: u32 = 3;

pub(super) struct Reader {
    client: Client,
    /// What was asked at first. Its start counts until a cursor has been seen.
    request: Request,
    queue: Sender,
    /// The last cursor that was not empty: where to go on.
    resume: Option<Cursor>,
    heartbeat: Duration,
    seen: Seen,
    definitions: Definitions,
    duplicates: Arc<AtomicU64>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Ticks(proto::SubscribeTicksRequest),
    Bars(proto::SubscribeBarsRequest),
}

/// The messages of one connection.
enum Messages {
    Ticks(Streaming<proto::SubscribeTicksResponse>),
    Bars(Streaming<proto::SubscribeBarsResponse>),
}

/// One of them.
struct Message {
    cursor: bytes::Bytes,
    event: Option<Wire>,
}

#[expect(clippy::large_enum_variant, reason = "one lives at a time, for as long as it is taken apart")]
enum Wire {
    Ticks(WireEvent),
    Bars(proto::BarBatch),
    IntervalComplete(proto::IntervalComplete),
}

/// What has been delivered of the log, to drop what comes again.
#[derive(Debug, Default)]
struct Seen {
    epoch: u64,
    log_seq: u64,
    /// Ticks of snapshots and conflation rounds stand outside the order of the log.
    in_snapshot: bool,
    conflated: bool,
}

/// Why a connection ended.
enum End {
    ConsumerGone,
    Failed(Error),
}

impl From<ConsumerGone> for End {
    fn from(_: ConsumerGone) -> End {
        End::ConsumerGone
    }
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        End::Failed(error)
    }
}

impl Reader {
    pub(super) fn new(client: Client, request: Request, queue: Sender, duplicates: Arc<AtomicU64>) -> Reader {
        let heartbeat = match &request {
            Request::Ticks(request) => request.heartbeat_interval,
            Request::Bars(request) => request.heartbeat_interval,
        };
        let heartbeat = heartbeat.map_or(DEFAULT_HEARTBEAT, |interval| duration_from_wire(Some(interval)));
        Reader {
            client,
            request,
            queue,
            resume: None,
            heartbeat: granted(heartbeat),
            seen: Seen::default(),
            definitions: Definitions::default(),
            duplicates,
        }
    }

    /// Follows the log until a fatal error, or until the consumer is gone.
    pub(super) async fn run(mut self) {
        let mut backoff = self.client.stream_backoff();
        let mut attempt = 0;
        loop {
            let error = match self.connection(&mut backoff, &mut attempt).await {
                End::ConsumerGone => return,
                End::Failed(error) => error,
            };
            if !error.is_retryable() {
                self.queue.fail(error);
                return;
            }
            attempt += 1;
            let retry_in = backoff.next(error.retry_delay());
            tracing::debug!(%error, attempt, ?retry_in, "subscription was cut");
            let event = Event::Disconnected { error, attempt, retry_in };
            if self.queue.push(event, None).await.is_err() {
                return;
            }
            tokio::time::sleep(retry_in).await;
        }
    }

    /// One connection, from the request to its end.
    async fn connection(&mut self, backoff: &mut Backoff, attempt: &mut u32) -> End {
        match self.follow(backoff, attempt).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn follow(&mut self, backoff: &mut Backoff, attempt: &mut u32) -> Result<std::convert::Infallible, End> {
        let request = self.request.after(self.resume.as_ref());
        self.seen.in_snapshot = false;
        self.definitions = Definitions::default();
        // A connection of its own for each attempt: one that went mute must not be used again.
        let mut service = live_service(self.client.stream_channel());
        let messages = timeout(self.silence(), Messages::ask(&mut service, request)).await;
        let mut messages = messages.map_err(|_| self.mute())?.map_err(Error::from_status)?;
        loop {
            let message = timeout(self.silence(), messages.next()).await;
            let message = message.map_err(|_| self.mute())?;
            let Some(message) = message.map_err(Error::from_status)? else {
                let ended = "the server ended the stream without a status";
                return Err(Error::Transport(ended.to_owned()).into());
            };
            let is_ack = matches!(message.event, Some(Wire::Ticks(WireEvent::Ack(_))));
            if is_ack && *attempt > 0 {
                let event = Event::Reconnected { attempts: *attempt, resumed_after: self.resume.clone() };
                self.queue.push(event, None).await?;
                *attempt = 0;
            }
            if !is_ack {
                backoff.reset();
            }
            self.take(message).await?;
        }
    }

    /// How long the server may be silent.
    fn silence(&self) -> Duration {
        self.heartbeat * MISSED_HEARTBEATS
    }

    fn mute(&self) -> Error {
        let silence = self.silence();
        Error::Transport(format!("no message for {silence:?}, {MISSED_HEARTBEATS} heartbeats"))
    }

    /// Delivers one message, and remembers its cursor once it is in the queue.
    async fn take(&mut self, message: Message) -> Result<(), End> {
        let cursor = Cursor::from_bytes(message.cursor);
        let event = match message.event {
            Some(Wire::Ticks(event)) => self.event(event, cursor.clone())?,
            // A bar takes the place of the one before, so that one that comes again changes nothing.
            Some(Wire::Bars(batch)) => {
                let bars = batch.bars.into_iter().map(Bar::from_wire).collect::<Result<_, _>>()?;
                Some(Event::Bars { bars, cursor: cursor.clone() })
            }
            Some(Wire::IntervalComplete(complete)) => Some(Event::IntervalComplete {
                start: UnixNanos::from_wire(complete.start_time, "interval_complete.start_time")?,
                end: UnixNanos::from_wire(complete.end_time, "interval_complete.end_time")?,
                cursor: cursor.clone(),
            }),
            // An event that this version does not know: its cursor counts all the same.
            None => None,
        };
        if let Some(event) = event {
            self.queue.push(event, cursor.clone()).await?;
        }
        if cursor.is_some() {
            self.resume = cursor;
        }
        Ok(())
    }

    /// Types one event. `None` if there is nothing to deliver.
    fn event(&mut self, event: WireEvent, cursor: Option<Cursor>) -> Result<Option<Event>, Error> {
        Ok(match event {
            WireEvent::Ack(ack) => {
                let ack = SubscriptionAck::from_wire(ack);
                self.heartbeat = granted(ack.heartbeat_interval);
                self.seen.begin(ack.epoch, ack.delivery);
                Some(Event::Ack(ack))
            }
            WireEvent::Rows(rows) => self.ticks(Tick::from_rows(rows)?, cursor),
            WireEvent::Columns(columns) => {
                let ticks = columns::decode(columns, &self.definitions)?;
                self.ticks(ticks, cursor)
            }
            WireEvent::InstrumentDefinitions(definitions) => {
                self.definitions.learn(definitions);
                None
            }
            WireEvent::Progress(progress) => Some(Event::Progress {
                log_seq: progress.log_seq,
                server_time: UnixNanos::from_wire(progress.server_time, "progress.server_time")?,
                cursor,
            }),
            WireEvent::SnapshotBegin(begin) => {
                self.seen.in_snapshot = true;
                Some(Event::SnapshotBegin { log_seq: begin.log_seq, tick_count: begin.tick_count })
            }
            WireEvent::SnapshotEnd(end) => {
                self.seen.in_snapshot = false;
                self.seen.log_seq = end.log_seq;
                let without_data = end.selectors_without_data.into_iter();
                Some(Event::SnapshotEnd {
                    log_seq: end.log_seq,
                    without_data: without_data.map(Selector::from_wire).collect(),
                })
            }
            WireEvent::ReplayCompleted(completed) => Some(Event::ReplayCompleted { log_seq: completed.log_seq }),
            WireEvent::SourceGap(gap) => {
                self.is_new(gap.log_seq).then(|| SourceGap::from_wire(gap).map(Event::SourceGap)).transpose()?
            }
            WireEvent::SourceGapFilled(filled) => self
                .is_new(filled.log_seq)
                .then(|| SourceGapFilled::from_wire(filled).map(Event::SourceGapFilled))
                .transpose()?,
            WireEvent::SourceStatus(status) => self
                .is_new(status.log_seq)
                .then(|| SourceStatus::from_wire(status).map(Event::SourceStatus))
                .transpose()?,
            WireEvent::StreamGap(gap) => Some(Event::StreamGap {
                from_log_seq: gap.from_log_seq,
                to_log_seq: gap.to_log_seq,
                cause: StreamGapCause::from_wire(gap.cause),
            }),
            WireEvent::SlowConsumer(slow) => Some(Event::SlowConsumer {
                catching_up: slow.catching_up,
                lag_ticks: slow.lag_ticks,
                lag: duration_from_wire(slow.lag),
                expiring: slow.expiring,
            }),
        })
    }

    fn ticks(&mut self, mut ticks: Vec<Tick>, cursor: Option<Cursor>) -> Option<Event> {
        ticks.retain(|tick| self.is_new(tick.log_seq));
        (!ticks.is_empty()).then_some(Event::Ticks { ticks, cursor })
    }

    /// Whether an entry has not been delivered before; counts it if it has.
    fn is_new(&mut self, log_seq: u64) -> bool {
        let new = self.seen.take(log_seq);
        if !new {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
        }
        new
    }
}

impl Request {
    /// The same request, beginning after a cursor if there is one.
    fn after(&self, cursor: Option<&Cursor>) -> Request {
        let mut request = self.clone();
        if let Some(cursor) = cursor {
            match &mut request {
                Request::Ticks(request) => request.start = Some(WireStart::Cursor(cursor.to_wire())),
                Request::Bars(request) => request.start = Some(BarStart::Cursor(cursor.to_wire())),
            }
        }
        request
    }
}

impl Messages {
    async fn ask(service: &mut LiveServiceClient<Transport>, request: Request) -> Result<Messages, Status> {
        Ok(match request {
            Request::Ticks(request) => Messages::Ticks(service.subscribe_ticks(request).await?.into_inner()),
            Request::Bars(request) => Messages::Bars(service.subscribe_bars(request).await?.into_inner()),
        })
    }

    async fn next(&mut self) -> Result<Option<Message>, Status> {
        Ok(match self {
            Messages::Ticks(messages) => {
                let message = messages.message().await?;
                message.map(|message| Message { cursor: message.cursor, event: message.event.map(Wire::Ticks) })
            }
            Messages::Bars(messages) => {
                let message = messages.message().await?;
                message.map(|message| Message { cursor: message.cursor, event: message.event.map(Wire::of_bars) })
            }
        })
    }
}

impl Wire {
    /// What streams of bars and of ticks share is taken as that of ticks.
    fn of_bars(event: BarWireEvent) -> Wire {
        Wire::Ticks(match event {
            BarWireEvent::Bars(bars) => return Wire::Bars(bars),
            BarWireEvent::IntervalComplete(complete) => return Wire::IntervalComplete(complete),
            BarWireEvent::Ack(ack) => WireEvent::Ack(ack),
            BarWireEvent::Progress(progress) => WireEvent::Progress(progress),
            BarWireEvent::SnapshotBegin(begin) => WireEvent::SnapshotBegin(begin),
            BarWireEvent::SnapshotEnd(end) => WireEvent::SnapshotEnd(end),
            BarWireEvent::ReplayCompleted(completed) => WireEvent::ReplayCompleted(completed),
            BarWireEvent::SourceGap(gap) => WireEvent::SourceGap(gap),
            BarWireEvent::SourceGapFilled(filled) => WireEvent::SourceGapFilled(filled),
            BarWireEvent::SourceStatus(status) => WireEvent::SourceStatus(status),
            BarWireEvent::StreamGap(gap) => WireEvent::StreamGap(gap),
            BarWireEvent::SlowConsumer(slow) => WireEvent::SlowConsumer(slow),
        })
    }
}

impl Seen {
    fn begin(&mut self, epoch: u64, delivery: Delivery) {
        // Positions of another epoch say nothing about this one.
        if self.epoch != epoch {
            self.epoch = epoch;
            self.log_seq = 0;
        }
        self.conflated = delivery == Delivery::Conflated;
    }

    fn take(&mut self, log_seq: u64) -> bool {
        if self.in_snapshot || self.conflated {
            return true;
        }
        let new = log_seq > self.log_seq;
        self.log_seq = self.log_seq.max(log_seq);
        new
    }
}

/// Heartbeats lie between 1 and 60 s; a server that grants nothing gets the default.
fn granted(heartbeat: Duration) -> Duration {
    if heartbeat.is_zero() {
        DEFAULT_HEARTBEAT
    } else {
        heartbeat.clamp(Duration::from_secs(1), Duration::from_secs(60))
    }
}
