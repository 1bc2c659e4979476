//! States that are read when somebody scrapes: from memory and `/proc`, never from the store.

use std::sync::Arc;

use tokio::sync::watch;

use super::disk::Disk;
use super::process::Process;
use crate::domain::{Clock, UnixNanos};
use crate::http::{Readiness, State};
use crate::ingest::Ingest;
use crate::ingest::import::Imports;
use crate::metrics::{Metrics, Page};
use crate::query::Query;
use crate::replica::HOT_TICK_LIMIT;
use crate::tape::corrections::MOST_CORRECTIONS;
use crate::tape::{Current, Tape};

/// What is looked at.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) tapes: Current<Tape>,
    pub(super) ingest: Ingest,
    pub(super) query: Current<Query>,
    pub(super) metrics: Metrics,
    pub(super) imports: Imports,
    pub(super) readiness: watch::Receiver<Readiness>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) started: UnixNanos,
    pub(super) disk: Disk,
    pub(super) log_limit_bytes: u64,
}

/// How far behind subscribers can be: an upper bound in seconds, and its name.
const LAGS: [(f64, &str); 5] =
    [(0.1, "under_100ms"), (1.0, "under_1s"), (10.0, "under_10s"), (60.0, "under_1m"), (f64::INFINITY, "over_1m")];

impl Scrape {
    /// From now on a scrape looks at all this.
    pub(super) fn register(self) {
        let metrics = self.metrics.clone();
        metrics.observe(move |page| {
            let now = self.clock.now().nanos();
            self.tape(page, now);
            self.ingest(page, now);
            self.live(page, now);
            self.query(page);
            self.dependencies(page);
            self.process(page);
            self.disk.write(page);
        });
    }

    fn tape(&self, page: &mut Page<'_>, now: i64) {
        let tape = self.tapes.get();
        let head = tape.hub.head();
        let view = tape.views.borrow().clone();
        let behind = tape.hub.appended_after(view.position()).map_or(0.0, |appended| since(appended.nanos(), now));
        let lag = head.position.saturating_sub(view.position());
        page.gauge("tapefeed_log_head_position", "Last position of the log", head.position as f64);
        page.gauge("tapefeed_log_limit_bytes", "Bytes of log that retention allows", self.log_limit_bytes as f64);
        page.gauge("tapefeed_hot_ticks", "Ticks in memory that are in no chunk yet", view.hot_ticks() as f64);
        page.gauge("tapefeed_hot_ticks_limit", "Hot ticks from which on writes are refused", HOT_TICK_LIMIT as f64);
        page.gauge("tapefeed_view_lag_entries", "Entries of the log that queries do not see yet", lag as f64);
        page.gauge("tapefeed_view_lag_seconds", "Age of the oldest entry that queries do not see yet", behind);
        let corrections = view.corrections();
        let settled = corrections.all - corrections.waiting - corrections.unmatched;
        page.gauges(
            "tapefeed_corrections",
            "Corrections and cancels that are kept: in no chunk yet, about no known trade, and settled",
            "state",
            [("waiting", corrections.waiting), ("unmatched", corrections.unmatched), ("settled", settled)]
                .map(|(state, count)| (state, count as f64)),
        );
        page.gauge(
            "tapefeed_corrections_limit",
            "Corrections and cancels from which on more are refused",
            MOST_CORRECTIONS as f64,
        );
        page.gauge(
            "tapefeed_view_manifest_version",
            "Version of the manifest that queries see",
            view.manifest_version() as f64,
        );
        page.gauge("tapefeed_chunks", "Chunks that queries see", view.chunks() as f64);
        page.gauge("tapefeed_instruments", "Instruments that are known", tape.registry.len() as f64);
    }

    fn ingest(&self, page: &mut Page<'_>, now: i64) {
        let queue = self.ingest.queue();
        page.gauge("tapefeed_ingest_queue_batches", "Batches that wait for the writer", queue.batches as f64);
        page.gauge("tapefeed_ingest_queue_limit_batches", "Batches that may wait", queue.batch_limit as f64);
        page.gauge("tapefeed_ingest_queue_bytes", "Memory of batches that are not stored yet", queue.bytes as f64);
        page.gauge("tapefeed_ingest_queue_limit_bytes", "Memory that they may take", queue.byte_limit as f64);
        page.gauges(
            "tapefeed_feed_silence_seconds",
            "Time since the last append, or since the start of the server",
            "origin",
            self.metrics.ingest.silence(self.started.nanos(), now),
        );
        page.gauge("tapefeed_imports_running", "Imports that are worked on", self.imports.running() as f64);
    }

    fn live(&self, page: &mut Page<'_>, now: i64) {
        let hub = self.tapes.get().hub.clone();
        let head = hub.head();
        let mut most = (0u64, 0.0f64);
        let mut by_lag = LAGS.map(|(_, name)| (name, 0.0));
        let readers = self.metrics.live.readers();
        for &(position, taken) in &readers {
            let entries = head.position.saturating_sub(position);
            let seconds = match hub.appended_after(position) {
                _ if entries == 0 => 0.0,
                Some(next) => since(next.nanos(), now),
                // The reader is in the store, and its next entry is not older than what it took last.
                None => since(taken, now),
            };
            most = (most.0.max(entries), most.1.max(seconds));
            let bucket = LAGS.iter().position(|(bound, _)| seconds < *bound).unwrap_or(LAGS.len() - 1);
            by_lag[bucket].1 += 1.0;
        }
        page.gauge("tapefeed_live_streams", "Subscriptions that are open", readers.len() as f64);
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        page.gauge("tapefeed_tasks", "Tasks of the runtime that are alive", tasks as f64);
        page.gauge("tapefeed_live_lag_max_entries", "Entries that the slowest subscriber is behind", most.0 as f64);
        page.gauge("tapefeed_live_lag_max_seconds", "Age of the slowest subscriber's next entry", most.1);
        page.gauges("tapefeed_live_streams_by_lag", "Subscriptions by how far they are behind", "lag", by_lag);
    }

    fn query(&self, page: &mut Page<'_>) {
        let (decoded, stored) = self.query.get().chunks().held();
        let (headers, header_limit) = self.tapes.get().shelf.held();
        let both = |value: fn(crate::query::Held) -> f64| [("decoded", value(decoded)), ("stored", value(stored))];
        let all = |value: fn(crate::query::Held) -> f64, headers: u64| {
            let [decoded, stored] = both(value);
            [decoded, stored, ("headers", headers as f64)]
        };
        page.gauges("tapefeed_chunk_cache_entries", "Chunks at hand", "tier", both(|held| held.entries as f64));
        page.gauges(
            "tapefeed_chunk_cache_bytes",
            "Memory of chunks at hand",
            "tier",
            all(|held| held.bytes as f64, headers),
        );
        page.gauges(
            "tapefeed_chunk_cache_limit_bytes",
            "Memory that chunks at hand may take",
            "tier",
            all(|held| held.byte_limit as f64, header_limit),
        );
    }

    fn dependencies(&self, page: &mut Page<'_>) {
        let readiness = self.readiness.borrow().clone();
        let up = |up: bool| f64::from(u8::from(up));
        page.gauge("tapefeed_ready", "1 while calls are served", up(readiness.is_ready()));
        let dependencies = readiness.dependencies.iter();
        page.gauges(
            "tapefeed_dependency_up",
            "1 while what the server depends on works as it should",
            "dependency",
            dependencies.map(|dependency| (dependency.name, up(dependency.state == State::Up))),
        );
    }

    fn process(&self, page: &mut Page<'_>) {
        page.gauges("tapefeed_build_info", "The version that runs", "version", [(env!("CARGO_PKG_VERSION"), 1.0)]);
        page.gauge(
            "process_start_time_seconds",
            "When the server started, in seconds since 1970",
            self.started.nanos() as f64 / 1e9,
        );
        if let Some(process) = Process::look() {
            page.seconds("process_cpu_seconds", "Time on processors, of the program and for it", process.cpu_seconds);
            page.gauge("process_resident_memory_bytes", "Resident memory", process.resident_bytes);
            page.gauge("process_virtual_memory_bytes", "Virtual memory", process.virtual_bytes);
            page.gauge("process_open_fds", "Open file descriptors", process.open_fds);
            page.gauge("process_max_fds", "File descriptors that may be open", process.max_fds);
            page.gauge("process_threads", "Threads", process.threads);
        }
    }
}

/// Seconds from one instant to another, both in nanoseconds since 1970.
fn since(then: i64, now: i64) -> f64 {
    now.saturating_sub(then).max(0) as f64 / 1e9
}
