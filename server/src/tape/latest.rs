//! Shows the newest price of each instrument to programs beside ours, off every path that somebody waits on.
//!
//! Works from views: whatever changed between two looks is written once, however many ticks it had. A view shares with
//! the one before what did not change, so a look costs next to nothing when nothing did.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Holding, Patch, Tape, View, merge};
use crate::bus::redis::LatestPrices;
use crate::bus::redis::latest::{BATCH, LatestPrice, Written};
use crate::domain::{InstrumentId, Tick, UnixNanos};
use crate::store::{ChunkId, Store, StoreError};

/// How often what changed is written. Each time at most one batch; the rest waits, coalesced, for its turn.
const INTERVAL: Duration = Duration::from_millis(100);

/// How often the hash is looked at: whether it was emptied.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How long Redis is left alone when it is away.
const AWAY_WAIT: Duration = Duration::from_secs(1);

/// Instruments of a batch whose newest tick is read from a chunk, at most: it happens after a start alone.
const CHUNKS_PER_BATCH: usize = 16;

/// The task's state, for one epoch.
#[derive(Debug)]
pub struct LatestWriter {
    tape: Tape,
    store: Arc<dyn Store>,
    prices: LatestPrices,
    /// When the epoch began.
    start: UnixNanos,
    /// The view of the last look.
    seen: Arc<View>,
    /// Instruments to be written.
    due: BTreeSet<InstrumentId>,
}

impl LatestWriter {
    /// A writer over one tape.
    pub fn new(tape: Tape, store: Arc<dyn Store>, prices: LatestPrices) -> LatestWriter {
        let start = tape.lineage.newest().map_or(UnixNanos::MIN, |newest| newest.start_time);
        let seen = Arc::new(View::empty(tape.epoch));
        LatestWriter { tape, store, prices, start, seen, due: BTreeSet::new() }
    }

    /// Writes until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let _: Option<()> = stop.run_until_cancelled(self.write()).await;
    }

    async fn write(&mut self) {
        let mut looked = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(INTERVAL).await;
            if looked.elapsed() >= LOOK_INTERVAL {
                looked = tokio::time::Instant::now();
                if !self.prices.has(self.tape.epoch).await {
                    self.seen = Arc::new(View::empty(self.tape.epoch));
                }
            }
            let view = self.tape.views.borrow().clone();
            view.changed_since(&self.seen, |instrument| {
                self.due.insert(instrument);
            });
            self.seen = view;
            match self.batch().await {
                Ok(prices) if prices.is_empty() => (),
                Ok(prices) => match self.prices.write(self.tape.epoch, self.start, &prices).await {
                    Written::Yes | Written::Outdated => (),
                    Written::Away => {
                        // It may come back empty: everything is due again then.
                        self.seen = Arc::new(View::empty(self.tape.epoch));
                        self.due.clear();
                        tokio::time::sleep(AWAY_WAIT).await;
                    }
                },
                Err(error) => tracing::debug!(%error, "a latest price cannot be read now"),
            }
        }
    }

    /// The newest ticks of the first instruments that are due.
    async fn batch(&mut self) -> Result<Vec<LatestPrice>, StoreError> {
        let view = self.seen.clone();
        let (mut prices, mut chunks) = (Vec::new(), 0);
        while prices.len() < BATCH && chunks < CHUNKS_PER_BATCH {
            let Some(instrument) = self.due.pop_first() else { break };
            let (Some(holding), Some(name)) = (view.holding(instrument), self.tape.registry.get(instrument)) else {
                continue;
            };
            let mut patch = holding.patch(view.position());
            if let Some(patch) = &mut patch {
                let disputed: Vec<ChunkId> = patch.chunks().into_iter().map(|header| header.id).collect();
                chunks += disputed.len();
                for part in disputed.chunks(CHUNKS_PER_BATCH) {
                    for (id, chunk) in merge::load(&*self.store, instrument, part).await? {
                        patch.take(id, &chunk);
                    }
                }
            }
            let patched = patch.map(Patch::finish);
            let holding = patched.as_ref().unwrap_or(holding);
            let newest = match &holding.hot_latest {
                Some(hot) if stored(holding).is_none_or(|(key, _)| key < hot.key()) => Some(Tick::clone(hot)),
                _ => {
                    chunks += 1;
                    self.stored_tick(instrument, holding).await?
                }
            };
            // Whatever was said later of a trade of the instrument makes the price newer, too, and so its absence.
            let corrections = holding.corrections.iter().flat_map(|corrections| corrections.iter());
            let corrected = corrections.map(|logged| logged.log_seq).max().unwrap_or(0);
            prices.push(LatestPrice {
                field: format!("{}/{}", name.venue, name.symbol),
                log_seq: newest.as_ref().map_or(corrected, |tick| tick.log_seq.max(corrected)),
                tick: newest,
            });
        }
        Ok(prices)
    }

    async fn stored_tick(&self, instrument: InstrumentId, holding: &Holding) -> Result<Option<Tick>, StoreError> {
        let Some((_, chunk)) = stored(holding) else { return Ok(None) };
        let ticks = merge::read(&*self.store, instrument, &[chunk]).await?;
        Ok(ticks.into_iter().max_by_key(Tick::key))
    }
}

/// The key of the newest tick in chunks, and its chunk.
fn stored(holding: &Holding) -> Option<((UnixNanos, u64), ChunkId)> {
    let ordinary = holding.chunks.last().into_iter();
    ordinary.chain(holding.late.iter()).map(|header| (header.last_key(), header.id)).max()
}
