//! The ticks of a segment, column by column.
//!
//! First a dictionary of the instruments with what their ticks have in common (`dictionary.rs`), then the columns:
//! instrument indexes, event times, receive times, prices, quantities, sides, trade ids. Times differ from those of the
//! tick before; prices and numeric trade ids from those of the same instrument before. Every column is as long as the
//! number of ticks says, so that none carries a length.

use super::controls::{put_decimal, put_trade_id, take_decimal, take_trade_id};
use super::dictionary::{Form, Ids, Slot, survey};
use super::{MAX_SEGMENT_ENTRIES, SegmentCorrupt};
use crate::domain::time_unit::TimeUnit;
use crate::domain::varint::{self, Reader};
use crate::domain::{Decimal, Origin, Side, Tick, TradeId, UnixNanos};

/// Codes of the presence of quantities.
const NO_QUANTITY: u8 = 0;
const EVERY_QUANTITY: u8 = 1;
const SOME_QUANTITIES: u8 = 2;

/// Code of the sides when they are not all the same; otherwise the side's own number.
const EACH_SIDE: u8 = 3;

const ROOM: &str = "the survey found room for every mantissa at this exponent";

/// Appends ticks.
pub(super) fn put(out: &mut Vec<u8>, ticks: &[Tick]) {
    varint::put(out, ticks.len() as u64);
    let Some(first) = ticks.first() else { return };
    // Most ticks take fewer; a column that takes more grows the buffer once.
    out.reserve(64 + 16 * ticks.len());
    let (slots, indexes) = survey(ticks);
    varint::put(out, slots.len() as u64);
    for slot in &slots {
        slot.put(out);
    }
    let unit = TimeUnit::of(ticks.iter().map(|tick| tick.event_time.nanos()));
    let presence = match ticks.iter().filter(|tick| tick.quantity.is_some()).count() {
        0 => NO_QUANTITY,
        all if all == ticks.len() => EVERY_QUANTITY,
        _ => SOME_QUANTITIES,
    };
    let same_side = ticks.iter().all(|tick| tick.side == first.side);
    out.extend_from_slice(&[unit as u8, presence, if same_side { first.side as u8 } else { EACH_SIDE }]);

    if slots.len() > 1 {
        for &index in &indexes {
            varint::put(out, index.into());
        }
    }
    put_times(out, ticks.iter().map(|tick| unit.count(tick.event_time.nanos())));
    put_times(out, ticks.iter().map(|tick| tick.receive_time.nanos()));
    put_prices(out, ticks, &slots, &indexes);
    if presence == SOME_QUANTITIES {
        put_packed(out, ticks.iter().map(|tick| u8::from(tick.quantity.is_some())), 1);
    }
    put_quantities(out, ticks, &slots, &indexes);
    if !same_side {
        put_packed(out, ticks.iter().map(|tick| tick.side as u8), 2);
    }
    put_ids(out, ticks, &slots, &indexes);
}

/// Reads ticks, numbered from `first_seq` as if the segment held nothing else.
pub(super) fn take(reader: &mut Reader<'_>, first_seq: u64, origin: Origin) -> Result<Vec<Tick>, SegmentCorrupt> {
    const CUT: SegmentCorrupt = SegmentCorrupt("the ticks are cut off");
    let count = reader.length(MAX_SEGMENT_ENTRIES).ok_or(SegmentCorrupt("the count of ticks is out of range"))?;
    if count == 0 {
        return Ok(Vec::new());
    }
    if first_seq.checked_add(count as u64).is_none() {
        return Err(SegmentCorrupt("its positions are out of range"));
    }
    // A tick has at least three bytes and an instrument four: what is allocated is bounded by what is there.
    if count > reader.rest().len() / 3 {
        return Err(CUT);
    }
    let slot_count = reader.length(count.min(reader.rest().len() / 4)).filter(|&slots| slots > 0).ok_or(CUT)?;
    let mut slots = Vec::with_capacity(slot_count);
    for _ in 0..slot_count {
        slots.push(Slot::take(reader).ok_or(SegmentCorrupt("an instrument is damaged"))?);
    }
    let unit = reader.byte().and_then(TimeUnit::from_code).ok_or(CUT)?;
    let presence = reader.byte().filter(|&code| code <= SOME_QUANTITIES).ok_or(CUT)?;
    let common_side = reader.byte().filter(|&code| code <= EACH_SIDE).ok_or(CUT)?;

    let indexes = take_indexes(reader, count, slot_count).ok_or(SegmentCorrupt("an instrument is missing"))?;
    let events = take_times(reader, count, unit.nanos()).ok_or(SegmentCorrupt("an event time is damaged"))?;
    let received = take_times(reader, count, 1).ok_or(SegmentCorrupt("a receive time is damaged"))?;
    let prices = take_prices(reader, &slots, &indexes).ok_or(SegmentCorrupt("a price is damaged"))?;
    let present = match presence {
        SOME_QUANTITIES => take_packed(reader, count, 1).ok_or(CUT)?,
        all_or_none => vec![all_or_none; count],
    };
    let quantities =
        take_quantities(reader, &slots, &indexes, &present).ok_or(SegmentCorrupt("a quantity is damaged"))?;
    let sides =
        if common_side == EACH_SIDE { take_packed(reader, count, 2).ok_or(CUT)? } else { vec![common_side; count] };
    if sides.contains(&EACH_SIDE) {
        return Err(SegmentCorrupt("a side is damaged"));
    }
    let mut ids = take_ids(reader, &slots, &indexes).ok_or(SegmentCorrupt("a trade id is damaged"))?;

    let mut ticks = Vec::with_capacity(count);
    ticks.extend((0..count).map(|at| Tick {
        instrument: slots[indexes[at] as usize].instrument,
        log_seq: first_seq + at as u64,
        event_time: events[at],
        receive_time: received[at],
        price: prices[at],
        quantity: quantities[at],
        side: Side::from_code(sides[at]).unwrap_or_default(),
        trade_id: std::mem::take(&mut ids[at]),
        origin,
    }));
    Ok(ticks)
}

/// Reads for each tick the index of its instrument.
fn take_indexes(reader: &mut Reader<'_>, count: usize, slot_count: usize) -> Option<Vec<u32>> {
    let mut indexes = vec![0; count];
    if slot_count > 1 {
        let mut own = reader.clone();
        for index in &mut indexes {
            *index = own.length(slot_count - 1)? as u32;
        }
        *reader = own;
    }
    Some(indexes)
}

/// Appends times as differences from the one before.
fn put_times(out: &mut Vec<u8>, times: impl Iterator<Item = i64>) {
    let mut previous = 0;
    for time in times {
        // Times are never negative, so that their difference fits.
        varint::put_signed(out, time - previous);
        previous = time;
    }
}

/// Reads times in a unit.
fn take_times(reader: &mut Reader<'_>, count: usize, unit: i64) -> Option<Vec<UnixNanos>> {
    // A reader of its own stays in registers.
    let mut own = reader.clone();
    let mut times = vec![UnixNanos::MIN; count];
    let mut time = 0i64;
    for place in &mut times {
        time = time.checked_add(own.signed()?.checked_mul(unit)?)?;
        *place = UnixNanos::new(time).ok()?;
    }
    *reader = own;
    Some(times)
}

/// Appends prices: differences of mantissas inside an instrument, or whole decimals.
fn put_prices(out: &mut Vec<u8>, ticks: &[Tick], slots: &[Slot], indexes: &[u32]) {
    let mut last = vec![0i64; slots.len()];
    for (tick, &index) in ticks.iter().zip(indexes) {
        let index = index as usize;
        match slots[index].price {
            Form::At(exponent) => {
                let mantissa = tick.price.mantissa_at(exponent).expect(ROOM);
                // Wrapping differences are exact: the reader adds them back in the same ring.
                varint::put_signed(out, mantissa.wrapping_sub(last[index]));
                last[index] = mantissa;
            }
            Form::Alone => put_decimal(out, tick.price),
        }
    }
}

/// Reads what [`put_prices`] wrote.
fn take_prices(reader: &mut Reader<'_>, slots: &[Slot], indexes: &[u32]) -> Option<Vec<Decimal>> {
    let mut own = reader.clone();
    let mut last = vec![(0i64, Decimal::ZERO); slots.len()];
    let mut prices = vec![Decimal::ZERO; indexes.len()];
    for (place, &index) in prices.iter_mut().zip(indexes) {
        let (last_mantissa, last_price) = &mut last[index as usize];
        match slots[index as usize].price {
            Form::At(exponent) => {
                // Most ticks repeat the price before them, and making a decimal canonical takes a while.
                let difference = own.signed()?;
                if difference != 0 {
                    *last_mantissa = last_mantissa.wrapping_add(difference);
                    *last_price = Decimal::new(*last_mantissa, exponent.into()).ok()?;
                }
            }
            Form::Alone => *last_price = take_decimal(&mut own)?,
        }
        *place = *last_price;
    }
    *reader = own;
    Some(prices)
}

/// Appends the quantities that are present: mantissas, or whole decimals.
fn put_quantities(out: &mut Vec<u8>, ticks: &[Tick], slots: &[Slot], indexes: &[u32]) {
    for (tick, &index) in ticks.iter().zip(indexes) {
        let Some(quantity) = tick.quantity else { continue };
        match slots[index as usize].quantity {
            // Quantities are not negative, so that they need no room for a sign.
            Form::At(exponent) => varint::put(out, quantity.mantissa_at(exponent).expect(ROOM) as u64),
            Form::Alone => put_decimal(out, quantity),
        }
    }
}

/// Reads what [`put_quantities`] wrote, for every tick.
fn take_quantities(
    reader: &mut Reader<'_>,
    slots: &[Slot],
    indexes: &[u32],
    present: &[u8],
) -> Option<Vec<Option<Decimal>>> {
    let mut own = reader.clone();
    let mut quantities = vec![None; indexes.len()];
    for ((place, &index), &present) in quantities.iter_mut().zip(indexes).zip(present) {
        if present == 0 {
            continue;
        }
        *place = Some(match slots[index as usize].quantity {
            Form::At(exponent) => Decimal::new(own.varint()? as i64, exponent.into()).ok()?,
            Form::Alone => take_decimal(&mut own)?,
        });
    }
    *reader = own;
    Some(quantities)
}

/// Appends trade ids: differences inside an instrument that only counts, or whole ids.
fn put_ids(out: &mut Vec<u8>, ticks: &[Tick], slots: &[Slot], indexes: &[u32]) {
    let mut last = vec![0u64; slots.len()];
    for (tick, &index) in ticks.iter().zip(indexes) {
        let index = index as usize;
        match (slots[index].ids, &tick.trade_id) {
            (Ids::None, _) => (),
            (Ids::Numbers, TradeId::Number(number)) => {
                varint::put_signed(out, number.wrapping_sub(last[index]) as i64);
                last[index] = *number;
            }
            (_, id) => put_trade_id(out, id),
        }
    }
}

/// Reads what [`put_ids`] wrote.
fn take_ids(reader: &mut Reader<'_>, slots: &[Slot], indexes: &[u32]) -> Option<Vec<TradeId>> {
    let mut own = reader.clone();
    let mut last = vec![0u64; slots.len()];
    let mut ids = vec![TradeId::None; indexes.len()];
    for (place, &index) in ids.iter_mut().zip(indexes) {
        *place = match slots[index as usize].ids {
            Ids::None => TradeId::None,
            Ids::Numbers => {
                let last = &mut last[index as usize];
                *last = last.wrapping_add(own.signed()? as u64);
                TradeId::Number(*last)
            }
            Ids::Mixed => take_trade_id(&mut own)?,
        };
    }
    *reader = own;
    Some(ids)
}

/// Appends codes of `width` bits, the first in the lowest bits of a byte.
fn put_packed(out: &mut Vec<u8>, codes: impl Iterator<Item = u8>, width: usize) {
    let (mut byte, mut used) = (0, 0);
    for code in codes {
        byte |= code << used;
        used += width;
        if used == 8 {
            out.push(byte);
            (byte, used) = (0, 0);
        }
    }
    if used > 0 {
        out.push(byte);
    }
}

/// Reads what [`put_packed`] wrote.
fn take_packed(reader: &mut Reader<'_>, count: usize, width: usize) -> Option<Vec<u8>> {
    let bytes = reader.bytes((count * width).div_ceil(8))?;
    let mask = (1 << width) - 1;
    let code = |index: usize| bytes[index * width / 8] >> (index * width % 8) & mask;
    Some((0..count).map(code).collect())
}
