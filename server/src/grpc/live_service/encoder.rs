//! A session's events as messages of at most 64 KiB, framed for the wire.

use std::sync::Arc;

use prost::Message as _;

use super::frames::{
    MAX_MESSAGE_BYTES, Pieces, column_messages, put_columns, put_message, put_rows, row_messages, rows,
};
use crate::domain::{Control, Correction, Cursor, Origin, Tick};
use crate::grpc::convert::{columns, source, tick, time};
use crate::grpc::proto;
use crate::live::{Ack, Event, Message, Outcome, Picks, Run, Ticks};
use crate::tape::Registry;
use proto::subscribe_ticks_response::Event as Wire;

/// How ticks are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Complete in themselves, for people.
    Rows,
    /// Arrays, for programs.
    Columns,
}

/// Turns events into messages for one stream.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) registry: Arc<Registry>,
    pub(super) server_name: Arc<str>,
    pub(super) stream_id: String,
    pub(super) encoding: Encoding,
    /// Whether ticks are merged.
    pub(super) conflated: bool,
    /// As the request had them.
    pub(super) selectors: Vec<proto::Selector>,
}

impl Encoder {
    /// Writes the messages of one event: mostly one, more only for ticks that do not fit.
    pub(super) fn write(&self, message: Message, out: &mut Pieces) {
        let Message { cursor, event } = message;
        match event {
            Event::Run(run) => self.run(cursor, &run, out),
            Event::Ticks(Ticks { ticks, merged, before }) => self.ticks(&ticks, &merged, cursor, before, out),
            Event::Correction { log_seq, correction, origin } => {
                if let Some(event) = self.correction((log_seq, origin), &correction) {
                    put_message(out.open(), &response(cursor, event));
                }
            }
            event => {
                if let Some(event) = self.event(event) {
                    put_message(out.open(), &response(cursor, event));
                }
            }
        }
    }

    /// Ticks of a block: all of them as the block's readers share them, some of them from what they share.
    fn run(&self, cursor: Option<Cursor>, run: &Run, out: &mut Pieces) {
        let Run { block, picks } = run;
        let encodings = &block.encodings;
        let end = cursor.map_or(block.last_seq(), |cursor| cursor.position);
        match (self.encoding, picks) {
            (Encoding::Rows, Picks::All) => {
                out.share(encodings.row_messages.get_or_init(|| row_messages(block, &self.registry)));
            }
            (Encoding::Columns, Picks::All) => {
                out.share(encodings.column_messages.get_or_init(|| column_messages(block)));
            }
            (Encoding::Rows, Picks::Range(range)) => {
                let rows = encodings.rows.get_or_init(|| rows(block, &self.registry));
                put_rows(out.open(), block, rows, range.clone(), end);
            }
            (Encoding::Rows, Picks::Some(indexes)) => {
                let rows = encodings.rows.get_or_init(|| rows(block, &self.registry));
                put_rows(out.open(), block, rows, indexes.iter().map(|&index| index as usize), end);
            }
            (Encoding::Columns, Picks::Range(range)) => {
                put_columns(out.open(), block.epoch, &block.entries.ticks[range.clone()], end);
            }
            (Encoding::Columns, Picks::Some(_)) => {
                let ticks: Vec<Tick> = run.ticks().into_iter().cloned().collect();
                put_columns(out.open(), block.epoch, &ticks, end);
            }
        }
    }

    /// Ticks of a snapshot or a round; halves of them where the whole is too large. A tick alone always fits.
    fn ticks(&self, ticks: &[Tick], merged: &[u32], cursor: Option<Cursor>, before: Option<Cursor>, out: &mut Pieces) {
        let event = match self.encoding {
            Encoding::Rows => Wire::Rows(self.rows(ticks, merged)),
            Encoding::Columns => Wire::Columns(columns::wire(ticks, merged)),
        };
        let response = response(cursor, event);
        if ticks.len() < 2 || response.encoded_len() <= MAX_MESSAGE_BYTES {
            put_message(out.open(), &response);
            return;
        }
        let (first, second) = ticks.split_at(ticks.len() / 2);
        let (first_merged, second_merged) = merged.split_at(if merged.is_empty() { 0 } else { first.len() });
        self.ticks(first, first_merged, before, before, out);
        self.ticks(second, second_merged, cursor, before, out);
    }

    fn rows(&self, ticks: &[Tick], merged: &[u32]) -> proto::TickBatch {
        let rows = ticks.iter().filter_map(|tick| {
            // The hub knows every instrument before it shows a tick of it.
            let instrument = self.registry.get(tick.instrument)?;
            Some(tick::row(tick, &instrument))
        });
        proto::TickBatch { ticks: rows.collect(), merged_counts: merged.to_vec() }
    }

    /// A correction as a message of one tick, which in a conflated stream stands for itself.
    fn correction(&self, place: (u64, Origin), correction: &Correction) -> Option<Wire> {
        let merged = if self.conflated { vec![1] } else { Vec::new() };
        Some(match self.encoding {
            Encoding::Rows => {
                // The hub knows every instrument before it shows a correction of it.
                let instrument = self.registry.get(correction.instrument)?;
                let ticks = vec![tick::correction_row(place, correction, &instrument)];
                Wire::Rows(proto::TickBatch { ticks, merged_counts: merged })
            }
            Encoding::Columns => {
                let columns = columns::correction(place, correction);
                Wire::Columns(proto::TickColumns { merged_count: merged, ..columns })
            }
        })
    }

    /// Any other event. `None` for entries of the log that the contract has no event for.
    pub(super) fn event(&self, event: Event) -> Option<Wire> {
        Some(match event {
            Event::Run(_) | Event::Ticks(_) | Event::Correction { .. } => return None,
            Event::Ack(ack) => Wire::Ack(self.ack(ack)),
            Event::Definitions(instruments) => {
                let definitions = instruments.iter().map(|instrument| (&**instrument).into()).collect();
                Wire::InstrumentDefinitions(proto::InstrumentDefinitions { definitions })
            }
            Event::Source { log_seq, control } => match &control {
                Control::SourceGap(gap) => Wire::SourceGap(source::wire_gap(log_seq, gap)),
                Control::SourceGapFilled(filled) => Wire::SourceGapFilled(source::wire_gap_filled(log_seq, filled)),
                Control::SourceStatus(status) => Wire::SourceStatus(source::wire_status(log_seq, status)),
                Control::Watermark { .. } | Control::Correction(_) | Control::Unknown { .. } => return None,
            },
            Event::SnapshotBegin { position, tick_count } => {
                Wire::SnapshotBegin(proto::SnapshotBegin { log_seq: position, tick_count })
            }
            Event::SnapshotEnd { position, without_data } => {
                let selectors = without_data.iter().filter_map(|&index| self.selectors.get(index).cloned());
                let selectors_without_data = selectors.collect();
                Wire::SnapshotEnd(proto::SnapshotEnd { log_seq: position, selectors_without_data })
            }
            Event::ReplayCompleted { position } => Wire::ReplayCompleted(proto::ReplayCompleted { log_seq: position }),
            Event::Progress { position, time } => {
                Wire::Progress(proto::Progress { log_seq: position, server_time: Some(time.into()) })
            }
            Event::StreamGap { from, to } => Wire::StreamGap(proto::StreamGap {
                from_log_seq: from,
                to_log_seq: to,
                cause: proto::StreamGapCause::Retention.into(),
            }),
            Event::SlowConsumer { catching_up, expiring, lag, lag_time } => {
                let lag_time = Some(time::wire_span(lag_time));
                Wire::SlowConsumer(proto::SlowConsumer { catching_up, lag_ticks: lag, lag: lag_time, expiring })
            }
        })
    }

    fn ack(&self, ack: Ack) -> proto::SubscriptionAck {
        let Ack { epoch, head, oldest, heartbeat, flush_window, min_interval, outcomes } = ack;
        let delivery = match min_interval {
            None => proto::Delivery::Lossless,
            Some(_) => proto::Delivery::Conflated,
        };
        let encoding = match self.encoding {
            Encoding::Rows => proto::Encoding::Rows,
            Encoding::Columns => proto::Encoding::Columns,
        };
        proto::SubscriptionAck {
            stream_id: self.stream_id.clone(),
            server_name: self.server_name.to_string(),
            epoch: epoch.0,
            head_log_seq: head,
            // The store names the position that will be the first; the contract has 0 until there is one.
            oldest_log_seq: if head == 0 { 0 } else { oldest },
            heartbeat_interval: Some(time::wire_span(heartbeat)),
            flush_window: Some(time::wire_span(flush_window)),
            delivery: delivery.into(),
            min_interval: min_interval.map(time::wire_span),
            encoding: encoding.into(),
            selector_results: self.results(&outcomes),
        }
    }

    fn results(&self, outcomes: &[Outcome]) -> Vec<proto::SelectorResult> {
        let result = |(selector, outcome): (&proto::Selector, &Outcome)| {
            let (matched_count, status) = match *outcome {
                Outcome::Served { matched: 0 } => (0, proto::SelectorStatus::Unknown),
                Outcome::Served { matched } => (matched, proto::SelectorStatus::Matched),
                Outcome::Limit => (0, proto::SelectorStatus::Limit),
            };
            proto::SelectorResult { selector: Some(selector.clone()), matched_count, status: status.into() }
        };
        self.selectors.iter().zip(outcomes).map(result).collect()
    }
}

fn response(cursor: Option<Cursor>, event: Wire) -> proto::SubscribeTicksResponse {
    proto::SubscribeTicksResponse { cursor: cursor.map(Into::into).unwrap_or_default(), event: Some(event) }
}
