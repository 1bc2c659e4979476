//! Ticks as columns: delta-encoded arrays, a third of the bytes of rows.
//!
//! Every message is complete in itself, but for the names of instruments in subscriptions, which [`Definitions`] keeps.

use std::collections::HashMap;
use std::sync::Arc;

use tapefeed_proto::v1 as proto;

use crate::tick::{Action, NewTick, Origin, Side, Tick};
use crate::{Decimal, Error, UnixNanos};

/// The names of instruments that a column stream has told.
#[derive(Debug, Default)]
pub(crate) struct Definitions(HashMap<u32, (Arc<str>, Arc<str>)>);

impl Definitions {
    pub(crate) fn learn(&mut self, definitions: proto::InstrumentDefinitions) {
        for definition in definitions.definitions {
            self.0.insert(definition.instrument_id, (definition.venue.into(), definition.symbol.into()));
        }
    }

    fn names(&self, entry: &proto::ColumnInstrument) -> Result<(Arc<str>, Arc<str>), Error> {
        if !entry.symbol.is_empty() {
            return Ok((entry.venue.as_str().into(), entry.symbol.as_str().into()));
        }
        let known = self.0.get(&entry.instrument_id).cloned();
        known.ok_or_else(|| {
            let id = entry.instrument_id;
            Error::protocol(format!("instrument {id} was not defined before its ticks"))
        })
    }
}

/// One entry of a message's table while its ticks are read.
struct Entry {
    venue: Arc<str>,
    symbol: Arc<str>,
    instrument_id: u32,
    price_exponent: i32,
    quantity_exponent: i32,
    price_mantissa: i64,
}

/// Reads the ticks of a message of columns.
pub(crate) fn decode(columns: proto::TickColumns, definitions: &Definitions) -> Result<Vec<Tick>, Error> {
    check_lengths(&columns)?;
    let mut table = Vec::with_capacity(columns.instruments.len());
    for entry in &columns.instruments {
        let (venue, symbol) = definitions.names(entry)?;
        table.push(Entry {
            venue,
            symbol,
            instrument_id: entry.instrument_id,
            price_exponent: entry.price_exponent,
            quantity_exponent: entry.quantity_exponent,
            price_mantissa: 0,
        });
    }
    let mut ticks = Vec::with_capacity(columns.instrument_index.len());
    let (mut event_time, mut receive_time, mut log_seq) = (0i64, 0i64, 0i64);
    let mut trade_ids = columns.trade_id.into_iter();
    let mut trade_number = 0i64;
    for (i, &index) in columns.instrument_index.iter().enumerate() {
        let entry = table
            .get_mut(index as usize)
            .ok_or_else(|| Error::protocol("columns.instrument_index lies outside of the table"))?;
        event_time = event_time.wrapping_add(columns.event_time_unix_nano_delta[i]);
        receive_time = receive_time.wrapping_add(columns.receive_time_unix_nano_delta[i]);
        log_seq = log_seq.wrapping_add(columns.log_seq_delta[i]);
        entry.price_mantissa = entry.price_mantissa.wrapping_add(columns.price_mantissa[i]);
        let action = Action::from_wire(columns.action.get(i).copied().unwrap_or_default())?;
        let price = if action == Action::Cancel {
            Decimal::ZERO
        } else {
            number(entry.price_mantissa, entry.price_exponent, "columns.price_mantissa")?
        };
        let quantity = match columns.quantity.get(i).copied().unwrap_or(0).checked_sub(1) {
            Some(mantissa) => {
                let mantissa =
                    i64::try_from(mantissa).map_err(|_| Error::protocol("columns.quantity lies above 2^63"))?;
                Some(number(mantissa, entry.quantity_exponent, "columns.quantity")?)
            }
            None => None,
        };
        let trade_id = match columns.trade_number_delta.get(i) {
            Some(delta) => {
                trade_number = trade_number.wrapping_add(*delta);
                trade_number.cast_unsigned().to_string()
            }
            None => trade_ids.next().unwrap_or_default(),
        };
        ticks.push(Tick {
            venue: entry.venue.clone(),
            symbol: entry.symbol.clone(),
            instrument_id: entry.instrument_id,
            event_time: UnixNanos(event_time),
            receive_time: UnixNanos(receive_time),
            price,
            quantity,
            side: Side::from_wire(columns.side.get(i).copied().unwrap_or_default()),
            trade_id,
            // A position is a u64 whose deltas wrap around modulo 2^64.
            log_seq: log_seq.cast_unsigned(),
            origin: Origin::from_wire(columns.origin.get(i).copied().unwrap_or_default()),
            action,
            merged_count: columns.merged_count.get(i).copied().unwrap_or(1),
        });
    }
    Ok(ticks)
}

fn number(mantissa: i64, exponent: i32, field: &str) -> Result<Decimal, Error> {
    Decimal::new(mantissa, exponent).map_err(|why| Error::protocol(format!("{field}: {why}")))
}

/// Every array has an element for each tick, or none at all; those that the server always sets are there.
fn check_lengths(columns: &proto::TickColumns) -> Result<(), Error> {
    let count = columns.instrument_index.len();
    let required = [
        columns.event_time_unix_nano_delta.len(),
        columns.receive_time_unix_nano_delta.len(),
        columns.price_mantissa.len(),
        columns.log_seq_delta.len(),
    ];
    let optional = [
        columns.quantity.len(),
        columns.side.len(),
        columns.trade_id.len(),
        columns.origin.len(),
        columns.action.len(),
        columns.merged_count.len(),
        columns.trade_number_delta.len(),
    ];
    let complete =
        required.iter().all(|&length| length == count) && optional.iter().all(|&length| length == count || length == 0);
    if complete { Ok(()) } else { Err(Error::protocol("columns of different lengths")) }
}

/// One instrument of a batch, and what its numbers need.
struct Scale<'a> {
    venue: &'a str,
    symbol: &'a str,
    /// The smallest exponents of its prices and quantities.
    price: i32,
    quantity: i32,
    /// Whether all of its numbers fit them. If not, each pair of exponents gets an entry of its own.
    shared: bool,
}

/// Writes ticks as columns, or `None` if columns cannot hold them: receive times are all or none in a message, and
/// quantities are not negative.
pub(crate) fn encode(ticks: &[NewTick]) -> Option<proto::TickColumns> {
    let with_receive_time = ticks.iter().filter(|tick| tick.receive_time.is_some());
    let with_receive_time = with_receive_time.count();
    if with_receive_time != 0 && with_receive_time != ticks.len() {
        return None;
    }
    let (scales, scale_of) = scales(ticks);
    let with_quantity = ticks.iter().any(|tick| tick.quantity.is_some());
    let with_side = ticks.iter().any(|tick| tick.side.is_some());
    let with_trade_id = ticks.iter().any(|tick| !tick.trade_id.is_empty());
    let with_action = ticks.iter().any(|tick| tick.action != Action::New);

    let mut columns = proto::TickColumns::default();
    let mut table: HashMap<(usize, i32, i32), u32> = HashMap::new();
    let mut last_prices: Vec<i64> = Vec::new();
    let (mut last_event, mut last_receive) = (0i64, 0i64);
    for (tick, &scale_index) in ticks.iter().zip(&scale_of) {
        let scale = &scales[scale_index];
        let (price_exponent, quantity_exponent) = match scale.shared {
            true => (scale.price, scale.quantity),
            false => own_exponents(tick),
        };
        let entry = table.entry((scale_index, price_exponent, quantity_exponent));
        let index = *entry.or_insert_with(|| {
            columns.instruments.push(proto::ColumnInstrument {
                instrument_id: 0,
                venue: scale.venue.to_owned(),
                symbol: scale.symbol.to_owned(),
                price_exponent,
                quantity_exponent,
            });
            last_prices.push(0);
            (columns.instruments.len() - 1) as u32
        });
        columns.instrument_index.push(index);
        let event = tick.event_time.nanos();
        columns.event_time_unix_nano_delta.push(event.wrapping_sub(last_event));
        last_event = event;
        if let Some(receive) = tick.receive_time {
            columns.receive_time_unix_nano_delta.push(receive.nanos().wrapping_sub(last_receive));
            last_receive = receive.nanos();
        }
        let last_price = &mut last_prices[index as usize];
        let price = match tick.action {
            Action::Cancel => *last_price,
            Action::New | Action::Correct => tick.price.mantissa_at(price_exponent)?,
        };
        columns.price_mantissa.push(price.wrapping_sub(*last_price));
        *last_price = price;
        if with_quantity {
            let quantity = match tick.quantity {
                Some(quantity) => {
                    let mantissa = quantity.mantissa_at(quantity_exponent)?;
                    u64::try_from(mantissa).ok()? + 1
                }
                None => 0,
            };
            columns.quantity.push(quantity);
        }
        if with_side {
            columns.side.push(Side::to_wire(tick.side));
        }
        if with_trade_id {
            columns.trade_id.push(tick.trade_id.clone());
        }
        if with_action {
            columns.action.push(tick.action.to_wire());
        }
    }
    Some(columns)
}

/// The instruments of a batch in the order of their first ticks, and which of them each tick belongs to.
fn scales(ticks: &[NewTick]) -> (Vec<Scale<'_>>, Vec<usize>) {
    let mut scales: Vec<Scale<'_>> = Vec::new();
    let mut known: HashMap<(&str, &str), usize> = HashMap::new();
    let mut scale_of = Vec::with_capacity(ticks.len());
    for tick in ticks {
        let (price, quantity) = own_exponents(tick);
        let index = *known.entry((&*tick.venue, &*tick.symbol)).or_insert_with(|| {
            scales.push(Scale { venue: &tick.venue, symbol: &tick.symbol, price, quantity, shared: true });
            scales.len() - 1
        });
        let scale = &mut scales[index];
        scale.price = scale.price.min(price);
        scale.quantity = scale.quantity.min(quantity);
        scale_of.push(index);
    }
    for (tick, &index) in ticks.iter().zip(&scale_of) {
        let scale = &mut scales[index];
        let price_fits = tick.price.mantissa_at(scale.price).is_some();
        let quantity = tick.quantity.unwrap_or_default();
        scale.shared &= price_fits && quantity.mantissa_at(scale.quantity).is_some();
    }
    (scales, scale_of)
}

fn own_exponents(tick: &NewTick) -> (i32, i32) {
    (tick.price.exponent(), tick.quantity.unwrap_or_default().exponent())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the server would make of published columns: it stamps positions and receive times.
    fn stamped(mut columns: proto::TickColumns) -> proto::TickColumns {
        let count = columns.instrument_index.len();
        columns.log_seq_delta = vec![1; count];
        if columns.receive_time_unix_nano_delta.is_empty() {
            columns.receive_time_unix_nano_delta = vec![0; count];
        }
        columns
    }

    fn tick(symbol: &str, price: &str) -> NewTick {
        NewTick::new("X", symbol, UnixNanos(1_000), price.parse().unwrap())
    }

    #[test]
    fn one_entry_serves_an_instrument_whose_numbers_fit() {
        let ticks = [tick("A", "1.5"), tick("A", "20"), tick("A", "0.125")];
        let columns = encode(&ticks).unwrap();
        assert_eq!(columns.instruments.len(), 1);
        assert_eq!(columns.instruments[0].price_exponent, -3);
        assert_eq!(columns.price_mantissa, [1_500, 18_500, -19_875]);
        assert!(columns.quantity.is_empty() && columns.side.is_empty());
    }

    #[test]
    fn numbers_that_do_not_share_an_exponent_get_entries_of_their_own() {
        let ticks = [tick("A", "999999999999999"), tick("A", "0.000000000000000001")];
        let columns = encode(&ticks).unwrap();
        assert_eq!(columns.instruments.len(), 2);
        let read = decode(stamped(columns), &Definitions::default()).unwrap();
        assert_eq!(read[0].price, ticks[0].price);
        assert_eq!(read[1].price, ticks[1].price);
    }

    #[test]
    fn what_columns_cannot_hold_is_left_to_rows() {
        let some = tick("A", "1").receive_time(UnixNanos(5));
        assert!(encode(&[some, tick("A", "1")]).is_none());
        assert!(encode(&[tick("A", "1").quantity("-1".parse().unwrap())]).is_none());
    }

    #[test]
    fn names_come_from_definitions_in_subscriptions() {
        let mut columns = stamped(encode(&[tick("A", "1")]).unwrap());
        columns.instruments[0] = proto::ColumnInstrument { instrument_id: 9, ..proto::ColumnInstrument::default() };
        let mut definitions = Definitions::default();
        assert!(matches!(decode(columns.clone(), &definitions), Err(Error::Protocol(_))));
        definitions.learn(proto::InstrumentDefinitions {
            definitions: vec![proto::InstrumentDefinition { instrument_id: 9, venue: "X".into(), symbol: "A".into() }],
        });
        let ticks = decode(columns, &definitions).unwrap();
        assert_eq!((&*ticks[0].venue, &*ticks[0].symbol), ("X", "A"));
    }

    #[test]
    fn broken_columns_are_an_error() {
        let good = stamped(encode(&[tick("A", "1"), tick("A", "2")]).unwrap());
        let mut short = good.clone();
        short.price_mantissa.pop();
        let mut outside = good.clone();
        outside.instrument_index[1] = 7;
        let mut huge = good;
        huge.instruments[0].price_exponent = 40;
        for columns in [short, outside, huge] {
            assert!(decode(columns, &Definitions::default()).is_err());
        }
    }

    fn any_tick() -> impl Strategy<Value = NewTick> {
        let number = (any::<i64>(), -18i32..=14)
            .prop_filter_map("a decimal", |(mantissa, exponent)| Decimal::new(mantissa, exponent).ok());
        let quantity = (0..i64::MAX, -18i32..=14)
            .prop_filter_map("a decimal", |(mantissa, exponent)| Decimal::new(mantissa, exponent).ok());
        ("[A-C]", any::<i64>(), number, proptest::option::of(quantity), 0u8..3, "[0-9]{0,3}").prop_map(
            |(symbol, time, price, quantity, side, trade_id)| {
                let mut tick = NewTick::new("X", symbol, UnixNanos(time), price);
                tick.receive_time = Some(UnixNanos(time.wrapping_add(9)));
                tick.quantity = quantity;
                tick.side = [None, Some(Side::Buy), Some(Side::Sell)][usize::from(side)];
                tick.trade_id = trade_id;
                tick
            },
        )
    }

    #[test]
    fn numbers_stand_for_trade_ids() {
        let mut columns = stamped(encode(&[tick("A", "1"), tick("A", "2"), tick("A", "3")]).unwrap());
        columns.trade_number_delta = vec![7, -7, -1];
        let ticks = decode(columns, &Definitions::default()).unwrap();
        let ids: Vec<&str> = ticks.iter().map(|tick| tick.trade_id.as_str()).collect();
        assert_eq!(ids, ["7", "0", "18446744073709551615"]);
    }

    proptest! {
        #[test]
        fn columns_hold_exactly_what_was_written(ticks in proptest::collection::vec(any_tick(), 1..40)) {
            let columns = encode(&ticks).unwrap();
            let read = decode(stamped(columns), &Definitions::default()).unwrap();
            let read: Vec<NewTick> = read.into_iter().map(NewTick::from).collect();
            prop_assert_eq!(read, ticks);
        }
    }
}
