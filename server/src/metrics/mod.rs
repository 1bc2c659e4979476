//! Beside the ground floor: what is counted and measured, for whoever operates the server.
//!
//! Floors are handed their instruments ([`IngestMetrics`], [`LiveMetrics`], ...) and count in them: an atomic for each
//! batch or message, nothing for each tick. What is a state and no event (positions, queues, lags) is read when
//! somebody asks, by what [`Metrics::observe`] was given. Label values are `&'static str`: no symbol, venue or other
//! text from outside can become one, so the number of series is bounded by this source. No async, no I/O, no clock.

mod delivery;
mod exposition;
mod imports;
mod ingest;
mod live;
mod page;
mod rpc;
mod tape;

pub use delivery::Deliveries;
pub use exposition::Format;
pub use imports::ImportMetrics;
pub use ingest::IngestMetrics;
pub use live::{LiveMetrics, ReaderMark};
pub use page::Page;
pub use rpc::RpcMetrics;
pub use tape::{ChunkMetrics, Hits, TapeMetrics};

use std::sync::{Arc, Mutex, OnceLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// A counter for each value of one label.
type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

/// Reads a number that is counted elsewhere.
type Read = Box<dyn Fn() -> u64 + Send + Sync>;

/// All instruments of one server. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Appending.
    pub ingest: Arc<IngestMetrics>,
    /// The log, its views and its compaction.
    pub tape: Arc<TapeMetrics>,
    /// Subscriptions.
    pub live: Arc<LiveMetrics>,
    /// Reading chunks.
    pub chunks: Arc<ChunkMetrics>,
    /// Files.
    pub imports: Arc<ImportMetrics>,
    /// Calls.
    pub rpc: Arc<RpcMetrics>,
    spans_dropped: Arc<SpansDropped>,
    /// Guards what is exposed. Held while it is written out, so two scrapes take turns; no instrument needs it.
    registry: Arc<Mutex<Registry>>,
}

/// Who knows how many spans were dropped; nobody where there are no traces.
#[derive(Default)]
struct SpansDropped(OnceLock<Read>);

impl std::fmt::Debug for SpansDropped {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("SpansDropped").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All instruments at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::default();
        let ingest = Arc::new(IngestMetrics::new(&mut registry));
        let tape = Arc::new(TapeMetrics::new(&mut registry));
        let live = Arc::new(LiveMetrics::new(&mut registry));
        let chunks = Arc::new(ChunkMetrics::new(&mut registry));
        let imports = Arc::new(ImportMetrics::new(&mut registry));
        let rpc = Arc::new(RpcMetrics::new(&mut registry));
        let spans_dropped = Arc::<SpansDropped>::default();
        let registry = Arc::new(Mutex::new(registry));
        let metrics =
            Metrics { ingest, tape, live, chunks, imports, rpc, spans_dropped: spans_dropped.clone(), registry };
        metrics.observe(move |page| {
            let dropped = spans_dropped.0.get().map_or(0, |read| read());
            page.counter(
                "tapefeed_spans_dropped",
                "Spans that were not exported because their queue was full",
                dropped,
            );
        });
        metrics
    }

    /// Registers what is read when somebody asks. It may take a lock for a moment, but never wait for a disk or a peer.
    pub fn observe(&self, write: impl Fn(&mut Page<'_>) + Send + Sync + 'static) {
        let mut registry = self.registry.lock().expect("no holder of the lock panics");
        registry.register_collector(Box::new(page::Observed::new(write)));
    }

    /// Says who knows how many spans were dropped. Whoever says it first stands.
    pub fn spans_dropped_are(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.spans_dropped.0.set(Box::new(read));
    }

    /// Exposes nothing any more, and lets go of what was observed. What is observed may hold these metrics itself.
    pub fn close(&self) {
        *self.registry.lock().expect("no holder of the lock panics") = Registry::default();
    }

    /// Everything, as text.
    pub fn text(&self, format: Format) -> String {
        let registry = self.registry.lock().expect("no holder of the lock panics");
        exposition::text(&registry, format)
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// Bounds of latencies inside one machine: 0.1 ms to 10 s.
const LATENCIES: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[cfg(test)]
mod tests;
