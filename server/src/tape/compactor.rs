//! Turns hot ticks into chunks, and tidies chunks of closed days.
//!
//! The compactor computes from one view and commits to the manifest by compare-and-set; the builder then adopts what
//! was committed. Two compactors at work at once waste work, but cannot do harm.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::cut::{self, Cut, new_chunk};
use super::merge::{self, Rewrite};
use super::notice::Notice;
use super::{Holding, Hub, View};
use super::{late, settle};
use crate::bus::{Bus, ManifestNews};
use crate::domain::chunk::CHUNK_TICKS;
use crate::domain::{Clock, InstrumentId, Tick, UnixNanos};
use crate::metrics::Metrics;
use crate::store::{ManifestChange, ManifestCommit, ReplicaId, Retention, Store, StoreError};

/// Ticks that one manifest commit moves at most, beyond its first instrument: bounds its bytes and its memory.
const COMMIT_TICKS: usize = 512 * CHUNK_TICKS;

/// Instruments that one manifest commit cuts at most: bounds how long a writer waits for it.
const COMMIT_INSTRUMENTS: usize = 512;

/// When what is compacted. The defaults are the design's.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How often the view is looked at.
    pub interval: Duration,
    /// Hot ticks older than this are cut even when they fill no chunk.
    pub age_cap: Duration,
    /// The hot floor may lie this many bytes of log behind the head before remainders are cut.
    pub lag_bytes: u64,
    /// How long after its last cut a closed day is merged.
    pub merge_delay: Duration,
    /// How long after its append a correction waits for its chunks to be written anew: as long as questions may be pinned
    /// to a position before it.
    pub correction_delay: Duration,
    /// How often the store is swept.
    pub sweep_interval: Duration,
    /// How long log segments are kept.
    pub log_retention: Duration,
    /// How many bytes of log are kept.
    pub log_retention_bytes: u64,
    /// How long history is kept; `None` is for ever.
    pub history_retention: Option<Duration>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            interval: Duration::from_millis(500),
            age_cap: Duration::from_secs(3_600),
            lag_bytes: 256 << 20,
            merge_delay: Duration::from_secs(600),
            correction_delay: Duration::from_secs(900),
            sweep_interval: Duration::from_secs(60),
            log_retention: Duration::from_secs(24 * 3_600),
            log_retention_bytes: 8 << 30,
            history_retention: None,
        }
    }
}

/// How long one replica has the upkeep to itself without prolonging it.
const LEASE: Duration = Duration::from_secs(10);

/// How often the lease is prolonged, or asked for.
const LEASE_INTERVAL: Duration = Duration::from_secs(2);

/// How long the bytes of dropped chunks stay for queries that still read them.
const CHUNK_GRACE: Duration = Duration::from_secs(600);

/// How long an idle producer is remembered.
const PRODUCER_IDLE: Duration = Duration::from_secs(7 * 86_400);

/// The task's state.
#[derive(Debug)]
pub struct Compactor {
    store: Arc<dyn Store>,
    views: watch::Receiver<Arc<View>>,
    manifest_changed: Arc<Notify>,
    clock: Arc<dyn Clock>,
    policy: Policy,
    /// Where the log ended at which time: tells the age of hot ticks.
    marks: VecDeque<(u64, UnixNanos)>,
    /// When an instrument and day was last cut or found tidy.
    touched: HashMap<(InstrumentId, u32), Touched>,
    /// The manifest version that was last found tidy, and when to look at it again.
    tidied: Option<u64>,
    tidy_due: UnixNanos,
    started: UnixNanos,
    swept: UnixNanos,
    metrics: Metrics,
    /// Who shares the work, and how they are told of it.
    sharing: Option<Sharing>,
    /// For those who read the log.
    notice: Option<Notice>,
}

/// Several replicas over one store.
#[derive(Debug)]
struct Sharing {
    replica: ReplicaId,
    bus: Arc<dyn Bus>,
    /// Whether this replica has the lease, as far as it knows, and when it asks again.
    leads: bool,
    ask: UnixNanos,
}

/// An instrument, what it holds, and how many of its hot ticks are cut.
type Work = (InstrumentId, Arc<Holding>, usize);

#[derive(Clone, Copy, Debug)]
enum Touched {
    Cut(UnixNanos),
    Tidy,
}

impl Compactor {
    /// A compactor over the views of one builder, which `manifest_changed` wakes after each commit.
    pub fn new(
        store: Arc<dyn Store>,
        views: watch::Receiver<Arc<View>>,
        manifest_changed: Arc<Notify>,
        clock: Arc<dyn Clock>,
        policy: Policy,
        metrics: Metrics,
    ) -> Compactor {
        let started = clock.now();
        Compactor {
            store,
            views,
            manifest_changed,
            clock,
            policy,
            marks: VecDeque::new(),
            touched: HashMap::new(),
            tidied: None,
            tidy_due: UnixNanos::MIN,
            started,
            swept: started,
            sharing: None,
            notice: None,
            metrics,
        }
    }

    /// A compactor that works only while it has the store's lease, and tells others of its commits.
    pub fn shared(mut self, replica: ReplicaId, bus: Arc<dyn Bus>) -> Compactor {
        self.sharing = Some(Sharing { replica, bus, leads: false, ask: UnixNanos::MIN });
        self
    }

    /// A compactor that tells a hub what leaves the log soon, whoever sweeps it.
    pub fn telling(mut self, readers: Arc<Hub>) -> Compactor {
        self.notice = Some(Notice::new(readers));
        self
    }

    /// Compacts until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let begun = Instant::now();
            let worked = match self.round().await {
                Ok(worked) => worked,
                Err(error) => {
                    self.metrics.tape.store_failed("compact");
                    tracing::warn!(%error, "compaction waits");
                    false
                }
            };
            if worked {
                self.metrics.tape.compacted_in(begun.elapsed());
                if stop.is_cancelled() {
                    return;
                }
                continue;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.policy.interval) => (),
            }
        }
    }

    /// One look at the view. True when a commit was made, so that there may be more to do at once.
    pub async fn round(&mut self) -> Result<bool, StoreError> {
        let view = self.views.borrow_and_update().clone();
        let now = self.clock.now();
        self.marks.push_back((view.position(), now));
        if let Some(notice) = &mut self.notice {
            notice.give(&*self.store, &self.policy, now).await?;
        }
        if !self.leads(now).await? {
            return Ok(false);
        }
        let aged = self.aged_position(&view, now).await?;
        // Before the cuts: under steady load there is always something to cut, and retention must not wait for quiet.
        if now >= self.swept.saturating_add(self.policy.sweep_interval) {
            self.swept = now;
            self.sweep(now).await?;
        }
        if self.cut_hot(&view, aged, now).await? {
            return Ok(true);
        }
        if self.settle(&view, now).await? {
            return Ok(true);
        }
        if self.tidy(&view, now).await? {
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether the work is this replica's. A wrong yes wastes work: the manifest takes one of two commits.
    async fn leads(&mut self, now: UnixNanos) -> Result<bool, StoreError> {
        let Some(sharing) = &mut self.sharing else {
            return Ok(true);
        };
        if now >= sharing.ask {
            sharing.leads = false;
            sharing.leads = self.store.lead(sharing.replica, LEASE).await?;
            sharing.ask = now.saturating_add(LEASE_INTERVAL);
        }
        Ok(sharing.leads)
    }

    /// Hot ticks up to here are cut whether or not they fill a chunk.
    async fn aged_position(&mut self, view: &View, now: UnixNanos) -> Result<u64, StoreError> {
        let mut aged = 0;
        while let Some(&(position, time)) = self.marks.front() {
            if now < time.saturating_add(self.policy.age_cap) {
                break;
            }
            aged = position;
            self.marks.pop_front();
        }
        if aged > 0 {
            // Kept for the next look: what is aged stays aged.
            self.marks.push_front((aged, UnixNanos::MIN));
        }
        if view.hot_ticks() > 0 {
            let head = self.store.head().await?;
            let entries = (head.position + 1).saturating_sub(head.oldest).max(1);
            let lag = (head.position + 1).saturating_sub(head.hot_floor);
            let lag_bytes = u128::from(head.log_bytes) * u128::from(lag) / u128::from(entries);
            if lag_bytes > u128::from(self.policy.lag_bytes) {
                aged = view.position();
            }
        }
        Ok(aged)
    }

    async fn cut_hot(&mut self, view: &View, aged: u64, now: UnixNanos) -> Result<bool, StoreError> {
        let mut work = Vec::new();
        let mut ticks = 0;
        for (instrument, holding) in view.holdings() {
            let hot = holding.hot_count();
            let old = holding.hot_ticks().take_while(|tick| tick.log_seq <= aged).count();
            let take = (hot / CHUNK_TICKS * CHUNK_TICKS).max(old);
            if take == 0 {
                continue;
            }
            // One instrument may hold more than a commit: the rest is cut in the next round.
            let take = if work.is_empty() { take.min(COMMIT_TICKS) } else { take };
            if (ticks + take > COMMIT_TICKS && !work.is_empty()) || work.len() == COMMIT_INSTRUMENTS {
                break;
            }
            ticks += take;
            work.push((instrument, holding.clone(), take));
        }
        if work.is_empty() {
            return Ok(false);
        }
        let span = tracing::debug_span!(
            "compact",
            tapefeed.compaction.instruments = work.len(),
            tapefeed.compaction.ticks = ticks,
        );
        self.cut(view, work, now).instrument(span).await
    }

    /// Cuts so many of the oldest ticks of each instrument, and commits them as one.
    async fn cut(&mut self, view: &View, work: Vec<Work>, now: UnixNanos) -> Result<bool, StoreError> {
        let found: Vec<(InstrumentId, Cut)> = apart(move || {
            let cut = |(instrument, holding, take): Work| Ok((instrument, cut::cut(instrument, &holding, take)?));
            work.into_iter().map(cut).collect::<Result<_, StoreError>>()
        })
        .await?;
        let mut change = ManifestChange {
            epoch: Some(view.epoch()),
            expected_version: view.manifest_version(),
            venues: view.venues().encode(),
            ..ManifestChange::default()
        };
        let mut compacted: BTreeMap<InstrumentId, u64> = BTreeMap::new();
        let mut cuts = Vec::new();
        for (instrument, Cut { days, last_seq, matched }) in found {
            compacted.insert(instrument, last_seq);
            change.corrections.extend(matched);
            for (day, cut) in days {
                change.added.extend(cut.chunks);
                if !cut.late.is_empty() {
                    let holding = view.holding(instrument).expect("the view held the ticks that were cut");
                    let (added, dropped) = late::chunks(&*self.store, instrument, day, holding, cut.late).await?;
                    change.added.extend(added);
                    change.dropped.extend(dropped);
                }
                cuts.push((instrument, day));
            }
        }
        change.hot_floor = hot_floor(view, &compacted);
        change.compacted = compacted.into_iter().collect();
        let committed = self.commit(view, change).await?;
        if committed {
            for cut in cuts {
                self.touched.insert(cut, Touched::Cut(now));
            }
        }
        Ok(committed)
    }

    /// Writes chunks anew as old corrections say, in bounded steps. True when a commit was made.
    async fn settle(&mut self, view: &View, now: UnixNanos) -> Result<bool, StoreError> {
        if view.corrections().waiting == 0 {
            return Ok(false);
        }
        let before = now.saturating_sub(self.policy.correction_delay);
        for (instrument, holding) in view.holdings() {
            let Some(settled) = settle::step(&*self.store, instrument, holding, before).await? else { continue };
            let span = tracing::debug_span!(
                "settle",
                tapefeed.instrument.id = instrument.0,
                tapefeed.corrections = settled.corrections.len(),
            );
            let days: BTreeSet<u32> = settled.added.iter().map(|(day, ..)| *day).collect();
            let committed = self.rewrite(view, instrument, settled).instrument(span).await?;
            for day in days.into_iter().filter(|_| committed) {
                self.touched.insert((instrument, day), Touched::Cut(now));
            }
            return Ok(committed);
        }
        Ok(false)
    }

    /// Merges one closed day that needs it, in bounded steps. True when a commit was made.
    async fn tidy(&mut self, view: &View, now: UnixNanos) -> Result<bool, StoreError> {
        if self.tidied == Some(view.manifest_version()) && now < self.tidy_due {
            return Ok(false);
        }
        let today = now.day();
        let mut due = now.saturating_add(Duration::from_secs(3_600));
        for (instrument, holding) in view.holdings() {
            for day in merge::untidy_days(holding) {
                if day >= today {
                    continue;
                }
                let last_cut = match self.touched.get(&(instrument, day)) {
                    Some(Touched::Tidy) => continue,
                    Some(Touched::Cut(time)) => *time,
                    None => self.started,
                };
                let ripe = last_cut.saturating_add(self.policy.merge_delay);
                if now < ripe {
                    due = due.min(ripe);
                    continue;
                }
                let span = tracing::debug_span!("tidy", tapefeed.instrument.id = instrument.0, tapefeed.day = day);
                let step = merge::step(&*self.store, instrument, day, holding).instrument(span.clone());
                let tidied = step.await?;
                if tidied.dropped.is_empty() {
                    self.touched.insert((instrument, day), Touched::Tidy);
                    continue;
                }
                return self.rewrite(view, instrument, tidied).instrument(span).await;
            }
        }
        (self.tidied, self.tidy_due) = (Some(view.manifest_version()), due);
        Ok(false)
    }

    /// Commits chunks of an instrument in the place of others. True when it was done.
    async fn rewrite(&mut self, view: &View, instrument: InstrumentId, rewrite: Rewrite) -> Result<bool, StoreError> {
        let Rewrite { added, dropped, corrections } = rewrite;
        let added = apart(move || {
            let chunk = |(day, late, ticks): (u32, bool, Vec<Tick>)| new_chunk(instrument, day, late, &ticks);
            added.into_iter().map(chunk).collect::<Result<_, _>>()
        })
        .await?;
        let change = ManifestChange {
            epoch: Some(view.epoch()),
            expected_version: view.manifest_version(),
            added,
            dropped,
            compacted: Vec::new(),
            hot_floor: hot_floor(view, &BTreeMap::new()),
            venues: view.venues().encode(),
            corrections,
        };
        self.commit(view, change).await
    }

    /// Commits, wakes the builder, and waits until the view has it, so that nothing is cut twice.
    async fn commit(&mut self, view: &View, mut change: ManifestChange) -> Result<bool, StoreError> {
        let epoch = self.views.borrow().epoch();
        settle::keep_corrections(view, &mut change.corrections);
        let ticks = change.added.iter().map(|chunk| u64::from(chunk.row.tick_count)).sum();
        let outcome = self.store.commit_manifest(change).await;
        self.manifest_changed.notify_one();
        let (version, committed) = match outcome? {
            ManifestCommit::Committed { version } => {
                if let Some(Sharing { bus, .. }) = &self.sharing {
                    bus.announce_manifest(ManifestNews { epoch, version });
                }
                (version, true)
            }
            ManifestCommit::Conflict { version } => (version, false),
        };
        if committed {
            self.metrics.tape.compacted_ticks.inc_by(ticks);
        } else {
            self.metrics.tape.conflicts.inc();
        }
        let adopted = self.views.wait_for(|view| view.manifest_version() >= version).await;
        Ok(committed && adopted.is_ok())
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn sweep(&mut self, now: UnixNanos) -> Result<(), StoreError> {
        // Days that were cut long ago and are still untidy count from the start of the process again.
        let kept = self.policy.merge_delay + Duration::from_secs(86_400);
        self.touched.retain(|_, touched| match touched {
            Touched::Cut(time) => now < time.saturating_add(kept),
            Touched::Tidy => true,
        });
        let swept = self
            .store
            .sweep(Retention {
                log_before: now.saturating_sub(self.policy.log_retention),
                log_bytes: self.policy.log_retention_bytes,
                history_before: self.policy.history_retention.map(|kept| now.saturating_sub(kept)),
                chunk_grace: CHUNK_GRACE,
                producer_idle: PRODUCER_IDLE,
            })
            .await?;
        self.metrics.tape.swept(swept.segments, swept.chunks, swept.producers);
        if swept != crate::store::Swept::default() {
            tracing::info!(segments = swept.segments, chunks = swept.chunks, producers = swept.producers, "swept");
            self.manifest_changed.notify_one();
        }
        Ok(())
    }
}

/// The smallest position that is not in chunks once instruments are compacted up to the given positions.
fn hot_floor(view: &View, compacted: &BTreeMap<InstrumentId, u64>) -> u64 {
    let mut floor = view.position() + 1;
    for (instrument, holding) in view.holdings() {
        let cut = compacted.get(&instrument).copied().unwrap_or(0);
        for block in &holding.hot {
            let hot = block.partition_point(|tick| tick.log_seq <= cut);
            if let Some(tick) = block.get(hot) {
                floor = floor.min(tick.log_seq);
                break;
            }
        }
    }
    floor
}

/// Does work that would hold other tasks up on a thread of its own. Where all tasks share one thread, it is done in place:
/// a simulation has such a runtime, and has to come to the same end each time.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StoreError::Unavailable(error.to_string()))?
}
