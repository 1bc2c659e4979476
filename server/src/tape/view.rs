//! The immutable picture of everything up to one position.
//!
//! A [`View`] never changes; the next one shares what did not change with it. Per instrument it has a [`Holding`]:
//! chunk headers for what is compacted, and hot ticks for what is not.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

use super::{Chunks, CorrectionCounts, Corrections, Venues};
use crate::domain::chunk::CHUNK_TICKS;
use crate::domain::statistics::{PricePoint, Statistics, Totals};
use crate::domain::tally::Tally;
use crate::domain::{Cursor, Epoch, InstrumentId, Tick, UnixNanos};
use crate::store::{ChunkId, StoreError};

/// Reads the newest ticks of a view. Queries do, whose floor holds the chunks; streams need them, and the two do not
/// know each other.
#[async_trait]
pub trait NewestTicks: Send + Sync + std::fmt::Debug {
    /// A view in which nothing is left to correct.
    async fn corrected<'v>(&self, view: &'v View) -> Result<Cow<'v, View>, StoreError>;

    /// The newest tick by (event_time, log_seq) of each instrument that has one, in the order asked.
    async fn newest_ticks(&self, view: &View, instruments: &[InstrumentId]) -> Result<Vec<Tick>, StoreError>;
}

/// What is known of a chunk without reading its bytes.
#[derive(Clone, Debug)]
pub struct ChunkHeader {
    /// Where its bytes are.
    pub id: ChunkId,
    /// The UTC day of its ticks, in days since 1970.
    pub day: u32,
    /// The smallest position among its ticks.
    pub min_seq: u64,
    /// The greatest position among its ticks.
    pub max_seq: u64,
    /// Length of its bytes.
    pub byte_count: u32,
    /// The exact statistics of its ticks; `first` and `last` are always present.
    pub statistics: Statistics,
    /// The event time of its first tick.
    pub first_time: UnixNanos,
    /// The event time of its last tick.
    pub last_time: UnixNanos,
}

impl ChunkHeader {
    /// The key of its first tick in the order of history.
    pub fn first_key(&self) -> (UnixNanos, u64) {
        self.statistics.totals.first.map_or((self.first_time, self.min_seq), |point| (point.event_time, point.log_seq))
    }

    /// The key of its last tick in the order of history.
    pub fn last_key(&self) -> (UnixNanos, u64) {
        self.statistics.totals.last.map_or((self.last_time, self.max_seq), |point| (point.event_time, point.log_seq))
    }

    /// How many ticks it has.
    pub fn tick_count(&self) -> usize {
        self.statistics.totals.count as usize
    }

    /// Whether it and its next neighbour can become one chunk.
    pub(super) fn fits_with(&self, next: &ChunkHeader) -> bool {
        self.day == next.day && self.tick_count() + next.tick_count() <= CHUNK_TICKS
    }

    /// The event times of its first and last tick as its statistics have them.
    pub(super) fn times_of_statistics(&self) -> (UnixNanos, UnixNanos) {
        let time = |point: Option<PricePoint>| point.map_or(UnixNanos::MIN, |point| point.event_time);
        (time(self.statistics.totals.first), time(self.statistics.totals.last))
    }
}

/// What a view holds of one instrument. Every tick of the instrument up to the view's position is in exactly one of
/// the three lists, as it was told or as its settled corrections say: what trades are, [`Holding::patch`] makes of it.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    /// Ordinary chunks: disjoint and ascending by (event_time, log_seq).
    pub chunks: Arc<Chunks>,
    /// Late chunks: each ascending inside, overlapping the ordinary ones and each other.
    pub late: Arc<Vec<Arc<ChunkHeader>>>,
    /// Ticks that are not in chunks: blocks in the order of the log, each ascending by `log_seq`.
    pub hot: Vec<Arc<HotBlock>>,
    /// The newest hot tick by (event_time, log_seq).
    pub hot_latest: Option<Arc<Tick>>,
    /// Everything of the instrument up to this position is in chunks.
    pub compacted: u64,
    /// What was said of its trades later; most instruments have nothing of it.
    pub corrections: Option<Arc<Corrections>>,
    /// Whether anything is said of a hot tick.
    pub(super) hot_named: bool,
    /// Whether nothing is left to correct.
    pub(super) patched: bool,
}

impl Holding {
    /// Whether it has any tick.
    pub fn has_ticks(&self) -> bool {
        !self.chunks.is_empty() || !self.late.is_empty() || !self.hot.is_empty()
    }

    /// How many ticks are hot.
    pub fn hot_count(&self) -> usize {
        self.hot.iter().map(|block| block.len()).sum()
    }

    /// How many chunks it has, late ones included.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len() + self.late.len()
    }

    /// The hot ticks in the order of the log.
    pub fn hot_ticks(&self) -> impl Iterator<Item = &Tick> {
        self.hot.iter().flat_map(|block| block.iter())
    }

    /// Appends hot ticks in the order of the log. Blocks of similar size are merged, [`FAN`] at a time: a holding of n
    /// ticks has at most `FAN` blocks for each power of `FAN` up to n, and a tick is copied about once for each.
    pub fn push_hot(&mut self, ticks: Vec<Tick>) {
        let Some(newest) = ticks.iter().max_by_key(|tick| tick.key()) else {
            return;
        };
        if let Some(corrections) = &self.corrections {
            self.hot_named |= ticks.iter().any(|tick| corrections.name(tick));
        }
        if self.hot_latest.as_ref().is_none_or(|latest| latest.key() < newest.key()) {
            self.hot_latest = Some(Arc::new(newest.clone()));
        }
        let mut newest = HotBlock::new(ticks);
        loop {
            let size = newest.len().ilog(FAN);
            let similar = self.hot.iter().rev().take_while(|block| block.len().ilog(FAN) <= size).count();
            if similar + 1 < FAN {
                self.hot.push(Arc::new(newest));
                return;
            }
            let older = self.hot.split_off(self.hot.len() - similar);
            newest = HotBlock::merged(&older, newest);
        }
    }

    /// Forgets hot ticks up to a position, because chunks hold them now.
    pub fn evict_hot(&mut self, compacted: u64) {
        self.compacted = compacted;
        self.hot.retain(|block| block.last().is_some_and(|tick| tick.log_seq > compacted));
        if let Some(first) = self.hot.first_mut()
            && first.first().is_some_and(|tick| tick.log_seq <= compacted)
        {
            let rest = first.iter().filter(|tick| tick.log_seq > compacted).cloned().collect();
            *first = Arc::new(HotBlock::new(rest));
        }
        self.hot_latest = self.hot_ticks().max_by_key(|tick| tick.key()).map(|tick| Arc::new(tick.clone()));
        if self.hot_named {
            self.look_for_named();
        }
    }
}

/// Hot blocks of similar size that become one. Fewer would be read faster, and copied more often.
const FAN: usize = 8;

/// Ticks that are not in chunks: consecutive ones of an instrument in the order of the log, at least one.
#[derive(Debug)]
pub struct HotBlock {
    ticks: Vec<Tick>,
    /// The keys of the first and the last tick in the order of history.
    first: (UnixNanos, u64),
    last: (UnixNanos, u64),
    /// Added up when a query first needs it.
    totals: OnceLock<Totals>,
}

impl HotBlock {
    pub(super) fn new(ticks: Vec<Tick>) -> HotBlock {
        let (mut first, mut last) = ((UnixNanos::MAX, u64::MAX), (UnixNanos::MIN, 0));
        for key in ticks.iter().map(Tick::key) {
            (first, last) = (first.min(key), last.max(key));
        }
        HotBlock { ticks, first, last, totals: OnceLock::new() }
    }

    /// One block of neighbours.
    fn merged(older: &[Arc<HotBlock>], newest: HotBlock) -> HotBlock {
        let HotBlock { ticks: newest, mut first, mut last, .. } = newest;
        let mut ticks = Vec::with_capacity(older.iter().map(|block| block.len()).sum::<usize>() + newest.len());
        for block in older {
            ticks.extend_from_slice(block);
            (first, last) = (first.min(block.first), last.max(block.last));
        }
        ticks.extend(newest);
        HotBlock { ticks, first, last, totals: OnceLock::new() }
    }

    /// The key of its first tick in the order of history.
    pub fn first_key(&self) -> (UnixNanos, u64) {
        self.first
    }

    /// The key of its last tick in the order of history.
    pub fn last_key(&self) -> (UnixNanos, u64) {
        self.last
    }

    /// The totals of all its ticks.
    pub fn totals(&self) -> &Totals {
        self.totals.get_or_init(|| {
            let mut tally = Tally::default();
            self.ticks.iter().for_each(|tick| tally.add(tick));
            tally.totals()
        })
    }
}

impl Deref for HotBlock {
    type Target = [Tick];

    fn deref(&self) -> &[Tick] {
        &self.ticks
    }
}

/// Instruments a page of holdings has; a view shares the pages that did not change.
const PAGE: usize = 64;

/// Everything up to one position of one log.
#[derive(Clone, Debug)]
pub struct View {
    epoch: Epoch,
    position: u64,
    append_time: UnixNanos,
    manifest_version: u64,
    pages: Vec<Arc<Vec<Arc<Holding>>>>,
    venues: Arc<Venues>,
    hot_ticks: usize,
    chunks: usize,
    corrections: CorrectionCounts,
    /// The greatest position of a correction that chunks are written by.
    settled: u64,
}

impl View {
    /// The view of an empty log.
    pub fn empty(epoch: Epoch) -> View {
        View {
            epoch,
            position: 0,
            append_time: UnixNanos::MIN,
            manifest_version: 0,
            pages: Vec::new(),
            venues: Arc::default(),
            hot_ticks: 0,
            chunks: 0,
            corrections: CorrectionCounts::default(),
            settled: 0,
        }
    }

    /// The log.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The position up to which the view is complete.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The position as a cursor.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: self.position }
    }

    /// When the last entry was appended.
    pub fn append_time(&self) -> UnixNanos {
        self.append_time
    }

    /// The manifest version whose chunks it has.
    pub fn manifest_version(&self) -> u64 {
        self.manifest_version
    }

    /// What is known of venues beside their ticks.
    pub fn venues(&self) -> &Arc<Venues> {
        &self.venues
    }

    /// How many ticks are in no chunk yet.
    pub fn hot_ticks(&self) -> usize {
        self.hot_ticks
    }

    /// How many chunks it has.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// How many corrections it has.
    pub fn corrections(&self) -> CorrectionCounts {
        self.corrections
    }

    /// Chunks are written by corrections up to here: at positions before it trades are no longer known as they were.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// The same view with other holdings of some instruments.
    pub fn with(&self, holdings: Vec<(InstrumentId, Holding)>) -> View {
        let mut view = self.clone();
        for (instrument, other) in holdings {
            view.update(instrument, |holding| *holding = other);
        }
        view
    }

    /// What the view holds of an instrument, `None` when it has neither a tick nor a correction of it.
    pub fn holding(&self, instrument: InstrumentId) -> Option<&Arc<Holding>> {
        let index = (instrument.0 as usize).checked_sub(1)?;
        let holding = self.pages.get(index / PAGE)?.get(index % PAGE)?;
        (holding.has_ticks() || holding.corrections.is_some()).then_some(holding)
    }

    /// All instruments that have ticks or corrections, ascending by id.
    pub fn holdings(&self) -> impl Iterator<Item = (InstrumentId, &Arc<Holding>)> {
        let ids = 1..=(self.pages.len() * PAGE) as u32;
        ids.filter_map(|id| self.holding(InstrumentId(id)).map(|holding| (InstrumentId(id), holding)))
    }

    /// Names every instrument whose holding is not the same as in an earlier view. Pages that both share are passed over.
    pub(super) fn changed_since(&self, earlier: &View, mut name: impl FnMut(InstrumentId)) {
        for (number, page) in self.pages.iter().enumerate() {
            let before = earlier.pages.get(number);
            if before.is_some_and(|before| Arc::ptr_eq(before, page)) {
                continue;
            }
            for (index, holding) in page.iter().enumerate() {
                let same = before.is_some_and(|before| Arc::ptr_eq(&before[index], holding));
                let id = InstrumentId((number * PAGE + index + 1) as u32);
                if !same && self.holding(id).is_some() {
                    name(id);
                }
            }
        }
    }

    /// Changes one holding of a view under construction.
    pub(super) fn update(&mut self, instrument: InstrumentId, change: impl FnOnce(&mut Holding)) {
        let index = instrument.0.checked_sub(1).expect("instrument ids start at 1") as usize;
        while self.pages.len() <= index / PAGE {
            self.pages.push(Arc::new(vec![Arc::default(); PAGE]));
        }
        let page = Arc::make_mut(&mut self.pages[index / PAGE]);
        let holding = Arc::make_mut(&mut page[index % PAGE]);
        let (hot, chunks, corrections) = (holding.hot_count(), holding.chunk_count(), holding.correction_counts());
        change(holding);
        self.corrections = self.corrections.changed(corrections, holding.correction_counts());
        self.hot_ticks = self.hot_ticks + holding.hot_count() - hot;
        self.chunks = self.chunks + holding.chunk_count() - chunks;
    }

    /// What is known of venues, as a commit of the manifest stores it.
    #[cfg(test)]
    pub(crate) fn venues_as_stored(&self) -> bytes::Bytes {
        self.venues.encode()
    }

    /// Begins with what is known of venues, of a view under construction.
    pub(super) fn begin_venues(&mut self, venues: Venues) {
        self.venues = Arc::new(venues);
    }

    /// What is known of venues, of a view under construction.
    pub(super) fn venues_mut(&mut self) -> &mut Venues {
        Arc::make_mut(&mut self.venues)
    }

    /// Moves a view under construction on.
    pub(super) fn advance(&mut self, position: u64, append_time: UnixNanos) {
        self.position = position;
        self.append_time = append_time;
    }

    /// Names a correction that chunks are written by, of a view under construction.
    pub(super) fn settle(&mut self, log_seq: u64) {
        self.settled = self.settled.max(log_seq);
    }

    /// Names the manifest version of a view under construction.
    pub(super) fn adopt(&mut self, manifest_version: u64) {
        self.manifest_version = manifest_version;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Decimal, Origin, Side, TradeId};

    /// Times go back and forth.
    fn tick(log_seq: u64) -> Tick {
        let time = UnixNanos::new((log_seq * 7_919 % 1_000) as i64).unwrap();
        Tick {
            instrument: InstrumentId(1),
            log_seq,
            event_time: time,
            receive_time: time,
            price: Decimal::ZERO,
            quantity: None,
            side: Side::Buy,
            trade_id: TradeId::None,
            origin: Origin::Live,
        }
    }

    #[test]
    fn hot_ticks_stay_in_order_and_in_few_blocks() {
        for each in [1, 3, 7, 100] {
            let ticks: Vec<Tick> = (1..=5_000).map(tick).collect();
            let mut holding = Holding::default();
            for part in ticks.chunks(each) {
                holding.push_hot(part.to_vec());
                let powers = holding.hot_count().ilog(FAN) as usize + 1;
                assert!(holding.hot.len() <= FAN * powers, "{} blocks", holding.hot.len());
            }
            assert!(holding.hot_ticks().eq(&ticks));
            for block in &holding.hot {
                let keys = || block.iter().map(Tick::key);
                assert_eq!((Some(block.first_key()), Some(block.last_key())), (keys().min(), keys().max()));
            }
            assert_eq!(holding.hot_latest.as_deref(), ticks.iter().max_by_key(|tick| tick.key()));
        }
    }
}
