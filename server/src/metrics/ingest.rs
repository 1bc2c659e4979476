//! Appending: how long, how much, and what is refused.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Deliveries, LATENCIES, Labelled};

/// Why a batch can be refused. All are exposed from the start, so that an increase from nothing is seen.
const REASONS: [&str; 9] = [
    "fenced",
    "unknown_producer",
    "out_of_order",
    "conflict",
    "queue_full",
    "corrections_limit",
    "store_unavailable",
    "epoch_changed",
    "shutting_down",
];

/// What the writer counts.
#[derive(Debug)]
pub struct IngestMetrics {
    append_duration: Histogram,
    ack_latency: Histogram,
    live: Origin,
    backfill: Origin,
    duplicates: Counter,
    refused: Labelled,
    retries: Counter,
    unknown: Counter,
    /// Live groups on their way to their first subscriber.
    pub deliveries: Deliveries,
}

/// What is counted of one origin.
#[derive(Debug)]
struct Origin {
    ticks: Counter,
    batches: Counter,
    /// When the last append was, in nanoseconds since 1970; 0 before the first.
    last_append: AtomicI64,
}

impl IngestMetrics {
    pub(super) fn new(registry: &mut Registry) -> IngestMetrics {
        let (ticks, batches) = (Labelled::default(), Labelled::default());
        let origin = |name| Origin {
            ticks: ticks.get_or_create_owned(&[("origin", name)]),
            batches: batches.get_or_create_owned(&[("origin", name)]),
            last_append: AtomicI64::new(0),
        };
        let metrics = IngestMetrics {
            append_duration: Histogram::new(LATENCIES),
            ack_latency: Histogram::new(LATENCIES),
            live: origin("live"),
            backfill: origin("backfill"),
            duplicates: Counter::default(),
            refused: Labelled::default(),
            retries: Counter::default(),
            unknown: Counter::default(),
            deliveries: Deliveries::new(registry),
        };
        for reason in REASONS {
            metrics.refused(reason, 0);
        }
        registry.register(
            "tapefeed_append_duration_seconds",
            "How long the store took for one append, synced to disk",
            metrics.append_duration.clone(),
        );
        registry.register(
            "tapefeed_ack_latency_seconds",
            "From the receipt of a batch to its acknowledgement",
            metrics.ack_latency.clone(),
        );
        registry.register("tapefeed_ticks_appended", "Ticks that were stored", ticks);
        registry.register("tapefeed_batches_appended", "Batches that were stored", batches);
        registry.register(
            "tapefeed_batches_duplicate",
            "Batches that had been stored before and were acknowledged again",
            metrics.duplicates.clone(),
        );
        registry.register("tapefeed_batches_refused", "Batches that were not stored", metrics.refused.clone());
        registry.register(
            "tapefeed_append_retries",
            "Appends that were sent again because their outcome was not known",
            metrics.retries.clone(),
        );
        registry.register(
            "tapefeed_append_unknown_outcomes",
            "Appends that were given up without knowing whether they are stored",
            metrics.unknown.clone(),
        );
        metrics
    }

    fn origin(&self, backfill: bool) -> &Origin {
        if backfill { &self.backfill } else { &self.live }
    }

    /// One call of the store.
    pub fn appended_in(&self, took: Duration) {
        self.append_duration.observe(took.as_secs_f64());
    }

    /// A group was stored at an instant, in nanoseconds since 1970.
    pub fn stored(&self, backfill: bool, batches: u64, ticks: u64, now: i64) {
        let origin = self.origin(backfill);
        origin.batches.inc_by(batches);
        origin.ticks.inc_by(ticks);
        if ticks > 0 {
            origin.last_append.store(now, Ordering::Relaxed);
        }
    }

    /// A batch was acknowledged, so many nanoseconds after its receipt.
    pub fn acknowledged(&self, nanos: i64) {
        self.ack_latency.observe(seconds(nanos));
    }

    /// A batch had been stored before.
    pub fn duplicate(&self) {
        self.duplicates.inc();
    }

    /// Batches were not stored.
    pub fn refused(&self, reason: &'static str, batches: u64) {
        self.refused.get_or_create(&[("reason", reason)]).inc_by(batches);
    }

    /// An append is sent again.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// An append is given up.
    pub fn given_up(&self) {
        self.unknown.inc();
    }

    /// Seconds since something was appended, by origin; since `started` where nothing was.
    pub fn silence(&self, started: i64, now: i64) -> [(&'static str, f64); 2] {
        let since = |origin: &Origin| seconds(now - origin.last_append.load(Ordering::Relaxed).max(started));
        [("live", since(&self.live)), ("backfill", since(&self.backfill))]
    }
}

/// Nanoseconds as seconds. A clock that was set back makes no negative times.
pub(super) fn seconds(nanos: i64) -> f64 {
    nanos.max(0) as f64 / 1e9
}
