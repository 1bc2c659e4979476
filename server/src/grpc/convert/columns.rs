//! `TickColumns`, in and out: parallel arrays, delta-encoded inside the message.
//!
//! Sums of deltas wrap around, so that any value can follow any other; what comes out is then held to the same rules
//! as a row. The same ticks give the same [`Batch`] in either form.

use std::collections::HashMap;
use std::fmt::Display;

use crate::domain::{
    Action, Batch, Correction, Decimal, InstrumentId, NewTick, Origin, Side, Symbol, Tick, TradeId, TradeIdInvalid,
    UnixNanos, Venue,
};
use crate::grpc::proto;
use crate::grpc::violation::Violations;

use super::decimal;
use super::tick::{self, Instruments, action, event_time, side};

/// The exponents of a table entry lie in this range, both ends included.
const EXPONENTS: std::ops::RangeInclusive<i32> = -18..=14;

/// Columns whose trade ids are read already.
#[derive(Debug)]
pub struct Columns {
    /// All but the trade ids.
    pub arrays: proto::TickColumns,
    /// One for each tick, or none.
    pub trade_ids: Vec<Result<TradeId, TradeIdInvalid>>,
}

impl From<proto::TickColumns> for Columns {
    fn from(mut arrays: proto::TickColumns) -> Columns {
        let texts = std::mem::take(&mut arrays.trade_id);
        Columns { arrays, trade_ids: texts.iter().map(|text| TradeId::new(text)).collect() }
    }
}

/// Reads a batch of columns, all or nothing.
///
/// `path` is the path of the columns in their message, and `latest` the latest event time that is taken; `None` for
/// backfill.
pub fn batch(path: &str, columns: Columns, latest: Option<UnixNanos>) -> Result<Batch, Violations> {
    let mut violations = Violations::default();
    check_lengths(path, &columns, &mut violations);
    let entries = entries(path, &columns.arrays.instruments, &mut violations);
    if !violations.is_empty() {
        // The arrays do not belong together, so looking at their elements would only confuse.
        return Err(violations);
    }
    let batch = read(path, columns, entries, latest, &mut violations);
    if violations.is_empty() { Ok(batch) } else { Err(violations) }
}

/// Arrays that must be there have as many elements as there are ticks, the others as many or none.
fn check_lengths(path: &str, Columns { arrays, trade_ids }: &Columns, violations: &mut Violations) {
    let proto::TickColumns {
        instruments: _,
        instrument_index,
        event_time_unix_nano_delta,
        receive_time_unix_nano_delta,
        price_mantissa,
        quantity,
        side,
        trade_id: _,
        log_seq_delta,
        origin,
        action,
        merged_count,
        trade_number_delta,
    } = arrays;
    if !trade_number_delta.is_empty() {
        violations.add(format_args!("{path}.trade_number_delta"), "is the server's: write trade_id");
    }
    let count = instrument_index.len();
    if count == 0 {
        violations.add(format_args!("{path}.instrument_index"), "at least one tick");
    }
    let required =
        [("event_time_unix_nano_delta", event_time_unix_nano_delta.len()), ("price_mantissa", price_mantissa.len())];
    let optional = [
        ("receive_time_unix_nano_delta", receive_time_unix_nano_delta.len()),
        ("quantity", quantity.len()),
        ("side", side.len()),
        ("trade_id", trade_ids.len()),
        ("log_seq_delta", log_seq_delta.len()),
        ("origin", origin.len()),
        ("action", action.len()),
        ("merged_count", merged_count.len()),
    ];
    for (name, length) in required {
        if length != count {
            violations.add(
                format_args!("{path}.{name}"),
                format_args!("has {length} elements, instrument_index has {count}"),
            );
        }
    }
    for (name, length) in optional {
        if length != 0 && length != count {
            violations.add(
                format_args!("{path}.{name}"),
                format_args!("has {length} elements, instrument_index has {count}: as many, or none"),
            );
        }
    }
}

/// One entry of the message's table, and where its prices stand.
struct Entry {
    instrument: (Venue, Symbol),
    price_exponent: i32,
    quantity_exponent: i32,
    /// The price of the entry's last tick: as a mantissa, and if that is valid.
    price_mantissa: i64,
    price: Option<Decimal>,
    /// The index in the batch's own table, once a tick has used the entry.
    batch_index: Option<u32>,
}

/// The table. Its length counts only if there is no violation.
fn entries(path: &str, table: &[proto::ColumnInstrument], violations: &mut Violations) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(table.len());
    for (index, entry) in table.iter().enumerate() {
        let proto::ColumnInstrument { instrument_id: _, venue, symbol, price_exponent, quantity_exponent } = entry;
        let at = |name: &'static str| Field { path, index, name };
        let venue = violations.take(at("venue"), Venue::new(venue));
        let symbol = violations.take(at("symbol"), Symbol::new(symbol));
        for (name, exponent) in [("price_exponent", price_exponent), ("quantity_exponent", quantity_exponent)] {
            if !EXPONENTS.contains(exponent) {
                violations.add(at(name), "must lie in -18 to 14");
            }
        }
        if let (Some(venue), Some(symbol)) = (venue, symbol) {
            entries.push(Entry {
                instrument: (venue, symbol),
                price_exponent: *price_exponent,
                quantity_exponent: *quantity_exponent,
                price_mantissa: 0,
                price: None,
                batch_index: None,
            });
        }
    }
    entries
}

/// The ticks of arrays whose lengths agree. Ticks with a violation are left out.
fn read(
    path: &str,
    Columns { arrays: columns, trade_ids }: Columns,
    mut entries: Vec<Entry>,
    latest: Option<UnixNanos>,
    violations: &mut Violations,
) -> Batch {
    let count = columns.instrument_index.len();
    let mut instruments = Instruments::default();
    let mut ticks = Vec::with_capacity(count);
    let mut trade_ids = trade_ids.into_iter();
    let (mut event_nanos, mut receive_nanos) = (0i64, 0i64);
    for index in 0..count {
        let element = |name: &'static str| Element { path, name, index };

        event_nanos = event_nanos.wrapping_add(columns.event_time_unix_nano_delta[index]);
        let event_time =
            violations.take(element("event_time_unix_nano_delta"), event_time(UnixNanos::new(event_nanos), latest));
        let receive_time = match columns.receive_time_unix_nano_delta.get(index) {
            Some(delta) => {
                receive_nanos = receive_nanos.wrapping_add(*delta);
                violations.take(element("receive_time_unix_nano_delta"), UnixNanos::new(receive_nanos)).map(Some)
            }
            None => Some(None),
        };
        let side = match columns.side.get(index) {
            Some(wire) => violations.take(element("side"), side(*wire)),
            None => Some(Side::Unspecified),
        };
        let action = match columns.action.get(index) {
            Some(wire) => violations.take(element("action"), action(*wire)),
            None => Some(Action::New),
        };
        let trade_id = trade_ids.next().unwrap_or(Ok(TradeId::None));
        let trade_id = violations.take(element("trade_id"), tick::trade_id(trade_id, action.unwrap_or_default()));

        let Some(entry) = entries.get_mut(columns.instrument_index[index] as usize) else {
            violations.add(element("instrument_index"), "lies outside instruments");
            continue;
        };
        let difference = columns.price_mantissa[index];
        // Many ticks repeat the price before them, and making a decimal canonical takes a while.
        if difference != 0 || entry.price.is_none() {
            entry.price_mantissa = entry.price_mantissa.wrapping_add(difference);
            let price = Decimal::new(entry.price_mantissa, entry.price_exponent);
            entry.price = violations.take(element("price_mantissa"), price);
        }
        let price = entry.price;
        let quantity = match columns.quantity.get(index).copied().unwrap_or(0) {
            0 => Some(None),
            above => violations.take(element("quantity"), quantity(above - 1, entry.quantity_exponent)).map(Some),
        };

        let (
            Some(event_time),
            Some(receive_time),
            Some(side),
            Some(trade_id),
            Some(price),
            Some(quantity),
            Some(action),
        ) = (event_time, receive_time, side, trade_id, price, quantity, action)
        else {
            continue;
        };
        let instrument = match entry.batch_index {
            Some(instrument) => instrument,
            None => instruments.index(entry.instrument.clone()),
        };
        entry.batch_index = Some(instrument);
        let tick = NewTick { instrument, event_time, receive_time, price, quantity, side, trade_id, action };
        ticks.push(tick.canonical());
    }
    Batch { instruments: instruments.into_list(), ticks, controls: Vec::new() }
}

/// A quantity of a mantissa that is not negative, but may be too large.
fn quantity(mantissa: u64, exponent: i32) -> Result<Decimal, String> {
    let mantissa = i64::try_from(mantissa).map_err(|_| "above 2^63".to_owned())?;
    decimal::quantity(mantissa, exponent).map_err(|error| error.to_string())
}

/// The path of a field of the table, written out only when it is needed.
struct Field<'a> {
    path: &'a str,
    index: usize,
    name: &'static str,
}

impl Display for Field<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.instruments[{}].{}", self.path, self.index, self.name)
    }
}

/// The path of an element, written out only when it is needed.
struct Element<'a> {
    path: &'a str,
    name: &'static str,
    index: usize,
}

impl Display for Element<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}[{}]", self.path, self.name, self.index)
    }
}

/// One instrument of a message, and what its numbers need.
struct Scale {
    instrument: InstrumentId,
    /// The smallest exponents of its prices and quantities.
    price: i8,
    quantity: i8,
    /// Whether all of its numbers fit these. If not, each pair of exponents gets an entry of its own.
    shared: bool,
}

/// Stored ticks as columns, complete in themselves but for names: entries have the numbers of instruments alone.
/// `merged` has a count for each tick of a conflated stream, or nothing.
pub fn wire(ticks: &[Tick], merged: &[u32]) -> proto::TickColumns {
    let (scales, scale_of) = scales(ticks);
    let mut columns = proto::TickColumns { merged_count: merged.to_vec(), ..proto::TickColumns::default() };
    let with_quantity = ticks.iter().any(|tick| tick.quantity.is_some());
    let with_side = ticks.iter().any(|tick| tick.side != Side::Unspecified);
    let with_trade_id = ticks.iter().any(|tick| tick.trade_id != TradeId::None);
    let with_origin = ticks.iter().any(|tick| tick.origin != Origin::Live);
    let mut table: HashMap<(usize, i8, i8), u32> = HashMap::new();
    let mut last_prices: Vec<i64> = Vec::new();
    let (mut last_event, mut last_receive, mut last_seq) = (0i64, 0i64, 0i64);
    for (tick, &scale_index) in ticks.iter().zip(&scale_of) {
        let Tick { instrument, log_seq, event_time, receive_time, price, quantity, side, trade_id, origin } = tick;
        let scale = &scales[scale_index];
        let (price_exponent, quantity_exponent) =
            if scale.shared { (scale.price, scale.quantity) } else { own_exponents(tick) };
        let index = *table.entry((scale_index, price_exponent, quantity_exponent)).or_insert_with(|| {
            columns.instruments.push(proto::ColumnInstrument {
                instrument_id: instrument.0,
                venue: String::new(),
                symbol: String::new(),
                price_exponent: price_exponent.into(),
                quantity_exponent: quantity_exponent.into(),
            });
            last_prices.push(0);
            (columns.instruments.len() - 1) as u32
        });
        columns.instrument_index.push(index);
        columns.event_time_unix_nano_delta.push(event_time.nanos().wrapping_sub(last_event));
        columns.receive_time_unix_nano_delta.push(receive_time.nanos().wrapping_sub(last_receive));
        columns.log_seq_delta.push(log_seq.cast_signed().wrapping_sub(last_seq));
        (last_event, last_receive, last_seq) = (event_time.nanos(), receive_time.nanos(), log_seq.cast_signed());
        let mantissa = price.mantissa_at(price_exponent).expect(ROOM);
        let last_price = &mut last_prices[index as usize];
        columns.price_mantissa.push(mantissa.wrapping_sub(*last_price));
        *last_price = mantissa;
        if with_quantity {
            let mantissa = quantity.map(|quantity| quantity.mantissa_at(quantity_exponent).expect(ROOM));
            // Quantities are not negative, and one more than the greatest still fits.
            columns.quantity.push(mantissa.map_or(0, |mantissa| mantissa.cast_unsigned() + 1));
        }
        if with_side {
            columns.side.push(proto::Side::from(*side).into());
        }
        if with_trade_id {
            columns.trade_id.push(trade_id.to_string());
        }
        if with_origin {
            columns.origin.push(proto::Origin::from(*origin).into());
        }
    }
    columns
}

/// A correction or a cancel as columns of one element.
pub fn correction((log_seq, origin): (u64, Origin), correction: &Correction) -> proto::TickColumns {
    let action = vec![proto::Action::from(correction.action()).into()];
    proto::TickColumns { action, ..wire(&[correction.as_tick(log_seq, origin)], &[]) }
}

const ROOM: &str = "the entry has exponents at which this tick's numbers fit";

/// The instruments of a message in the order of their first ticks, and which of them each tick belongs to.
fn scales(ticks: &[Tick]) -> (Vec<Scale>, Vec<usize>) {
    let mut scales: Vec<Scale> = Vec::new();
    let mut known: HashMap<InstrumentId, usize> = HashMap::new();
    let mut scale_of = Vec::with_capacity(ticks.len());
    for tick in ticks {
        let (price, quantity) = own_exponents(tick);
        let index = *known.entry(tick.instrument).or_insert_with(|| {
            scales.push(Scale { instrument: tick.instrument, price, quantity, shared: true });
            scales.len() - 1
        });
        let scale = &mut scales[index];
        scale.price = scale.price.min(price);
        scale.quantity = scale.quantity.min(quantity);
        scale_of.push(index);
    }
    for (tick, &index) in ticks.iter().zip(&scale_of) {
        let scale = &mut scales[index];
        debug_assert_eq!(scale.instrument, tick.instrument);
        let price = tick.price.mantissa_at(scale.price);
        let quantity = tick.quantity.unwrap_or(Decimal::ZERO).mantissa_at(scale.quantity);
        scale.shared &= price.is_some() && quantity.is_some();
    }
    (scales, scale_of)
}

fn own_exponents(tick: &Tick) -> (i8, i8) {
    (tick.price.exponent(), tick.quantity.unwrap_or(Decimal::ZERO).exponent())
}

#[cfg(test)]
mod tests;
