//! Ticks out of columns, by the words of the contract alone: no code of server or client.

use std::collections::HashMap;

use tapefeed_proto::v1 as proto;

use crate::values::timestamp;

/// The names that a column stream has told, by instrument id.
pub type Names = HashMap<u32, (String, String)>;

/// The ticks of a message of columns, as rows.
///
/// # Panics
///
/// If the message is not what the contract says.
pub fn rows(columns: &proto::TickColumns, names: &Names) -> Vec<proto::Tick> {
    let count = columns.instrument_index.len();
    let running = |deltas: &[i64]| {
        assert_eq!(deltas.len(), count, "the server always sets it");
        let add = |sum: &mut i64, delta: &i64| {
            *sum = sum.wrapping_add(*delta);
            Some(*sum)
        };
        deltas.iter().scan(0i64, add).collect::<Vec<_>>()
    };
    let event_times = running(&columns.event_time_unix_nano_delta);
    let receive_times = running(&columns.receive_time_unix_nano_delta);
    let positions = running(&columns.log_seq_delta);
    let numbers = match columns.trade_number_delta.is_empty() {
        true => Vec::new(),
        false => running(&columns.trade_number_delta),
    };
    let mut prices = vec![0i64; columns.instruments.len()];
    let tick = |index: usize| {
        let entry_index = columns.instrument_index[index] as usize;
        let entry = &columns.instruments[entry_index];
        let (venue, symbol) = names.get(&entry.instrument_id).expect("defined before its first tick").clone();
        prices[entry_index] = prices[entry_index].wrapping_add(columns.price_mantissa[index]);
        let quantity = at(&columns.quantity, index, count).checked_sub(1);
        proto::Tick {
            venue,
            symbol,
            instrument_id: entry.instrument_id,
            event_time: Some(timestamp(event_times[index])),
            receive_time: Some(timestamp(receive_times[index])),
            price: Some(canonical(prices[entry_index], entry.price_exponent)),
            quantity: quantity
                .map(|mantissa| canonical(i64::try_from(mantissa).expect("at most 2^63"), entry.quantity_exponent)),
            side: at(&columns.side, index, count),
            trade_id: match numbers.get(index) {
                Some(number) => number.cast_unsigned().to_string(),
                None => at(&columns.trade_id, index, count),
            },
            log_seq: positions[index].cast_unsigned(),
            // Empty stands for LIVE and NEW.
            origin: if columns.origin.is_empty() { 1 } else { at(&columns.origin, index, count) },
            action: if columns.action.is_empty() { 1 } else { at(&columns.action, index, count) },
        }
    };
    (0..count).map(tick).collect()
}

/// The element of an array that has one for each tick, or none at all.
fn at<T: Clone + Default>(array: &[T], index: usize, count: usize) -> T {
    assert!(array.is_empty() || array.len() == count, "an array has as many elements as there are ticks, or none");
    array.get(index).cloned().unwrap_or_default()
}

/// A decimal without trailing zeros.
fn canonical(mut mantissa: i64, mut exponent: i32) -> proto::Decimal {
    while mantissa != 0 && mantissa % 10 == 0 {
        (mantissa, exponent) = (mantissa / 10, exponent + 1);
    }
    if mantissa == 0 {
        exponent = 0;
    }
    proto::Decimal { mantissa, exponent }
}
