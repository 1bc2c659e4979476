//! Ingestion runs: what a file import did, under a lease.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::UnixNanos;

/// A run's name, made by the client: 1 to 64 bytes of `A-Z a-z 0-9 _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(Arc<str>);

/// A run id with other characters, or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 characters of A-Z a-z 0-9 _ -")]
pub struct RunIdInvalid;

impl RunId {
    /// Checks length and alphabet.
    pub fn new(text: &str) -> Result<RunId, RunIdInvalid> {
        if is_plain_name(text) { Ok(RunId(text.into())) } else { Err(RunIdInvalid) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The names that clients make: 1 to 64 bytes of `A-Z a-z 0-9 _ -`.
pub(super) fn is_plain_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// Who works on a run: a random number of the process and the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOwner(pub u64);

/// The state of a stored run. Uploading is not stored: it ends with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RunState {
    /// Being appended.
    Running = 1,
    /// All lines are in.
    Succeeded = 2,
    /// Ended by an error; the same file continues it.
    Failed = 3,
    /// Ended by request; what was committed stays, the same file continues it.
    Cancelled = 4,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunError {
    /// An `ErrorReason` without its prefix.
    pub reason: String,
    /// A sentence that says what to change.
    pub message: String,
}

/// How its owner ends a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// All lines are in.
    Succeeded,
    /// An error; the same file continues it.
    Failed(RunFailure),
}

impl RunEnd {
    /// The state that the run gets.
    pub fn state(&self) -> RunState {
        match self {
            RunEnd::Succeeded => RunState::Succeeded,
            RunEnd::Failed(_) => RunState::Failed,
        }
    }
}

/// Why a run failed, and the rejects of the batch in which it did: that batch is not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFailure {
    /// Why.
    pub error: RunError,
    /// Lines rejected in that batch, all of them.
    pub rejected: u64,
    /// Those of them that are kept, as long as nobody continues the run: who does reads the lines again.
    pub rejects: Vec<Reject>,
}

/// What makes two uploads the same run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRun {
    /// The name that a new run gets.
    pub id: RunId,
    /// SHA-256 over content, the options that change ticks, and the parser's version (and the id, with `again`).
    pub identity: [u8; 32],
    /// SHA-256 over the uncompressed bytes alone.
    pub content: [u8; 32],
    /// The parser's version.
    pub parser_version: u32,
    /// The options, for people and for comparison (an encoded message of the caller's).
    pub options: Vec<u8>,
    /// The file's name as the client gave it: data, never a path.
    pub file_name: String,
    /// Bytes uploaded.
    pub size_bytes: u64,
    /// Lines in the file.
    pub total_lines: u64,
    /// The trace that the run belongs to, if any.
    pub trace_id: String,
    /// Whether the same content under other options is wanted.
    pub again: bool,
}

/// A lease on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it.
    pub owner: RunOwner,
    /// When it was taken or renewed.
    pub now: UnixNanos,
    /// When others may take over.
    pub until: UnixNanos,
}

/// A wish to begin or continue a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRequest {
    /// The run.
    pub run: NewRun,
    /// The lease that it gets.
    pub lease: Lease,
}

/// What became of a wish to begin a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunClaim {
    /// New, or continued after `last_batch`: the caller holds the lease.
    Yours(Run),
    /// The same upload is worked on under another's lease.
    Leased(Run),
    /// The same upload has succeeded before.
    Done(Run),
    /// The same bytes are known with other options, and `again` is not set.
    OtherOptions(Run),
    /// An unfinished run of the same bytes was made by another version of the parser.
    OtherParser(Run),
    /// The id names a run of other content.
    IdTaken(Run),
}

/// What a batch of lines adds to a run.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RunProgress {
    /// Lines read.
    pub lines: u64,
    /// Ticks stored.
    pub ticks: u64,
    /// Lines that published something else than a tick.
    pub published: u64,
    /// Lines left out because their type is not a tick, by that type.
    pub ignored: Ignored,
    /// Lines rejected, all of them.
    pub rejected: u64,
    /// The rejected lines, as many as are kept.
    pub rejects: Vec<Reject>,
}

/// How many lines were left out, by their type: a parser's own short word for it, such as `bookTicker`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ignored(pub BTreeMap<Arc<str>, u64>);

impl Ignored {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Counts a line.
    pub fn count(&mut self, kind: &str) {
        match self.0.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                self.0.insert(kind.into(), 1);
            }
        }
    }

    /// Adds what others have counted.
    pub fn add(&mut self, other: &Ignored) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind.clone()).or_default() += count;
        }
    }
}

/// A line that was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Its number, from 1, the header included.
    pub line: u64,
    /// Why, for programs: an `ErrorReason` without its prefix, such as `FIELD_INVALID`.
    pub code: Cow<'static, str>,
    /// Why, in words.
    pub reason: String,
    /// Its first bytes, as text.
    pub text: String,
}

/// A run as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it is.
    pub run: NewRun,
    /// Where it stands.
    pub state: RunState,
    /// Who works on it, or last did.
    pub owner: RunOwner,
    /// Until when others keep off.
    pub lease_until: UnixNanos,
    /// The last committed batch; 0 before the first.
    pub last_batch: u64,
    /// Counts of the stored batches; its `rejects` are empty, see [`super::Store::rejects`].
    pub progress: RunProgress,
    /// Lines rejected in the batch in which it failed, which is not stored.
    pub unstored_rejected: u64,
    /// The last position of its last tick; 0 before the first.
    pub last_seq: u64,
    /// Why it failed.
    pub error: Option<RunError>,
    /// When it was begun.
    pub create_time: UnixNanos,
    /// When it ended.
    pub finish_time: Option<UnixNanos>,
}

impl Run {
    /// All lines that it has rejected.
    pub fn rejected(&self) -> u64 {
        self.progress.rejected + self.unstored_rejected
    }
}
