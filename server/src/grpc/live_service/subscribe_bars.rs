//! `SubscribeBars`: parses the wish, and turns a session's events into messages.

use std::sync::atomic::Ordering;

use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::LiveService;
use super::encoder::{Encoder, Encoding};
use super::subscribe_ticks::{refusal, to_if_unavailable};
use crate::grpc::convert::{bar, cursor, name, subject, time};
use crate::grpc::error::Refusal;
use crate::grpc::limits::MAX_STREAM_SELECTORS;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::live::bars::DEFAULT_BAR_INTERVAL;
use crate::live::{
    BarEvent, BarMessage, BarSession, BarSubscription, DEFAULT_HEARTBEAT, Event, HEARTBEATS, MAX_MIN_INTERVAL,
    NamedBar, Selector, Start,
};
use proto::subscribe_bars_response::Event as Wire;
use proto::subscribe_ticks_response::Event as TickWire;

/// Where the stream begins.
pub(super) async fn subscribe_bars(
    service: &LiveService,
    request: proto::SubscribeBarsRequest,
    aging: CancellationToken,
) -> Result<impl Stream<Item = Result<proto::SubscribeBarsResponse, Status>> + Send + use<>, Refusal> {
    let selectors = request.selectors.clone();
    let (subscription, decimals) = parse(request)?;
    let live = service.live.get();
    let session = live.subscribe_bars(subscription).await.map_err(|error| refusal(error, None))?;
    let encoder = Encoder {
        registry: live.registry.clone(),
        server_name: service.server_name.clone(),
        stream_id: format!("{:016x}", service.next_stream.fetch_add(1, Ordering::Relaxed)),
        encoding: Encoding::Rows,
        conflated: false,
        selectors,
    };
    let span = tracing::Span::current();
    let outgoing = Box::new(Outgoing { session, encoder, decimals, ended: false, aging, span });
    Ok(futures_util::stream::unfold(outgoing, |mut outgoing| async {
        let next = outgoing.next().await?;
        Some((next, outgoing))
    }))
}

/// One stream on its way out.
struct Outgoing {
    session: BarSession,
    encoder: Encoder,
    decimals: u8,
    ended: bool,
    /// Cancelled when its connection is old: the stream then ends.
    aging: CancellationToken,
    span: tracing::Span,
}

impl Outgoing {
    /// The next message; after an error the stream ends.
    async fn next(&mut self) -> Option<Result<proto::SubscribeBarsResponse, Status>> {
        while !self.ended {
            let message = tokio::select! {
                biased;
                () = self.aging.cancelled() => None,
                message = self.session.next() => Some(message),
            };
            let error = match message {
                Some(Ok(BarMessage { cursor, event })) => {
                    let Some(event) = self.wire(event) else { continue };
                    let cursor = cursor.map(Into::into).unwrap_or_default();
                    return Some(Ok(proto::SubscribeBarsResponse { cursor, event: Some(event) }));
                }
                Some(Err(error)) => Some(error),
                None => None,
            };
            self.ended = true;
            let cursor = self.session.cursor();
            return Some(Err(self.span.in_scope(|| match error {
                Some(error) => refusal(error, cursor).into(),
                None => Refusal::stream_expired(cursor).into(),
            })));
        }
        None
    }

    /// `None` for what the contract has no event for.
    fn wire(&self, event: BarEvent) -> Option<Wire> {
        match event {
            BarEvent::Bars(bars) => {
                let wire = |NamedBar { symbol, instrument, bar }: &NamedBar| {
                    bar::wire(bar, symbol, instrument.as_deref(), self.decimals)
                };
                Some(Wire::Bars(proto::BarBatch { bars: bars.iter().map(wire).collect() }))
            }
            BarEvent::Complete { start, end } => Some(Wire::IntervalComplete(proto::IntervalComplete {
                start_time: Some(start.into()),
                end_time: Some(end.into()),
            })),
            BarEvent::Other(event) => self.other(event),
        }
    }

    fn other(&self, event: Event) -> Option<Wire> {
        Some(match self.encoder.event(event)? {
            // A stream of bars has no encoding of ticks, and leaves out no final bar.
            TickWire::Ack(ack) => Wire::Ack(proto::SubscriptionAck {
                encoding: proto::Encoding::Unspecified.into(),
                delivery: proto::Delivery::Lossless.into(),
                ..ack
            }),
            TickWire::Progress(progress) => Wire::Progress(progress),
            TickWire::SnapshotBegin(begin) => Wire::SnapshotBegin(begin),
            TickWire::SnapshotEnd(end) => Wire::SnapshotEnd(end),
            TickWire::ReplayCompleted(completed) => Wire::ReplayCompleted(completed),
            TickWire::SourceGap(gap) => Wire::SourceGap(gap),
            TickWire::SourceGapFilled(filled) => Wire::SourceGapFilled(filled),
            TickWire::SourceStatus(status) => Wire::SourceStatus(status),
            TickWire::StreamGap(gap) => Wire::StreamGap(gap),
            TickWire::SlowConsumer(slow) => Wire::SlowConsumer(slow),
            TickWire::Rows(_) | TickWire::Columns(_) | TickWire::InstrumentDefinitions(_) => return None,
        })
    }
}

fn parse(request: proto::SubscribeBarsRequest) -> Result<(BarSubscription, u8), Refusal> {
    use proto::subscribe_bars_request::Start as WireStart;
    let proto::SubscribeBarsRequest {
        selectors,
        start,
        interval,
        include_forming,
        min_interval,
        heartbeat_interval,
        if_unavailable,
        decimals,
    } = request;
    if selectors.len() > MAX_STREAM_SELECTORS {
        return Err(Refusal::limit_exceeded("selectors", MAX_STREAM_SELECTORS as u64, Some(selectors.len() as u64)));
    }
    let mut violations = Violations::default();
    let start = match start {
        None | Some(WireStart::Live(_)) => Start::Live,
        Some(WireStart::Snapshot(_)) => Start::Snapshot,
        Some(WireStart::Cursor(bytes)) => Start::After(cursor::required("cursor", &bytes)?),
    };
    let selectors = name::selectors(&mut violations, &selectors);
    let interval = bar::interval(&mut violations, "interval", interval);
    let min_interval = min_interval.and_then(|span| violations.take("min_interval", time::span(span)));
    let heartbeat = heartbeat_interval.and_then(|span| violations.take("heartbeat_interval", time::span(span)));
    let if_unavailable = violations.take("if_unavailable", to_if_unavailable(if_unavailable));
    let decimals = violations.take("decimals", subject::decimals(decimals));
    let (Some(selectors), Some(interval), Some(if_unavailable), Some(decimals), true) =
        (selectors, interval, if_unavailable, decimals, violations.is_empty())
    else {
        return Err(violations.refuse());
    };
    let subscription = BarSubscription {
        selectors: selectors.into_iter().map(|(venue, symbol)| Selector { venue, symbol }).collect(),
        start,
        if_unavailable,
        interval,
        include_forming,
        min_interval: min_interval.unwrap_or(DEFAULT_BAR_INTERVAL).min(MAX_MIN_INTERVAL),
        heartbeat: heartbeat.unwrap_or(DEFAULT_HEARTBEAT).clamp(*HEARTBEATS.start(), *HEARTBEATS.end()),
    };
    Ok((subscription, decimals))
}
