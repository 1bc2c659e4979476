//! A replica over the store in memory, someone who publishes, and readers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::bus::LocalBus;
use crate::domain::source::{Detail, Scope, Source, SourceStatus};
use crate::domain::{
    Action, Batch, Block, Clock, Control, Cursor, Decimal, Epoch, InstrumentId, NewTick, Side, Symbol, Tick, TradeId,
    UnixNanos, Venue,
};
use crate::ingest::{Sender, Submission};
use crate::live::{Event, IfUnavailable, Live, LiveError, Message, Selector, Session, SlowReader, Start, Subscription};
use crate::replica::{Parts, Replica};
use crate::store::{ManifestChange, MemoryStore, ProducerId, Retention, Store};
use crate::tape::compactor::Policy;

/// Enough for a hub that forgets nothing in these tests.
pub(crate) const ROOMY: usize = 64 << 20;

/// A hub of a few blocks.
pub(crate) const TIGHT: usize = 48 << 10;

/// When the clock starts.
pub(crate) const START: i64 = 1_700_000_000_000_000_000;

#[derive(Debug)]
pub(crate) struct ManualClock(pub(crate) AtomicI64);

impl Clock for ManualClock {
    fn now(&self) -> UnixNanos {
        UnixNanos::new(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

/// One entry of the log, and what decides who gets it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    Tick(Tick),
    Source(u64, Control),
}

impl Entry {
    pub(crate) fn log_seq(&self) -> u64 {
        match self {
            Entry::Tick(tick) => tick.log_seq,
            Entry::Source(log_seq, _) => *log_seq,
        }
    }
}

pub(crate) struct World {
    pub(crate) replica: Replica,
    /// The subscriptions to the epoch that it began with.
    pub(crate) live: Live,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) random: SmallRng,
    hub_bytes: usize,
    /// Fence and last number of the two producers: live, and backfill.
    producers: [(u64, u64); 2],
    trades: u64,
    /// Some of what was traded: venue, symbol, second and identifier.
    traded: Vec<(String, String, i64, u64)>,
}

pub(crate) fn producer(backfill: bool) -> ProducerId {
    ProducerId::new(if backfill { "fill" } else { "live" }).unwrap()
}

pub(crate) fn venue(name: &str) -> Venue {
    Venue::new(name).unwrap()
}

pub(crate) fn symbol(name: &str) -> Symbol {
    Symbol::new(name).unwrap()
}

/// A selector; empty stands for all.
pub(crate) fn selector(on: &str, of: &str) -> Selector {
    Selector { venue: (!on.is_empty()).then(|| venue(on)), symbol: (!of.is_empty()).then(|| symbol(of)) }
}

/// Everything from now on, without loss.
pub(crate) fn wish(start: Start) -> Subscription {
    Subscription {
        selectors: vec![selector("", "")],
        start,
        if_unavailable: IfUnavailable::Fail,
        include_backfill: false,
        heartbeat: Duration::from_secs(5),
        flush_window: Duration::ZERO,
        conflated: None,
        slow_reader: SlowReader::CatchUp,
        definitions: false,
        message_ticks: 400,
    }
}

pub(crate) fn status(on: &str, symbols: &[&str], up: bool) -> Control {
    let symbols = symbols.iter().map(|name| symbol(name)).collect();
    let scope = Scope { source: Source::new("feed").unwrap(), venue: venue(on), symbols };
    Control::SourceStatus(SourceStatus { scope, up, change_time: None, detail: Detail::default() })
}

impl World {
    pub(crate) async fn new(hub_bytes: usize) -> World {
        let clock = Arc::new(ManualClock(AtomicI64::new(START)));
        let store = Arc::new(MemoryStore::new(clock.clone(), Epoch(7)));
        World::over(store, clock, hub_bytes).await
    }

    pub(crate) async fn over(store: Arc<MemoryStore>, clock: Arc<ManualClock>, hub_bytes: usize) -> World {
        let parts = Parts {
            metrics: Default::default(),
            store: store.clone(),
            bus: Arc::new(LocalBus::new()),
            prices: None,
            clock: clock.clone(),
            seed: 1,
            // The log is swept by hand, and what streams read at old positions stays as it was.
            policy: Policy {
                sweep_interval: Duration::from_secs(1 << 30),
                correction_delay: Duration::from_secs(1 << 30),
                ..Policy::default()
            },
            hub_bytes,
            hot_tick_limit: usize::MAX,
            chunk_cache_bytes: crate::query::CHUNK_CACHE_BYTES,
            header_cache_bytes: crate::tape::HEADER_CACHE_BYTES,
            bars_table: false,
        };
        let replica = Replica::start(parts).await.unwrap();
        let mut producers = [(0, 0); 2];
        for backfill in [false, true] {
            let claim = replica.ingest.claim(&producer(backfill)).await.unwrap();
            producers[usize::from(backfill)] = (claim.fence, claim.last_batch_seq);
        }
        let random = SmallRng::seed_from_u64(11);
        World {
            live: Live::clone(&replica.live.get()),
            replica,
            store,
            clock,
            random,
            hub_bytes,
            producers,
            trades: 0,
            traded: Vec::new(),
        }
    }

    /// The same store under a new replica.
    pub(crate) async fn restart(self) -> World {
        let World { replica, store, clock, hub_bytes, trades, traded, .. } = self;
        replica.stop().await;
        let store = Arc::new(store.reopen());
        World { trades, traded, ..World::over(store, clock, hub_bytes).await }
    }

    pub(crate) fn advance(&self, span: Duration) {
        self.clock.0.fetch_add(span.as_nanos() as i64, Ordering::SeqCst);
    }

    /// Stores a batch; returns the cursor behind it, when the hub has it.
    pub(crate) async fn submit(&mut self, batch: Batch, backfill: bool) -> Cursor {
        let (fence, last) = &mut self.producers[usize::from(backfill)];
        *last += 1;
        let sender = Sender::Producer { producer: producer(backfill), fence: *fence, batch_seq: *last };
        let submission = Submission { batch, sender, backfill };
        let receipt = self.replica.ingest.submit(submission).await.unwrap().await.unwrap().unwrap();
        let mut head = self.replica.tapes.get().hub.watch();
        head.wait_for(|head| head.position >= receipt.cursor.position).await.unwrap();
        receipt.cursor
    }

    /// Publishes one tick for each (venue, symbol, seconds of event time).
    pub(crate) async fn publish(&mut self, ticks: &[(&str, &str, i64)]) -> Cursor {
        let batch = self.batch(ticks);
        self.submit(batch, false).await
    }

    pub(crate) async fn backfill(&mut self, ticks: &[(&str, &str, i64)]) -> Cursor {
        let batch = self.batch(ticks);
        self.submit(batch, true).await
    }

    pub(crate) async fn say(&mut self, control: Control) -> Cursor {
        self.submit(Batch { controls: vec![control], ..Batch::default() }, false).await
    }

    fn batch(&mut self, ticks: &[(&str, &str, i64)]) -> Batch {
        let mut batch = Batch::default();
        for (on, of, second) in ticks {
            let name = (venue(on), symbol(of));
            let index = batch.instruments.iter().position(|known| *known == name).unwrap_or_else(|| {
                batch.instruments.push(name);
                batch.instruments.len() - 1
            });
            self.trades += 1;
            self.traded.push(((*on).to_owned(), (*of).to_owned(), *second, self.trades));
            batch.ticks.push(NewTick {
                instrument: index as u32,
                event_time: UnixNanos::new(START + second * 1_000_000_000).unwrap(),
                receive_time: None,
                price: Decimal::new(self.trades as i64, -2).unwrap(),
                quantity: (!self.trades.is_multiple_of(3)).then(|| Decimal::new(7, -1).unwrap()),
                side: if !self.trades.is_multiple_of(2) { Side::Buy } else { Side::Unspecified },
                trade_id: TradeId::Number(self.trades),
                action: Action::New,
            });
        }
        batch
    }

    /// Corrects trades, or takes them back: venue, symbol, second, identifier, and the new price in cents, if it has one.
    pub(crate) async fn correct(
        &mut self,
        corrections: &[(&str, &str, i64, u64, Option<i64>)],
        backfill: bool,
    ) -> Cursor {
        let mut batch = Batch::default();
        for (on, of, second, trade, cents) in corrections {
            batch.instruments.push((venue(on), symbol(of)));
            batch.ticks.push(NewTick {
                instrument: batch.instruments.len() as u32 - 1,
                event_time: UnixNanos::new(START + second * 1_000_000_000).unwrap(),
                receive_time: None,
                price: Decimal::new(cents.unwrap_or(0), -2).unwrap(),
                quantity: cents.map(|cents| Decimal::new(cents % 90, -1).unwrap()),
                side: Side::Unspecified,
                trade_id: TradeId::Number(*trade),
                action: if cents.is_some() { Action::Correct } else { Action::Cancel },
            });
        }
        self.submit(batch, backfill).await
    }

    /// One commit of anything: ticks of any instrument, live or backfill, what corrects them, or the word of a feed.
    pub(crate) async fn commit_anything(&mut self) -> Cursor {
        self.advance(Duration::from_millis(1));
        const VENUES: [&str; 2] = ["V", "W"];
        const SYMBOLS: [&str; 4] = ["A", "B", "C", "D"];
        if self.random.random_ratio(1, 8) {
            let on = VENUES[self.random.random_range(0..2)];
            let symbols = &SYMBOLS[..self.random.random_range(0..3)];
            let up = self.random.random();
            let backfill = self.random.random_ratio(1, 4);
            let batch = Batch { controls: vec![status(on, symbols, up)], ..Batch::default() };
            return self.submit(batch, backfill).await;
        }
        if self.random.random_ratio(1, 6) && !self.traded.is_empty() {
            let mut corrections = Vec::new();
            for _ in 0..self.random.random_range(1..4) {
                // Some come before their trades.
                let ahead = if self.random.random_ratio(1, 4) { self.random.random_range(1..20) } else { 0 };
                let (on, of, second, trade) = self.traded[self.random.random_range(0..self.traded.len())].clone();
                let trade = if ahead > 0 { self.trades + ahead } else { trade };
                let cents = self.random.random_ratio(2, 3).then(|| self.random.random_range(0..9_000));
                corrections.push((on, of, second, trade, cents));
            }
            let backfill = self.random.random_ratio(1, 4);
            let named = corrections
                .iter()
                .map(|(on, of, second, trade, cents)| (on.as_str(), of.as_str(), *second, *trade, *cents));
            let named: Vec<_> = named.collect();
            return self.correct(&named, backfill).await;
        }
        let count = self.random.random_range(1..25);
        let tick = |random: &mut SmallRng| {
            (VENUES[random.random_range(0..2)], SYMBOLS[random.random_range(0..4)], random.random_range(0..40))
        };
        let ticks: Vec<_> = (0..count).map(|_| tick(&mut self.random)).collect();
        let batch = self.batch(&ticks);
        let backfill = self.random.random_ratio(1, 4);
        self.submit(batch, backfill).await
    }

    pub(crate) async fn subscribe(&self, wish: Subscription) -> Session {
        self.live.subscribe(wish).await.unwrap()
    }

    pub(crate) async fn refused(&self, wish: Subscription) -> LiveError {
        self.live.subscribe(wish).await.expect_err("the subscription is refused")
    }

    /// The whole log, read from the store by nobody's rules but the codec's.
    pub(crate) async fn log(&self) -> Vec<(Arc<Block>, Vec<Entry>)> {
        let head = self.store.head().await.unwrap();
        let mut log = Vec::new();
        let mut after = head.oldest - 1;
        while after < head.position {
            for segment in self.store.segments(after, usize::MAX).await.unwrap().segments {
                let place = (segment.epoch, segment.first_seq, segment.entry_count);
                let block = Block::decode(place, segment.append_time, segment.backfill, segment.chain, &segment.bytes);
                let block = Arc::new(block.unwrap());
                let ticks = block.entries.ticks.iter().cloned().map(Entry::Tick);
                let controls = block.entries.controls.iter();
                let controls = controls.map(|(log_seq, control)| Entry::Source(*log_seq, control.clone()));
                let mut entries: Vec<Entry> = ticks.chain(controls).collect();
                entries.sort_by_key(Entry::log_seq);
                after = block.last_seq();
                log.push((block, entries));
            }
        }
        log
    }

    /// What is in the log now, to compare with.
    pub(crate) async fn reference(&self) -> Reference {
        let instruments = self.store.instruments(InstrumentId(0)).await.unwrap();
        let names = instruments.into_iter().map(|instrument| (instrument.id, (instrument.venue, instrument.symbol)));
        Reference { names: names.collect(), log: self.log().await }
    }

    /// What a subscription must deliver of the log.
    pub(crate) async fn expected(&self, wish: &Subscription, after: u64) -> Vec<Entry> {
        self.reference().await.expected(wish, after)
    }

    /// Moves the start of the log behind a position, as the retention does once everything is in chunks.
    pub(crate) async fn forget_up_to(&self, position: u64) {
        let log = self.log().await;
        let bytes: u64 = {
            let head = self.store.head().await.unwrap();
            let page = self.store.segments(head.oldest - 1, usize::MAX).await.unwrap();
            let kept = page.segments.iter().filter(|segment| segment.last_seq() > position);
            kept.map(|segment| segment.bytes.len() as u64).sum()
        };
        assert!(log.iter().any(|(block, _)| block.last_seq() == position), "{position} ends a block");
        let head = self.store.head().await.unwrap();
        let change = ManifestChange {
            expected_version: head.manifest_version,
            hot_floor: position + 1,
            ..ManifestChange::default()
        };
        self.store.commit_manifest(change).await.unwrap();
        let retention = Retention {
            log_before: UnixNanos::MIN,
            log_bytes: bytes,
            history_before: None,
            chunk_grace: Duration::MAX,
            producer_idle: Duration::MAX,
        };
        self.store.sweep(retention).await.unwrap();
        assert_eq!(self.store.head().await.unwrap().oldest, position + 1);
    }
}

/// The log, and a rule of what a subscription is for that is written down anew here.
pub(crate) struct Reference {
    names: BTreeMap<InstrumentId, (Venue, Symbol)>,
    log: Vec<(Arc<Block>, Vec<Entry>)>,
}

impl Reference {
    pub(crate) fn expected(&self, wish: &Subscription, after: u64) -> Vec<Entry> {
        let mut expected = Vec::new();
        for (block, entries) in &self.log {
            let backfill = block.backfill && !wish.include_backfill;
            let new = entries.iter().filter(|entry| entry.log_seq() > after);
            expected.extend(new.filter(|entry| self.is_for(wish, entry, backfill)).cloned());
        }
        expected
    }

    fn is_for(&self, wish: &Subscription, entry: &Entry, backfill: bool) -> bool {
        let selects = |selector: &Selector, on: &Venue, of: Option<&Symbol>| {
            let symbol = match (&selector.symbol, of) {
                (Some(symbol), Some(of)) => symbol == of,
                _ => true,
            };
            symbol && selector.venue.as_ref().is_none_or(|venue| venue == on)
        };
        let mut selectors = wish.selectors.iter();
        match entry {
            Entry::Tick(tick) => {
                let (on, of) = &self.names[&tick.instrument];
                !backfill && selectors.any(|selector| selects(selector, on, Some(of)))
            }
            Entry::Source(_, Control::Correction(correction)) => {
                let (on, of) = &self.names[&correction.instrument];
                !backfill && selectors.any(|selector| selects(selector, on, Some(of)))
            }
            Entry::Source(_, control) => {
                let scope = control.scope().unwrap();
                let mut symbols: Vec<_> = scope.symbols.iter().map(Some).collect();
                if symbols.is_empty() {
                    symbols.push(None);
                }
                selectors.any(|selector| symbols.iter().any(|of| selects(selector, &scope.venue, *of)))
            }
        }
    }
}

/// What a reader was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) entries: Vec<Entry>,
    pub(crate) messages: Vec<Message>,
}

impl Told {
    pub(crate) fn take(&mut self, message: Message) {
        match &message.event {
            Event::Run(run) => self.entries.extend(run.ticks().into_iter().cloned().map(Entry::Tick)),
            Event::Ticks(ticks) => self.entries.extend(ticks.ticks.iter().cloned().map(Entry::Tick)),
            Event::Correction { log_seq, correction, .. } => {
                self.entries.push(Entry::Source(*log_seq, Control::Correction(correction.clone())));
            }
            Event::Source { log_seq, control } => self.entries.push(Entry::Source(*log_seq, control.clone())),
            _ => (),
        }
        self.messages.push(message);
    }

    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.messages.iter().rev().find_map(|message| message.cursor)
    }

    /// Reads until the cursor is at or behind a position.
    pub(crate) async fn read_to(&mut self, session: &mut Session, position: u64) {
        while self.cursor().is_none_or(|cursor| cursor.position < position) {
            self.take(session.next().await.unwrap());
        }
    }

    pub(crate) fn find(&self, is: impl Fn(&Event) -> bool) -> Vec<&Message> {
        self.messages.iter().filter(|message| is(&message.event)).collect()
    }
}

/// Reads until the cursor is at or behind a position.
pub(crate) async fn read_to(session: &mut Session, position: u64) -> Told {
    let mut told = Told::default();
    told.read_to(session, position).await;
    told
}

/// The next message's event.
pub(crate) async fn event(session: &mut Session) -> Event {
    session.next().await.unwrap().event
}

/// Reads until an event of a kind, and returns that message.
pub(crate) async fn until(session: &mut Session, is: impl Fn(&Event) -> bool) -> Message {
    loop {
        let message = session.next().await.unwrap();
        if is(&message.event) {
            return message;
        }
    }
}
