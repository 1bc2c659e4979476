//! Subscriptions: how much they are sent, and how far each is behind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// What sessions count.
#[derive(Debug)]
pub struct LiveMetrics {
    /// Messages, of every kind.
    pub messages: Counter,
    /// Ticks in them.
    pub ticks: Counter,
    /// Readers that fell behind the hub.
    pub catch_ups: Counter,
    /// Guards who reads now, by number. Held for an insertion, a removal or a copy; never while a session works.
    readers: Mutex<BTreeMap<u64, Arc<Reader>>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Reader {
    position: AtomicU64,
    append_time: AtomicI64,
}

/// One reader's place in the log, shown as long as it lives.
#[derive(Debug)]
pub struct ReaderMark {
    metrics: Arc<LiveMetrics>,
    number: u64,
    reader: Arc<Reader>,
}

impl LiveMetrics {
    pub(super) fn new(registry: &mut Registry) -> LiveMetrics {
        let metrics = LiveMetrics {
            messages: Counter::default(),
            ticks: Counter::default(),
            catch_ups: Counter::default(),
            readers: Mutex::default(),
            next: AtomicU64::new(0),
        };
        registry.register("tapefeed_live_messages", "Messages to subscribers", metrics.messages.clone());
        registry.register("tapefeed_live_ticks", "Ticks to subscribers", metrics.ticks.clone());
        registry.register(
            "tapefeed_live_catch_ups",
            "How often a subscriber fell behind the hub and went on from the store",
            metrics.catch_ups.clone(),
        );
        metrics
    }

    /// A subscription begins after a position.
    pub fn enter(self: &Arc<LiveMetrics>, position: u64, append_time: i64) -> ReaderMark {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let reader = Reader { position: AtomicU64::new(position), append_time: AtomicI64::new(append_time) };
        let reader = Arc::new(reader);
        self.readers.lock().expect("no holder of the lock panics").insert(number, reader.clone());
        ReaderMark { metrics: self.clone(), number, reader }
    }

    /// Where every reader is: its position, beyond any if it waits, and when the newest block that it took was appended.
    pub fn readers(&self) -> Vec<(u64, i64)> {
        let readers = self.readers.lock().expect("no holder of the lock panics");
        let place = |reader: &Arc<Reader>| {
            (reader.position.load(Ordering::Relaxed), reader.append_time.load(Ordering::Relaxed))
        };
        readers.values().map(place).collect()
    }
}

impl ReaderMark {
    /// Which subscription it is, counted from 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// It has everything that is for it, and is not woken by what is not: it is nowhere behind.
    pub fn waits(&self) {
        self.reached(u64::MAX);
    }

    /// Everything up to here was handed over.
    pub fn reached(&self, position: u64) {
        self.reader.position.store(position, Ordering::Relaxed);
    }

    /// A block was taken that was appended then.
    pub fn took(&self, append_time: i64) {
        self.reader.append_time.store(append_time, Ordering::Relaxed);
    }
}

impl Drop for ReaderMark {
    fn drop(&mut self) {
        self.metrics.readers.lock().expect("no holder of the lock panics").remove(&self.number);
    }
}
