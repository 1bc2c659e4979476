//! Ticks for the tests of codecs and statistics: plain runs as venues send them, and the extremes of every field.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Decimal, InstrumentId, Origin, Side, Tick, TradeId, UnixNanos};

/// Decimals near each other, and anywhere inside the door rule.
pub(super) fn any_decimal() -> impl Strategy<Value = Decimal> {
    let near = (-300i64..300, -3i32..0).prop_map(|(mantissa, exponent)| Decimal::new(6_100_000 + mantissa, exponent));
    let far = (any::<i64>(), 0u32..64, -18i32..15)
        .prop_map(|(mantissa, shift, exponent)| Decimal::new(mantissa >> shift, exponent));
    let edge = prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(1), Just(-1), Just(0)];
    let edge = (edge, -18i32..15).prop_map(|(mantissa, exponent)| Decimal::new(mantissa, exponent));
    prop_oneof![3 => near, 1 => far, 1 => edge].prop_filter_map("outside the door rule", Result::ok)
}

/// Quantities: present or not, never negative.
pub(super) fn any_quantity() -> impl Strategy<Value = Option<Decimal>> {
    let positive = any_decimal().prop_filter("negative", |value| !value.is_negative());
    prop_oneof![1 => Just(None), 3 => positive.prop_map(Some)]
}

/// Instants of one day mostly, on a grid or off it, and the extremes.
pub(super) fn any_time() -> impl Strategy<Value = UnixNanos> {
    let near = (0i64..40, prop_oneof![Just(1i64), Just(1_000), Just(1_000_000), Just(1_000_000_000)])
        .prop_map(|(steps, unit)| 1_723_161_255_000_000_000 + steps * unit);
    prop_oneof![6 => near, 1 => 0..=i64::MAX, 1 => Just(0), 1 => Just(i64::MAX)]
        .prop_map(|nanos| UnixNanos::new(nanos).unwrap())
}

/// Ids of every kind.
pub(super) fn any_trade_id() -> impl Strategy<Value = TradeId> {
    prop_oneof![
        1 => Just(String::new()),
        3 => (0u64..100).prop_map(|number| number.to_string()),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        1 => "[a-z0-9é]{1,32}",
    ]
    .prop_map(|text| TradeId::new(&text).unwrap())
}

fn any_side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Unspecified), Just(Side::Buy), Just(Side::Sell)]
}

/// One tick of some instrument.
pub(super) fn any_tick() -> impl Strategy<Value = Tick> {
    let instrument = prop_oneof![4 => 1u32..5, 1 => any::<u32>()];
    let origin = prop_oneof![Just(Origin::Live), Just(Origin::Backfill)];
    let values = (any_decimal(), any_quantity(), any_side(), any_trade_id());
    (instrument, any::<u64>(), any_time(), any_time(), values, origin).prop_map(
        |(instrument, log_seq, event_time, receive_time, (price, quantity, side, trade_id), origin)| Tick {
            instrument: InstrumentId(instrument),
            log_seq,
            event_time,
            receive_time,
            price,
            quantity,
            side,
            trade_id,
            origin,
        },
    )
}

/// What all ticks of a run have alike, so that the columns of equal values are met too.
fn any_habit() -> impl Strategy<Value = fn(&mut Tick)> {
    let habits: Vec<fn(&mut Tick)> = vec![
        |_| (),
        |tick| tick.quantity = None,
        |tick| tick.quantity = tick.quantity.or(Some(Decimal::ZERO)),
        |tick| tick.side = Side::Buy,
        |tick| tick.trade_id = TradeId::None,
        |tick| tick.trade_id = TradeId::Number(tick.log_seq),
        |tick| tick.trade_id = TradeId::new(&format!("trade-{}", tick.log_seq)).unwrap(),
        |tick| tick.receive_time = UnixNanos::new(1_723_161_256_000_000_000).unwrap(),
        |tick| {
            tick.receive_time = tick.event_time.saturating_add(std::time::Duration::from_nanos(tick.log_seq % 1_000))
        },
        |tick| tick.price = Decimal::new(61_000 + (tick.log_seq % 7) as i64, -1).unwrap(),
    ];
    proptest::sample::select(habits)
}

/// Ticks of several instruments in the order of the log, dense from a position.
pub(crate) fn any_log(first_seq: u64, most: usize) -> impl Strategy<Value = Vec<Tick>> {
    (vec(any_tick(), 0..most), vec(any_habit(), 0..3), any::<bool>()).prop_map(move |(mut ticks, habits, backfill)| {
        for (index, tick) in ticks.iter_mut().enumerate() {
            tick.log_seq = first_seq + index as u64;
            tick.origin = if backfill { Origin::Backfill } else { Origin::Live };
            habits.iter().for_each(|habit| habit(tick));
        }
        ticks
    })
}

/// Ticks of one instrument in the order of history.
pub(crate) fn any_history(most: usize) -> impl Strategy<Value = Vec<Tick>> {
    (vec(any_tick(), 1..most), vec(any_habit(), 0..3), any::<bool>()).prop_map(|(mut ticks, habits, mixed)| {
        for (index, tick) in ticks.iter_mut().enumerate() {
            tick.instrument = InstrumentId(7);
            // Distinct positions, in another order than the event times.
            tick.log_seq = tick.log_seq % 1_000 * 1_000 + index as u64;
            tick.origin = if mixed { tick.origin } else { Origin::Live };
            habits.iter().for_each(|habit| habit(tick));
        }
        ticks.sort_by_key(Tick::key);
        ticks
    })
}

/// A random walk as a venue would send it: many ticks share their millisecond, ids count up.
pub(super) fn walk(count: usize, instruments: u32) -> Vec<Tick> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut event = 1_723_161_255_000_000_000i64;
    let mut prices = vec![6_183_763i64; instruments as usize];
    let ticks = (0..count).map(|index| {
        if random() % 3 == 0 {
            event += (random() % 40) as i64 * 1_000_000;
        }
        let instrument = (random() % u64::from(instruments)) as usize;
        prices[instrument] += (random() % 3) as i64 - 1;
        Tick {
            instrument: InstrumentId(instrument as u32 + 1),
            log_seq: 1 + index as u64,
            event_time: UnixNanos::new(event).unwrap(),
            receive_time: UnixNanos::new(event + 1_000_000 + (random() % 300_000) as i64).unwrap(),
            price: Decimal::new(prices[instrument], -2).unwrap(),
            quantity: Some(Decimal::new(1 + (random() % 100_000) as i64, -5).unwrap()),
            side: if random() % 4 < 3 { Side::Buy } else { Side::Sell },
            trade_id: TradeId::Number(3_735_683_259 + index as u64),
            origin: Origin::Live,
        }
    });
    ticks.collect()
}
