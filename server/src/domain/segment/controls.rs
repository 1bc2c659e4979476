//! The entries of a segment that are not ticks.
//!
//! Each is its distance from the one before, a kind, a length and the bytes of the kind, so that a reader skips what it
//! does not know. A kind never changes its bytes: a new form is a new kind.

use super::{MAX_SEGMENT_ENTRIES, SegmentCorrupt};
use crate::domain::correction::Values;
use crate::domain::source::{
    Detail, GapCause, MAX_SOURCE_SYMBOLS, Scope, Source, SourceGap, SourceGapFilled, SourceSeqs, SourceStatus,
};
use crate::domain::tick::MAX_TRADE_ID_BYTES;
use crate::domain::varint::{self, Reader};
use crate::domain::{Control, Correction, Decimal, InstrumentId, Side, Symbol, TimeRange, TradeId, UnixNanos, Venue};

// Kinds 1 to 3 were the first forms of the source entries, without venue and symbols, and 5 that of corrections, without
// side and receive time. No server wrote them; where they stand all the same, they are entries of an unknown kind.
const WATERMARK: u8 = 4;
const SOURCE_GAP: u8 = 6;
const SOURCE_GAP_FILLED: u8 = 7;
const SOURCE_STATUS: u8 = 8;
const CORRECTION: u8 = 9;

/// Appends entries, ascending by position.
pub(super) fn put(out: &mut Vec<u8>, controls: &[(u64, Control)], first_seq: u64) {
    varint::put(out, controls.len() as u64);
    let mut next = first_seq;
    let mut bytes = Vec::new();
    for (log_seq, control) in controls {
        varint::put(out, log_seq.checked_sub(next).expect("entries ascend from the segment's first position"));
        next = log_seq + 1;
        bytes.clear();
        out.push(put_control(&mut bytes, control));
        varint::put(out, bytes.len() as u64);
        out.extend_from_slice(&bytes);
    }
}

/// Reads entries; with the ticks they fill the positions from `first_seq` densely.
pub(super) fn take(
    reader: &mut Reader<'_>,
    first_seq: u64,
    ticks: usize,
) -> Result<Vec<(u64, Control)>, SegmentCorrupt> {
    const CUT: SegmentCorrupt = SegmentCorrupt("the other entries are cut off");
    const HOLE: SegmentCorrupt = SegmentCorrupt("the positions of the other entries are out of range");
    let count = reader.length(MAX_SEGMENT_ENTRIES - ticks).ok_or(CUT)?;
    // An entry has at least three bytes: what is allocated is bounded by what is there.
    if count > reader.rest().len() / 3 {
        return Err(CUT);
    }
    let mut controls = Vec::with_capacity(count);
    let (mut next, mut ticks_left) = (first_seq, ticks);
    for _ in 0..count {
        let skipped = reader.length(ticks_left).ok_or(HOLE)?;
        ticks_left -= skipped;
        let log_seq = next.checked_add(skipped as u64).ok_or(HOLE)?;
        next = log_seq.checked_add(1).ok_or(HOLE)?;
        let kind = reader.byte().ok_or(CUT)?;
        let length = reader.length(reader.rest().len()).ok_or(CUT)?;
        let bytes = reader.bytes(length).ok_or(CUT)?;
        let mut inner = Reader::new(bytes);
        let control = take_control(kind, &mut inner).filter(|_| inner.is_empty());
        controls.push((log_seq, control.ok_or(SegmentCorrupt("an entry is not what its kind says"))?));
    }
    Ok(controls)
}

/// Appends an entry's bytes and answers its kind.
pub(super) fn put_control(out: &mut Vec<u8>, control: &Control) -> u8 {
    match control {
        Control::SourceGap(gap) => {
            let SourceGap { scope, range, seqs, cause, recoverable, detail } = gap;
            put_scope(out, scope);
            put_extent(out, *range, *seqs, None);
            out.extend_from_slice(&[*cause as u8, u8::from(*recoverable)]);
            put_text(out, detail.as_str());
            SOURCE_GAP
        }
        Control::SourceGapFilled(filled) => {
            let SourceGapFilled { scope, range, seqs, gap_log_seq } = filled;
            put_scope(out, scope);
            put_extent(out, *range, *seqs, *gap_log_seq);
            SOURCE_GAP_FILLED
        }
        Control::SourceStatus(status) => {
            let SourceStatus { scope, up, change_time, detail } = status;
            put_scope(out, scope);
            out.extend_from_slice(&[u8::from(*up), u8::from(change_time.is_some())]);
            if let Some(time) = change_time {
                varint::put(out, time.nanos() as u64);
            }
            put_text(out, detail.as_str());
            SOURCE_STATUS
        }
        Control::Watermark { venue, time } => {
            put_text(out, venue.as_str());
            varint::put(out, time.nanos() as u64);
            WATERMARK
        }
        Control::Correction(correction) => {
            let Correction { instrument, trade_id, event_time, receive_time, values } = correction;
            varint::put(out, instrument.0.into());
            put_trade_id(out, trade_id);
            varint::put(out, event_time.nanos() as u64);
            varint::put(out, receive_time.nanos() as u64);
            match values {
                None => out.push(0),
                Some(Values { price, quantity, side }) => {
                    out.extend_from_slice(&[1 + u8::from(quantity.is_some()), *side as u8]);
                    put_decimal(out, *price);
                    if let Some(quantity) = quantity {
                        put_decimal(out, *quantity);
                    }
                }
            }
            CORRECTION
        }
        Control::Unknown { kind, bytes } => {
            debug_assert!(
                !matches!(*kind, WATERMARK | SOURCE_GAP..=CORRECTION),
                "kinds that are known have their own variant"
            );
            out.extend_from_slice(bytes);
            *kind
        }
    }
}

/// Reads an entry's bytes by its kind.
fn take_control(kind: u8, reader: &mut Reader<'_>) -> Option<Control> {
    Some(match kind {
        SOURCE_GAP => {
            let scope = take_scope(reader)?;
            let (range, seqs, None) = take_extent(reader)? else { return None };
            let cause = GapCause::from_code(reader.byte()?)?;
            let recoverable = take_flag(reader)?;
            let detail = Detail::new(take_text(reader)?).ok()?;
            Control::SourceGap(SourceGap { scope, range, seqs, cause, recoverable, detail })
        }
        SOURCE_GAP_FILLED => {
            let scope = take_scope(reader)?;
            let (range, seqs, gap_log_seq) = take_extent(reader)?;
            Control::SourceGapFilled(SourceGapFilled { scope, range, seqs, gap_log_seq })
        }
        SOURCE_STATUS => {
            let scope = take_scope(reader)?;
            let up = take_flag(reader)?;
            let change_time = if take_flag(reader)? { Some(take_time(reader)?) } else { None };
            let detail = Detail::new(take_text(reader)?).ok()?;
            Control::SourceStatus(SourceStatus { scope, up, change_time, detail })
        }
        WATERMARK => {
            let venue = Venue::new(take_text(reader)?).ok()?;
            Control::Watermark { venue, time: take_time(reader)? }
        }
        CORRECTION => {
            let instrument = InstrumentId(u32::try_from(reader.varint()?).ok()?);
            let trade_id = take_trade_id(reader).filter(|id| *id != TradeId::None)?;
            let (event_time, receive_time) = (take_time(reader)?, take_time(reader)?);
            let values = match reader.byte()? {
                0 => None,
                form @ (1 | 2) => {
                    let side = Side::from_code(reader.byte()?)?;
                    let price = take_decimal(reader)?;
                    let quantity = if form == 2 { Some(take_decimal(reader)?) } else { None };
                    Some(Values { price, quantity, side })
                }
                _ => return None,
            };
            Control::Correction(Correction { instrument, trade_id, event_time, receive_time, values })
        }
        _ => {
            let bytes = reader.bytes(reader.rest().len())?.to_vec();
            Control::Unknown { kind, bytes }
        }
    })
}

fn put_scope(out: &mut Vec<u8>, scope: &Scope) {
    let Scope { source, venue, symbols } = scope;
    put_text(out, source.as_str());
    put_text(out, venue.as_str());
    varint::put(out, symbols.len() as u64);
    for symbol in symbols.iter() {
        put_text(out, symbol.as_str());
    }
}

fn take_scope(reader: &mut Reader<'_>) -> Option<Scope> {
    let source = Source::new(take_text(reader)?).ok()?;
    let venue = Venue::new(take_text(reader)?).ok()?;
    let count = reader.length(MAX_SOURCE_SYMBOLS.min(reader.rest().len()))?;
    let symbols: Option<Vec<Symbol>> = (0..count).map(|_| Symbol::new(take_text(reader)?).ok()).collect();
    Some(Scope { source, venue, symbols: symbols?.into() })
}

/// Appends what of an extent is known: a byte whose bits say which values follow, then those.
fn put_extent(out: &mut Vec<u8>, range: TimeRange, seqs: SourceSeqs, gap_log_seq: Option<u64>) {
    let nanos = |time: Option<UnixNanos>| time.map(|time| time.nanos() as u64);
    let values = [nanos(range.start()), nanos(range.end()), seqs.first, seqs.last, gap_log_seq];
    out.push(values.iter().enumerate().map(|(bit, value)| u8::from(value.is_some()) << bit).sum());
    for value in values.into_iter().flatten() {
        varint::put(out, value);
    }
}

/// Reads what [`put_extent`] wrote.
fn take_extent(reader: &mut Reader<'_>) -> Option<(TimeRange, SourceSeqs, Option<u64>)> {
    let present = reader.byte().filter(|&bits| bits < 32)?;
    let mut values = [None; 5];
    for (bit, value) in values.iter_mut().enumerate() {
        if present >> bit & 1 == 1 {
            *value = Some(reader.varint()?);
        }
    }
    let [start, end, first, last, gap_log_seq] = values;
    let time = |nanos: Option<u64>| match nanos {
        Some(nanos) => UnixNanos::new(i64::try_from(nanos).ok()?).ok().map(Some),
        None => Some(None),
    };
    let range = TimeRange::new(time(start)?, time(end)?).ok()?;
    Some((range, SourceSeqs { first, last }, gap_log_seq))
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    varint::put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_text<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    let length = reader.length(reader.rest().len())?;
    std::str::from_utf8(reader.bytes(length)?).ok()
}

fn take_flag(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.byte()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_time(reader: &mut Reader<'_>) -> Option<UnixNanos> {
    UnixNanos::new(i64::try_from(reader.varint()?).ok()?).ok()
}

/// Appends a decimal by exponent and mantissa.
pub(super) fn put_decimal(out: &mut Vec<u8>, value: Decimal) {
    out.push(value.exponent() as u8);
    varint::put_signed(out, value.mantissa());
}

/// Reads what [`put_decimal`] wrote.
pub(super) fn take_decimal(reader: &mut Reader<'_>) -> Option<Decimal> {
    let exponent = reader.byte()? as i8;
    Decimal::new(reader.signed()?, exponent.into()).ok()
}

/// Appends a trade id: 0 for none, 1 and a number, or 2 + its length and a text.
pub(super) fn put_trade_id(out: &mut Vec<u8>, id: &TradeId) {
    match id {
        TradeId::None => out.push(0),
        TradeId::Number(number) => {
            out.push(1);
            varint::put(out, *number);
        }
        TradeId::Text(text) => {
            varint::put(out, text.len() as u64 + 2);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// Reads what [`put_trade_id`] wrote.
pub(super) fn take_trade_id(reader: &mut Reader<'_>) -> Option<TradeId> {
    match reader.varint()? {
        0 => Some(TradeId::None),
        1 => Some(TradeId::Number(reader.varint()?)),
        length => {
            let length = usize::try_from(length - 2).ok().filter(|&length| length <= MAX_TRADE_ID_BYTES)?;
            Some(TradeId::text(std::str::from_utf8(reader.bytes(length)?).ok()?))
        }
    }
}
