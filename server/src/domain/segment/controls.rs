//! The entries of a segment that are not ticks.
//!
//! Each is its distance from the one before, a kind, a length and the bytes of the kind, so that a reader skips what it
//! does not know. A kind never changes its bytes: a new form is a new kind.

use std::sync::Arc;

use super::{MAX_SEGMENT_ENTRIES, SegmentCorrupt};
use crate::domain::tick::{GapCause, MAX_TRADE_ID_BYTES, SourceGap};
use crate::domain::varint::{self, Reader};
use crate::domain::{Control, Decimal, InstrumentId, TimeRange, TradeId, UnixNanos, Venue};

const SOURCE_GAP: u8 = 1;
const SOURCE_GAP_FILLED: u8 = 2;
const SOURCE_STATUS: u8 = 3;
const WATERMARK: u8 = 4;
const CORRECTION: u8 = 5;

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
fn put_control(out: &mut Vec<u8>, control: &Control) -> u8 {
    match control {
        Control::SourceGap(gap) => {
            put_gap(out, gap);
            SOURCE_GAP
        }
        Control::SourceGapFilled(gap) => {
            put_gap(out, gap);
            SOURCE_GAP_FILLED
        }
        Control::SourceStatus { source, up, detail } => {
            put_text(out, source);
            out.push(u8::from(*up));
            put_text(out, detail);
            SOURCE_STATUS
        }
        Control::Watermark { venue, time } => {
            put_text(out, venue.as_str());
            varint::put(out, time.nanos() as u64);
            WATERMARK
        }
        Control::Correction { instrument, trade_id, event_time, values } => {
            varint::put(out, instrument.0.into());
            put_trade_id(out, trade_id);
            varint::put(out, event_time.nanos() as u64);
            match values {
                None => out.push(0),
                Some((price, None)) => {
                    out.push(1);
                    put_decimal(out, *price);
                }
                Some((price, Some(quantity))) => {
                    out.push(2);
                    put_decimal(out, *price);
                    put_decimal(out, *quantity);
                }
            }
            CORRECTION
        }
        Control::Unknown { kind, bytes } => {
            debug_assert!(*kind == 0 || *kind > CORRECTION, "kinds that are known have their own variant");
            out.extend_from_slice(bytes);
            *kind
        }
    }
}

/// Reads an entry's bytes by its kind.
fn take_control(kind: u8, reader: &mut Reader<'_>) -> Option<Control> {
    Some(match kind {
        SOURCE_GAP => Control::SourceGap(take_gap(reader)?),
        SOURCE_GAP_FILLED => Control::SourceGapFilled(take_gap(reader)?),
        SOURCE_STATUS => {
            let source = take_text(reader)?.into();
            let up = take_flag(reader)?;
            Control::SourceStatus { source, up, detail: take_text(reader)?.into() }
        }
        WATERMARK => {
            let venue = Venue::new(take_text(reader)?).ok()?;
            Control::Watermark { venue, time: take_time(reader)? }
        }
        CORRECTION => {
            let instrument = InstrumentId(u32::try_from(reader.varint()?).ok()?);
            let trade_id = take_trade_id(reader)?;
            let event_time = take_time(reader)?;
            let values = match reader.byte()? {
                0 => None,
                1 => Some((take_decimal(reader)?, None)),
                2 => Some((take_decimal(reader)?, Some(take_decimal(reader)?))),
                _ => return None,
            };
            Control::Correction { instrument, trade_id, event_time, values }
        }
        _ => {
            let bytes = reader.bytes(reader.rest().len())?.to_vec();
            Control::Unknown { kind, bytes }
        }
    })
}

fn put_gap(out: &mut Vec<u8>, gap: &SourceGap) {
    let SourceGap { source, range, sequence, cause, recoverable } = gap;
    put_text(out, source);
    // The low bits say which of the optional values follow.
    let present = |side: Option<UnixNanos>, bit: u8| if side.is_some() { bit } else { 0 };
    let flags = present(range.start(), 1)
        | present(range.end(), 2)
        | if sequence.is_some() { 4 } else { 0 }
        | if *recoverable { 8 } else { 0 };
    out.extend_from_slice(&[flags, *cause as u8]);
    for side in [range.start(), range.end()].into_iter().flatten() {
        varint::put(out, side.nanos() as u64);
    }
    if let Some((first, last)) = sequence {
        varint::put(out, *first);
        varint::put(out, *last);
    }
}

fn take_gap(reader: &mut Reader<'_>) -> Option<SourceGap> {
    let source: Arc<str> = take_text(reader)?.into();
    let flags = reader.byte().filter(|&flags| flags < 16)?;
    let cause = match reader.byte()? {
        0 => GapCause::Unspecified,
        1 => GapCause::Disconnected,
        2 => GapCause::SequenceHole,
        3 => GapCause::Reported,
        _ => return None,
    };
    let start = if flags & 1 == 0 { None } else { Some(take_time(reader)?) };
    let end = if flags & 2 == 0 { None } else { Some(take_time(reader)?) };
    let sequence = if flags & 4 == 0 { None } else { Some((reader.varint()?, reader.varint()?)) };
    let range = TimeRange::new(start, end).ok()?;
    Some(SourceGap { source, range, sequence, cause, recoverable: flags & 8 != 0 })
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
            Some(TradeId::Text(std::str::from_utf8(reader.bytes(length)?).ok()?.into()))
        }
    }
}
