//! `TickBatch` on its way in: rows, each complete in itself.

use std::collections::HashMap;
use std::fmt::Display;

use crate::domain::{Action, Batch, Decimal, NewTick, Symbol, TradeId, UnixNanos, Venue};
use crate::grpc::proto;
use crate::grpc::violation::Violations;

use super::decimal;
use super::tick::{self, Instruments, action, event_time, side};

/// Reads a batch of rows, all or nothing.
///
/// `path` is the path of the batch in its message, and `latest` the latest event time that is taken; `None` for
/// backfill.
pub fn batch(path: &str, rows: proto::TickBatch, latest: Option<UnixNanos>) -> Result<Batch, Violations> {
    // Merged counts have no meaning on the way in.
    let proto::TickBatch { ticks: rows, merged_counts: _ } = rows;
    let mut violations = Violations::default();
    if rows.is_empty() {
        violations.add(format_args!("{path}.ticks"), "at least one tick");
    }
    let mut named = Named::default();
    let mut ticks = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        ticks.extend(row_tick(path, index, row, latest, &mut named, &mut violations));
    }
    if !violations.is_empty() {
        return Err(violations);
    }
    Ok(Batch { instruments: named.instruments.into_list(), ticks, controls: Vec::new() })
}

/// The distinct instruments of a batch in the making, and how its rows name them: a name is checked and kept once.
#[derive(Default)]
struct Named<'a> {
    instruments: Instruments,
    indexes: HashMap<(&'a str, &'a str), u32>,
}

/// One row; `None` says that violations were added.
fn row_tick<'a>(
    path: &str,
    index: usize,
    row: &'a proto::Tick,
    latest: Option<UnixNanos>,
    named: &mut Named<'a>,
    violations: &mut Violations,
) -> Option<NewTick> {
    let proto::Tick {
        venue,
        symbol,
        instrument_id: _,
        event_time: event,
        receive_time,
        price,
        quantity,
        side: wire_side,
        trade_id,
        log_seq: _,
        origin: _,
        action: wire_action,
    } = row;
    let field = |name: &'static str| Field { path, index, name };

    let action = violations.take(field("action"), action(*wire_action));
    let name = (venue.as_str(), symbol.as_str());
    let mut instrument = named.indexes.get(&name).copied();
    if instrument.is_none() {
        let venue = violations.take(field("venue"), Venue::new(venue));
        let symbol = violations.take(field("symbol"), Symbol::new(symbol));
        if let (Some(venue), Some(symbol)) = (venue, symbol) {
            let index = named.instruments.index((venue, symbol));
            named.indexes.insert(name, index);
            instrument = Some(index);
        }
    }
    let event = match *event {
        Some(event) => violations.take(field("event_time"), event_time(UnixNanos::try_from(event), latest)),
        None => violations.take(field("event_time"), Err("is required")),
    };
    let receive_time = match *receive_time {
        Some(time) => violations.take(field("receive_time"), UnixNanos::try_from(time)).map(Some),
        None => Some(None),
    };
    let price = match *price {
        Some(price) => violations.take(field("price"), Decimal::try_from(price)),
        None if action == Some(Action::Cancel) => Some(Decimal::ZERO),
        None => violations.take(field("price"), Err("is required")),
    };
    let quantity = match *quantity {
        Some(proto::Decimal { mantissa, exponent }) => {
            violations.take(field("quantity"), decimal::quantity(mantissa, exponent)).map(Some)
        }
        None => Some(None),
    };
    let side = violations.take(field("side"), side(*wire_side));
    let trade_id = tick::trade_id(TradeId::new(trade_id), action.unwrap_or_default());
    let trade_id = violations.take(field("trade_id"), trade_id);

    let (
        Some(instrument),
        Some(event_time),
        Some(receive_time),
        Some(price),
        Some(quantity),
        Some(side),
        Some(trade_id),
        Some(action),
    ) = (instrument, event, receive_time, price, quantity, side, trade_id, action)
    else {
        return None;
    };
    let tick = NewTick { instrument, event_time, receive_time, price, quantity, side, trade_id, action };
    Some(tick.canonical())
}

/// The path of a row's field, written out only when it is needed.
struct Field<'a> {
    path: &'a str,
    index: usize,
    name: &'static str,
}

impl Display for Field<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.ticks[{}].{}", self.path, self.index, self.name)
    }
}

#[cfg(test)]
mod tests;
