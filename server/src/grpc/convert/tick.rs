//! One tick: what rows and columns have in common on the way in, and a stored tick on its way out.

use std::collections::HashMap;

use crate::domain::{
    Action, Correction, Instrument, Origin, Side, Symbol, Tick, TimeInvalid, TradeId, TradeIdInvalid, UnixNanos, Venue,
};
use crate::grpc::proto;

/// Why an event time was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventTimeInvalid {
    /// Outside 1970 to 2262.
    #[error(transparent)]
    Time(#[from] TimeInvalid),
    /// Ahead of the server's clock.
    #[error("live ticks may lie at most 5 minutes ahead of the server's clock")]
    Ahead,
}

/// Checks an event time against the latest that is taken; `None` takes any.
pub(super) fn event_time(
    time: Result<UnixNanos, TimeInvalid>,
    latest: Option<UnixNanos>,
) -> Result<UnixNanos, EventTimeInvalid> {
    let time = time?;
    if latest.is_some_and(|latest| time > latest) {
        return Err(EventTimeInvalid::Ahead);
    }
    Ok(time)
}

/// The side of a number on the wire.
pub(super) fn side(wire: i32) -> Result<Side, &'static str> {
    match proto::Side::try_from(wire) {
        Ok(proto::Side::Unspecified) => Ok(Side::Unspecified),
        Ok(proto::Side::Buy) => Ok(Side::Buy),
        Ok(proto::Side::Sell) => Ok(Side::Sell),
        Err(_) => Err("not a value of Side"),
    }
}

/// The action of a number on the wire.
pub(super) fn action(wire: i32) -> Result<Action, &'static str> {
    match proto::Action::try_from(wire) {
        Ok(proto::Action::Unspecified | proto::Action::New) => Ok(Action::New),
        Ok(proto::Action::Correct) => Ok(Action::Correct),
        Ok(proto::Action::Cancel) => Ok(Action::Cancel),
        Err(_) => Err("not a value of Action"),
    }
}

/// The identifier of a trade; who corrects or cancels one has to name it.
pub(super) fn trade_id(id: Result<TradeId, TradeIdInvalid>, action: Action) -> Result<TradeId, String> {
    let id = id.map_err(|error| error.to_string())?;
    if action != Action::New && id == TradeId::None {
        return Err("is required: it says which trade is meant".to_owned());
    }
    Ok(id)
}

/// The distinct instruments of a batch in the making, in the order of their first tick.
#[derive(Debug, Default)]
pub(super) struct Instruments {
    list: Vec<(Venue, Symbol)>,
    indexes: HashMap<(Venue, Symbol), u32>,
}

impl Instruments {
    /// The index of an instrument, which joins the table if it is new.
    pub(super) fn index(&mut self, instrument: (Venue, Symbol)) -> u32 {
        // A message of 1 MiB has far fewer instruments than 2^32.
        let next = self.list.len() as u32;
        *self.indexes.entry(instrument).or_insert_with_key(|key| {
            self.list.push(key.clone());
            next
        })
    }

    pub(super) fn into_list(self) -> Vec<(Venue, Symbol)> {
        self.list
    }
}

impl From<Side> for proto::Side {
    fn from(side: Side) -> proto::Side {
        match side {
            Side::Unspecified => proto::Side::Unspecified,
            Side::Buy => proto::Side::Buy,
            Side::Sell => proto::Side::Sell,
        }
    }
}

impl From<Origin> for proto::Origin {
    fn from(origin: Origin) -> proto::Origin {
        match origin {
            Origin::Live => proto::Origin::Live,
            Origin::Backfill => proto::Origin::Backfill,
        }
    }
}

impl From<Action> for proto::Action {
    fn from(action: Action) -> proto::Action {
        match action {
            Action::New => proto::Action::New,
            Action::Correct => proto::Action::Correct,
            Action::Cancel => proto::Action::Cancel,
        }
    }
}

/// A correction or a cancel as a row: what it is about, and the new values.
pub fn correction_row(
    (log_seq, origin): (u64, Origin),
    correction: &Correction,
    instrument: &Instrument,
) -> proto::Tick {
    let row = row(&correction.as_tick(log_seq, origin), instrument);
    let price = row.price.filter(|_| correction.values.is_some());
    proto::Tick { price, action: proto::Action::from(correction.action()).into(), ..row }
}

/// A stored tick as a row, complete in itself.
pub fn row(tick: &Tick, instrument: &Instrument) -> proto::Tick {
    let Tick { instrument: id, log_seq, event_time, receive_time, price, quantity, side, trade_id, origin } = tick;
    let Instrument { id: _, venue, symbol } = instrument;
    proto::Tick {
        venue: venue.as_str().to_owned(),
        symbol: symbol.as_str().to_owned(),
        instrument_id: id.0,
        event_time: Some((*event_time).into()),
        receive_time: Some((*receive_time).into()),
        price: Some((*price).into()),
        quantity: quantity.map(Into::into),
        side: proto::Side::from(*side).into(),
        trade_id: trade_id.to_string(),
        log_seq: *log_seq,
        origin: proto::Origin::from(*origin).into(),
        action: proto::Action::New.into(),
    }
}

impl From<&Instrument> for proto::InstrumentDefinition {
    fn from(instrument: &Instrument) -> proto::InstrumentDefinition {
        let Instrument { id, venue, symbol } = instrument;
        proto::InstrumentDefinition {
            instrument_id: id.0,
            venue: venue.as_str().to_owned(),
            symbol: symbol.as_str().to_owned(),
        }
    }
}
