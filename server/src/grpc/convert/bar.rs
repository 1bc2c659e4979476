//! Bars on their way out, as messages of a stream and as the bytes of a page, and what requests say about them.

use prost::Message as _;

use crate::domain::bar::{Bar, Fill, Interval};
use crate::domain::varint::{self, zigzag};
use crate::domain::{Decimal, Instrument, Symbol, UnixNanos, ratio};
use crate::grpc::proto;
use crate::grpc::violation::Violations;

use super::{sums, time};

/// The length of bars; `None` if a violation was added.
pub fn interval(violations: &mut Violations, field: &str, wire: Option<prost_types::Duration>) -> Option<Interval> {
    let span = violations.take(field, time::span(wire.unwrap_or_default()))?;
    violations.take(field, Interval::new(span))
}

/// What stands for intervals without ticks.
pub fn fill(wire: i32) -> Result<Fill, &'static str> {
    match proto::BarFill::try_from(wire) {
        Ok(proto::BarFill::Unspecified | proto::BarFill::Skip) => Ok(Fill::Skip),
        Ok(proto::BarFill::Null) => Ok(Fill::Null),
        Ok(proto::BarFill::Previous) => Ok(Fill::Previous),
        Err(_) => Err("not a value of BarFill"),
    }
}

/// A bar of an instrument, or of all venues of its symbol, on its way out.
pub fn wire(bar: &Bar, symbol: &Symbol, instrument: Option<&Instrument>, decimals: u8) -> proto::Bar {
    let Bar { start, end, contents, carried, is_final, has_gap } = bar;
    let totals = &contents.totals;
    let state = if *is_final { proto::BarState::Final } else { proto::BarState::Forming };
    let price = |point: Option<crate::domain::statistics::PricePoint>| {
        point.map(|point| point.price).or(*carried).map(Into::into)
    };
    let time = |point: Option<crate::domain::statistics::PricePoint>| point.map(|point| point.event_time.into());
    proto::Bar {
        start_time: Some((*start).into()),
        end_time: Some((*end).into()),
        open_price: price(totals.first),
        high_price: price(totals.high),
        low_price: price(totals.low),
        close_price: price(totals.last),
        open_time: time(totals.first),
        high_time: time(totals.high),
        low_time: time(totals.low),
        close_time: time(totals.last),
        volume: sums::sum(totals.volume),
        notional: sums::notional(totals.notional),
        vwap: ratio::vwap(totals.notional, totals.volume, decimals),
        tick_count: totals.count,
        state: state.into(),
        revision: contents.revision,
        has_source_gap: *has_gap,
        ..named(symbol, instrument)
    }
}

/// What all bars of a series have.
fn named(symbol: &Symbol, instrument: Option<&Instrument>) -> proto::Bar {
    proto::Bar {
        venue: instrument.map_or_else(String::new, |instrument| instrument.venue.as_str().to_owned()),
        symbol: symbol.as_str().to_owned(),
        instrument_id: instrument.map_or(0, |instrument| instrument.id.0),
        ..proto::Bar::default()
    }
}

/// Bars of one series on their way out in pages, as the bytes of messages: a page holds thousands, and much of making
/// a [`proto::Bar`] of each would go into the five pieces of memory that it is made of.
#[derive(Debug)]
pub struct BarWriter {
    /// Venue, symbol and number of the instrument, as all its bars begin.
    names: Vec<u8>,
    decimals: u8,
    message: Vec<u8>,
}

impl BarWriter {
    /// A writer of bars of an instrument, or of all venues of its symbol, with means of so many decimals.
    pub fn new(symbol: &Symbol, instrument: Option<&Instrument>, decimals: u8) -> BarWriter {
        BarWriter { names: named(symbol, instrument).encode_to_vec(), decimals, message: Vec::new() }
    }

    /// Appends a bar as an element of a repeated field.
    pub fn put(&mut self, field: u8, bar: &Bar, out: &mut Vec<u8>) {
        let Bar { start, end, contents, carried, is_final, has_gap } = bar;
        let totals = &contents.totals;
        let message = &mut self.message;
        message.clear();
        message.extend_from_slice(&self.names);
        put_time(message, 4, *start);
        put_time(message, 5, *end);
        let points = [totals.first, totals.high, totals.low, totals.last];
        for (field, point) in (6..).zip(points) {
            if let Some(price) = point.map(|point| point.price).or(*carried) {
                put_price(message, field, price);
            }
        }
        for (field, point) in (10..).zip(points) {
            if let Some(point) = point {
                put_time(message, field, point.event_time);
            }
        }
        put_text(message, 14, &sums::sum(totals.volume));
        put_text(message, 15, &sums::notional(totals.notional));
        if let Some(vwap) = ratio::vwap(totals.notional, totals.volume, self.decimals) {
            put_text(message, 16, &vwap);
        }
        let state = if *is_final { proto::BarState::Final } else { proto::BarState::Forming };
        put_number(message, 17, totals.count);
        put_number(message, 18, state as u64);
        put_number(message, 19, contents.revision);
        put_number(message, 20, (*has_gap).into());
        put_bytes(out, field, message);
    }
}

/// Appends a field of bytes.
fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    varint::put(out, u64::from(field) << 3 | 2);
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a number, unless it is the default.
fn put_number(out: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        varint::put(out, u64::from(field) << 3);
        varint::put(out, number);
    }
}

/// Appends a field of text.
fn put_text(out: &mut Vec<u8>, field: u8, text: &str) {
    put_bytes(out, field, text.as_bytes());
}

/// Appends a small message: its length is known once it is written.
fn put_message(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[field << 3 | 2, 0]);
    let begin = out.len();
    write(out);
    out[begin - 1] =
        u8::try_from(out.len() - begin).ok().filter(|length| *length < 0x80).expect("two numbers are short");
}

/// Appends a time.
fn put_time(out: &mut Vec<u8>, field: u8, time: UnixNanos) {
    let (seconds, nanos) = time.seconds_and_nanos();
    put_message(out, field, |out| {
        put_number(out, 1, seconds.cast_unsigned());
        put_number(out, 2, nanos.cast_unsigned().into());
    });
}

/// Appends a decimal.
fn put_price(out: &mut Vec<u8>, field: u8, price: Decimal) {
    put_message(out, field, |out| {
        put_number(out, 1, zigzag(price.mantissa()));
        put_number(out, 2, zigzag(price.exponent().into()));
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::bar::BarBuilder;
    use crate::domain::samples::any_history;
    use crate::domain::{InstrumentId, Venue};

    proptest! {
        #[test]
        fn bytes_of_bars_are_those_of_their_messages(
            ticks in any_history(40),
            (pooled, is_final, has_gap, carried) in any::<(bool, bool, bool, bool)>(),
            decimals in 0u8..=36,
        ) {
            // The longest names that there are: with them a message of a bar is longer than 127 bytes.
            let (venue, symbol) = (Venue::new(&"V".repeat(32)).unwrap(), Symbol::new(&"S".repeat(64)).unwrap());
            let instrument = Instrument { id: InstrumentId(7), venue, symbol: symbol.clone() };
            let instrument = Some(&instrument).filter(|_| !pooled);
            let mut builder = BarBuilder::new(Interval::MINUTE);
            for tick in &ticks {
                builder.push(tick);
            }
            if builder.get(UnixNanos::MIN).is_none() {
                // One without ticks.
                builder.insert(UnixNanos::MIN, Default::default());
            }
            let carried = ticks.first().map(|tick| tick.price).filter(|_| carried);
            let (mut bytes, mut messages) = (Vec::new(), proto::ListBarsResponse::default());
            let mut writer = BarWriter::new(&symbol, instrument, decimals);
            for (start, contents) in builder.into_bars() {
                let end = Interval::MINUTE.end_of(start).unwrap_or(UnixNanos::MAX);
                let bar = Bar { start, end, contents, carried, is_final, has_gap };
                writer.put(1, &bar, &mut bytes);
                messages.bars.push(wire(&bar, &symbol, instrument, decimals));
            }
            prop_assert_eq!(bytes, messages.encode_to_vec());
        }
    }

    #[test]
    fn intervals_are_required_and_bounded() {
        let length = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        for (wire, taken) in [
            (None, false),
            (length(0, 0), false),
            (length(-60, 0), false),
            (length(0, 500_000_000), false),
            (length(1, 0), true),
            (length(86_401, 0), false),
            (length(366 * 86_400, 0), true),
        ] {
            let mut violations = Violations::default();
            let found = interval(&mut violations, "interval", wire);
            assert_eq!(found.is_some(), taken, "{wire:?}");
            assert_eq!(violations.is_empty(), taken, "{wire:?}");
        }
    }
}
