//! `SubscribeTicks`: parses the wish, and turns a session's events into messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_stream::Stream;
use tonic::Status;

use super::LiveService;
use crate::domain::{Cursor, Epoch};
use crate::grpc::convert::{cursor, name, tick, time};
use crate::grpc::error::{EpochFacts, Refusal};
use crate::grpc::limits::MAX_STREAM_SELECTORS;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::live::{
    DEFAULT_HEARTBEAT, Event, HEARTBEATS, LiveError, MAX_FLUSH_WINDOW, Selector, Session, Start, Subscription,
};
use crate::tape::Registry;

pub(super) async fn subscribe_ticks(
    service: &LiveService,
    request: proto::SubscribeTicksRequest,
) -> Result<impl Stream<Item = Result<proto::SubscribeTicksResponse, Status>> + Send + use<>, Refusal> {
    let selectors = request.selectors.clone();
    let subscription = parse(request)?;
    let live = service.live.get();
    let session = live.subscribe(subscription).await?;
    let encoder = Encoder {
        registry: live.registry().clone(),
        server_name: service.server_name.clone(),
        stream_id: format!("{:016x}", service.next_stream.fetch_add(1, Ordering::Relaxed)),
        selectors,
    };
    Ok(responses(session, encoder))
}

/// The session's events as messages; after an error the stream ends.
fn responses(
    session: Session,
    encoder: Encoder,
) -> impl Stream<Item = Result<proto::SubscribeTicksResponse, Status>> + Send {
    futures_util::stream::unfold(Some((session, encoder)), |state| async move {
        let (mut session, encoder) = state?;
        match session.next().await {
            Ok(event) => Some((Ok(encoder.response(event)), Some((session, encoder)))),
            Err(error) => Some((Err(Refusal::from(error).into()), None)),
        }
    })
}

fn parse(request: proto::SubscribeTicksRequest) -> Result<Subscription, Refusal> {
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
    if encoding == proto::Encoding::Columns as i32 {
        return Err(Refusal::not_served("ENCODING_COLUMNS in SubscribeTicks"));
    }
    if delivery == proto::Delivery::Conflated as i32 {
        return Err(Refusal::not_served("DELIVERY_CONFLATED"));
    }
    if slow_reader == proto::SlowReaderPolicy::Disconnect as i32 {
        return Err(Refusal::not_served("SLOW_READER_POLICY_DISCONNECT"));
    }
    if if_unavailable > proto::UnavailablePolicy::Fail as i32 {
        return Err(Refusal::not_served("if_unavailable other than UNAVAILABLE_POLICY_FAIL"));
    }
    let start = match start {
        None | Some(Wire::Live(_)) => Start::Live,
        Some(Wire::Cursor(bytes)) => Start::After(cursor::required("cursor", &bytes)?),
        Some(Wire::Position(proto::StartPosition { epoch, log_seq })) => {
            Start::After(Cursor { epoch: Epoch(epoch), position: log_seq })
        }
        Some(Wire::Snapshot(_)) => return Err(Refusal::not_served("a start with a snapshot")),
        Some(Wire::StartTime(_)) => return Err(Refusal::not_served("a start from a time")),
    };
    let mut violations = Violations::default();
    let selectors = name::selectors(&mut violations, &selectors);
    let heartbeat = heartbeat_interval.and_then(|span| violations.take("heartbeat_interval", time::span(span)));
    let flush_window = flush_window.and_then(|span| violations.take("flush_window", time::span(span)));
    if min_interval.is_some() {
        violations
            .add("min_interval", "counts between conflation rounds, and a LOSSLESS stream has none: leave it out");
    }
    violations.check()?;
    let selectors = selectors.unwrap_or_default();
    Ok(Subscription {
        selectors: selectors.into_iter().map(|(venue, symbol)| Selector { venue, symbol }).collect(),
        start,
        include_backfill,
        heartbeat: heartbeat.unwrap_or(DEFAULT_HEARTBEAT).clamp(*HEARTBEATS.start(), *HEARTBEATS.end()),
        flush_window: flush_window.unwrap_or(Duration::ZERO).min(MAX_FLUSH_WINDOW),
    })
}

/// Turns events into messages for one stream.
struct Encoder {
    registry: Arc<Registry>,
    server_name: Arc<str>,
    stream_id: String,
    /// As the request had them.
    selectors: Vec<proto::Selector>,
}

impl Encoder {
    fn response(&self, event: Event) -> proto::SubscribeTicksResponse {
        use proto::subscribe_ticks_response::Event as Wire;
        let (cursor, event) = match event {
            Event::Ack { cursor, head, oldest, heartbeat, flush_window, matched } => {
                let ack = proto::SubscriptionAck {
                    stream_id: self.stream_id.clone(),
                    server_name: self.server_name.to_string(),
                    epoch: cursor.epoch.0,
                    head_log_seq: head,
                    // The store names the position that will be the first; the contract has 0 until there is one.
                    oldest_log_seq: if head == 0 { 0 } else { oldest },
                    heartbeat_interval: Some(time::wire_span(heartbeat)),
                    flush_window: Some(time::wire_span(flush_window)),
                    delivery: proto::Delivery::Lossless as i32,
                    min_interval: None,
                    encoding: proto::Encoding::Rows as i32,
                    selector_results: self.results(&matched),
                };
                (cursor, Wire::Ack(ack))
            }
            Event::Ticks { cursor, ticks } => {
                let ticks = ticks.iter().filter_map(|tick| {
                    // The hub knows every instrument before it shows a tick of it.
                    let instrument = self.registry.get(tick.instrument)?;
                    Some(tick::row(tick, &instrument))
                });
                (cursor, Wire::Rows(proto::TickBatch { ticks: ticks.collect(), merged_counts: Vec::new() }))
            }
            Event::ReplayCompleted { cursor } => {
                (cursor, Wire::ReplayCompleted(proto::ReplayCompleted { log_seq: cursor.position }))
            }
            Event::Progress { cursor, time } => {
                let server_time = Some(time.into());
                (cursor, Wire::Progress(proto::Progress { log_seq: cursor.position, server_time }))
            }
            Event::SlowConsumer { cursor, catching_up, lag, lag_time } => {
                let lag_time = Some(time::wire_span(lag_time));
                (cursor, Wire::SlowConsumer(proto::SlowConsumer { catching_up, lag_ticks: lag, lag: lag_time }))
            }
        };
        proto::SubscribeTicksResponse { cursor: cursor.encode().to_vec().into(), event: Some(event) }
    }

    fn results(&self, matched: &[u32]) -> Vec<proto::SelectorResult> {
        let result = |(selector, &matched_count): (&proto::Selector, &u32)| proto::SelectorResult {
            selector: Some(selector.clone()),
            matched_count,
            status: match matched_count {
                0 => proto::SelectorStatus::Unknown as i32,
                _ => proto::SelectorStatus::Matched as i32,
            },
        };
        self.selectors.iter().zip(matched).map(result).collect()
    }
}

impl From<LiveError> for Refusal {
    fn from(error: LiveError) -> Refusal {
        match error {
            LiveError::Expired { oldest, newest: _ } => Refusal::cursor_expired(oldest),
            LiveError::Moved { cursor } => Refusal::epoch_moved(cursor),
            LiveError::EpochChanged { epoch, oldest, newest, fork } => {
                Refusal::epoch_changed(EpochFacts { epoch, fork, oldest: Some(oldest), newest: Some(newest) })
            }
            LiveError::Store(error) => error.into(),
            LiveError::ShuttingDown { cursor } => Refusal::shutting_down(Some(cursor)),
        }
    }
}
