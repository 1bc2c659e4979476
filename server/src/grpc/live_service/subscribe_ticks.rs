//! `SubscribeTicks`: parses the wish, and turns a session's events into messages.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::LiveService;
use super::encoder::{Encoder, Encoding};
use super::frames::{COLUMN_TICKS, Pieces};
use crate::domain::{Cursor, Epoch, UnixNanos};
use crate::dormant::Dormant;
use crate::grpc::convert::{cursor, name, time};
use crate::grpc::error::{EpochFacts, Refusal};
use crate::grpc::limits::MAX_STREAM_SELECTORS;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::live::{
    DEFAULT_HEARTBEAT, HEARTBEATS, IfUnavailable, LiveError, LogFacts, MAX_FLUSH_WINDOW, MAX_MIN_INTERVAL, Selector,
    Session, SlowReader, Start, Subscription,
};

/// Rows of a snapshot or a round that are encoded at once at most: few messages then come out larger than 64 KiB and
/// are made anew in halves.
const ROW_TICKS: usize = 400;

/// Messages that are due at the same time are gathered up to about this.
const GATHERED_BYTES: usize = 32 << 10;

/// Where the stream begins: its messages, framed, in pieces that hold whole ones. It ends itself when `aging` is
/// cancelled.
pub(super) async fn subscribe_ticks(
    service: &LiveService,
    request: proto::SubscribeTicksRequest,
    aging: CancellationToken,
) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + use<>, Refusal> {
    let selectors = request.selectors.clone();
    let (subscription, encoding) = parse(request)?;
    let conflated = subscription.conflated.is_some();
    let live = service.live.get();
    let session = live.subscribe(subscription).await.map_err(|error| refusal(error, None))?;
    let encoder = Encoder {
        registry: live.registry.clone(),
        server_name: service.server_name.clone(),
        stream_id: format!("{:016x}", service.next_stream.fetch_add(1, Ordering::Relaxed)),
        encoding,
        conflated,
        selectors,
    };
    // In a box, so that what is passed on with each piece is a pointer.
    let span = tracing::Span::current();
    let aged = Dormant::new(aging.child_token().cancelled_owned());
    let outgoing = Box::new(Outgoing { session, encoder, pieces: Pieces::default(), ended: false, aged, span });
    Ok(futures_util::stream::unfold(outgoing, |mut outgoing| async {
        let next = outgoing.next().await?;
        Some((next, outgoing))
    }))
}

/// One stream on its way out.
struct Outgoing {
    session: Session,
    encoder: Encoder,
    pieces: Pieces,
    ended: bool,
    /// Its connection is old, and the stream has to come back on another one.
    aged: Dormant<()>,
    /// The call's span, for the status alone: no message is worth entering it.
    span: tracing::Span,
}

impl Outgoing {
    /// The next bytes; after an error the stream ends.
    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            if let Some(bytes) = self.pieces.pop() {
                return Some(Ok(bytes));
            }
            if self.ended {
                return None;
            }
            let next = tokio::select! {
                biased;
                () = &mut self.aged => Err(None),
                // A call that is dropped here loses nothing.
                next = self.session.next() => next.map_err(Some),
            };
            match next {
                Ok(message) => self.encoder.write(message, &mut self.pieces),
                Err(error) => {
                    self.ended = true;
                    let cursor = self.session.cursor();
                    let why = || error.map_or_else(|| Refusal::stream_expired(cursor), |error| refusal(error, cursor));
                    return Some(Err(self.span.in_scope(|| why().into())));
                }
            }
            // What is due anyway leaves together: a piece costs the connection more than a message.
            while self.pieces.len() < GATHERED_BYTES
                && let Some(message) = self.session.ready()
            {
                self.encoder.write(message, &mut self.pieces);
            }
        }
    }
}

fn parse(request: proto::SubscribeTicksRequest) -> Result<(Subscription, Encoding), Refusal> {
    use proto::subscribe_ticks_request::Start as Wire;
    let proto::SubscribeTicksRequest {
        selectors,
        start,
        encoding,
        delivery,
        min_interval,
        include_backfill,
        heartbeat_interval,
        flush_window,
        slow_reader,
        if_unavailable,
    } = request;
    if selectors.len() > MAX_STREAM_SELECTORS {
        return Err(Refusal::limit_exceeded("selectors", MAX_STREAM_SELECTORS as u64, Some(selectors.len() as u64)));
    }
    let mut violations = Violations::default();
    let start = match start {
        None | Some(Wire::Live(_)) => Some(Start::Live),
        Some(Wire::Snapshot(_)) => Some(Start::Snapshot),
        Some(Wire::Cursor(bytes)) => Some(Start::After(cursor::required("cursor", &bytes)?)),
        Some(Wire::Position(proto::StartPosition { epoch, log_seq })) => {
            Some(Start::After(Cursor { epoch: Epoch(epoch), position: log_seq }))
        }
        Some(Wire::StartTime(time)) => violations.take("start_time", UnixNanos::try_from(time)).map(Start::Since),
    };
    let selectors = name::selectors(&mut violations, &selectors);
    let encoding = violations.take("encoding", to_encoding(encoding));
    let conflated = violations.take("delivery", is_conflated(delivery));
    let min_interval = min_interval.and_then(|span| violations.take("min_interval", time::span(span)));
    if conflated == Some(false) && min_interval.is_some() {
        let rule = "counts between conflation rounds, and a LOSSLESS stream has none: leave it out";
        violations.add("min_interval", rule);
    }
    let heartbeat = heartbeat_interval.and_then(|span| violations.take("heartbeat_interval", time::span(span)));
    let flush_window = flush_window.and_then(|span| violations.take("flush_window", time::span(span)));
    let slow_reader = violations.take("slow_reader", to_slow_reader(slow_reader));
    if conflated == Some(true) && slow_reader == Some(SlowReader::Disconnect) {
        violations.add("slow_reader", "is for LOSSLESS streams: a conflated one does not lag, leave it out");
    }
    let if_unavailable = violations.take("if_unavailable", to_if_unavailable(if_unavailable));
    let (Some(start), Some(selectors), Some(encoding), Some(conflated), Some(slow_reader), Some(if_unavailable), true) =
        (start, selectors, encoding, conflated, slow_reader, if_unavailable, violations.is_empty())
    else {
        return Err(violations.refuse());
    };
    let subscription = Subscription {
        selectors: selectors.into_iter().map(|(venue, symbol)| Selector { venue, symbol }).collect(),
        start,
        if_unavailable,
        include_backfill,
        heartbeat: heartbeat.unwrap_or(DEFAULT_HEARTBEAT).clamp(*HEARTBEATS.start(), *HEARTBEATS.end()),
        flush_window: flush_window.unwrap_or(Duration::ZERO).min(MAX_FLUSH_WINDOW),
        conflated: conflated.then(|| min_interval.unwrap_or(Duration::ZERO).min(MAX_MIN_INTERVAL)),
        slow_reader,
        definitions: encoding == Encoding::Columns,
        message_ticks: match encoding {
            Encoding::Rows => ROW_TICKS,
            Encoding::Columns => COLUMN_TICKS,
        },
    };
    Ok((subscription, encoding))
}

fn to_encoding(wire: i32) -> Result<Encoding, &'static str> {
    match proto::Encoding::try_from(wire) {
        Ok(proto::Encoding::Unspecified | proto::Encoding::Rows) => Ok(Encoding::Rows),
        Ok(proto::Encoding::Columns) => Ok(Encoding::Columns),
        Err(_) => Err("not a value of Encoding"),
    }
}

fn is_conflated(wire: i32) -> Result<bool, &'static str> {
    match proto::Delivery::try_from(wire) {
        Ok(proto::Delivery::Unspecified | proto::Delivery::Lossless) => Ok(false),
        Ok(proto::Delivery::Conflated) => Ok(true),
        Err(_) => Err("not a value of Delivery"),
    }
}

fn to_slow_reader(wire: i32) -> Result<SlowReader, &'static str> {
    match proto::SlowReaderPolicy::try_from(wire) {
        Ok(proto::SlowReaderPolicy::Unspecified | proto::SlowReaderPolicy::CatchUp) => Ok(SlowReader::CatchUp),
        Ok(proto::SlowReaderPolicy::Disconnect) => Ok(SlowReader::Disconnect),
        Err(_) => Err("not a value of SlowReaderPolicy"),
    }
}

pub(super) fn to_if_unavailable(wire: i32) -> Result<IfUnavailable, &'static str> {
    match proto::UnavailablePolicy::try_from(wire) {
        Ok(proto::UnavailablePolicy::Unspecified | proto::UnavailablePolicy::Fail) => Ok(IfUnavailable::Fail),
        Ok(proto::UnavailablePolicy::FromOldest) => Ok(IfUnavailable::FromOldest),
        Ok(proto::UnavailablePolicy::Snapshot) => Ok(IfUnavailable::Snapshot),
        Err(_) => Err("not a value of UnavailablePolicy"),
    }
}

/// Why a stream does not start, or ended; `cursor` says where it may go on.
pub(super) fn refusal(error: LiveError, cursor: Option<Cursor>) -> Refusal {
    match error {
        LiveError::Expired { oldest } => Refusal::cursor_expired(oldest),
        LiveError::EpochChanged(LogFacts { epoch, fork, oldest, newest }) => {
            Refusal::epoch_changed(EpochFacts { epoch, fork, oldest: Some(oldest), newest: Some(newest) })
        }
        LiveError::EpochRenewed => {
            Refusal::stream_expired(cursor).saying("the log has another name now, and goes on: come back and resume")
        }
        LiveError::Slow { cursor } => Refusal::slow_consumer(cursor),
        LiveError::Store(error) => {
            let refusal = Refusal::from(error);
            match cursor {
                Some(cursor) if refusal.code() == Code::Unavailable => refusal.with_cursor("cursor", cursor),
                _ => refusal,
            }
        }
        LiveError::ShuttingDown => Refusal::shutting_down(cursor),
    }
}
