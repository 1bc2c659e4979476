//! Producers that publish random ticks, and the ledger of what they sent and what was acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_server::domain::{Action, Batch, Decimal, NewTick, Side, Symbol, TradeId, UnixNanos, Venue};
use tapefeed_server::ingest::{Ingest, IngestError, Sender, Submission};
use tapefeed_server::store::ProducerId;
use tapefeed_tests::exact::units;

use super::oracle::{Log, Logged};

/// Symbols that trade all the time, each on two venues.
pub const BUSY: usize = 5;
/// Symbols that hardly trade, each on one venue.
pub const THIN: usize = 5_000;
/// The venues.
pub const VENUES: [&str; 5] = ["XAAA", "XBBB", "XCCC", "XDDD", "XEEE"];
/// Batches that a producer has under way.
const OUTSTANDING: usize = 3;
/// A day in nanoseconds.
pub const DAY: i64 = 86_400_000_000_000;

/// The names of a busy instrument.
pub fn busy(number: usize) -> (String, String) {
    (VENUES[number % 2].to_owned(), format!("BUSY{}", number / 2))
}

/// The names of a thin instrument.
pub fn thin(number: usize) -> (String, String) {
    (VENUES[number % VENUES.len()].to_owned(), format!("THIN{number}"))
}

/// A batch's name: its producer and its number.
pub type BatchName = (usize, u64);

/// What was sent, and what was acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Each batch as sent; positions are 0.
    sent: BTreeMap<BatchName, Vec<Logged>>,
    /// Acknowledged batches with the position of their cursor, and whether the answer said duplicate.
    acknowledged: BTreeMap<BatchName, (u64, bool)>,
}

/// The ledger as all producers share it.
pub type Shared = Arc<Mutex<Ledger>>;

impl Ledger {
    /// How many batches are acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Checks a log: every acknowledged batch is in it, every other one whole or not at all, each once, as sent, and
    /// those of a producer in the order of their numbers. Returns how many batches and unacknowledged ones it holds.
    pub fn check(&self, log: &Log) -> (usize, usize) {
        let mut at = 0;
        let mut seen: BTreeSet<BatchName> = BTreeSet::new();
        let mut last: BTreeMap<usize, u64> = BTreeMap::new();
        while at < log.ticks.len() {
            let id = &log.ticks[at].trade_id;
            let mut numbers = id.split('-').map(|number| number.parse::<u64>().expect("ids are ours"));
            let mut number = || numbers.next().expect("ids have three parts");
            let name = (number() as usize, number());
            let batch = self.sent.get(&name).unwrap_or_else(|| panic!("{id} was never sent"));
            assert!(seen.insert(name), "batch {name:?} is stored twice");
            let before = last.insert(name.0, name.1).unwrap_or(0);
            assert_eq!(before + 1, name.1, "batch {name:?} does not follow batch {before}");
            let stored = log.ticks.get(at..at + batch.len()).unwrap_or_default();
            assert_eq!(stored.len(), batch.len(), "batch {name:?} is torn");
            for (stored, sent) in stored.iter().zip(batch) {
                let sent = Logged { log_seq: stored.log_seq, ..sent.clone() };
                assert_eq!(*stored, sent, "batch {name:?} is stored as it was sent");
            }
            at += batch.len();
            if let Some((position, duplicate)) = self.acknowledged.get(&name) {
                let end = log.ticks[at - 1].log_seq;
                let right = if *duplicate { *position >= end } else { *position == end };
                assert!(right, "batch {name:?} ends at {end}; its cursor says {position}");
            }
        }
        for name in self.acknowledged.keys() {
            assert!(seen.contains(name), "batch {name:?} was acknowledged and is lost");
        }
        (seen.len(), seen.len() - self.acknowledged.len())
    }
}

/// Why a producer gave up.
#[derive(Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The store answers no more.
    Dead,
}

/// A producer with batches that are not acknowledged yet.
#[derive(Debug)]
pub struct Producer {
    number: usize,
    id: ProducerId,
    random: SmallRng,
    next: u64,
    pending: VecDeque<(u64, Batch)>,
    ledger: Shared,
}

impl Producer {
    /// A producer that has sent nothing.
    pub fn new(number: usize, seed: u64, ledger: Shared) -> Producer {
        Producer {
            number,
            id: ProducerId::new(&format!("producer-{number}")).expect("a name"),
            random: SmallRng::seed_from_u64(seed + number as u64),
            next: 1,
            pending: VecDeque::new(),
            ledger,
        }
    }

    /// Makes a batch: mostly busy instruments, some thin ones, one tick in eight late by up to four days.
    pub fn random_batch(&mut self, now: i64) {
        let count = self.random.random_range(1..200);
        let mut ticks = Vec::new();
        for _ in 0..count {
            let name = match self.random.random_bool(0.85) {
                true => busy(self.random.random_range(0..2 * BUSY)),
                false => thin(self.random.random_range(0..THIN)),
            };
            let late = self.random.random_bool(0.125);
            let age = if late { self.random.random_range(0..4 * DAY) } else { 0 };
            ticks.push((name, now - age));
        }
        self.batch(ticks);
    }

    /// Makes a batch of ticks of these instruments at these times.
    pub fn batch(&mut self, ticks: Vec<((String, String), i64)>) {
        let number = self.next;
        self.next += 1;
        let mut batch = Batch::default();
        let mut sent = Vec::new();
        for (index, (name, time)) in ticks.into_iter().enumerate() {
            // Most ticks of real markets share their millisecond.
            let time = time / 1_000_000 * 1_000_000;
            let decimals = self.random.random_range(0..4);
            let price = text(self.random.random_range(-50..5_000), decimals);
            let quantity = self.random.random_bool(0.9).then(|| text(self.random.random_range(0..900), decimals));
            let trade_id = format!("{}-{number}-{index}", self.number);
            let names = (Venue::new(&name.0).expect("a venue"), Symbol::new(&name.1).expect("a symbol"));
            let known = batch.instruments.iter().position(|known| *known == names);
            let instrument = known.unwrap_or_else(|| {
                batch.instruments.push(names);
                batch.instruments.len() - 1
            });
            let decimal = |text: &String| text.parse::<Decimal>().expect("a decimal");
            batch.ticks.push(NewTick {
                instrument: instrument as u32,
                event_time: UnixNanos::new(time).expect("a time of this century"),
                receive_time: None,
                price: decimal(&price),
                quantity: quantity.as_ref().map(decimal),
                side: Side::Buy,
                trade_id: TradeId::new(&trade_id).expect("short"),
                action: Action::New,
            });
            let (price, quantity) = (units(&price), quantity.as_deref().map(units));
            sent.push(Logged { log_seq: 0, name, time, price, quantity, trade_id });
        }
        let mut ledger = self.ledger.lock().expect("no holder of the lock panics");
        ledger.sent.insert((self.number, number), sent);
        self.pending.push_back((number, batch));
    }

    /// Claims its id, and sends what is pending until all of it is acknowledged or `dead` says that it never will be.
    pub async fn send(&mut self, ingest: &Ingest, dead: impl Fn() -> bool) -> Result<(), Stopped> {
        let claim = loop {
            match ingest.claim(&self.id).await {
                Ok(claim) => break claim,
                Err(_) if dead() => return Err(Stopped::Dead),
                Err(IngestError::Unavailable) => (),
                Err(error) => panic!("a claim was refused: {error}"),
            }
        };
        // What was stored before the cut needs no second sending.
        while self.pending.front().is_some_and(|(number, _)| *number <= claim.last_batch_seq) {
            self.pending.pop_front();
        }
        while !self.pending.is_empty() {
            let mut receipts = Vec::new();
            for (number, batch) in self.pending.iter().take(OUTSTANDING) {
                let sender = Sender::Producer { producer: self.id.clone(), fence: claim.fence, batch_seq: *number };
                let submission = Submission { batch: batch.clone(), sender, backfill: false };
                receipts.push((*number, ingest.submit(submission).await));
            }
            for (number, receipt) in receipts {
                let outcome = match receipt {
                    Ok(receipt) => receipt.await.unwrap_or(Err(IngestError::ShuttingDown)),
                    Err(error) => Err(error),
                };
                match outcome {
                    Ok(receipt) => {
                        let mut ledger = self.ledger.lock().expect("no holder of the lock panics");
                        let answer = (receipt.cursor.position, receipt.duplicate);
                        ledger.acknowledged.insert((self.number, number), answer);
                        assert_eq!(self.pending.pop_front().map(|(number, _)| number), Some(number));
                    }
                    Err(_) if dead() => return Err(Stopped::Dead),
                    // The outcome is unknown, or an earlier one is: the same batches are sent again.
                    Err(IngestError::Unavailable | IngestError::OutOfOrder { .. }) => break,
                    // Compaction is being made to fail, and the writer outruns it: wait for it.
                    Err(IngestError::QueueFull { .. }) => {
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        break;
                    }
                    Err(error) => panic!("batch {number} of {:?}: {error}", self.id),
                }
            }
        }
        Ok(())
    }
}

fn text(mantissa: i64, decimals: u32) -> String {
    tapefeed_tests::exact::text_at(i128::from(mantissa), decimals)
}

/// A ledger of one producer with two acknowledged batches and one that is not, and the log that holds the first two.
#[cfg(test)]
fn example() -> (Ledger, Log) {
    let shared = Shared::default();
    let mut producer = Producer::new(0, 1, shared.clone());
    for _ in 0..3 {
        producer.batch(vec![(busy(0), DAY), (thin(1), DAY), (busy(1), DAY)]);
    }
    drop(producer);
    let mut ledger = Arc::into_inner(shared).expect("the producer is gone").into_inner().expect("nobody panicked");
    let mut log = Log::default();
    for (index, tick) in ledger.sent.values().take(2).flatten().enumerate() {
        log.ticks.push(Logged { log_seq: index as u64 + 1, ..tick.clone() });
    }
    ledger.acknowledged = BTreeMap::from([((0, 1), (3, false)), ((0, 2), (6, false))]);
    (ledger, log)
}

#[test]
fn the_ledger_accepts_a_log_with_or_without_what_was_not_acknowledged() {
    let (ledger, mut log) = example();
    assert_eq!(ledger.check(&log), (2, 0));
    for (index, tick) in ledger.sent[&(0, 3)].iter().enumerate() {
        log.ticks.push(Logged { log_seq: index as u64 + 7, ..tick.clone() });
    }
    assert_eq!(ledger.check(&log), (3, 1));
}

#[test]
fn the_ledger_finds_planted_sins() {
    type Sin = fn(&mut Log);
    let sins: &[(&str, Sin)] = &[
        ("acknowledged and is lost", |log| log.ticks.truncate(3)),
        ("is torn", |log| log.ticks.truncate(5)),
        ("stored as it was sent", |log| log.ticks[1].price += 1),
        ("stored as it was sent", |log| log.ticks.swap(0, 1)),
        ("stored twice", |log| {
            let again = log.ticks[3..].to_vec();
            log.ticks.extend(again);
        }),
        ("does not follow", |log| {
            log.ticks.rotate_left(3);
        }),
        ("its cursor says", |log| {
            for tick in &mut log.ticks {
                tick.log_seq += 1;
            }
        }),
    ];
    for (finding, sin) in sins {
        let (ledger, mut log) = example();
        sin(&mut log);
        let caught = std::panic::catch_unwind(|| ledger.check(&log)).expect_err(finding);
        let told = caught.downcast_ref::<String>().expect("a message");
        assert!(told.contains(finding), "{told}");
    }
}
