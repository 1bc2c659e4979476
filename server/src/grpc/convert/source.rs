//! What feeds say about themselves, in and out.

use crate::domain::source::{
    Detail, GapCause, MAX_SOURCE_SYMBOLS, Scope, Source, SourceGap, SourceGapFilled, SourceSeqs, SourceStatus,
};
use crate::domain::{Batch, Control, Symbol, TimeRange, UnixNanos, Venue};
use crate::grpc::proto;
use crate::grpc::violation::Violations;

use super::tick::event_time;

/// A batch of one entry, or what is wrong with it.
fn batch(control: Option<Control>, violations: Violations) -> Result<Batch, Violations> {
    match control {
        Some(control) if violations.is_empty() => Ok(Batch { controls: vec![control], ..Batch::default() }),
        _ => Err(violations),
    }
}

/// Reads a gap. `path` is its path in its message.
pub fn gap(path: &str, wire: proto::SourceGap) -> Result<Batch, Violations> {
    let proto::SourceGap {
        source,
        venue,
        symbols,
        start_time,
        end_time,
        first_source_seq,
        last_source_seq,
        cause,
        recoverable,
        detail,
        log_seq: _,
    } = wire;
    let mut violations = Violations::default();
    let scope = scope(path, &source, &venue, &symbols, &mut violations);
    let range = range(path, start_time, end_time, &mut violations);
    let seqs = seqs(path, first_source_seq, last_source_seq, &mut violations);
    let cause = violations.take(format_args!("{path}.cause"), gap_cause(cause));
    let detail = violations.take(format_args!("{path}.detail"), Detail::new(&detail));
    let gap = match (scope, range, seqs, cause, detail) {
        (Some(scope), Some(range), Some(seqs), Some(cause), Some(detail)) => {
            Some(Control::SourceGap(SourceGap { scope, range, seqs, cause, recoverable, detail }))
        }
        _ => None,
    };
    batch(gap, violations)
}

/// Reads the filling of a gap. `path` is its path in its message.
pub fn gap_filled(path: &str, wire: proto::SourceGapFilled) -> Result<Batch, Violations> {
    let proto::SourceGapFilled {
        source,
        venue,
        symbols,
        start_time,
        end_time,
        first_source_seq,
        last_source_seq,
        gap_log_seq,
        log_seq: _,
    } = wire;
    let mut violations = Violations::default();
    let scope = scope(path, &source, &venue, &symbols, &mut violations);
    let range = range(path, start_time, end_time, &mut violations);
    let seqs = seqs(path, first_source_seq, last_source_seq, &mut violations);
    if gap_log_seq == Some(0) {
        violations.add(format_args!("{path}.gap_log_seq"), "positions begin at 1: leave it out if it is not known");
    }
    let filled = match (scope, range, seqs) {
        (Some(scope), Some(range), Some(seqs)) => {
            Some(Control::SourceGapFilled(SourceGapFilled { scope, range, seqs, gap_log_seq }))
        }
        _ => None,
    };
    batch(filled, violations)
}

/// Reads a status. `path` is its path in its message.
pub fn status(path: &str, wire: proto::SourceStatus) -> Result<Batch, Violations> {
    let proto::SourceStatus { source, venue, symbols, state, change_time, detail, log_seq: _ } = wire;
    let mut violations = Violations::default();
    let scope = scope(path, &source, &venue, &symbols, &mut violations);
    let up = violations.take(format_args!("{path}.state"), is_up(state));
    let change_time = time(format_args!("{path}.change_time"), change_time, &mut violations);
    let detail = violations.take(format_args!("{path}.detail"), Detail::new(&detail));
    let status = match (scope, up, change_time, detail) {
        (Some(scope), Some(up), Some(change_time), Some(detail)) => {
            Some(Control::SourceStatus(SourceStatus { scope, up, change_time, detail }))
        }
        _ => None,
    };
    batch(status, violations)
}

/// Reads a watermark; its time lies at or before `latest` if there is one. `path` is its path in its message.
pub fn watermark(path: &str, wire: proto::Watermark, latest: Option<UnixNanos>) -> Result<Batch, Violations> {
    let proto::Watermark { venue, complete_time } = wire;
    let mut violations = Violations::default();
    let venue = violations.take(format_args!("{path}.venue"), Venue::new(&venue));
    let time = UnixNanos::try_from(complete_time.unwrap_or(prost_types::Timestamp { seconds: -1, nanos: 0 }));
    let time = violations.take(format_args!("{path}.complete_time"), event_time(time, latest));
    let watermark = venue.zip(time).map(|(venue, time)| Control::Watermark { venue, time });
    batch(watermark, violations)
}

fn scope(path: &str, source: &str, venue: &str, symbols: &[String], violations: &mut Violations) -> Option<Scope> {
    let source = violations.take(format_args!("{path}.source"), Source::new(source));
    let venue = violations.take(format_args!("{path}.venue"), Venue::new(venue));
    if symbols.len() > MAX_SOURCE_SYMBOLS {
        violations.add(
            format_args!("{path}.symbols"),
            format_args!("at most {MAX_SOURCE_SYMBOLS}: none stands for all of the venue"),
        );
        return None;
    }
    let mut valid = Vec::with_capacity(symbols.len());
    for (index, symbol) in symbols.iter().enumerate() {
        valid.extend(violations.take(format_args!("{path}.symbols[{index}]"), Symbol::new(symbol)));
    }
    Some(Scope { source: source?, venue: venue?, symbols: valid.into() })
}

/// An instant that may be absent; `None` if it breaks a rule.
fn time(
    field: impl std::fmt::Display,
    wire: Option<prost_types::Timestamp>,
    violations: &mut Violations,
) -> Option<Option<UnixNanos>> {
    match wire {
        Some(time) => violations.take(field, UnixNanos::try_from(time)).map(Some),
        None => Some(None),
    }
}

fn range(
    path: &str,
    start: Option<prost_types::Timestamp>,
    end: Option<prost_types::Timestamp>,
    violations: &mut Violations,
) -> Option<TimeRange> {
    let start = time(format_args!("{path}.start_time"), start, violations);
    let end = time(format_args!("{path}.end_time"), end, violations);
    violations.take(format_args!("{path}.end_time"), TimeRange::new(start?, end?))
}

fn seqs(path: &str, first: Option<u64>, last: Option<u64>, violations: &mut Violations) -> Option<SourceSeqs> {
    if last.is_some() && last < Some(first.unwrap_or(u64::MAX)) {
        let rule = "is at least first_source_seq, which must be there too";
        violations.add(format_args!("{path}.last_source_seq"), rule);
        return None;
    }
    Some(SourceSeqs { first, last })
}

fn gap_cause(wire: i32) -> Result<GapCause, &'static str> {
    match proto::SourceGapCause::try_from(wire) {
        Ok(proto::SourceGapCause::Unspecified) => Ok(GapCause::Unspecified),
        Ok(proto::SourceGapCause::Disconnected) => Ok(GapCause::Disconnected),
        Ok(proto::SourceGapCause::SequenceHole) => Ok(GapCause::SequenceHole),
        Ok(proto::SourceGapCause::Overload) => Ok(GapCause::Overload),
        Ok(proto::SourceGapCause::Upstream) => Ok(GapCause::Upstream),
        Err(_) => Err("not a value of SourceGapCause"),
    }
}

fn is_up(wire: i32) -> Result<bool, &'static str> {
    match proto::SourceState::try_from(wire) {
        Ok(proto::SourceState::Up) => Ok(true),
        Ok(proto::SourceState::Down) => Ok(false),
        Ok(proto::SourceState::Unspecified) => Err("is required: up or down"),
        Err(_) => Err("not a value of SourceState"),
    }
}

impl From<GapCause> for proto::SourceGapCause {
    fn from(cause: GapCause) -> proto::SourceGapCause {
        match cause {
            GapCause::Unspecified => proto::SourceGapCause::Unspecified,
            GapCause::Disconnected => proto::SourceGapCause::Disconnected,
            GapCause::SequenceHole => proto::SourceGapCause::SequenceHole,
            GapCause::Overload => proto::SourceGapCause::Overload,
            GapCause::Upstream => proto::SourceGapCause::Upstream,
        }
    }
}

fn names(symbols: &[Symbol]) -> Vec<String> {
    symbols.iter().map(|symbol| symbol.as_str().to_owned()).collect()
}

/// A stored gap on its way out.
pub fn wire_gap(log_seq: u64, gap: &SourceGap) -> proto::SourceGap {
    let SourceGap { scope: Scope { source, venue, symbols }, range, seqs, cause, recoverable, detail } = gap;
    proto::SourceGap {
        source: source.as_str().to_owned(),
        venue: venue.as_str().to_owned(),
        symbols: names(symbols),
        start_time: range.start().map(Into::into),
        end_time: range.end().map(Into::into),
        first_source_seq: seqs.first,
        last_source_seq: seqs.last,
        cause: proto::SourceGapCause::from(*cause).into(),
        recoverable: *recoverable,
        detail: detail.as_str().to_owned(),
        log_seq,
    }
}

/// The stored filling of a gap on its way out.
pub fn wire_gap_filled(log_seq: u64, filled: &SourceGapFilled) -> proto::SourceGapFilled {
    let SourceGapFilled { scope: Scope { source, venue, symbols }, range, seqs, gap_log_seq } = filled;
    proto::SourceGapFilled {
        source: source.as_str().to_owned(),
        venue: venue.as_str().to_owned(),
        symbols: names(symbols),
        start_time: range.start().map(Into::into),
        end_time: range.end().map(Into::into),
        first_source_seq: seqs.first,
        last_source_seq: seqs.last,
        gap_log_seq: *gap_log_seq,
        log_seq,
    }
}

/// A stored status on its way out.
pub fn wire_status(log_seq: u64, status: &SourceStatus) -> proto::SourceStatus {
    let SourceStatus { scope: Scope { source, venue, symbols }, up, change_time, detail } = status;
    let state = if *up { proto::SourceState::Up } else { proto::SourceState::Down };
    proto::SourceStatus {
        source: source.as_str().to_owned(),
        venue: venue.as_str().to_owned(),
        symbols: names(symbols),
        state: state.into(),
        change_time: change_time.map(Into::into),
        detail: detail.as_str().to_owned(),
        log_seq,
    }
}

#[cfg(test)]
mod tests;
