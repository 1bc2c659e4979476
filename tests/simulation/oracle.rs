//! What must be so, worked out from what was published and from the bare log, by nobody's rules but the contract's.

use std::collections::{BTreeMap, HashMap};

use futures_util::FutureExt as _;
use tapefeed_proto::v1 as proto;
use tapefeed_server::domain::{Block, Control, Cursor};
use tapefeed_server::store::{MemoryStore, Store as _};
use tapefeed_tests::checker::same_content;
use tapefeed_tests::values::unix_nano;

/// What a publisher says in one batch.
#[derive(Clone, Debug)]
pub enum Content {
    Ticks(Vec<proto::Tick>),
    Status(proto::SourceStatus),
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub struct Logged {
    pub entry: Entry,
    /// Which batch of which publisher it is of.
    pub batch: (usize, u64),
    pub backfill: bool,
}

/// What was published at one position.
#[derive(Clone, Debug)]
pub enum Entry {
    Tick(proto::Tick),
    Status(proto::SourceStatus),
}

/// Everything that was published, and where the log has it.
#[derive(Debug, Default)]
pub struct Oracle {
    /// By the name that its publisher gave it: trade ids and details are unique.
    published: HashMap<String, (Entry, (usize, u64))>,
    pub log: BTreeMap<u64, Logged>,
    /// How many entries each batch has.
    sizes: HashMap<(usize, u64), usize>,
    /// Where acknowledgements say that a batch ends.
    acked: BTreeMap<(usize, u64), u64>,
    /// The oldest position that the store still has.
    pub oldest: u64,
}

/// What a subscription is for.
#[derive(Clone, Debug)]
pub struct Wish {
    pub selectors: Vec<proto::Selector>,
    pub include_backfill: bool,
}

impl Wish {
    fn selects(&self, venue: &str, symbol: Option<&str>) -> bool {
        self.selectors.iter().any(|selector| {
            let on = selector.venue.is_empty() || selector.venue == venue;
            on && (selector.symbol == "*" || symbol.is_none_or(|symbol| symbol == selector.symbol))
        })
    }

    /// Whether an entry is for this subscription.
    pub fn wants(&self, logged: &Logged) -> bool {
        match &logged.entry {
            Entry::Tick(tick) => {
                (self.include_backfill || !logged.backfill) && self.selects(&tick.venue, Some(&tick.symbol))
            }
            // Whether data is missing concerns those, too, who do not want it filled in.
            Entry::Status(status) if status.symbols.is_empty() => self.selects(&status.venue, None),
            Entry::Status(status) => status.symbols.iter().any(|symbol| self.selects(&status.venue, Some(symbol))),
        }
    }
}

/// The order of the newest.
pub fn key(tick: &proto::Tick, log_seq: u64) -> (i64, u64) {
    (unix_nano(&tick.event_time.expect("every tick has one")), log_seq)
}

impl Oracle {
    /// Notes a batch before it is sent.
    pub fn publish(&mut self, publisher: usize, batch_seq: u64, content: &Content) {
        let batch = (publisher, batch_seq);
        match content {
            Content::Ticks(ticks) => {
                self.sizes.insert(batch, ticks.len());
                for tick in ticks {
                    let known = self.published.insert(tick.trade_id.clone(), (Entry::Tick(tick.clone()), batch));
                    assert!(known.is_none(), "trade ids are unique");
                }
            }
            Content::Status(status) => {
                self.sizes.insert(batch, 1);
                self.published.insert(status.detail.clone(), (Entry::Status(status.clone()), batch));
            }
        }
    }

    /// Notes an acknowledgement.
    pub fn acknowledge(&mut self, publisher: usize, batch_seq: u64, cursor: &[u8]) {
        self.acked.insert((publisher, batch_seq), position(cursor));
    }

    /// Reads what the log has more than before, while it still has it.
    pub fn look(&mut self, store: &MemoryStore) {
        let head = store.head().now_or_never().expect("memory does not wait").expect("open");
        self.oldest = head.oldest;
        let mut last = self.log.last_key_value().map_or(0, |(position, _)| *position);
        while last < head.position {
            let page = store.segments(last, 1 << 20).now_or_never().expect("memory does not wait").expect("open");
            for segment in page.segments {
                let place = (segment.epoch, segment.first_seq, segment.entry_count);
                let block = Block::decode(place, segment.append_time, segment.backfill, segment.chain, &segment.bytes);
                let block = block.expect("whole");
                assert_eq!(block.first_seq, last + 1, "the log is dense");
                let ticks = block.entries.ticks.iter().map(|tick| (tick.log_seq, tick.trade_id.to_string()));
                let controls = block.entries.controls.iter().map(|(log_seq, control)| match control {
                    Control::SourceStatus(status) => (*log_seq, status.detail.as_str().to_owned()),
                    other => panic!("nobody published {other:?}"),
                });
                for (log_seq, name) in ticks.chain(controls) {
                    let (entry, batch) = self.published.get(&name).expect("somebody published it").clone();
                    self.log.insert(log_seq, Logged { entry, batch, backfill: block.backfill });
                }
                last = block.last_seq();
            }
        }
    }

    /// Every batch is in the log once and whole, in its publisher's order, at the place that was acknowledged.
    pub fn judge_log(&self) -> Result<(), String> {
        let mut seen: HashMap<(usize, u64), (usize, u64)> = HashMap::new();
        let mut newest: HashMap<usize, u64> = HashMap::new();
        for (&position, logged) in &self.log {
            let (publisher, batch_seq) = logged.batch;
            let known = newest.entry(publisher).or_insert(0);
            if batch_seq < *known {
                return Err(format!("batch {batch_seq} of publisher {publisher} again, at {position}"));
            }
            *known = batch_seq;
            let (count, last) = seen.entry(logged.batch).or_insert((0, position - 1));
            if *last + 1 != position {
                return Err(format!("batch {batch_seq} of publisher {publisher} is torn at {position}"));
            }
            (*count, *last) = (*count + 1, position);
        }
        for (batch, (count, _)) in &seen {
            if self.sizes[batch] != *count {
                return Err(format!("batch {batch:?} has {count} entries instead of {}", self.sizes[batch]));
            }
        }
        for (batch, end) in &self.acked {
            if seen.get(batch).is_none_or(|(_, last)| last != end) {
                return Err(format!("batch {batch:?} was acknowledged at {end}, and is at {:?}", seen.get(batch)));
            }
        }
        Ok(())
    }

    /// The entries behind a position, up to another one.
    pub fn stretch(&self, behind: u64, to: u64) -> impl Iterator<Item = (u64, &Logged)> {
        // A map does not take a range that ends before it begins.
        self.log
            .range(behind + 1..=to.max(behind + 1))
            .map(|(at, logged)| (*at, logged))
            .filter(move |(at, _)| *at <= to)
    }

    /// Whether a tick is what was published at its position, with the names that the log gave it.
    pub fn judge_tick(&self, tick: &proto::Tick) -> Result<(), String> {
        let Some(Logged { entry: Entry::Tick(published), backfill, .. }) = self.log.get(&tick.log_seq) else {
            return Err(format!("no tick is at {}", tick.log_seq));
        };
        let origin = if *backfill { proto::Origin::Backfill } else { proto::Origin::Live };
        if !same_content(published, tick) || tick.origin() != origin {
            return Err(format!("at {} is {published:?}, and came {tick:?}", tick.log_seq));
        }
        Ok(())
    }
}

/// The position of a cursor.
pub fn position(cursor: &[u8]) -> u64 {
    Cursor::decode(cursor).expect("a cursor of this service").position
}
