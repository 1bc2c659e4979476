//! The log, its views, its compaction, and the chunks that are read again.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Labelled;

/// Bounds of one compaction: 10 ms to a minute.
const COMPACTIONS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0, 60.0];

/// What is counted of the log and what is made of it.
#[derive(Debug)]
pub struct TapeMetrics {
    /// The first position that can still be read.
    pub log_oldest: Gauge,
    /// Bytes of all segments.
    pub log_bytes: Gauge,
    /// Entries from the hot floor to the head.
    pub hot_floor_lag: Gauge,
    /// The part of `log_bytes` that lies above the hot floor, if all entries were of one size.
    pub uncompacted_bytes: Gauge,
    /// The manifest's version in the store.
    pub manifest_version: Gauge,
    /// The table of bars has every final bar up to here; 0 where none is kept.
    pub bars_position: Gauge,
    /// Views that were published.
    pub views: Counter,
    compaction_duration: Histogram,
    /// Ticks that were written to chunks, again or for the first time.
    pub compacted_ticks: Counter,
    /// Manifest commits that another one was before.
    pub conflicts: Counter,
    swept: Labelled,
    store_errors: Labelled,
}

/// What asks the store beside calls. All are exposed from the start, so that an increase from nothing is seen.
const OPERATIONS: [&str; 7] = ["append", "follow", "view", "compact", "check", "import", "bars"];

impl TapeMetrics {
    pub(super) fn new(registry: &mut Registry) -> TapeMetrics {
        let metrics = TapeMetrics {
            log_oldest: Gauge::default(),
            log_bytes: Gauge::default(),
            hot_floor_lag: Gauge::default(),
            uncompacted_bytes: Gauge::default(),
            manifest_version: Gauge::default(),
            bars_position: Gauge::default(),
            views: Counter::default(),
            compaction_duration: Histogram::new(COMPACTIONS),
            compacted_ticks: Counter::default(),
            conflicts: Counter::default(),
            swept: Labelled::default(),
            store_errors: Labelled::default(),
        };
        for operation in OPERATIONS {
            drop(metrics.store_errors.get_or_create(&[("operation", operation)]));
        }
        metrics.swept(0, 0, 0);
        registry.register(
            "tapefeed_log_oldest_position",
            "The first position that can still be read from the log",
            metrics.log_oldest.clone(),
        );
        registry.register("tapefeed_log_bytes", "Bytes of all segments in the log", metrics.log_bytes.clone());
        registry.register(
            "tapefeed_hot_floor_lag_entries",
            "Entries from the oldest tick that is in no chunk to the head of the log",
            metrics.hot_floor_lag.clone(),
        );
        registry.register(
            "tapefeed_uncompacted_bytes",
            "Estimate of the bytes of log that a start has to read again",
            metrics.uncompacted_bytes.clone(),
        );
        registry.register(
            "tapefeed_manifest_version",
            "Version of the manifest in the store",
            metrics.manifest_version.clone(),
        );
        registry.register(
            "tapefeed_bars_table_position",
            "Position up to which the table of bars has every final bar; 0 without --bars-table",
            metrics.bars_position.clone(),
        );
        registry.register("tapefeed_views_published", "Views that were published", metrics.views.clone());
        registry.register(
            "tapefeed_compaction_duration_seconds",
            "How long one step of compaction took, from its plan to its adoption",
            metrics.compaction_duration.clone(),
        );
        registry.register(
            "tapefeed_compacted_ticks",
            "Ticks that were written to chunks, merges of past days included",
            metrics.compacted_ticks.clone(),
        );
        registry.register(
            "tapefeed_compaction_conflicts",
            "Compactions that were dropped because another one was first",
            metrics.conflicts.clone(),
        );
        registry.register("tapefeed_swept", "What retention has removed from the store", metrics.swept.clone());
        registry.register(
            "tapefeed_store_errors",
            "Errors of the store outside of queries, by what was attempted",
            metrics.store_errors.clone(),
        );
        metrics
    }

    /// A step of compaction was committed and adopted.
    pub fn compacted_in(&self, took: Duration) {
        self.compaction_duration.observe(took.as_secs_f64());
    }

    /// What a sweep removed.
    pub fn swept(&self, segments: u64, chunks: u64, producers: u64) {
        for (kind, count) in [("segments", segments), ("chunks", chunks), ("producers", producers)] {
            self.swept.get_or_create(&[("kind", kind)]).inc_by(count);
        }
    }

    /// The store failed.
    pub fn store_failed(&self, operation: &'static str) {
        self.store_errors.get_or_create(&[("operation", operation)]).inc();
    }
}

/// What is counted of the two caches of chunks.
#[derive(Debug)]
pub struct ChunkMetrics {
    /// Chunks that were decoded already, as far as they were needed.
    pub decoded: Hits,
    /// Of the others, those whose bytes were at hand.
    pub stored: Hits,
}

/// Hits and misses of one cache.
#[derive(Debug)]
pub struct Hits {
    hits: Counter,
    misses: Counter,
}

impl Hits {
    /// So many were found, and so many were not.
    pub fn count(&self, hits: usize, misses: usize) {
        self.hits.inc_by(hits as u64);
        self.misses.inc_by(misses as u64);
    }
}

impl ChunkMetrics {
    pub(super) fn new(registry: &mut Registry) -> ChunkMetrics {
        let (hits, misses) = (Labelled::default(), Labelled::default());
        let tier = |name| Hits {
            hits: hits.get_or_create_owned(&[("tier", name)]),
            misses: misses.get_or_create_owned(&[("tier", name)]),
        };
        let metrics = ChunkMetrics { decoded: tier("decoded"), stored: tier("stored") };
        registry.register("tapefeed_chunk_cache_hits", "Chunks that were found in a cache", hits);
        registry.register("tapefeed_chunk_cache_misses", "Chunks that were not found in a cache", misses);
        metrics
    }
}
