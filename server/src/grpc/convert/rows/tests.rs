use super::*;
use crate::domain::{Side, TradeId};
use crate::grpc::error::Refusal;
use tonic_types::StatusExt as _;

type Change = fn(&mut proto::Tick);

/// A row that keeps every rule.
pub(in crate::grpc::convert) fn row() -> proto::Tick {
    proto::Tick {
        venue: "NYSE".into(),
        symbol: "IBM".into(),
        event_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 789 }),
        price: Some(proto::Decimal { mantissa: 12_500, exponent: -4 }),
        quantity: Some(proto::Decimal { mantissa: 3, exponent: 2 }),
        side: proto::Side::Sell.into(),
        trade_id: "007".into(),
        ..proto::Tick::default()
    }
}

fn read(ticks: Vec<proto::Tick>) -> Result<Batch, Violations> {
    let rows = proto::TickBatch { ticks, merged_counts: vec![] };
    batch("rows", rows, None)
}

fn violations(ticks: Vec<proto::Tick>) -> Violations {
    match read(ticks) {
        Err(violations) => violations,
        other => panic!("expected violations, got {other:?}"),
    }
}

#[test]
fn a_row_becomes_the_tick_it_says() {
    let batch = read(vec![row()]).unwrap();
    let venue = Venue::new("NYSE").unwrap();
    let symbol = Symbol::new("IBM").unwrap();
    assert_eq!(batch.instruments, [(venue, symbol)]);
    let tick = &batch.ticks[0];
    assert_eq!(tick.event_time.nanos(), 1_700_000_000_000_000_789);
    assert_eq!(tick.receive_time, None);
    assert_eq!(tick.price, "1.25".parse().unwrap());
    assert_eq!(tick.quantity, Some("300".parse().unwrap()));
    assert_eq!(tick.side, Side::Sell);
    assert_eq!(tick.trade_id.to_string(), "007");
}

#[test]
fn instruments_stand_once_in_the_order_of_their_first_tick() {
    let named = |symbol: &str| proto::Tick { symbol: symbol.into(), ..row() };
    let batch = read(vec![named("B"), named("A"), named("B")]).unwrap();
    let symbols: Vec<_> = batch.instruments.iter().map(|(_, s)| s.as_str()).collect();
    assert_eq!(symbols, ["B", "A"]);
    let indexes: Vec<_> = batch.ticks.iter().map(|tick| tick.instrument).collect();
    assert_eq!(indexes, [0, 1, 0]);
}

#[test]
fn each_field_that_breaks_its_rule_is_named() {
    let decimal = |mantissa, exponent| Some(proto::Decimal { mantissa, exponent });
    let seconds = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let cases: Vec<(&str, Change)> = vec![
        ("venue", |tick| tick.venue.clear()),
        ("venue", |tick| tick.venue = "NY/SE".into()),
        ("symbol", |tick| tick.symbol = "A B".into()),
        ("symbol", |tick| tick.symbol = "A".repeat(65)),
        ("event_time", |tick| tick.event_time = None),
        ("price", |tick| tick.price = None),
        ("side", |tick| tick.side = 3),
        ("action", |tick| tick.action = 4),
        ("trade_id", |tick| tick.trade_id = "x".repeat(65)),
    ];
    for (field, change) in cases {
        let mut tick = row();
        change(&mut tick);
        let found = violations(vec![row(), tick]);
        assert_eq!(found.total(), 1, "{field}");
        assert_eq!(found.first()[0].field, format!("rows.ticks[1].{field}"));
    }
    for (field, wire) in [("1969", seconds(-1)), ("2300", seconds(10_413_792_000))] {
        let tick = proto::Tick { event_time: wire, receive_time: wire, ..row() };
        assert_eq!(violations(vec![tick]).total(), 2, "{field}");
    }
    for (field, wire) in
        [("10^15", decimal(1, 15)), ("19 decimals", decimal(1, -19)), ("the least of all", decimal(i64::MIN, i32::MIN))]
    {
        let tick = proto::Tick { price: wire, quantity: wire, ..row() };
        assert_eq!(violations(vec![tick]).total(), 2, "{field}");
    }
    let negative = proto::Tick { price: decimal(-1, 0), quantity: decimal(-1, 0), ..row() };
    let found = violations(vec![negative]);
    assert_eq!(found.first()[0].field, "rows.ticks[0].quantity");
    assert_eq!(found.total(), 1, "negative prices are valid");
}

#[test]
fn one_bad_tick_refuses_the_batch_and_many_are_counted() {
    let mut ticks = vec![row(); 1_000];
    ticks[17].price = None;
    let found = violations(ticks.clone());
    assert_eq!((found.total(), found.first().len()), (1, 1));
    assert_eq!(found.first()[0].field, "rows.ticks[17].price");

    for tick in &mut ticks {
        tick.price = None;
        tick.symbol = "A B".into();
    }
    let found = violations(ticks);
    assert_eq!((found.total(), found.first().len()), (2_000, 20));

    let status = tonic::Status::from(Refusal::batch_invalid(found, 8));
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.details().len() <= 4_096);
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "BATCH_INVALID");
    assert_eq!(info.metadata["violation_count"], "2000");
    assert_eq!(info.metadata["expected_batch_seq"], "8");
    assert_eq!(details.bad_request().unwrap().field_violations.len(), 20);
}

#[test]
fn a_batch_has_ticks() {
    assert_eq!(violations(vec![]).first()[0].field, "rows.ticks");
}

#[test]
fn live_ticks_lie_at_most_a_little_ahead() {
    let rows = || proto::TickBatch { ticks: vec![row()], merged_counts: vec![] };
    let at = UnixNanos::from_seconds(1_700_000_000, 789).unwrap();
    assert!(batch("rows", rows(), Some(at)).is_ok());
    let before = UnixNanos::from_seconds(1_700_000_000, 788).unwrap();
    let Err(found) = batch("rows", rows(), Some(before)) else {
        panic!("a tick ahead is refused");
    };
    assert_eq!(found.first()[0].field, "rows.ticks[0].event_time");
    assert!(batch("rows", rows(), None).is_ok());
}

#[test]
fn corrections_and_cancels_name_their_trade_and_cancels_need_no_price() {
    for (wire, action) in [(proto::Action::Correct, Action::Correct), (proto::Action::Cancel, Action::Cancel)] {
        let named = proto::Tick { action: wire.into(), trade_id: "7".to_owned(), ..row() };
        let read_one = |tick: proto::Tick| read(vec![row(), tick]).map(|mut batch| batch.ticks.remove(1));
        let taken = read_one(named.clone()).unwrap();
        assert_eq!((taken.action, taken.trade_id), (action, TradeId::Number(7)));
        let found = read_one(proto::Tick { trade_id: String::new(), ..named.clone() }).unwrap_err();
        assert_eq!(found.first()[0].field, "rows.ticks[1].trade_id");
        let without_price = read_one(proto::Tick { price: None, ..named });
        assert_eq!(without_price.is_ok(), action == Action::Cancel);
    }
}
