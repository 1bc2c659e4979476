//! How a batch is recognised: the rules of producers and of runs, for the backends that keep them in Rust.
//!
//! Nothing here reads or writes: a backend brings what it has stored, gets verdicts, and stores the standing that
//! results if all of them are [`Verdict::New`].

use std::collections::{BTreeMap, VecDeque};

use super::{Digest, Group, Mark, PRODUCER_WINDOW, ProducerId, Run, RunClaim, RunOwner, RunProgress, RunRequest};
use super::{RunState, Verdict};

/// A batch that a producer has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredBatch {
    pub(super) batch_seq: u64,
    pub(super) last_seq: u64,
    pub(super) digest: Digest,
}

const STORED_BATCH_BYTES: usize = 32;

/// What a store keeps about a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProducerState {
    pub(super) fence: u64,
    /// The fence of the first claim of the publisher that holds it.
    pub(super) held_since: u64,
    pub(super) last_batch_seq: u64,
    /// The last [`PRODUCER_WINDOW`] batches, oldest first.
    pub(super) window: VecDeque<StoredBatch>,
}

impl ProducerState {
    /// Judges a batch and takes it in if it is new.
    fn judge(&mut self, fence: u64, batch: StoredBatch) -> Verdict {
        if fence != self.fence {
            return Verdict::Fenced;
        }
        let expected = self.last_batch_seq + 1;
        if batch.batch_seq > expected {
            return Verdict::OutOfOrder { expected };
        }
        if batch.batch_seq < expected {
            let known = self.window.iter().find(|known| known.batch_seq == batch.batch_seq);
            return match known {
                Some(known) if known.digest == batch.digest => Verdict::Duplicate { last_seq: known.last_seq },
                _ => Verdict::Conflict,
            };
        }
        if self.window.len() == PRODUCER_WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(batch);
        self.last_batch_seq = batch.batch_seq;
        Verdict::New
    }

    /// The window as a database keeps it: 32 bytes a batch, oldest first.
    pub(super) fn encode_window(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.window.len() * STORED_BATCH_BYTES);
        for batch in &self.window {
            bytes.extend_from_slice(&batch.batch_seq.to_le_bytes());
            bytes.extend_from_slice(&batch.last_seq.to_le_bytes());
            bytes.extend_from_slice(&batch.digest);
        }
        bytes
    }

    /// Reads [`ProducerState::encode_window`]. `None` for bytes of another length.
    pub(super) fn decode_window(bytes: &[u8]) -> Option<VecDeque<StoredBatch>> {
        let chunks = bytes.chunks_exact(STORED_BATCH_BYTES);
        if !chunks.remainder().is_empty() || chunks.len() > PRODUCER_WINDOW {
            return None;
        }
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("a slice of eight bytes"));
        let batch = |bytes: &[u8]| StoredBatch {
            batch_seq: number(&bytes[..8]),
            last_seq: number(&bytes[8..16]),
            digest: bytes[16..].try_into().expect("a slice of sixteen bytes"),
        };
        Some(chunks.map(batch).collect())
    }
}

/// What a store knows about those whom a group's marks name.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// `None` for a producer that is not known.
    pub(super) producers: BTreeMap<ProducerId, Option<ProducerState>>,
    /// The group's run, if it has one that is known.
    pub(super) run: Option<Run>,
}

/// Judges the marks of a group that would be stored after `position`. If all verdicts are new, `standing` is then what
/// must be stored with the group.
pub(super) fn judge(group: &Group, position: u64, standing: &mut Standing) -> Vec<Verdict> {
    let mut verdicts = Vec::with_capacity(group.marks.len());
    let mut last_seq = position;
    for mark in &group.marks {
        verdicts.push(match mark {
            Mark::Producer { producer, fence, batch_seq, digest, entry_count } => {
                last_seq += u64::from(*entry_count);
                let batch = StoredBatch { batch_seq: *batch_seq, last_seq, digest: *digest };
                match standing.producers.get_mut(producer) {
                    Some(Some(state)) => state.judge(*fence, batch),
                    _ => Verdict::Unknown,
                }
            }
            Mark::Run { run, owner, batch, progress, published: _, entry_count } => {
                last_seq += u64::from(*entry_count);
                let stored_seq = if *entry_count == 0 { None } else { Some(last_seq) };
                match &mut standing.run {
                    Some(known) if known.run.id == *run => judge_run(known, *owner, *batch, progress, stored_seq),
                    _ => Verdict::Unknown,
                }
            }
        });
    }
    debug_assert!(last_seq <= position + u64::from(group.entry_count), "marks count more entries than the group has");
    verdicts
}

fn judge_run(run: &mut Run, owner: RunOwner, batch: u64, progress: &RunProgress, last_seq: Option<u64>) -> Verdict {
    if run.state != RunState::Running || run.owner != owner {
        return Verdict::Fenced;
    }
    let expected = run.last_batch + 1;
    if batch > expected {
        return Verdict::OutOfOrder { expected };
    }
    if batch < expected {
        return Verdict::Duplicate { last_seq: run.last_seq };
    }
    run.last_batch = batch;
    run.progress.lines += progress.lines;
    run.progress.ticks += progress.ticks;
    run.progress.published += progress.published;
    run.progress.ignored.add(&progress.ignored);
    run.progress.rejected += progress.rejected;
    run.last_seq = last_seq.unwrap_or(run.last_seq);
    Verdict::New
}

/// What a store must do about a wish to begin a run.
#[derive(Debug)]
pub(super) enum Begin {
    /// Nothing but answer.
    Answer(RunClaim),
    /// Store this run in place of the one with its id; it is the caller's.
    Continue(Run),
    /// Store this new run; it is the caller's.
    Insert(Run),
}

/// Decides about a wish to begin a run. `same_content` holds the runs of the same bytes, the newest first.
pub(super) fn begin_run(
    request: RunRequest,
    same_identity: Option<Run>,
    same_content: Vec<Run>,
    same_id: Option<Run>,
) -> Begin {
    let RunRequest { run: wanted, lease } = request;
    if let Some(mut run) = same_identity {
        if run.state == RunState::Succeeded {
            return Begin::Answer(RunClaim::Done(run));
        }
        if run.state == RunState::Running && run.lease_until > lease.now {
            return Begin::Answer(RunClaim::Leased(run));
        }
        run.state = RunState::Running;
        run.owner = lease.owner;
        run.lease_until = lease.until;
        run.unstored_rejected = 0;
        run.error = None;
        run.finish_time = None;
        return Begin::Continue(run);
    }
    let unfinished = |run: &&Run| run.run.parser_version != wanted.parser_version && run.state != RunState::Succeeded;
    if let Some(run) = same_content.iter().find(unfinished) {
        return Begin::Answer(RunClaim::OtherParser(run.clone()));
    }
    if !wanted.again
        && let Some(run) = same_content.into_iter().next()
    {
        return Begin::Answer(RunClaim::OtherOptions(run));
    }
    if let Some(run) = same_id {
        return Begin::Answer(RunClaim::IdTaken(run));
    }
    Begin::Insert(Run {
        run: wanted,
        state: RunState::Running,
        owner: lease.owner,
        lease_until: lease.until,
        last_batch: 0,
        progress: RunProgress::default(),
        unstored_rejected: 0,
        last_seq: 0,
        error: None,
        create_time: lease.now,
        finish_time: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_round_trip_and_other_lengths_are_refused() {
        let mut state = ProducerState { fence: 1, held_since: 1, last_batch_seq: 0, window: VecDeque::new() };
        for batch_seq in 1..=20 {
            let batch = StoredBatch { batch_seq, last_seq: batch_seq * 10, digest: [batch_seq as u8; 16] };
            assert_eq!(state.judge(1, batch), Verdict::New);
            assert_eq!(ProducerState::decode_window(&state.encode_window()), Some(state.window.clone()));
        }
        assert_eq!(state.window.front().map(|batch| batch.batch_seq), Some(13));
        assert_eq!(ProducerState::decode_window(&[0; 31]), None);
        assert_eq!(ProducerState::decode_window(&[0; 9 * 32]), None);
        assert_eq!(ProducerState::decode_window(&[]), Some(VecDeque::new()));
    }
}
