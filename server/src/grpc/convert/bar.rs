//! Bars, and what requests say about them.

use crate::domain::bar::{Bar, Fill, Interval};
use crate::domain::{Instrument, Symbol, ratio};
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
        venue: instrument.map_or_else(String::new, |instrument| instrument.venue.as_str().to_owned()),
        symbol: symbol.as_str().to_owned(),
        instrument_id: instrument.map_or(0, |instrument| instrument.id.0),
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
