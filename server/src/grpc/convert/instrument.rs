//! Instruments with what their venues say about them, and the points of price statistics, on their way out.

use crate::domain::Instrument;
use crate::domain::statistics::PricePoint;
use crate::grpc::proto;
use crate::query::InstrumentFacts;

use super::tick;

impl From<InstrumentFacts> for proto::Instrument {
    fn from(facts: InstrumentFacts) -> proto::Instrument {
        let InstrumentFacts {
            instrument,
            first,
            last,
            tick_count,
            price_decimals,
            quantity_decimals,
            details,
            unmatched_corrections,
        } = facts;
        let Instrument { id, venue, symbol } = instrument.as_ref();
        proto::Instrument {
            instrument_id: id.0,
            venue: venue.as_str().to_owned(),
            symbol: symbol.as_str().to_owned(),
            first_tick: first.as_ref().map(|first| tick::row(first, &instrument)),
            last_tick: last.as_ref().map(|last| tick::row(last, &instrument)),
            tick_count,
            price_decimals: u32::from(price_decimals),
            quantity_decimals: u32::from(quantity_decimals),
            details: details.map(Into::into),
            unmatched_correction_count: unmatched_corrections,
        }
    }
}

/// A price, and whose tick it was.
pub fn point(point: PricePoint, instrument: &Instrument) -> proto::PricePoint {
    let PricePoint { price, event_time, log_seq } = point;
    proto::PricePoint {
        price: Some(price.into()),
        event_time: Some(event_time.into()),
        log_seq,
        venue: instrument.venue.as_str().to_owned(),
        symbol: instrument.symbol.as_str().to_owned(),
    }
}
