//! The demo: invented trades of three NASDAQ and three NYSE stocks, published like anybody's.
//!
//! [`Market`] invents the trades: the same seed gives the same trades in the same order, whatever the rate and the
//! time. [`Demo`] publishes them at a rate, in one batch a step.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::domain::{Action, Batch, Clock, Decimal, NewTick, Side, Symbol, TradeId, UnixNanos, Venue};
use crate::ingest::{Ingest, IngestError, Sender, Submission};
use crate::store::{ProducerClaim, ProducerId};

/// The stocks with their first prices in cents.
const STOCKS: [(&str, &str, i64); 6] = [
    ("NASDAQ", "AMZN", 18_255),
    ("NASDAQ", "AAPL", 22_000),
    ("NASDAQ", "MSFT", 42_150),
    ("NYSE", "TSLA", 70_000),
    ("NYSE", "NFLX", 50_000),
    ("NYSE", "DIS", 14_500),
];

/// A price moves by at most this, in cents.
const WIDEST_MOVE: i64 = 50;

/// A smaller move is no trade, in cents.
const SMALLEST_TRADE: i64 = 10;

/// One part in so many of the distance to the first price is pulled back in each move: enough to stay within some
/// tens of dollars for ever, too little to be seen within a minute.
const PULL: i64 = 10_000;

/// Trades per second unless the options say otherwise: about what the moves above give at ten a second.
pub const DEFAULT_RATE: u32 = 60;

/// The highest rate.
pub const MAX_RATE: u32 = 100_000;

/// The name under which the demo publishes.
const PRODUCER: &str = "demo";

/// An invented trade.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trade {
    /// Index into the stocks.
    stock: u32,
    price: Decimal,
    quantity: Decimal,
    side: Side,
    number: u64,
}

/// Invents trades.
#[derive(Debug)]
struct Market {
    random: SmallRng,
    /// Prices in cents.
    prices: [i64; STOCKS.len()],
    next_stock: usize,
    trades: u64,
}

impl Market {
    fn new(seed: u64) -> Market {
        Market {
            random: SmallRng::seed_from_u64(seed),
            prices: STOCKS.map(|(_, _, price)| price),
            next_stock: 0,
            trades: 0,
        }
    }

    /// The next trade. Prices also move without one.
    fn next(&mut self) -> Trade {
        loop {
            let stock = self.next_stock;
            self.next_stock = (stock + 1) % STOCKS.len();
            let moved = self.move_price(stock);
            if moved.abs() >= SMALLEST_TRADE {
                return self.trade(stock, moved);
            }
        }
    }

    /// Moves a price, and returns by how much.
    fn move_price(&mut self, stock: usize) -> i64 {
        let (_, _, first) = STOCKS[stock];
        let away = first - self.prices[stock];
        // Fractions of a cent are drawn, so that small distances are pulled back too.
        let fraction = self.random.random_range(0..PULL);
        let pull = (away + fraction).div_euclid(PULL);
        let mut moved = self.random.random_range(-WIDEST_MOVE..=WIDEST_MOVE) + pull;
        if self.prices[stock] + moved <= 0 {
            moved = moved.abs();
        }
        self.prices[stock] += moved;
        moved
    }

    fn trade(&mut self, stock: usize, moved: i64) -> Trade {
        let round_lots = self.random.random_range(0..10) < 7;
        let quantity = match round_lots {
            true => 100 * self.random.random_range(1..=9),
            false => self.random.random_range(1..=99),
        };
        // Buyers mostly lift the price and sellers mostly lower it.
        let with_the_move = self.random.random_range(0..10) < 8;
        let side = if (moved > 0) == with_the_move { Side::Buy } else { Side::Sell };
        self.trades += 1;
        Trade {
            stock: stock as u32,
            price: Decimal::new(self.prices[stock], -2).expect("cents far below 10^15"),
            quantity: Decimal::new(quantity, 0).expect("at most 900"),
            side,
            number: self.trades,
        }
    }
}

/// How the demo publishes.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// Trades per second, 1 to [`MAX_RATE`].
    pub rate: u32,
    /// The same seed gives the same trades.
    pub seed: u64,
}

/// Publishes invented trades until it is stopped.
#[derive(Debug)]
pub struct Demo {
    ingest: Ingest,
    clock: Arc<dyn Clock>,
    rate: u32,
    market: Market,
    instruments: Vec<(Venue, Symbol)>,
    producer: ProducerId,
    stop: CancellationToken,
}

/// The first wait after the log did not take a batch; it doubles up to [`LAST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait.
const LAST_WAIT: Duration = Duration::from_secs(5);

impl Demo {
    /// Nothing is published before [`Demo::run`].
    pub fn new(ingest: Ingest, clock: Arc<dyn Clock>, options: DemoOptions, stop: CancellationToken) -> Demo {
        let name = |(venue, symbol, _)| {
            let venue = Venue::new(venue).expect("a constant of the alphabet");
            (venue, Symbol::new(symbol).expect("a constant of the alphabet"))
        };
        Demo {
            ingest,
            clock,
            rate: options.rate.clamp(1, MAX_RATE),
            market: Market::new(options.seed),
            instruments: STOCKS.map(name).to_vec(),
            producer: ProducerId::new(PRODUCER).expect("a constant of the alphabet"),
            stop,
        }
    }

    /// Publishes until it is stopped, through outages of the store. Ends early, with an error, when another process
    /// publishes the demo into the same log.
    pub async fn run(mut self) -> Result<(), IngestError> {
        let Some(mut claim) = self.claim().await else {
            return Ok(());
        };
        let step = step(self.rate);
        let mut steps = tokio::time::interval(step);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace { rate: self.rate, since: Instant::now(), sent: 0 };
        let mut last_time = self.clock.now();
        loop {
            tokio::select! {
                _ = steps.tick() => {}
                () = self.stop.cancelled() => return Ok(()),
            }
            let due = pace.due(Instant::now());
            if due == 0 {
                continue;
            }
            let now = self.clock.now();
            let batch = self.batch(due, last_time, now);
            last_time = now;
            match self.publish(batch, &mut claim).await {
                Ok(()) => {}
                Err(IngestError::ShuttingDown) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The next trades, spread evenly over the time since the last batch.
    fn batch(&mut self, count: u64, after: UnixNanos, until: UnixNanos) -> Batch {
        let span = until.nanos().saturating_sub(after.nanos()).max(0) as u64;
        let mut ticks = Vec::with_capacity(count as usize);
        for index in (0..count).rev() {
            let trade = self.market.next();
            let before = Duration::from_nanos(span / count * index);
            ticks.push(NewTick {
                instrument: trade.stock,
                event_time: until.saturating_sub(before),
                receive_time: None,
                price: trade.price,
                quantity: Some(trade.quantity),
                side: trade.side,
                trade_id: TradeId::Number(trade.number),
                action: Action::New,
            });
        }
        // The table holds all stocks, in their fixed order: an unused one costs nothing.
        Batch { instruments: self.instruments.clone(), ticks, controls: Vec::new() }
    }

    /// Publishes a batch, the same one until it is stored.
    async fn publish(&mut self, batch: Batch, claim: &mut ProducerClaim) -> Result<(), IngestError> {
        let mut wait = FIRST_WAIT;
        loop {
            let sender = Sender::Producer {
                producer: self.producer.clone(),
                fence: claim.fence,
                batch_seq: claim.last_batch_seq + 1,
            };
            let submission = Submission { batch: batch.clone(), sender, backfill: false };
            let span = tracing::debug_span!(
                "batch",
                tapefeed.producer.id = self.producer.as_str(),
                tapefeed.batch.seq = claim.last_batch_seq + 1,
                tapefeed.batch.ticks = submission.batch.ticks.len(),
            );
            let outcome = match self.ingest.submit(submission).instrument(span).await {
                Ok(receipt) => receipt.await.unwrap_or(Err(IngestError::ShuttingDown)),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(_) => {
                    claim.last_batch_seq += 1;
                    return Ok(());
                }
                Err(error @ (IngestError::ShuttingDown | IngestError::Fenced)) => {
                    return Err(error);
                }
                // The log does not know us as we know ourselves: a fork, or a long silence.
                Err(
                    IngestError::Unknown
                    | IngestError::OutOfOrder { .. }
                    | IngestError::Conflict
                    | IngestError::EpochChanged(_),
                ) => {
                    self.pause(&mut wait).await?;
                    *claim = self.claim().await.ok_or(IngestError::ShuttingDown)?;
                }
                Err(
                    IngestError::Unavailable | IngestError::QueueFull { .. } | IngestError::TooManyCorrections { .. },
                ) => self.pause(&mut wait).await?,
            }
        }
    }

    /// Claims the producer, however long that takes; `None` when stopped.
    async fn claim(&self) -> Option<ProducerClaim> {
        let mut wait = FIRST_WAIT;
        loop {
            match self.ingest.claim(&self.producer).await {
                Ok(claim) => return Some(claim),
                Err(error) => tracing::warn!(%error, "the demo waits for the store"),
            }
            self.pause(&mut wait).await.ok()?;
        }
    }

    async fn pause(&self, wait: &mut Duration) -> Result<(), IngestError> {
        tokio::select! {
            () = tokio::time::sleep(*wait) => {
                *wait = (*wait * 2).min(LAST_WAIT);
                Ok(())
            }
            () = self.stop.cancelled() => Err(IngestError::ShuttingDown),
        }
    }
}

/// How long a step is: batches of some tens of trades at least, and never rarer than ten a second.
fn step(rate: u32) -> Duration {
    if rate < 10_000 { Duration::from_millis(100) } else { Duration::from_millis(10) }
}

/// Counts what a rate owes.
#[derive(Debug)]
struct Pace {
    rate: u32,
    since: Instant,
    sent: u64,
}

impl Pace {
    /// How many trades are due now, which are taken as sent. After an outage at most a second's worth: the rest of
    /// that time simply had no trades.
    fn due(&mut self, now: Instant) -> u64 {
        let rate = u64::from(self.rate);
        let owed = (now - self.since).as_millis() as u64 * rate / 1_000;
        let due = owed.saturating_sub(self.sent);
        if due > rate {
            self.since = now;
            self.sent = 0;
            return rate;
        }
        self.sent += due;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trades(seed: u64, count: usize) -> Vec<Trade> {
        let mut market = Market::new(seed);
        (0..count).map(|_| market.next()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_trades() {
        assert_eq!(trades(7, 10_000), trades(7, 10_000));
        assert_ne!(trades(7, 100), trades(8, 100));
    }

    #[test]
    fn trades_are_moves_of_ten_to_fifty_cents() {
        let mut last: [i64; 6] = STOCKS.map(|(_, _, price)| price);
        let mut market = Market::new(1);
        let mut moves = 0;
        let mut traded = [0; 6];
        for number in 1..=60_000 {
            let trade = market.next();
            let price = trade.price.mantissa_at(-2).unwrap();
            let stock = trade.stock as usize;
            moves += i64::from((price - last[stock]).abs() >= SMALLEST_TRADE);
            last[stock] = price;
            traded[stock] += 1;
            assert_eq!(trade.number, number);
            assert!(trade.quantity.is_positive() && trade.side != Side::Unspecified);
        }
        // Moves without a trade in between may add up to less than ten cents.
        assert!(moves > 50_000, "{moves}");
        assert!(traded.iter().all(|count| (9_500..10_500).contains(count)), "{traded:?}");
    }

    #[test]
    fn prices_stay_positive_and_near_their_beginning_for_days() {
        let mut market = Market::new(3);
        for _ in 0..1_000_000 {
            market.next();
            for (price, (_, symbol, first)) in market.prices.iter().zip(STOCKS) {
                assert!(*price > 0 && (price - first).abs() < 14_000, "{symbol}: {price}");
            }
        }
    }

    #[test]
    fn a_price_at_the_ground_goes_up() {
        let mut market = Market::new(5);
        for _ in 0..1_000 {
            market.prices[0] = 1;
            market.move_price(0);
            assert!(market.prices[0] >= 1);
        }
    }

    #[test]
    fn the_rate_is_held_over_uneven_steps() {
        for rate in [1, 7, 60, 999, 10_000, 100_000] {
            let since = Instant::now();
            let mut pace = Pace { rate, since, sent: 0 };
            let mut sent = 0;
            let mut now = since;
            for index in 0..1_000u64 {
                now += Duration::from_millis(1 + index * 7 % 50);
                sent += pace.due(now);
            }
            let expected = (now - since).as_millis() as u64 * u64::from(rate) / 1_000;
            assert_eq!(sent, expected, "{rate}");
        }
        let since = Instant::now();
        let mut pace = Pace { rate: 100, since, sent: 0 };
        assert_eq!(pace.due(since + Duration::from_secs(60)), 100);
        assert_eq!(pace.due(since + Duration::from_secs(61)), 100);
    }
}
