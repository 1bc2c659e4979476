//! Makes the next view: follows the log, adopts the manifest, and swaps one `Arc`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::corrections::Logged;
use super::hub::Hub;
use super::{ChunkHeader, FollowError, Follower, Holding, Registry, Shelf, Venues, VenuesCorrupt, View};
use crate::bus::ManifestNews;
use crate::domain::correction::Standing;
use crate::domain::statistics::Statistics;
use crate::domain::{Block, Cursor, InstrumentId, Tick, UnixNanos};
use crate::metrics::Metrics;
use crate::store::{ChunkId, ChunkRow, ManifestDelta, Store, StoreError};

/// Steps that one view takes at most, so that a flood of commits cannot keep a view from being published.
const STEPS_PER_VIEW: usize = 64;

/// Where something is looked for that is gone, so that a view can never go on.
const BEHIND: &str = "segments before the oldest";

/// How often the manifest is looked at for commits of other replicas that the bus did not tell.
const MANIFEST_POLL: Duration = Duration::from_secs(2);

/// Memory of blocks that one step takes at most, beyond its first block.
const STEP_BYTES: usize = 8 << 20;

/// How long to wait before the store is asked again after an error.
const RETRY_WAIT: Duration = Duration::from_millis(250);

/// Owns the view under construction.
#[derive(Debug)]
pub struct Builder {
    store: Arc<dyn Store>,
    follower: Follower,
    registry: Arc<Registry>,
    view: View,
    /// The headers of chunks that are unpacked.
    shelf: Arc<Shelf>,
    sender: watch::Sender<Arc<View>>,
    manifest_changed: Arc<Notify>,
    /// What the bus tells of commits of the manifest by other replicas.
    manifests: watch::Receiver<Option<ManifestNews>>,
    sorter: Sorter,
    metrics: Metrics,
}

impl Builder {
    /// Reads the manifest and the log from its hot floor, and publishes the first view. It has reached the hub's head,
    /// and whatever the chunks hold; the hub must be fed meanwhile if other replicas compact.
    pub async fn open(
        store: Arc<dyn Store>,
        hub: Arc<Hub>,
        registry: Arc<Registry>,
        shelf: Arc<Shelf>,
        manifest_changed: Arc<Notify>,
        metrics: Metrics,
    ) -> Result<Builder, StoreError> {
        let delta = store.manifest(0).await?;
        let after = Cursor { epoch: delta.epoch, position: delta.hot_floor - 1 };
        let mut builder = Builder {
            follower: Follower::new(hub, store.clone(), after, STEP_BYTES),
            store,
            registry,
            view: View::empty(delta.epoch),
            shelf,
            sender: watch::Sender::new(Arc::new(View::empty(delta.epoch))),
            manifest_changed,
            // Without a sender this branch of the loop sleeps: other replicas are found by looking.
            manifests: watch::channel(None).1,
            sorter: Sorter::default(),
            metrics,
        };
        builder.view.advance(after.position, UnixNanos::MIN);
        let reach = reach(&delta);
        if !delta.venues.is_empty() {
            let corrupt = |error: VenuesCorrupt| StoreError::Corrupt {
                table: "venues",
                row: "0".into(),
                problem: error.to_string(),
            };
            builder.view.begin_venues(Venues::decode(&delta.venues).map_err(corrupt)?);
        }
        if delta.added.iter().any(|row| builder.registry.get(row.instrument).is_none()) {
            // Another replica has registered and compacted since the registry was read.
            builder.registry.refresh().await?;
        }
        builder.adopt(delta)?;
        while builder.follower.position().position < builder.follower.head().position.max(reach) {
            let step = builder.follower.next().await.map_err(not_followed)?;
            builder.apply(&step.blocks);
        }
        builder.publish();
        Ok(builder)
    }

    /// Hears of other replicas' commits from a bus, too.
    pub fn hearing(self, manifests: watch::Receiver<Option<ManifestNews>>) -> Builder {
        Builder { manifests, ..self }
    }

    /// The views, from the first complete one.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.sender.subscribe()
    }

    /// Publishes views until `stop` is cancelled. Ends by itself when it can never go on: the log no longer reaches
    /// back to where the view stands, or the store has lost chunks that the view has.
    pub async fn run(self, stop: CancellationToken) {
        // A view under construction is worth nothing to anybody else, so it may be dropped at any point.
        let _: Option<()> = stop.run_until_cancelled(self.build()).await;
    }

    async fn build(mut self) {
        let manifest_changed = self.manifest_changed.clone();
        let mut poll = tokio::time::interval(MANIFEST_POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let outcome = tokio::select! {
                biased;
                () = manifest_changed.notified() => self.refresh_manifest().await,
                Ok(()) = self.manifests.changed() => {
                    let news = *self.manifests.borrow_and_update();
                    let known = (self.view.epoch(), self.view.manifest_version());
                    match news {
                        Some(news) if news.epoch == known.0 && news.version > known.1 => self.refresh_manifest().await,
                        _ => continue,
                    }
                }
                _ = poll.tick() => match self.refresh_manifest().await {
                    Ok(()) => Ok(()),
                    // The next look comes by itself, and those who read the log tell of the trouble.
                    Err(StoreError::Unavailable(_) | StoreError::EpochChanged(_)) => continue,
                    Err(error) => Err(error),
                },
                step = self.follower.next() => step.map_err(not_followed).map(|step| {
                    self.apply(&step.blocks);
                    for _ in 1..STEPS_PER_VIEW {
                        let Some(step) = self.follower.ready() else { break };
                        self.apply(&step.blocks);
                    }
                }),
            };
            match outcome {
                Ok(()) => self.publish(),
                Err(StoreError::EpochChanged(_)) => {
                    // The feeder finds out too, and this builder ends with the epoch. Its last view stays until then.
                    return std::future::pending().await;
                }
                Err(StoreError::Corrupt { table: BEHIND, .. }) => return,
                Err(error) => {
                    self.metrics.tape.store_failed("view");
                    tracing::error!(%error, "the view stands still");
                    // What failed is tried again, a missed change of the manifest too.
                    manifest_changed.notify_one();
                    tokio::time::sleep(RETRY_WAIT).await;
                }
            }
        }
    }

    fn publish(&mut self) {
        self.metrics.tape.views.inc();
        self.sender.send_replace(Arc::new(self.view.clone()));
    }

    fn apply(&mut self, blocks: &[Arc<Block>]) {
        for block in blocks {
            let position = self.view.position();
            let ticks = &block.entries.ticks;
            let fresh = ticks.partition_point(|tick| tick.log_seq <= position);
            for (instrument, mut ticks) in self.sorter.by_instrument(&ticks[fresh..]) {
                self.saw(instrument, ticks.iter().map(|tick| tick.event_time).max());
                self.view.update(instrument, |holding| {
                    let compacted = ticks.partition_point(|tick| tick.log_seq <= holding.compacted);
                    ticks.drain(..compacted);
                    holding.push_hot(ticks);
                });
            }
            let mut corrected: BTreeMap<InstrumentId, Vec<Logged>> = BTreeMap::new();
            for (log_seq, control) in block.entries.controls.iter().filter(|(log_seq, _)| *log_seq > position) {
                self.view.venues_mut().told(*log_seq, block.append_time, control);
            }
            for (log_seq, correction) in block.corrections().filter(|(log_seq, _)| *log_seq > position) {
                let logged = Logged::new(log_seq, block.append_time, correction);
                corrected.entry(correction.instrument).or_default().push(logged);
            }
            for (instrument, news) in corrected {
                self.view.update(instrument, |holding| holding.correct(news));
            }
            self.view.advance(block.last_seq(), block.append_time);
        }
    }

    /// Tells the view how far the venue of an instrument has come.
    fn saw(&mut self, instrument: InstrumentId, newest: Option<UnixNanos>) {
        // The hub knows every instrument before it shows a tick of it.
        if let (Some(instrument), Some(newest)) = (self.registry.get(instrument), newest)
            && self.view.venues().is_news(&instrument.venue, newest)
        {
            self.view.venues_mut().saw(&instrument.venue, newest);
        }
    }

    async fn refresh_manifest(&mut self) -> Result<(), StoreError> {
        let known = self.view.manifest_version();
        let delta = self.store.manifest(known).await?;
        if delta.epoch != self.view.epoch() {
            return Err(StoreError::EpochChanged(delta.epoch));
        }
        if delta.version < known {
            return Err(self.manifest_lost().await?);
        }
        if delta.since == known && delta.version == known {
            return Ok(());
        }
        // A chunk may hold ticks that this replica has not followed to yet: first get there.
        let reach = reach(&delta);
        while self.view.position() < reach {
            let step = self.follower.next().await.map_err(not_followed)?;
            self.apply(&step.blocks);
            self.publish();
        }
        self.adopt(delta)
    }

    /// The store has lost changes of the manifest, and no epoch says so yet: a standby without the newest commits took
    /// over. Its chunks without those that are lost, beside the hot ticks that are left, would be a view with holes, so
    /// this one stays as it is. If the log is shorter, too, the feeder finds out and the epoch ends; if not, the view is
    /// made anew.
    async fn manifest_lost(&mut self) -> Result<StoreError, StoreError> {
        let reached = self.follower.head().position;
        let stored = self.store.head().await?;
        if stored.epoch != self.view.epoch() || stored.position < reached {
            return Ok(StoreError::EpochChanged(stored.epoch));
        }
        // The feeder gets there only if the log is still the one that it was.
        while self.view.position() < stored.position {
            let step = self.follower.next().await.map_err(not_followed)?;
            self.apply(&step.blocks);
            self.publish();
        }
        Ok(StoreError::Corrupt { table: BEHIND, row: stored.position.to_string(), problem: "chunks are lost".into() })
    }

    /// Replaces chunks and evicts what they hold from the hot set, in one step of the view. The view stays as it is when
    /// something is damaged.
    fn adopt(&mut self, delta: ManifestDelta) -> Result<(), StoreError> {
        let mut corrected: BTreeMap<InstrumentId, Vec<Logged>> = BTreeMap::new();
        for row in &delta.corrections {
            corrected.entry(row.instrument).or_default().push(Logged::read(row)?);
        }
        let mut changes: BTreeMap<InstrumentId, Change> = BTreeMap::new();
        let mut newest: BTreeMap<InstrumentId, UnixNanos> = BTreeMap::new();
        for row in delta.added {
            let time = newest.entry(row.instrument).or_insert(row.last_time);
            *time = row.last_time.max(*time);
            changes.entry(row.instrument).or_default().added.push(row);
        }
        for (id, instrument) in delta.dropped {
            changes.entry(instrument).or_default().dropped.insert(id);
        }
        if delta.since == 0 {
            // It is the whole manifest, which replaces what the view has.
            for (instrument, _) in self.view.holdings() {
                changes.entry(instrument).or_default().anew = true;
            }
        }
        let mut view = self.view.clone();
        for (instrument, change) in changes {
            let mut applied = Ok(());
            view.update(instrument, |holding| applied = change.apply(holding, &self.shelf));
            applied?;
        }
        self.view = view;
        for (instrument, time) in newest {
            self.saw(instrument, Some(time));
        }
        for (instrument, position) in delta.compacted {
            self.view.update(instrument, |holding| holding.evict_hot(position));
        }
        for row in delta.corrections.iter().filter(|row| row.standing != Standing::Waiting) {
            self.view.settle(row.log_seq);
        }
        for (instrument, news) in corrected {
            self.view.update(instrument, |holding| holding.correct(news));
        }
        self.view.adopt(delta.version);
        Ok(())
    }
}

/// Tells ticks apart by instrument.
#[derive(Debug, Default)]
struct Sorter {
    /// By the number of an instrument. Zero between two calls.
    places: Vec<u32>,
}

impl Sorter {
    /// The ticks of each instrument in their order. Looks at them twice, so that each list is made at its length.
    fn by_instrument(&mut self, ticks: &[Tick]) -> Vec<(InstrumentId, Vec<Tick>)> {
        let mut found = Vec::new();
        for tick in ticks {
            let number = tick.instrument.0 as usize;
            if number >= self.places.len() {
                self.places.resize(number + 1, 0);
            }
            if self.places[number] == 0 {
                found.push(tick.instrument);
            }
            self.places[number] += 1;
        }
        found.sort_unstable();
        let mut lists = Vec::with_capacity(found.len());
        for (index, instrument) in found.into_iter().enumerate() {
            let place = &mut self.places[instrument.0 as usize];
            lists.push((instrument, Vec::with_capacity(*place as usize)));
            *place = index as u32;
        }
        for tick in ticks {
            lists[self.places[tick.instrument.0 as usize] as usize].1.push(tick.clone());
        }
        for (instrument, _) in &lists {
            self.places[instrument.0 as usize] = 0;
        }
        lists
    }
}

/// The greatest position that a manifest speaks of.
fn reach(delta: &ManifestDelta) -> u64 {
    let chunks = delta.added.iter().map(|row| row.max_seq);
    chunks.chain(delta.corrections.iter().map(|row| row.log_seq)).max().unwrap_or(0)
}

/// What an adoption changes among the chunks of an instrument.
#[derive(Debug, Default)]
struct Change {
    /// Whether nothing stays that was there.
    anew: bool,
    dropped: HashSet<ChunkId>,
    added: Vec<ChunkRow>,
}

impl Change {
    fn apply(self, holding: &mut Holding, shelf: &Arc<Shelf>) -> Result<(), StoreError> {
        let Change { anew, dropped, added } = self;
        let (mut ordinary, mut late) = (Vec::new(), Vec::new());
        for row in added {
            if row.late { &mut late } else { &mut ordinary }.push(Arc::new(header(&row)?));
        }
        if anew {
            (holding.chunks, holding.late) = Default::default();
        }
        if !ordinary.is_empty() || !dropped.is_empty() {
            holding.chunks = Arc::new(holding.chunks.changed(&dropped, ordinary, shelf));
        }
        if !late.is_empty() || holding.late.iter().any(|header| dropped.contains(&header.id)) {
            late.extend(holding.late.iter().filter(|header| !dropped.contains(&header.id)).cloned());
            late.sort_by_key(|header| header.first_key());
            holding.late = Arc::new(late);
        }
        Ok(())
    }
}

fn header(row: &ChunkRow) -> Result<ChunkHeader, StoreError> {
    let corrupt = |problem: String| StoreError::Corrupt { table: "chunks", row: row.id.0.to_string(), problem };
    let statistics = Statistics::decode(&row.statistics).map_err(|error| corrupt(error.to_string()))?;
    if statistics.totals.first.is_none() || statistics.totals.last.is_none() {
        return Err(corrupt("its statistics name no first and last tick".into()));
    }
    Ok(ChunkHeader {
        id: row.id,
        day: row.day,
        min_seq: row.min_seq,
        max_seq: row.max_seq,
        byte_count: row.byte_count,
        statistics,
        first_time: row.first_time,
        last_time: row.last_time,
    })
}

/// The builder follows from a position that the store itself named, so anything but a store error is damage.
fn not_followed(error: FollowError) -> StoreError {
    match error {
        FollowError::Store(error) => error,
        FollowError::EpochChanged { head, .. } => StoreError::EpochChanged(head.epoch),
        FollowError::Expired { oldest, .. } => StoreError::Corrupt {
            table: BEHIND,
            row: oldest.to_string(),
            problem: "the log begins after what is to be read of it".into(),
        },
    }
}
