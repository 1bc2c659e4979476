//! A run as it is told to people: the stored ones, and those that have not reached the store.

use std::sync::atomic::Ordering;

use super::limits::SHOWN_REJECTS;
use super::options::ImportOptions;
use super::registry::{Entry, Phase};
use crate::domain::{Cursor, Epoch, UnixNanos};
use crate::store::{Ignored, Reject, Run, RunError, RunId, RunState};

/// The state of a run, stored or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The file arrives and is checked; nothing is stored.
    Uploading,
    /// The file is being stored.
    Running,
    /// The file is stored.
    Succeeded,
    /// The run ended by an error.
    Failed,
    /// The run was cancelled.
    Cancelled,
}

impl State {
    /// Whether the run has ended, for now.
    pub fn is_end(self) -> bool {
        !matches!(self, State::Uploading | State::Running)
    }
}

impl From<RunState> for State {
    fn from(state: RunState) -> State {
        match state {
            RunState::Running => State::Running,
            RunState::Succeeded => State::Succeeded,
            RunState::Failed => State::Failed,
            RunState::Cancelled => State::Cancelled,
        }
    }
}

/// Everything that is told about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunStatus {
    /// Its name.
    pub id: RunId,
    /// Where it stands.
    pub state: State,
    /// The file's name.
    pub file_name: String,
    /// Bytes of the upload, if known.
    pub size_bytes: Option<u64>,
    /// Bytes that have arrived.
    pub uploaded_bytes: u64,
    /// Lines read, without the header.
    pub lines: u64,
    /// Lines of the file, once it is here.
    pub total_lines: Option<u64>,
    /// Ticks stored.
    pub ticks: u64,
    /// Lines rejected.
    pub rejected: u64,
    /// Lines that published something else than a tick.
    pub published: u64,
    /// Lines left out, by kind.
    pub ignored: Ignored,
    /// Why it failed.
    pub error: Option<RunError>,
    /// When it began.
    pub create_time: UnixNanos,
    /// When storing began.
    pub start_time: Option<UnixNanos>,
    /// When it ended.
    pub finish_time: Option<UnixNanos>,
    /// How the file is read; what the header told is filled in once it is stored.
    pub options: ImportOptions,
    /// How many lines may be rejected, if this process knows.
    pub max_rejects: Option<u32>,
    /// Whether the same bytes were wanted again.
    pub again: bool,
    /// SHA-256 of the content, and the parser's version, once stored.
    pub content: Option<([u8; 32], u32)>,
    /// Its trace; may be empty.
    pub trace_id: String,
    /// Behind its last tick.
    pub cursor: Option<Cursor>,
    /// The last stored batch; 0 before the first.
    pub last_batch: u64,
    /// Its first rejected lines, at most 20.
    pub first_rejects: Vec<Reject>,
}

impl RunStatus {
    /// A run of the store.
    pub(super) fn stored(run: Run, rejects: Vec<Reject>, epoch: Epoch, max_rejects: Option<u32>) -> RunStatus {
        let rejected = run.rejected();
        let Run {
            run,
            state,
            owner: _,
            lease_until: _,
            last_batch,
            progress,
            unstored_rejected: _,
            last_seq,
            error,
            create_time,
            finish_time,
        } = run;
        debug_assert!(rejects.len() <= SHOWN_REJECTS);
        RunStatus {
            id: run.id,
            state: state.into(),
            file_name: run.file_name,
            size_bytes: Some(run.size_bytes),
            uploaded_bytes: run.size_bytes,
            lines: progress.lines,
            total_lines: Some(run.total_lines),
            ticks: progress.ticks,
            rejected,
            published: progress.published,
            ignored: progress.ignored,
            error,
            create_time,
            start_time: Some(create_time),
            finish_time,
            options: ImportOptions::decode(&run.options).unwrap_or_default(),
            max_rejects,
            again: run.again,
            content: Some((run.content, run.parser_version)),
            trace_id: run.trace_id,
            cursor: (last_seq > 0).then_some(Cursor { epoch, position: last_seq }),
            last_batch,
            first_rejects: rejects,
        }
    }

    /// A run that is in memory alone; `None` once it is in the store.
    pub(super) fn unstored(entry: &Entry) -> Option<RunStatus> {
        let (state, error, finish_time) = match entry.phase() {
            Phase::Uploading => (State::Uploading, None, None),
            Phase::Failed { error, at } => (State::Failed, Some(error), Some(at)),
            Phase::Cancelled { at } => (State::Cancelled, None, Some(at)),
            Phase::Stored(_) => return None,
        };
        let start = &entry.start;
        Some(RunStatus {
            id: start.run.clone(),
            state,
            file_name: start.file_name.clone(),
            size_bytes: start.size_bytes,
            uploaded_bytes: entry.uploaded.load(Ordering::Relaxed),
            lines: 0,
            total_lines: None,
            ticks: 0,
            rejected: 0,
            published: 0,
            ignored: Ignored::default(),
            error,
            create_time: entry.create_time,
            start_time: None,
            finish_time,
            options: start.options.clone(),
            max_rejects: Some(start.max_rejects),
            again: start.again,
            content: None,
            trace_id: start.trace_id.clone(),
            cursor: None,
            last_batch: 0,
            first_rejects: Vec::new(),
        })
    }

    /// The order of lists: the newest first, then by name.
    pub(super) fn rank(&self) -> (std::cmp::Reverse<UnixNanos>, &str) {
        (std::cmp::Reverse(self.create_time), self.id.as_str())
    }
}
