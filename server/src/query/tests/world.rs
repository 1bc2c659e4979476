//! A log, its chunks and its view, built step by step in the store in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::domain::chunk::{self, Chunk};
use crate::domain::segment::{self, Entries};
use crate::domain::statistics::Statistics;
use crate::domain::{
    Clock, Control, Decimal, Epoch, InstrumentId, Origin, Side, Symbol, Tick, TradeId, UnixNanos, Venue,
};
use crate::query::{Query, Subject};
use crate::store::{
    Appended, ChunkId, ChunkRow, Group, ManifestChange, ManifestCommit, MemoryStore, NewChunk, Retention, Store,
};
use crate::tape::builder::Builder;
use crate::tape::{Hub, Registry, Shelf, View};

/// A clock that stands until it is set.
#[derive(Debug)]
pub(crate) struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at an instant.
    pub(crate) fn at(nanos: i64) -> ManualClock {
        ManualClock(AtomicI64::new(nanos))
    }

    /// Moves it on.
    pub(crate) fn advance(&self, nanos: i64) {
        self.0.fetch_add(nanos, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixNanos {
        UnixNanos::new(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

/// An instant in nanoseconds.
pub(crate) fn at(nanos: i64) -> UnixNanos {
    UnixNanos::new(nanos).unwrap()
}

/// A tick of the nth instrument of a world, before it is appended.
pub(crate) fn tick(index: usize, time: i64, price: &str, quantity: Option<&str>) -> Tick {
    Tick {
        instrument: InstrumentId(index as u32 + 1),
        log_seq: 0,
        event_time: at(time),
        receive_time: at(time),
        price: price.parse::<Decimal>().unwrap(),
        quantity: quantity.map(|quantity| quantity.parse().unwrap()),
        side: Side::Buy,
        trade_id: TradeId::Number(time as u64),
        origin: Origin::Live,
    }
}

pub(crate) struct World {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) query: Arc<Query>,
    names: Vec<(Venue, Symbol)>,
    /// All ticks in the order of the log. While nothing else is told, the tick at an index has the position after it.
    pub(crate) ticks: Vec<Tick>,
    /// What was told beside ticks, with positions.
    pub(crate) told: Vec<(u64, Control)>,
    /// Live chunks by instrument: late or not, id, ticks.
    chunks: BTreeMap<InstrumentId, Vec<(bool, ChunkId, Vec<Tick>)>>,
    compacted: BTreeMap<InstrumentId, u64>,
    views: Mutex<watch::Sender<Arc<View>>>,
}

impl World {
    /// An empty log of these instruments, with ids from 1.
    pub(crate) async fn new(names: &[(&str, &str)], now: i64) -> World {
        World::with_cache(names, now, 1 << 20).await
    }

    /// The same with a cache of decoded chunks of this size.
    pub(crate) async fn with_cache(names: &[(&str, &str)], now: i64, cache: u64) -> World {
        let clock = Arc::new(ManualClock(AtomicI64::new(now)));
        let epoch = Epoch(77);
        let store = Arc::new(MemoryStore::new(clock.clone(), epoch));
        let name = |&(venue, symbol): &(&str, &str)| (Venue::new(venue).unwrap(), Symbol::new(symbol).unwrap());
        let names: Vec<_> = names.iter().map(name).collect();
        store.register(&names).await.unwrap();
        let registry = Arc::new(Registry::load(store.clone()).await.unwrap());
        let (sender, views) = watch::channel(Arc::new(View::empty(epoch)));
        let query = Query::new(views, registry, store.clone(), clock.clone(), cache, crate::metrics::Metrics::new());
        World {
            clock,
            store,
            query: Arc::new(query),
            names,
            ticks: Vec::new(),
            told: Vec::new(),
            chunks: BTreeMap::new(),
            compacted: BTreeMap::new(),
            views: Mutex::new(sender),
        }
    }

    pub(crate) fn set_now(&self, now: i64) {
        self.clock.0.store(now, Ordering::SeqCst);
    }

    /// The nth instrument alone.
    pub(crate) fn one(&self, index: usize) -> Subject {
        let (venue, symbol) = self.names[index].clone();
        Subject { venue: Some(venue), symbol }
    }

    /// The symbol of the nth instrument on all venues.
    pub(crate) fn pooled(&self, index: usize) -> Subject {
        Subject { venue: None, symbol: self.names[index].1.clone() }
    }

    /// The ids of a subject's instruments.
    pub(crate) fn ids(&self, subject: &Subject) -> Vec<InstrumentId> {
        let names = self.names.iter().enumerate();
        let found = names.filter(|(_, (venue, symbol))| {
            subject.symbol == *symbol && subject.venue.as_ref().is_none_or(|wanted| wanted == venue)
        });
        found.map(|(index, _)| InstrumentId(index as u32 + 1)).collect()
    }

    /// The last position.
    pub(crate) fn head(&self) -> u64 {
        (self.ticks.len() + self.told.len()) as u64
    }

    /// Commits ticks as one segment, all of the first one's origin.
    pub(crate) async fn append(&mut self, ticks: Vec<Tick>) {
        let Some(Tick { origin, .. }) = ticks.first() else {
            return;
        };
        let origin = *origin;
        let first_seq = self.head() + 1;
        let mut entries = Entries::default();
        for (index, mut tick) in ticks.into_iter().enumerate() {
            tick.log_seq = first_seq + index as u64;
            tick.origin = origin;
            entries.ticks.push(tick.clone());
            self.ticks.push(tick);
        }
        self.commit_entries(entries, first_seq).await;
    }

    /// Commits another entry as a segment of its own.
    pub(crate) async fn tell(&mut self, control: Control) {
        let log_seq = self.head() + 1;
        self.told.push((log_seq, control.clone()));
        self.commit_entries(Entries { ticks: Vec::new(), controls: vec![(log_seq, control)] }, log_seq).await;
    }

    async fn commit_entries(&self, entries: Entries, first_seq: u64) {
        let group = Group {
            epoch: Epoch(77),
            bytes: segment::encode(&entries, first_seq).into(),
            entry_count: entries.len() as u32,
            tick_count: entries.ticks.len() as u32,
            backfill: entries.ticks.first().is_some_and(|tick| tick.origin == Origin::Backfill),
            run_id: None,
            marks: Vec::new(),
        };
        let appended = self.store.append(group).await.unwrap();
        assert!(matches!(appended, Appended::Committed { first_seq: at, .. } if at == first_seq));
    }

    /// The hot ticks of an instrument, in the order of the log.
    pub(crate) fn hot(&self, id: InstrumentId) -> Vec<Tick> {
        let compacted = self.compacted.get(&id).copied().unwrap_or(0);
        let hot = |tick: &&Tick| tick.instrument == id && tick.log_seq > compacted;
        self.ticks.iter().filter(hot).cloned().collect()
    }

    /// Moves the first `take` hot ticks of an instrument into chunks of at most `most` ticks.
    pub(crate) async fn cut(&mut self, id: InstrumentId, take: usize, most: usize) {
        let taken: Vec<Tick> = self.hot(id).into_iter().take(take).collect();
        let Some(last) = taken.last().map(|tick| tick.log_seq) else {
            return;
        };
        let mut days: BTreeMap<u32, Vec<Tick>> = BTreeMap::new();
        for tick in taken {
            days.entry(tick.event_time.day()).or_default().push(tick);
        }
        let mut added = Vec::new();
        for (day, mut ticks) in days {
            ticks.sort_by_key(Tick::key);
            let known = self.chunks.entry(id).or_default();
            let newest = known
                .iter()
                .filter(|(late, _, ticks)| !late && ticks[0].event_time.day() == day)
                .filter_map(|(.., ticks)| ticks.last().map(Tick::key))
                .max();
            let ordinary = ticks.split_off(ticks.partition_point(|tick| Some(tick.key()) < newest));
            for (late, ticks) in [(true, ticks), (false, ordinary)] {
                let cuts = chunk::cuts(&ticks, most).into_iter();
                added.extend(cuts.map(|range| (late, ticks[range].to_vec())));
            }
        }
        self.compacted.insert(id, last);
        self.commit(id, added, Vec::new()).await;
    }

    /// Rewrites all chunks of an instrument's days as ordinary ones.
    pub(crate) async fn tidy(&mut self, id: InstrumentId, most: usize) {
        let mut days: BTreeMap<u32, Vec<Tick>> = BTreeMap::new();
        let mut dropped = Vec::new();
        for (_, id, ticks) in self.chunks.remove(&id).unwrap_or_default() {
            dropped.push(id);
            days.entry(ticks[0].event_time.day()).or_default().extend(ticks);
        }
        let mut added = Vec::new();
        for mut ticks in days.into_values() {
            ticks.sort_by_key(Tick::key);
            let cuts = chunk::cuts(&ticks, most).into_iter();
            added.extend(cuts.map(|range| (false, ticks[range].to_vec())));
        }
        self.commit(id, added, dropped).await;
    }

    async fn commit(&mut self, id: InstrumentId, added: Vec<(bool, Vec<Tick>)>, dropped: Vec<ChunkId>) {
        let head = self.store.head().await.unwrap();
        let hot = (1..=self.names.len()).flat_map(|index| self.hot(InstrumentId(index as u32)));
        let change = ManifestChange {
            venues: self.view().await.venues_as_stored(),
            corrections: Vec::new(),
            epoch: None,
            expected_version: head.manifest_version,
            added: added.iter().map(|(late, ticks)| new_chunk(*late, ticks)).collect(),
            dropped,
            compacted: self.compacted.clone().into_iter().collect(),
            hot_floor: hot.map(|tick| tick.log_seq).min().unwrap_or(head.position + 1),
        };
        let committed = self.store.commit_manifest(change).await.unwrap();
        assert!(matches!(committed, ManifestCommit::Committed { .. }));
        let delta = self.store.manifest(head.manifest_version).await.unwrap();
        // The store numbers new chunks in the order given.
        let mut rows = delta.added;
        rows.sort_by_key(|row| row.id);
        let known = self.chunks.entry(id).or_default();
        for (row, (late, ticks)) in rows.into_iter().zip(added) {
            assert_eq!((row.late, row.tick_count as usize), (late, ticks.len()));
            known.push((late, row.id, ticks));
        }
    }

    /// Forgets the bytes of dropped chunks now.
    pub(crate) async fn sweep(&self) -> u64 {
        let retention = Retention {
            log_before: UnixNanos::MIN,
            log_bytes: u64::MAX,
            history_before: None,
            chunk_grace: Duration::ZERO,
            producer_idle: Duration::MAX,
        };
        // What was dropped at this very instant is not yet past its grace.
        self.clock.0.fetch_add(1, Ordering::SeqCst);
        let swept = self.store.sweep(retention).await.unwrap();
        self.clock.0.fetch_sub(1, Ordering::SeqCst);
        swept.chunks
    }

    /// The view of everything in the store.
    pub(crate) async fn view(&self) -> Arc<View> {
        let head = self.store.head().await.unwrap();
        let hub = Arc::new(Hub::new(&head, 1 << 20));
        let registry = Arc::new(Registry::load(self.store.clone()).await.unwrap());
        let changed = Arc::new(Notify::new());
        // So small that headers are unpacked again and again.
        let shelf = Shelf::new(16 << 10);
        let metrics = crate::metrics::Metrics::new();
        let builder = Builder::open(self.store.clone(), hub, registry, shelf, changed, metrics).await;
        let view = builder.unwrap().views().borrow().clone();
        assert_eq!(view.position(), self.head());
        view
    }

    /// No more views come.
    pub(crate) fn stop(self) -> Arc<Query> {
        self.query
    }

    /// The log begins anew under another name, with a view of nothing.
    pub(crate) fn renew(&self, old: Epoch) {
        let epoch = Epoch(old.0 + 1);
        self.views.lock().unwrap().send_replace(Arc::new(View::empty(epoch)));
    }

    /// Lets queries see everything in the store.
    pub(crate) async fn publish(&self) -> Arc<View> {
        let view = self.view().await;
        self.views.lock().unwrap().send_replace(view.clone());
        view
    }
}

fn new_chunk(late: bool, ticks: &[Tick]) -> NewChunk {
    let chunk = Chunk::from_ticks(ticks);
    let bytes = chunk.encode();
    let seqs = || ticks.iter().map(|tick| tick.log_seq);
    NewChunk {
        row: ChunkRow {
            id: ChunkId(0),
            instrument: ticks[0].instrument,
            day: ticks[0].event_time.day(),
            late,
            tick_count: ticks.len() as u32,
            first_time: ticks[0].event_time,
            last_time: ticks[ticks.len() - 1].event_time,
            min_seq: seqs().min().unwrap(),
            max_seq: seqs().max().unwrap(),
            byte_count: bytes.len() as u32,
            statistics: Statistics::of_chunk(&chunk).encode().into(),
        },
        bytes: bytes.into(),
    }
}
