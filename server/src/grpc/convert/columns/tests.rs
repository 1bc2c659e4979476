use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::grpc::convert::rows;

type Change = fn(&mut proto::TickColumns);

/// A plain encoder of rows whose values share their instrument's exponents.
fn encode(rows: &[proto::Tick]) -> proto::TickColumns {
    let nanos = |time: prost_types::Timestamp| time.seconds * 1_000_000_000 + i64::from(time.nanos);
    let mut columns = proto::TickColumns::default();
    let mut table: HashMap<(String, String, i32, i32), (u32, i64)> = HashMap::new();
    let (mut event, mut receive) = (0i64, 0i64);
    for row in rows {
        let price = row.price.unwrap();
        let quantity = row.quantity;
        let quantity_exponent = quantity.map_or(0, |quantity| quantity.exponent);
        let next = table.len() as u32;
        let key = (row.venue.clone(), row.symbol.clone(), price.exponent, quantity_exponent);
        let (index, last) = table.entry(key).or_insert_with(|| {
            columns.instruments.push(proto::ColumnInstrument {
                instrument_id: 0,
                venue: row.venue.clone(),
                symbol: row.symbol.clone(),
                price_exponent: price.exponent,
                quantity_exponent,
            });
            (next, 0)
        });
        columns.instrument_index.push(*index);
        columns.price_mantissa.push(price.mantissa.wrapping_sub(*last));
        *last = price.mantissa;
        let time = nanos(row.event_time.unwrap());
        columns.event_time_unix_nano_delta.push(time.wrapping_sub(event));
        event = time;
        if let Some(time) = row.receive_time {
            columns.receive_time_unix_nano_delta.push(nanos(time).wrapping_sub(receive));
            receive = nanos(time);
        }
        columns.quantity.push(quantity.map_or(0, |quantity| quantity.mantissa as u64 + 1));
        columns.side.push(row.side);
        columns.trade_id.push(row.trade_id.clone());
        columns.action.push(row.action);
    }
    columns
}

fn read(columns: proto::TickColumns) -> Result<Batch, Violations> {
    batch("columns", columns.into(), None)
}

fn violated(columns: proto::TickColumns) -> Vec<String> {
    match read(columns) {
        Err(violations) => violations.first().iter().map(|v| v.field.clone()).collect(),
        other => panic!("expected violations, got {other:?}"),
    }
}

/// Two ticks that keep every rule.
fn sound() -> proto::TickColumns {
    proto::TickColumns {
        instruments: vec![proto::ColumnInstrument {
            instrument_id: 0,
            venue: "NYSE".into(),
            symbol: "IBM".into(),
            price_exponent: -2,
            quantity_exponent: 0,
        }],
        instrument_index: vec![0, 0],
        event_time_unix_nano_delta: vec![1_700_000_000_000_000_789, -789],
        price_mantissa: vec![100, -5],
        ..proto::TickColumns::default()
    }
}

#[test]
fn deltas_are_summed_and_absent_columns_are_absent_values() {
    let batch = read(sound()).unwrap();
    let ticks: Vec<_> =
        batch.ticks.iter().map(|tick| (tick.event_time.nanos(), tick.price.to_string(), tick.quantity)).collect();
    assert_eq!(
        ticks,
        [(1_700_000_000_000_000_789, "1".to_owned(), None), (1_700_000_000_000_000_000, "0.95".to_owned(), None),]
    );
    assert_eq!(batch.ticks[0].receive_time, None);
    assert_eq!(batch.ticks[0].trade_id, TradeId::None);
}

#[test]
fn arrays_that_do_not_belong_together_are_refused() {
    let cases: Vec<(&str, Change)> = vec![
        ("event_time_unix_nano_delta", |c| c.event_time_unix_nano_delta.clear()),
        ("price_mantissa", |c| c.price_mantissa.push(1)),
        ("receive_time_unix_nano_delta", |c| c.receive_time_unix_nano_delta.push(1)),
        ("quantity", |c| c.quantity.push(1)),
        ("side", |c| c.side.push(1)),
        ("trade_id", |c| c.trade_id.push(String::new())),
        ("log_seq_delta", |c| c.log_seq_delta.push(1)),
        ("origin", |c| c.origin.push(1)),
        ("action", |c| c.action.push(1)),
        ("merged_count", |c| c.merged_count.push(1)),
        ("instruments[0].venue", |c| c.instruments[0].venue.clear()),
        ("instruments[0].symbol", |c| c.instruments[0].symbol = "*".into()),
        ("instruments[0].price_exponent", |c| c.instruments[0].price_exponent = 15),
        ("instruments[0].quantity_exponent", |c| c.instruments[0].quantity_exponent = -19),
    ];
    for (field, change) in cases {
        let mut columns = sound();
        change(&mut columns);
        assert_eq!(violated(columns), [format!("columns.{field}")]);
    }
    assert_eq!(violated(proto::TickColumns::default()), ["columns.instrument_index"]);
}

#[test]
fn elements_that_break_a_rule_are_named() {
    let cases: Vec<(&str, Change)> = vec![
        ("instrument_index[1]", |c| c.instrument_index[1] = 1),
        ("instrument_index[0]", |c| c.instrument_index[0] = u32::MAX),
        ("event_time_unix_nano_delta[1]", |c| c.event_time_unix_nano_delta[1] = i64::MIN),
        ("receive_time_unix_nano_delta[1]", |c| c.receive_time_unix_nano_delta = vec![0, -1]),
        ("price_mantissa[1]", |c| c.price_mantissa[1] = i64::MAX),
        ("quantity[1]", |c| c.quantity = vec![0, u64::MAX]),
        ("quantity[1]", |c| c.quantity = vec![0, (1 << 63) + 1]),
        ("quantity[1]", |c| c.quantity = vec![0, 1 << 63]),
        ("side[1]", |c| c.side = vec![0, -1]),
        ("trade_id[1]", |c| c.trade_id = vec![String::new(), "x".repeat(65)]),
        ("action[1]", |c| c.action = vec![0, 9]),
    ];
    for (field, change) in cases {
        let mut columns = sound();
        change(&mut columns);
        assert_eq!(violated(columns), [format!("columns.{field}")]);
    }
}

#[test]
fn the_largest_quantity_fits() {
    let mut columns = sound();
    columns.instruments[0].quantity_exponent = -18;
    columns.quantity = vec![1, 1 << 63];
    let quantities: Vec<_> =
        read(columns).unwrap().ticks.iter().map(|tick| tick.quantity.unwrap().to_string()).collect();
    assert_eq!(quantities, ["0", "9.223372036854775807"]);
}

#[test]
fn corrections_and_cancels_name_their_trade() {
    let mut columns = sound();
    columns.action = vec![proto::Action::New.into(), proto::Action::Cancel.into()];
    columns.trade_id = vec![String::new(), "7".to_owned()];
    let taken = read(columns.clone()).unwrap().ticks;
    assert_eq!([taken[0].action, taken[1].action], [Action::New, Action::Cancel]);
    for ids in [vec![], vec!["7".to_owned(), String::new()]] {
        columns.trade_id = ids;
        let found = read(columns.clone()).unwrap_err();
        assert_eq!(found.first()[0].field, "columns.trade_id[1]");
    }
}

/// Rows that keep every rule; whether they carry a receive time is decided once for all.
fn rows() -> impl Strategy<Value = Vec<proto::Tick>> {
    let time = (0i64..9_000_000_000, 0i32..1_000_000_000)
        .prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos });
    let decimal = |low: i64| {
        (low..1_000_000_000, -18i32..6).prop_map(|(mantissa, exponent)| proto::Decimal { mantissa, exponent })
    };
    let row = (
        ("[AB]", "[A-D]"),
        (time.clone(), time),
        decimal(-1_000_000_000),
        proptest::option::of(decimal(0)),
        (0i32..3, 0i32..4),
        "[0-9a-z]{1,6}",
    )
        .prop_map(|((venue, symbol), (event, receive), price, quantity, (side, action), trade_id)| proto::Tick {
            venue,
            symbol,
            event_time: Some(event),
            receive_time: Some(receive),
            price: Some(price),
            quantity,
            side,
            trade_id,
            action,
            ..proto::Tick::default()
        });
    (proptest::collection::vec(row, 1..40), any::<bool>()).prop_map(|(mut rows, stamped)| {
        for row in &mut rows {
            row.receive_time = row.receive_time.filter(|_| stamped);
        }
        rows
    })
}

proptest! {
    #[test]
    fn rows_and_columns_of_the_same_ticks_are_the_same_batch(ticks in rows()) {
        let columns = encode(&ticks);
        let from_rows = rows::batch("rows", proto::TickBatch { ticks, merged_counts: vec![] }, None).unwrap();
        let from_columns = read(columns).unwrap();
        prop_assert_eq!(&from_rows, &from_columns);
        prop_assert_eq!(from_rows.digest(), from_columns.digest());
    }

    #[test]
    fn any_columns_are_read_or_refused(
        index in proptest::collection::vec(0u32..3, 0..6),
        event in proptest::collection::vec(any::<i64>(), 0..6),
        price in proptest::collection::vec(any::<i64>(), 0..6),
        quantity in proptest::collection::vec(any::<u64>(), 0..6),
        exponent in any::<i32>(),
    ) {
        let mut columns = sound();
        columns.instruments[0].price_exponent = exponent;
        columns.instrument_index = index;
        columns.event_time_unix_nano_delta = event;
        columns.price_mantissa = price;
        columns.quantity = quantity;
        let _ = read(columns);
    }
}

proptest! {
    #[test]
    fn stored_ticks_come_back_from_their_columns(ticks in crate::domain::samples::any_log(1_000, 60)) {
        let mut columns = wire(&ticks, &[]);
        prop_assert_eq!(columns.instrument_index.len(), ticks.len());
        if ticks.is_empty() {
            return Ok(());
        }
        for entry in &mut columns.instruments {
            // Subscriptions tell names elsewhere; the door asks for them here.
            entry.venue = "V".into();
            entry.symbol = format!("S{}", entry.instrument_id);
        }
        let positions = columns.log_seq_delta.iter().scan(0i64, |at, delta| { *at += delta; Some(*at) });
        prop_assert!(positions.eq(ticks.iter().map(|tick| tick.log_seq.cast_signed())));
        let origins = columns.origin.len();
        prop_assert!(origins == 0 || origins == ticks.len());
        let batch = read(columns).unwrap();
        for (read, tick) in batch.ticks.iter().zip(&ticks) {
            let name = &batch.instruments[read.instrument as usize].1;
            prop_assert_eq!(name.as_str(), format!("S{}", tick.instrument.0));
            prop_assert_eq!(read.event_time, tick.event_time);
            prop_assert_eq!(read.receive_time, Some(tick.receive_time));
            prop_assert_eq!(read.price, tick.price);
            prop_assert_eq!(read.quantity, tick.quantity);
            prop_assert_eq!(read.side, tick.side);
            prop_assert_eq!(&read.trade_id, &tick.trade_id);
        }
    }
}
