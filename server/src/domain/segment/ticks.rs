//! The ticks of a segment, column by column.
//!
//! First a dictionary of the instruments with what their ticks have in common (exponents, kind of trade ids), then
//! instrument indexes, event times, receive times, prices, quantities, sides and trade ids. Times differ from those of
//! the tick before; prices and numeric trade ids from those of the same instrument before. Every column is as long as
//! the number of ticks says, so that none carries a length.

use super::controls::{put_decimal, put_trade_id, take_decimal, take_trade_id};
use super::{MAX_SEGMENT_ENTRIES, SegmentCorrupt};
use crate::domain::scale::Scale;
use crate::domain::varint::{self, Reader};
use crate::domain::{Decimal, InstrumentId, Origin, Side, Tick, TradeId, UnixNanos};

/// Units that event times are kept in, the coarsest first.
const TIME_UNITS: [i64; 4] = [1_000_000_000, 1_000_000, 1_000, 1];

/// How all ticks of an instrument write one kind of decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As mantissas at one exponent.
    At(i8),
    /// Each with its own exponent, because 64 bits do not hold all mantissas at one.
    Alone,
}

/// How all ticks of an instrument write their trade ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    None,
    Numbers,
    Mixed,
}

/// An instrument in the dictionary, and where its columns stand.
#[derive(Clone, Debug)]
struct Slot {
    instrument: InstrumentId,
    price: Form,
    quantity: Form,
    ids: Ids,
    last_price: i64,
    last_id: u64,
}

/// Bits of a slot's first byte.
const PRICE_ALONE: u8 = 1;
const QUANTITY_ALONE: u8 = 2;
const IDS_NUMBERS: u8 = 4;
const IDS_MIXED: u8 = 8;

/// Codes of the presence of quantities.
const NO_QUANTITY: u8 = 0;
const EVERY_QUANTITY: u8 = 1;
const SOME_QUANTITIES: u8 = 2;

/// Code of the sides when they are not all the same; otherwise the side's own number.
const EACH_SIDE: u8 = 3;

/// Appends ticks.
pub(super) fn put(out: &mut Vec<u8>, ticks: &[Tick]) {
    varint::put(out, ticks.len() as u64);
    let Some(first) = ticks.first() else { return };
    let (mut slots, indexes) = survey(ticks);
    varint::put(out, slots.len() as u64);
    for slot in &slots {
        slot.put(out);
    }
    let multiple = |unit: &i64| ticks.iter().all(|tick| tick.event_time.nanos() % unit == 0);
    let unit = TIME_UNITS
        .iter()
        .position(multiple)
        .expect("everything is a multiple of one");
    let with_quantity = ticks.iter().filter(|tick| tick.quantity.is_some()).count();
    let presence = match with_quantity {
        0 => NO_QUANTITY,
        all if all == ticks.len() => EVERY_QUANTITY,
        _ => SOME_QUANTITIES,
    };
    let same_side = ticks.iter().all(|tick| tick.side == first.side);
    let sides = if same_side {
        first.side as u8
    } else {
        EACH_SIDE
    };
    out.extend_from_slice(&[unit as u8, presence, sides]);

    if slots.len() > 1 {
        for &index in &indexes {
            varint::put(out, index.into());
        }
    }
    let (mut events, mut received) = (0, 0);
    for tick in ticks {
        let time = tick.event_time.nanos() / TIME_UNITS[unit];
        varint::put_signed(out, time - events);
        events = time;
    }
    for tick in ticks {
        let time = tick.receive_time.nanos();
        varint::put_signed(out, time - received);
        received = time;
    }
    for (tick, &index) in ticks.iter().zip(&indexes) {
        slots[index as usize].put_price(out, tick.price);
    }
    if presence == SOME_QUANTITIES {
        put_packed(
            out,
            ticks.iter().map(|tick| u8::from(tick.quantity.is_some())),
            1,
        );
    }
    for (tick, &index) in ticks.iter().zip(&indexes) {
        if let Some(quantity) = tick.quantity {
            slots[index as usize].put_quantity(out, quantity);
        }
    }
    if !same_side {
        put_packed(out, ticks.iter().map(|tick| tick.side as u8), 2);
    }
    for (tick, &index) in ticks.iter().zip(&indexes) {
        slots[index as usize].put_id(out, &tick.trade_id);
    }
}

/// Reads ticks, numbered from `first_seq` as if the segment held nothing else.
pub(super) fn take(
    reader: &mut Reader<'_>,
    first_seq: u64,
    origin: Origin,
) -> Result<Vec<Tick>, SegmentCorrupt> {
    const CUT: SegmentCorrupt = SegmentCorrupt("the ticks are cut off");
    let count = reader
        .length(MAX_SEGMENT_ENTRIES)
        .ok_or(SegmentCorrupt("the count of ticks is out of range"))?;
    if count == 0 {
        return Ok(Vec::new());
    }
    // A tick has at least a byte for each of two times and the price: what is allocated is bounded by what is there.
    if count > reader.rest().len() / 3 {
        return Err(CUT);
    }
    if first_seq.checked_add(count as u64).is_none() {
        return Err(SegmentCorrupt("its positions are out of range"));
    }
    let slot_count = reader.length(count).filter(|&slots| slots > 0).ok_or(CUT)?;
    let mut slots = Vec::with_capacity(slot_count);
    for _ in 0..slot_count {
        slots.push(Slot::take(reader).ok_or(SegmentCorrupt("an instrument's entry is damaged"))?);
    }
    let unit = reader
        .byte()
        .and_then(|code| TIME_UNITS.get(usize::from(code)))
        .ok_or(CUT)?;
    let presence = reader
        .byte()
        .filter(|&code| code <= SOME_QUANTITIES)
        .ok_or(CUT)?;
    let sides = reader.byte().filter(|&code| code <= EACH_SIDE).ok_or(CUT)?;

    let mut indexes = vec![0u32; count];
    if slot_count > 1 {
        for index in &mut indexes {
            *index = reader
                .length(slot_count - 1)
                .ok_or(SegmentCorrupt("an instrument is not in the dictionary"))?
                as u32;
        }
    }
    let events = take_times(reader, count, *unit)?;
    let received = take_times(reader, count, 1)?;
    let mut prices = Vec::with_capacity(count);
    for &index in &indexes {
        prices.push(
            slots[index as usize]
                .take_price(reader)
                .ok_or(SegmentCorrupt("a price is damaged"))?,
        );
    }
    let present = match presence {
        SOME_QUANTITIES => Some(take_packed(reader, count, 1).ok_or(CUT)?),
        _ => None,
    };
    let mut ticks = Vec::with_capacity(count);
    for (at, &index) in indexes.iter().enumerate() {
        let slot = &slots[index as usize];
        let has_quantity = present
            .as_ref()
            .map_or(presence == EVERY_QUANTITY, |present| present[at] == 1);
        let quantity = if has_quantity {
            Some(
                slot.take_quantity(reader)
                    .ok_or(SegmentCorrupt("a quantity is damaged"))?,
            )
        } else {
            None
        };
        ticks.push(Tick {
            instrument: slot.instrument,
            log_seq: first_seq + at as u64,
            event_time: events[at],
            receive_time: received[at],
            price: prices[at],
            quantity,
            side: Side::Unspecified,
            trade_id: TradeId::None,
            origin,
        });
    }
    if sides == EACH_SIDE {
        let codes = take_packed(reader, count, 2).ok_or(CUT)?;
        for (tick, code) in ticks.iter_mut().zip(codes) {
            tick.side = Side::from_code(code).ok_or(SegmentCorrupt("a side is damaged"))?;
        }
    } else {
        let side = Side::from_code(sides).ok_or(SegmentCorrupt("a side is damaged"))?;
        for tick in &mut ticks {
            tick.side = side;
        }
    }
    for (tick, &index) in ticks.iter_mut().zip(&indexes) {
        tick.trade_id = slots[index as usize]
            .take_id(reader)
            .ok_or(SegmentCorrupt("a trade id is damaged"))?;
    }
    Ok(ticks)
}

/// Reads times that were written as differences in a unit.
fn take_times(
    reader: &mut Reader<'_>,
    count: usize,
    unit: i64,
) -> Result<Vec<UnixNanos>, SegmentCorrupt> {
    let mut times = Vec::with_capacity(count);
    let mut time = 0i64;
    for _ in 0..count {
        let difference = reader.signed().ok_or(SegmentCorrupt("a time is cut off"))?;
        let next = difference
            .checked_mul(unit)
            .and_then(|difference| time.checked_add(difference));
        let next = next.and_then(|next| UnixNanos::new(next).ok());
        let next = next.ok_or(SegmentCorrupt("a time is out of range"))?;
        time = next.nanos();
        times.push(next);
    }
    Ok(times)
}

impl Slot {
    fn put(&self, out: &mut Vec<u8>) {
        let mut flags = match self.ids {
            Ids::None => 0,
            Ids::Numbers => IDS_NUMBERS,
            Ids::Mixed => IDS_MIXED,
        };
        let (price, quantity) = match (self.price, self.quantity) {
            (Form::At(price), Form::At(quantity)) => (price, quantity),
            (Form::At(price), Form::Alone) => {
                flags |= QUANTITY_ALONE;
                (price, 0)
            }
            (Form::Alone, Form::At(quantity)) => {
                flags |= PRICE_ALONE;
                (0, quantity)
            }
            (Form::Alone, Form::Alone) => {
                flags |= PRICE_ALONE | QUANTITY_ALONE;
                (0, 0)
            }
        };
        varint::put(out, self.instrument.0.into());
        out.extend_from_slice(&[flags, price as u8, quantity as u8]);
    }

    fn take(reader: &mut Reader<'_>) -> Option<Slot> {
        let instrument = InstrumentId(u32::try_from(reader.varint()?).ok()?);
        let flags = reader.byte()?;
        let (price, quantity) = (reader.byte()? as i8, reader.byte()? as i8);
        Some(Slot {
            instrument,
            price: if flags & PRICE_ALONE == 0 {
                Form::At(price)
            } else {
                Form::Alone
            },
            quantity: if flags & QUANTITY_ALONE == 0 {
                Form::At(quantity)
            } else {
                Form::Alone
            },
            ids: match flags & (IDS_NUMBERS | IDS_MIXED) {
                0 => Ids::None,
                IDS_NUMBERS => Ids::Numbers,
                IDS_MIXED => Ids::Mixed,
                _ => return None,
            },
            last_price: 0,
            last_id: 0,
        })
    }

    fn put_price(&mut self, out: &mut Vec<u8>, price: Decimal) {
        match self.price {
            Form::At(exponent) => {
                let mantissa = price
                    .mantissa_at(exponent)
                    .expect("the survey found room at this exponent");
                // Wrapping differences are exact: the reader adds them back in the same ring.
                varint::put_signed(out, mantissa.wrapping_sub(self.last_price));
                self.last_price = mantissa;
            }
            Form::Alone => put_decimal(out, price),
        }
    }

    fn take_price(&mut self, reader: &mut Reader<'_>) -> Option<Decimal> {
        match self.price {
            Form::At(exponent) => {
                self.last_price = self.last_price.wrapping_add(reader.signed()?);
                Decimal::new(self.last_price, exponent.into()).ok()
            }
            Form::Alone => take_decimal(reader),
        }
    }

    fn put_quantity(&self, out: &mut Vec<u8>, quantity: Decimal) {
        match self.quantity {
            // Quantities are not negative: they need no room for a sign.
            Form::At(exponent) => {
                let mantissa = quantity
                    .mantissa_at(exponent)
                    .expect("the survey found room at this exponent");
                varint::put(out, mantissa as u64);
            }
            Form::Alone => put_decimal(out, quantity),
        }
    }

    fn take_quantity(&self, reader: &mut Reader<'_>) -> Option<Decimal> {
        match self.quantity {
            Form::At(exponent) => Decimal::new(reader.varint()? as i64, exponent.into()).ok(),
            Form::Alone => take_decimal(reader),
        }
    }

    fn put_id(&mut self, out: &mut Vec<u8>, id: &TradeId) {
        match (self.ids, id) {
            (Ids::Numbers, TradeId::Number(number)) => {
                varint::put_signed(out, number.wrapping_sub(self.last_id) as i64);
                self.last_id = *number;
            }
            (Ids::None, _) => (),
            (_, id) => put_trade_id(out, id),
        }
    }

    fn take_id(&mut self, reader: &mut Reader<'_>) -> Option<TradeId> {
        match self.ids {
            Ids::None => Some(TradeId::None),
            Ids::Numbers => {
                self.last_id = self.last_id.wrapping_add(reader.signed()? as u64);
                Some(TradeId::Number(self.last_id))
            }
            Ids::Mixed => take_trade_id(reader),
        }
    }
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

/// What the ticks of an instrument have in common, gathered before the first byte is written.
#[derive(Clone, Debug)]
struct Survey {
    instrument: InstrumentId,
    /// `None` once 64 bits do not hold all of them at one exponent.
    price: Option<Scale>,
    quantity: Option<Scale>,
    ids: Ids,
}

/// The dictionary of ticks, and for each tick its index.
fn survey(ticks: &[Tick]) -> (Vec<Slot>, Vec<u32>) {
    let mut surveys: Vec<Survey> = Vec::new();
    let mut indexes = Vec::with_capacity(ticks.len());
    let mut table = Table::new(ticks.len());
    for tick in ticks {
        let index = table.index(tick.instrument, surveys.len() as u32, |index| {
            surveys[index as usize].instrument
        });
        let ids = match tick.trade_id {
            TradeId::None => Ids::None,
            TradeId::Number(_) => Ids::Numbers,
            TradeId::Text(_) => Ids::Mixed,
        };
        if index as usize == surveys.len() {
            let (price, quantity) = (Some(Scale::default()), Some(Scale::default()));
            surveys.push(Survey {
                instrument: tick.instrument,
                price,
                quantity,
                ids,
            });
        }
        indexes.push(index);
        let survey = &mut surveys[index as usize];
        widen(&mut survey.price, tick.price);
        if let Some(quantity) = tick.quantity {
            widen(&mut survey.quantity, quantity);
        }
        if survey.ids != ids {
            survey.ids = Ids::Mixed;
        }
    }
    let form = |scale: Option<Scale>| scale.map_or(Form::Alone, |scale| Form::At(scale.exponent()));
    let slots = surveys.into_iter().map(|survey| Slot {
        instrument: survey.instrument,
        price: form(survey.price),
        quantity: form(survey.quantity),
        ids: survey.ids,
        last_price: 0,
        last_id: 0,
    });
    (slots.collect(), indexes)
}

/// Takes one more decimal into a scale, or gives the scale up.
#[inline]
fn widen(scale: &mut Option<Scale>, value: Decimal) {
    if scale.as_mut().is_some_and(|scale| !scale.widen(value)) {
        *scale = None;
    }
}

/// Finds instruments by number: open addressing, because a segment looks up once a tick.
struct Table {
    /// Index into the dictionary plus one; 0 is free. At least twice as many as there can be instruments.
    places: Vec<u32>,
    shift: u32,
}

impl Table {
    fn new(most: usize) -> Table {
        let bits = (2 * most).next_power_of_two().ilog2().max(1);
        Table {
            places: vec![0; 1 << bits],
            shift: 32 - bits,
        }
    }

    /// The index of an instrument; `next`, which it then is, when it has none yet.
    #[inline]
    fn index(
        &mut self,
        instrument: InstrumentId,
        next: u32,
        known: impl Fn(u32) -> InstrumentId,
    ) -> u32 {
        // Fibonacci hashing spreads consecutive numbers evenly over the upper bits.
        let mut place = (instrument.0.wrapping_mul(0x9e37_79b9) >> self.shift) as usize;
        loop {
            match self.places[place] {
                0 => {
                    self.places[place] = next + 1;
                    return next;
                }
                index if known(index - 1) == instrument => return index - 1,
                _ => place = (place + 1) % self.places.len(),
            }
        }
    }
}
