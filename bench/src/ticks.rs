//! Made-up trades that look like real ones: a walk in cents, small lots, exponential gaps.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tapefeed_proto::v1 as proto;

/// One trade of a made-up tape.
#[derive(Clone, Copy, Debug)]
pub struct Trade {
    /// From 0.
    pub instrument: u32,
    /// Nanoseconds since 1970.
    pub event_time: i64,
    /// In cents.
    pub price: i64,
    /// In thousandths.
    pub quantity: u64,
    /// Whether a buyer was the aggressor.
    pub buy: bool,
    /// Counts up.
    pub id: u64,
}

/// A seeded tape of trades over some instruments, from 2024-01-01.
#[derive(Debug)]
pub struct Tape {
    random: SmallRng,
    /// The number of its first instrument.
    first: u32,
    prices: Vec<i64>,
    time: i64,
    id: u64,
    mean_gap: f64,
    few_busy: bool,
}

/// The first trade of a tape comes soon after this: 2024-01-01, in nanoseconds since 1970.
pub const FIRST_TIME: i64 = 1_704_067_200_000_000_000;

impl Tape {
    /// A tape with a mean gap between trades in nanoseconds.
    pub fn new(instruments: u32, mean_gap: f64) -> Tape {
        let prices = (0..instruments).map(|index| 10_000 + 137 * i64::from(index)).collect();
        Tape {
            random: SmallRng::seed_from_u64(7),
            first: 0,
            prices,
            time: FIRST_TIME,
            id: 0,
            mean_gap,
            few_busy: false,
        }
    }

    /// The tape of one producer of several: its instruments have numbers from `first` on, and its trades are its own.
    pub fn of_producer(first: u32, instruments: u32, mean_gap: f64) -> Tape {
        let random = SmallRng::seed_from_u64(7 + u64::from(first));
        Tape { random, first, ..Tape::new(instruments, mean_gap) }
    }

    /// Goes on at an event time, in nanoseconds since 1970.
    pub fn from(self, time: i64) -> Tape {
        Tape { time, ..self }
    }

    /// The event time of its last trade, in nanoseconds since 1970.
    pub fn time(&self) -> i64 {
        self.time
    }

    /// The nth instrument trades about 1/n as often as the first, instead of all alike.
    pub fn with_few_busy(self) -> Tape {
        Tape { few_busy: true, ..self }
    }

    fn instrument(&mut self) -> usize {
        let count = self.prices.len();
        if self.few_busy {
            let place = ((count + 1) as f64).powf(self.random.random::<f64>()) - 1.0;
            return (place as usize).min(count - 1);
        }
        self.random.random_range(0..count)
    }
}

impl Iterator for Tape {
    type Item = Trade;

    fn next(&mut self) -> Option<Trade> {
        let instrument = self.instrument();
        self.time += (-self.random.random::<f64>().max(1e-9).ln() * self.mean_gap) as i64 / 1_000_000 * 1_000_000;
        self.id += 1;
        let step = [-2, -1, -1, 0, 0, 0, 0, 1, 1, 2][self.random.random_range(0..10)];
        self.prices[instrument] = (self.prices[instrument] + step).max(100);
        Some(Trade {
            instrument: self.first + instrument as u32,
            event_time: self.time,
            price: self.prices[instrument],
            quantity: 100 * self.random.random_range(1..=20) + u64::from(self.random.random_bool(0.2)) * 37,
            buy: self.random.random(),
            id: self.id,
        })
    }
}

/// The symbol of an instrument.
pub fn symbol(instrument: u32) -> String {
    format!("SYM{instrument:03}")
}

/// Trades as rows.
pub fn rows(trades: &[Trade]) -> proto::TickBatch {
    let tick = |trade: &Trade| proto::Tick {
        venue: "BENCH".into(),
        symbol: symbol(trade.instrument),
        event_time: Some(prost_types::Timestamp {
            seconds: trade.event_time / 1_000_000_000,
            nanos: (trade.event_time % 1_000_000_000) as i32,
        }),
        price: Some(proto::Decimal { mantissa: trade.price, exponent: -2 }),
        quantity: Some(proto::Decimal { mantissa: trade.quantity as i64, exponent: -3 }),
        side: if trade.buy { proto::Side::Buy } else { proto::Side::Sell } as i32,
        trade_id: trade.id.to_string(),
        ..proto::Tick::default()
    };
    proto::TickBatch { ticks: trades.iter().map(tick).collect(), merged_counts: Vec::new() }
}

/// Trades as columns.
pub fn columns(trades: &[Trade]) -> proto::TickColumns {
    let mut columns = proto::TickColumns::default();
    let mut places: Vec<Option<u32>> = Vec::new();
    let mut last_price = Vec::new();
    let mut last_time = 0;
    for trade in trades {
        let index = trade.instrument as usize;
        if places.len() <= index {
            places.resize(index + 1, None);
        }
        let place = *places[index].get_or_insert_with(|| {
            columns.instruments.push(proto::ColumnInstrument {
                instrument_id: 0,
                venue: "BENCH".into(),
                symbol: symbol(trade.instrument),
                price_exponent: -2,
                quantity_exponent: -3,
            });
            last_price.push(0);
            columns.instruments.len() as u32 - 1
        });
        columns.instrument_index.push(place);
        columns.event_time_unix_nano_delta.push(trade.event_time - last_time);
        last_time = trade.event_time;
        let last = &mut last_price[place as usize];
        columns.price_mantissa.push(trade.price - *last);
        *last = trade.price;
        columns.quantity.push(trade.quantity + 1);
        columns.side.push(if trade.buy { proto::Side::Buy } else { proto::Side::Sell } as i32);
        columns.trade_id.push(trade.id.to_string());
    }
    columns
}
