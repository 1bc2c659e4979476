//! The instruments of a segment, and what the ticks of each have in common.

use crate::domain::scale::Scale;
use crate::domain::varint::{self, Reader};
use crate::domain::{Decimal, InstrumentId, Tick, TradeId};

/// How all ticks of an instrument write one kind of decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As mantissas at one exponent.
    At(i8),
    /// Each with its own exponent, because 64 bits do not hold all mantissas at one.
    Alone,
}

/// How all ticks of an instrument write their trade ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ids {
    /// There are none.
    None,
    /// All are numbers.
    Numbers,
    /// Some are text, or some are missing.
    Mixed,
}

/// An instrument in the dictionary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) instrument: InstrumentId,
    pub(super) price: Form,
    pub(super) quantity: Form,
    pub(super) ids: Ids,
}

/// Bits of a slot's first byte.
const PRICE_ALONE: u8 = 1;
const QUANTITY_ALONE: u8 = 2;
const IDS_NUMBERS: u8 = 4;
const IDS_MIXED: u8 = 8;

impl Slot {
    /// Appends the entry: number, flags, exponents.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let split = |form: Form, alone: u8| match form {
            Form::At(exponent) => (exponent, 0),
            Form::Alone => (0, alone),
        };
        let (price, price_flag) = split(self.price, PRICE_ALONE);
        let (quantity, quantity_flag) = split(self.quantity, QUANTITY_ALONE);
        let ids_flag = match self.ids {
            Ids::None => 0,
            Ids::Numbers => IDS_NUMBERS,
            Ids::Mixed => IDS_MIXED,
        };
        varint::put(out, self.instrument.0.into());
        out.extend_from_slice(&[price_flag | quantity_flag | ids_flag, price as u8, quantity as u8]);
    }

    /// Reads what [`Slot::put`] wrote.
    pub(super) fn take(reader: &mut Reader<'_>) -> Option<Slot> {
        let instrument = InstrumentId(u32::try_from(reader.varint()?).ok()?);
        let flags = reader.byte()?;
        let (price, quantity) = (reader.byte()? as i8, reader.byte()? as i8);
        let price = if flags & PRICE_ALONE == 0 { Form::At(price) } else { Form::Alone };
        let quantity = if flags & QUANTITY_ALONE == 0 { Form::At(quantity) } else { Form::Alone };
        let ids = match flags & !(PRICE_ALONE | QUANTITY_ALONE) {
            0 => Ids::None,
            IDS_NUMBERS => Ids::Numbers,
            IDS_MIXED => Ids::Mixed,
            _ => return None,
        };
        Some(Slot { instrument, price, quantity, ids })
    }
}

/// What the ticks of an instrument have in common, as far as they have been looked at.
#[derive(Clone, Debug)]
struct Survey {
    instrument: InstrumentId,
    /// `None` once 64 bits do not hold all of them at one exponent.
    price: Option<Scale>,
    quantity: Option<Scale>,
    ids: Ids,
}

/// The dictionary of ticks in the order of their first, and for each tick its index there.
pub(super) fn survey(ticks: &[Tick]) -> (Vec<Slot>, Vec<u32>) {
    let mut surveys: Vec<Survey> = Vec::new();
    let mut indexes = Vec::with_capacity(ticks.len());
    let mut table = Table::new(ticks.len());
    for tick in ticks {
        let index = table.index(tick.instrument, surveys.len() as u32, |index| surveys[index as usize].instrument);
        let ids = match tick.trade_id {
            TradeId::None => Ids::None,
            TradeId::Number(_) => Ids::Numbers,
            TradeId::Text(_) => Ids::Mixed,
        };
        if index as usize == surveys.len() {
            let (price, quantity) = (Some(Scale::default()), Some(Scale::default()));
            surveys.push(Survey { instrument: tick.instrument, price, quantity, ids });
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
        Table { places: vec![0; 1 << bits], shift: 32 - bits }
    }

    /// The index of an instrument; `next`, which it then is, when it has none yet.
    #[inline]
    fn index(&mut self, instrument: InstrumentId, next: u32, known: impl Fn(u32) -> InstrumentId) -> u32 {
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
