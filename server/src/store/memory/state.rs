//! What the store in memory holds, and its changes. No waiting in here.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;

use super::bars::BarsState;
use super::published::PublishedState;
use crate::domain::segment::{self, Link};
use crate::domain::{Epoch, Instrument, InstrumentId, Symbol, UnixNanos, Venue};
use crate::store::marks::{ProducerState, Standing};
use crate::store::retention::{self, SegmentAge};
use crate::store::{
    Appended, ChunkId, ChunkRow, CorrectionRow, EpochStart, Group, LogEdge, LogHead, LogPage, ManifestChange,
    ManifestCommit, ManifestDelta, Mark, PAGE_SEGMENTS, ProducerClaim, ProducerId, Reject, ReplicaId, Retention, Run,
    RunId, RunOwner, RunState, Segment, StoreError, Swept,
};

/// A chunk with the versions that brought and dropped it.
#[derive(Clone, Debug)]
pub(super) struct StoredChunk {
    row: ChunkRow,
    pub(super) bytes: Bytes,
    created_version: u64,
    dropped: Option<(u64, UnixNanos)>,
}

/// Everything that a database would keep.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) head: LogHead,
    pub(super) epochs: Vec<EpochStart>,
    segments: BTreeMap<u64, Segment>,
    pub(super) instruments: Vec<Instrument>,
    ids: HashMap<(Venue, Symbol), InstrumentId>,
    pub(super) producers: HashMap<ProducerId, (ProducerState, UnixNanos)>,
    fence: u64,
    pub(super) chunks: BTreeMap<ChunkId, StoredChunk>,
    last_chunk_id: u64,
    compactions: BTreeMap<InstrumentId, (u64, u64)>,
    venues: Bytes,
    /// By position, with the version that changed it last.
    corrections: BTreeMap<u64, (CorrectionRow, u64)>,
    manifest_floor: u64,
    /// In the order of their beginning.
    pub(super) runs: Vec<Run>,
    pub(super) rejects: HashMap<RunId, BTreeMap<u64, Reject>>,
    /// Who holds the lease of the upkeep, and until when.
    pub(super) leader: Option<(ReplicaId, UnixNanos)>,
    pub(super) published: PublishedState,
    pub(super) bars: BarsState,
}

impl State {
    pub(super) fn new(epoch: Epoch, now: UnixNanos) -> State {
        State {
            head: LogHead {
                epoch,
                position: 0,
                chain: [0; 16],
                append_time: UnixNanos::MIN,
                oldest: 1,
                hot_floor: 1,
                manifest_version: 0,
                log_bytes: 0,
            },
            epochs: vec![EpochStart { epoch, parent: None, fork: 0, start_time: now }],
            segments: BTreeMap::new(),
            instruments: Vec::new(),
            ids: HashMap::new(),
            producers: HashMap::new(),
            fence: 0,
            chunks: BTreeMap::new(),
            last_chunk_id: 0,
            compactions: BTreeMap::new(),
            venues: Bytes::new(),
            corrections: BTreeMap::new(),
            manifest_floor: 0,
            runs: Vec::new(),
            rejects: HashMap::new(),
            leader: None,
            published: PublishedState::default(),
            bars: BarsState::default(),
        }
    }

    pub(super) fn register(&mut self, instruments: &[(Venue, Symbol)]) -> Vec<Instrument> {
        let mut answer = Vec::with_capacity(instruments.len());
        for (venue, symbol) in instruments {
            let next = InstrumentId(u32::try_from(self.instruments.len() + 1).expect("memory ends before ids do"));
            let id = *self.ids.entry((venue.clone(), symbol.clone())).or_insert(next);
            let instrument = Instrument { id, venue: venue.clone(), symbol: symbol.clone() };
            if id == next {
                self.instruments.push(instrument.clone());
            }
            answer.push(instrument);
        }
        answer
    }

    pub(super) fn claim_or_renew(
        &mut self,
        producer: &ProducerId,
        held_fence: Option<u64>,
        now: UnixNanos,
    ) -> Option<ProducerClaim> {
        self.fence += 1;
        // A fence that this log has not handed out comes from one that is lost, and renews nothing.
        let renewed = held_fence.filter(|held| *held < self.fence);
        let fresh = ProducerState {
            fence: self.fence,
            held_since: renewed.unwrap_or(self.fence),
            last_batch_seq: 0,
            window: VecDeque::new(),
        };
        let (state, active) = self.producers.entry(producer.clone()).or_insert((fresh, now));
        match renewed {
            Some(held) if held < state.held_since => return None,
            Some(_) => {}
            None => state.held_since = self.fence,
        }
        state.fence = self.fence;
        *active = now;
        Some(ProducerClaim { fence: self.fence, last_batch_seq: state.last_batch_seq })
    }

    pub(super) fn append(&mut self, group: Group, standing: Standing, now: UnixNanos) -> Appended {
        for (producer, state) in standing.producers {
            if let Some(state) = state {
                self.producers.insert(producer, (state, now));
            }
        }
        if let Some(run) = standing.run {
            self.put_run(run);
        }
        for mark in &group.marks {
            if let Mark::Run { run, progress, published, .. } = mark {
                self.published.store(published);
                self.keep_rejects(run, &progress.rejects);
            }
        }
        let first_seq = self.head.position + 1;
        if group.entry_count > 0 {
            self.append_segment(group, first_seq, self.head.append_time.max(now));
        }
        Appended::Committed { first_seq, append_time: self.head.append_time, chain: self.head.chain }
    }

    fn append_segment(&mut self, group: Group, first_seq: u64, append_time: UnixNanos) {
        let link = Link {
            epoch: group.epoch,
            first_seq,
            entry_count: group.entry_count,
            tick_count: group.tick_count,
            append_time: append_time.nanos(),
            backfill: group.backfill,
            bytes: &group.bytes,
        };
        let chain = segment::chain(&self.head.chain, link);
        self.head.position += u64::from(group.entry_count);
        self.head.chain = chain;
        self.head.append_time = append_time;
        self.head.log_bytes += group.bytes.len() as u64;
        let segment = Segment {
            epoch: group.epoch,
            first_seq,
            entry_count: group.entry_count,
            tick_count: group.tick_count,
            append_time,
            backfill: group.backfill,
            run_id: group.run_id,
            chain,
            bytes: group.bytes,
        };
        self.segments.insert(first_seq, segment);
    }

    pub(super) fn page(&self, after: u64, max_bytes: usize) -> LogPage {
        let mut page = LogPage { head: self.head, segments: Vec::new() };
        if after >= self.head.position || after + 1 < self.head.oldest {
            return page;
        }
        let start = self.segments.range(..=after + 1).next_back().map_or(after + 1, |(first_seq, _)| *first_seq);
        let mut bytes = 0;
        for segment in self.segments.range(start..).map(|(_, segment)| segment).take(PAGE_SEGMENTS) {
            bytes += segment.bytes.len();
            if !page.segments.is_empty() && bytes > max_bytes {
                break;
            }
            page.segments.push(segment.clone());
        }
        page
    }

    pub(super) fn position_at(&self, append_time: UnixNanos) -> Option<LogEdge> {
        let found = self.segments.values().find(|segment| segment.append_time >= append_time)?;
        Some(LogEdge { first_seq: found.first_seq, append_time: found.append_time })
    }

    pub(super) fn manifest(&self, since: u64) -> ManifestDelta {
        let version = self.head.manifest_version;
        let since = if since < self.manifest_floor || since > version { 0 } else { since };
        let mut delta = ManifestDelta {
            epoch: self.head.epoch,
            since,
            version,
            hot_floor: self.head.hot_floor,
            added: Vec::new(),
            dropped: Vec::new(),
            compacted: Vec::new(),
            venues: if since == 0 { self.venues.clone() } else { Bytes::new() },
            corrections: Vec::new(),
        };
        for (id, chunk) in &self.chunks {
            match chunk.dropped {
                None if chunk.created_version > since => delta.added.push(chunk.row.clone()),
                Some((dropped, _)) if chunk.created_version <= since && dropped > since => {
                    delta.dropped.push((*id, chunk.row.instrument));
                }
                _ => (),
            }
        }
        for (instrument, (position, changed)) in &self.compactions {
            if *changed > since {
                delta.compacted.push((*instrument, *position));
            }
        }
        let changed = self.corrections.values().filter(|(_, version)| *version > since);
        delta.corrections.extend(changed.map(|(row, _)| row.clone()));
        delta
    }

    /// Why a change cannot be stored, if it cannot.
    pub(super) fn check_manifest(&self, change: &ManifestChange) -> Result<Option<ManifestCommit>, StoreError> {
        if change.epoch.is_some_and(|epoch| epoch != self.head.epoch) {
            return Err(StoreError::EpochChanged(self.head.epoch));
        }
        let version = self.head.manifest_version;
        if change.expected_version != version {
            return Ok(Some(ManifestCommit::Conflict { version }));
        }
        for id in &change.dropped {
            if self.chunks.get(id).is_none_or(|chunk| chunk.dropped.is_some()) {
                return Err(StoreError::not_live(*id));
            }
        }
        Ok(None)
    }

    /// Stores a change that was checked.
    pub(super) fn commit_manifest(&mut self, change: ManifestChange, now: UnixNanos) -> ManifestCommit {
        let version = self.head.manifest_version + 1;
        for id in change.dropped {
            if let Some(chunk) = self.chunks.get_mut(&id) {
                chunk.dropped = Some((version, now));
            }
        }
        for new in change.added {
            self.last_chunk_id += 1;
            let id = ChunkId(self.last_chunk_id);
            let row = ChunkRow { id, ..new.row };
            self.chunks.insert(id, StoredChunk { row, bytes: new.bytes, created_version: version, dropped: None });
        }
        for (instrument, position) in change.compacted {
            self.compactions.insert(instrument, (position, version));
        }
        if !change.venues.is_empty() {
            self.venues = change.venues;
        }
        for row in change.corrections {
            self.corrections.insert(row.log_seq, (row, version));
        }
        self.head.hot_floor = change.hot_floor;
        self.head.manifest_version = version;
        ManifestCommit::Committed { version }
    }

    pub(super) fn sweep(&mut self, retention: Retention, now: UnixNanos) -> Swept {
        let mut swept = Swept::default();
        self.drop_history(retention, now);
        let grace_ended = now.saturating_sub(retention.chunk_grace);
        self.chunks.retain(|_, chunk| match chunk.dropped {
            Some((version, time)) if time < grace_ended => {
                self.manifest_floor = self.manifest_floor.max(version);
                swept.chunks += 1;
                false
            }
            _ => true,
        });
        let ages = self.segments.values().map(|segment| SegmentAge {
            last_seq: segment.last_seq(),
            append_time: segment.append_time,
            byte_count: segment.bytes.len() as u64,
        });
        let count = retention::segments_to_drop(ages, retention, self.head.hot_floor, self.head.log_bytes);
        for _ in 0..count {
            if let Some((_, segment)) = self.segments.pop_first() {
                self.head.oldest = segment.last_seq() + 1;
                self.head.log_bytes -= segment.bytes.len() as u64;
                swept.segments += 1;
            }
        }
        let idle_since = now.saturating_sub(retention.producer_idle);
        let before = self.producers.len();
        self.producers.retain(|_, (_, active)| *active >= idle_since);
        swept.producers = (before - self.producers.len()) as u64;
        swept
    }

    fn drop_history(&mut self, retention: Retention, now: UnixNanos) {
        let Some(before) = retention.history_before else {
            return;
        };
        self.corrections.retain(|_, (row, _)| row.day >= before.day());
        let version = self.head.manifest_version + 1;
        for chunk in self.chunks.values_mut() {
            if chunk.dropped.is_none() && chunk.row.day < before.day() {
                chunk.dropped = Some((version, now));
                self.head.manifest_version = version;
            }
        }
    }

    pub(super) fn put_run(&mut self, run: Run) {
        if let Some(known) = self.runs.iter_mut().find(|known| known.run.id == run.run.id) {
            *known = run;
        }
    }

    pub(super) fn keep_rejects(&mut self, run: &RunId, rejects: &[Reject]) {
        let kept = self.rejects.entry(run.clone()).or_default();
        for reject in rejects {
            kept.entry(reject.line).or_insert_with(|| reject.clone());
        }
    }

    /// Forgets the rejects of a batch that is not stored: they are not among the first ones.
    pub(super) fn forget_unstored_rejects(&mut self, run: &Run) {
        let stored = usize::try_from(run.progress.rejected).unwrap_or(usize::MAX);
        if let Some(kept) = self.rejects.get_mut(&run.run.id)
            && let Some(line) = kept.keys().nth(stored).copied()
        {
            kept.split_off(&line);
        }
    }

    /// A running run of this owner's.
    pub(super) fn run_of(&mut self, run: &RunId, owner: &RunOwner) -> Option<&mut Run> {
        let running =
            |known: &&mut Run| known.run.id == *run && known.owner == *owner && known.state == RunState::Running;
        self.runs.iter_mut().find(running)
    }

    /// Begins an epoch that shares with the current one what lies at or below a position.
    pub(super) fn begin_epoch(&mut self, epoch: Epoch, fork: u64, now: UnixNanos) -> LogHead {
        if epoch != self.head.epoch {
            let parent = Some(self.head.epoch);
            self.epochs.push(EpochStart { epoch, parent, fork: fork.min(self.head.position), start_time: now });
            self.head.epoch = epoch;
            self.fence += 1;
            for (state, _) in self.producers.values_mut() {
                state.fence = self.fence;
            }
        }
        self.head
    }
}
