//! A store in memory, for simulation: the semantics of the databases, none of their durability.
//!
//! [`MemoryStore::reopen`] gives a second handle on the same data: what a restarted server finds.

mod bars;
mod published;
mod state;

use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::faults::{self, Faults};
use super::marks::{self, Begin, ProducerState, Standing};
use super::{
    Appended, BarsChange, BarsMark, ChunkId, EpochStart, Group, Lease, LogEdge, LogHead, LogPage, ManifestChange,
    ManifestCommit, ManifestDelta, Mark, ProducerClaim, ProducerId, Reject, ReplicaId, Retention, Run, RunClaim,
    RunEnd, RunFailure, RunId, RunOwner, RunRequest, RunState, Store, StoreError, Swept, Verdict,
};
use crate::domain::{
    Clock, Cursor, Epoch, Instrument, InstrumentDetails, InstrumentId, PublishedBar, PublishedBarKey, Symbol,
    UnixNanos, Venue,
};
use state::State;

/// The store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    data: Arc<Data>,
    clock: Arc<dyn Clock>,
    faults: Faults,
    closed: AtomicBool,
}

/// A copy of everything at one moment.
#[derive(Debug)]
pub struct Standby(Box<State>);

#[derive(Debug)]
struct Data {
    /// Held by one writer for the length of its operation, pauses included.
    writing: tokio::sync::Mutex<()>,
    /// Guards everything; never held across an await.
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: Arc<dyn Clock>, epoch: Epoch) -> MemoryStore {
        let state = Mutex::new(State::new(epoch, clock.now()));
        let data = Arc::new(Data { writing: tokio::sync::Mutex::default(), state });
        MemoryStore { data, clock, faults: Faults::default(), closed: AtomicBool::new(false) }
    }

    /// The same store, stumbling where `faults` say.
    pub fn with_faults(self, faults: Faults) -> MemoryStore {
        MemoryStore { faults, ..self }
    }

    /// What a restart finds: another open handle on the same data.
    pub fn reopen(&self) -> MemoryStore {
        MemoryStore {
            data: self.data.clone(),
            clock: self.clock.clone(),
            faults: self.faults.clone(),
            closed: AtomicBool::new(false),
        }
    }

    /// What a standby has now.
    pub fn standby(&self) -> Standby {
        Standby(Box::new(self.data.state.lock().expect("no code panics while it holds the state").clone()))
    }

    /// A standby takes the place of the store: what was committed after its copy was taken is lost, for all handles.
    /// With an epoch, the new primary begins it in its first transaction; without, nobody notices yet.
    pub async fn promote(&self, standby: Standby, epoch: Option<Epoch>) {
        let _writing = self.data.writing.lock().await;
        let mut state = *standby.0;
        if let Some(epoch) = epoch {
            state.begin_epoch(epoch, u64::MAX, self.clock.now());
        }
        *self.data.state.lock().expect("no code panics while it holds the state") = state;
    }

    /// The table of bars, by key.
    #[cfg(test)]
    pub(crate) fn bars(&self) -> Vec<super::BarRow> {
        self.state().expect("the store is open").bars.rows()
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("the store is closed".to_owned()));
        }
        Ok(self.data.state.lock().expect("no code panics while it holds the state"))
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn head(&self) -> Result<LogHead, StoreError> {
        Ok(self.state()?.head)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.state().map(drop)
    }

    async fn register(&self, instruments: &[(Venue, Symbol)]) -> Result<Vec<Instrument>, StoreError> {
        let _writing = self.data.writing.lock().await;
        Ok(self.state()?.register(instruments))
    }

    async fn instruments(&self, after: InstrumentId) -> Result<Vec<Instrument>, StoreError> {
        let state = self.state()?;
        let known =
            usize::try_from(after.0).map_or(state.instruments.len(), |after| after.min(state.instruments.len()));
        Ok(state.instruments[known..].to_vec())
    }

    async fn claim_or_renew(
        &self,
        producer: &ProducerId,
        held_fence: Option<u64>,
    ) -> Result<Option<ProducerClaim>, StoreError> {
        let _writing = self.data.writing.lock().await;
        let now = self.clock.now();
        Ok(self.state()?.claim_or_renew(producer, held_fence, now))
    }

    async fn append(&self, group: Group) -> Result<Appended, StoreError> {
        let _writing = self.data.writing.lock().await;
        self.faults.hit(faults::APPEND_BEFORE).await?;
        let (head, mut standing) = {
            let state = self.state()?;
            (state.head, state.standing(&group))
        };
        if head.epoch != group.epoch {
            return Err(StoreError::EpochChanged(head.epoch));
        }
        let verdicts = marks::judge(&group, head.position, &mut standing);
        if verdicts.iter().any(|verdict| *verdict != Verdict::New) {
            return Ok(Appended::Refused(verdicts));
        }
        self.faults.hit(faults::APPEND_INSIDE).await?;
        self.faults.hit(faults::APPEND_BEFORE_SYNC).await?;
        let now = self.clock.now();
        let appended = self.state()?.append(group, standing, now);
        self.faults.hit(faults::APPEND_AFTER).await?;
        Ok(appended)
    }

    async fn segments(&self, after: u64, max_bytes: usize) -> Result<LogPage, StoreError> {
        Ok(self.state()?.page(after, max_bytes))
    }

    async fn position_at(&self, append_time: UnixNanos) -> Result<Option<LogEdge>, StoreError> {
        Ok(self.state()?.position_at(append_time))
    }

    async fn manifest(&self, since: u64) -> Result<ManifestDelta, StoreError> {
        Ok(self.state()?.manifest(since))
    }

    async fn commit_manifest(&self, change: ManifestChange) -> Result<ManifestCommit, StoreError> {
        let _writing = self.data.writing.lock().await;
        self.faults.hit(faults::MANIFEST_BEFORE).await?;
        if let Some(refused) = self.state()?.check_manifest(&change)? {
            return Ok(refused);
        }
        self.faults.hit(faults::MANIFEST_INSIDE).await?;
        let now = self.clock.now();
        let committed = self.state()?.commit_manifest(change, now);
        self.faults.hit(faults::MANIFEST_AFTER).await?;
        Ok(committed)
    }

    async fn chunk_bytes(&self, ids: &[ChunkId]) -> Result<Vec<(ChunkId, Bytes)>, StoreError> {
        let state = self.state()?;
        Ok(ids.iter().filter_map(|id| state.chunks.get(id).map(|chunk| (*id, chunk.bytes.clone()))).collect())
    }

    async fn sweep(&self, retention: Retention) -> Result<Swept, StoreError> {
        let _writing = self.data.writing.lock().await;
        self.faults.hit(faults::SWEEP_INSIDE).await?;
        let now = self.clock.now();
        Ok(self.state()?.sweep(retention, now))
    }

    async fn begin_run(&self, request: RunRequest) -> Result<RunClaim, StoreError> {
        let _writing = self.data.writing.lock().await;
        let mut state = self.state()?;
        let wanted = &request.run;
        let same_identity = state.runs.iter().find(|run| run.run.identity == wanted.identity).cloned();
        let same_content = state.runs.iter().rev().filter(|run| run.run.content == wanted.content).cloned().collect();
        let same_id = state.runs.iter().find(|run| run.run.id == wanted.id).cloned();
        match marks::begin_run(request, same_identity, same_content, same_id) {
            Begin::Answer(claim) => Ok(claim),
            Begin::Continue(run) => {
                state.put_run(run.clone());
                state.forget_unstored_rejects(&run);
                Ok(RunClaim::Yours(run))
            }
            Begin::Insert(run) => {
                state.runs.push(run.clone());
                Ok(RunClaim::Yours(run))
            }
        }
    }

    async fn renew_lease(&self, run: &RunId, lease: Lease) -> Result<bool, StoreError> {
        let _writing = self.data.writing.lock().await;
        let mut state = self.state()?;
        let Some(run) = state.run_of(run, &lease.owner) else {
            return Ok(false);
        };
        run.lease_until = lease.until;
        Ok(true)
    }

    async fn finish_run(&self, run: &RunId, owner: &RunOwner, end: RunEnd) -> Result<bool, StoreError> {
        let _writing = self.data.writing.lock().await;
        let now = self.clock.now();
        let mut state = self.state()?;
        let Some(known) = state.run_of(run, owner) else {
            return Ok(false);
        };
        known.state = end.state();
        known.finish_time = Some(now);
        if let RunEnd::Failed(RunFailure { error, rejected, rejects }) = end {
            known.error = Some(error);
            known.unstored_rejected = rejected;
            state.keep_rejects(run, &rejects);
        }
        Ok(true)
    }

    async fn cancel_run(&self, run: &RunId) -> Result<Option<Run>, StoreError> {
        let _writing = self.data.writing.lock().await;
        let now = self.clock.now();
        let mut state = self.state()?;
        let Some(run) = state.runs.iter_mut().find(|known| known.run.id == *run) else {
            return Ok(None);
        };
        if run.state == RunState::Running {
            run.state = RunState::Cancelled;
            run.finish_time = Some(now);
        }
        Ok(Some(run.clone()))
    }

    async fn run(&self, run: &RunId) -> Result<Option<Run>, StoreError> {
        Ok(self.state()?.runs.iter().find(|known| known.run.id == *run).cloned())
    }

    async fn runs(&self, before: Option<&RunId>, limit: usize) -> Result<Vec<Run>, StoreError> {
        let state = self.state()?;
        let end = match before {
            None => state.runs.len(),
            Some(before) => state.runs.iter().position(|run| run.run.id == *before).unwrap_or(0),
        };
        Ok(state.runs[..end].iter().rev().take(limit).cloned().collect())
    }

    async fn rejects(&self, run: &RunId, after_line: u64, limit: usize) -> Result<Vec<Reject>, StoreError> {
        let state = self.state()?;
        let Some(kept) = state.rejects.get(run) else {
            return Ok(Vec::new());
        };
        let rejects = kept.range((Bound::Excluded(after_line), Bound::Unbounded));
        Ok(rejects.take(limit).map(|(_, reject)| reject.clone()).collect())
    }

    async fn published_bars(
        &self,
        instrument: InstrumentId,
        days: Range<u32>,
        after: Option<PublishedBarKey>,
        limit: usize,
    ) -> Result<Vec<PublishedBar>, StoreError> {
        Ok(self.state()?.published.bars(instrument, days, after, limit))
    }

    async fn instrument_details(
        &self,
        instruments: &[InstrumentId],
    ) -> Result<Vec<(InstrumentId, InstrumentDetails)>, StoreError> {
        Ok(self.state()?.published.details(instruments))
    }

    async fn bars_mark(&self) -> Result<BarsMark, StoreError> {
        Ok(self.state()?.bars.mark)
    }

    async fn record_bars(&self, change: BarsChange) -> Result<bool, StoreError> {
        let _writing = self.data.writing.lock().await;
        self.faults.hit(faults::BARS_BEFORE).await?;
        let done = {
            let mut state = self.state()?;
            if state.head.epoch != change.epoch {
                return Err(StoreError::EpochChanged(state.head.epoch));
            }
            state.bars.change(change)
        };
        self.faults.hit(faults::BARS_AFTER).await?;
        Ok(done)
    }

    async fn epochs(&self) -> Result<Vec<EpochStart>, StoreError> {
        Ok(self.state()?.epochs.iter().rev().copied().collect())
    }

    async fn renew_epoch(&self, epoch: Epoch) -> Result<LogHead, StoreError> {
        let _writing = self.data.writing.lock().await;
        let now = self.clock.now();
        Ok(self.state()?.begin_epoch(epoch, u64::MAX, now))
    }

    async fn fork_epoch(&self, epoch: Epoch, common: Cursor) -> Result<LogHead, StoreError> {
        let _writing = self.data.writing.lock().await;
        let now = self.clock.now();
        let mut state = self.state()?;
        if state.head.epoch != common.epoch {
            return Ok(state.head);
        }
        Ok(state.begin_epoch(epoch, common.position, now))
    }

    async fn lead(&self, replica: ReplicaId, lease: Duration) -> Result<bool, StoreError> {
        let _writing = self.data.writing.lock().await;
        let now = self.clock.now();
        let mut state = self.state()?;
        if state.leader.is_some_and(|(leader, until)| leader != replica && now < until) {
            return Ok(false);
        }
        state.leader = Some((replica, now.saturating_add(lease)));
        Ok(true)
    }

    async fn close(&self) {
        let _writing = self.data.writing.lock().await;
        self.closed.store(true, Ordering::Release);
    }
}

impl State {
    /// What is known about those whom a group's marks name.
    fn standing(&self, group: &Group) -> Standing {
        let mut standing = Standing::default();
        for mark in &group.marks {
            match mark {
                Mark::Producer { producer, .. } => {
                    let known: Option<ProducerState> = self.producers.get(producer).map(|(state, _)| state.clone());
                    standing.producers.insert(producer.clone(), known);
                }
                Mark::Run { run, .. } => standing.run = self.runs.iter().find(|known| known.run.id == *run).cloned(),
            }
        }
        standing
    }
}
