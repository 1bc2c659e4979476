//! What can stop an import, and the defects of files.

use std::fmt;
use std::io;

use crate::ingest::IngestError;
use crate::store::{Reject, RunError, RunFailure, RunId, StoreError};

/// A defect of a file as a whole: nothing of it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDefect {
    /// A sentence that says what is wrong and what to change.
    pub problem: String,
    /// The line of the uncompressed file, from 1.
    pub line: Option<u64>,
    /// The offset of the byte, in the uncompressed file unless the problem says otherwise.
    pub byte: Option<u64>,
}

impl FileDefect {
    /// A defect without a place.
    pub fn new(problem: impl Into<String>) -> FileDefect {
        FileDefect { problem: problem.into(), line: None, byte: None }
    }

    /// A defect of a line.
    pub fn at_line(line: u64, byte: u64, problem: impl Into<String>) -> FileDefect {
        FileDefect { problem: problem.into(), line: Some(line), byte: Some(byte) }
    }

    /// A defect at a byte of the upload.
    pub fn at_byte(byte: u64, problem: impl Into<String>) -> FileDefect {
        FileDefect { problem: problem.into(), line: None, byte: Some(byte) }
    }
}

impl fmt::Display for FileDefect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.problem)?;
        match (self.line, self.byte) {
            (Some(line), Some(byte)) => write!(out, " (line {line}, byte {byte})"),
            (None, Some(byte)) => write!(out, " (byte {byte})"),
            (Some(line), None) => write!(out, " (line {line})"),
            (None, None) => Ok(()),
        }
    }
}

/// Why an import did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is not one that can be read.
    #[error("{0}")]
    Malformed(FileDefect),
    /// An option is missing, or does not fit the file.
    #[error("{field}: {problem}")]
    Option {
        /// The option, by its name in the contract.
        field: &'static str,
        /// A sentence that says what to change.
        problem: String,
    },
    /// A limit of the server is passed.
    #[error("{problem}")]
    Limit {
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        max: u64,
        /// What was found, if known.
        actual: Option<u64>,
        /// A sentence that names the limit and says what to change.
        problem: String,
    },
    /// More lines were rejected than the run allows.
    #[error("{}", too_many(*.max, *.rejected, .first))]
    TooManyRejects {
        /// What the run allows.
        max: u64,
        /// How many there are at least.
        rejected: u64,
        /// The first of them.
        first: Vec<Reject>,
        /// How many of them are of the batch that this ended, which is not stored.
        unstored: u64,
        /// Those of that batch that are kept.
        rejects: Vec<Reject>,
    },
    /// Another run stands in the way.
    #[error("{problem}")]
    Conflict {
        /// That run.
        run: RunId,
        /// What to change.
        problem: &'static str,
    },
    /// The id names the run of another file.
    #[error("run {} is the run of another file: choose another run_id", .0.as_str())]
    Exists(RunId),
    /// A newer owner works on the run, or a newer upload took its name.
    #[error("a newer upload has taken over run {}", .0.as_str())]
    Superseded(RunId),
    /// Somebody cancelled the run.
    #[error("run {} was cancelled", .0.as_str())]
    Cancelled(RunId),
    /// No run has this id.
    #[error("run {} is not known", .0.as_str())]
    Unknown(RunId),
    /// The connection ended before the file did.
    #[error("the upload ended after {0} bytes, before the file did: nothing is stored")]
    Cut(u64),
    /// The disk that keeps uploads does not work.
    #[error("the server cannot keep the upload on its disk: {0}")]
    Spool(io::Error),
    /// The writer or the store refuses.
    #[error("{0}")]
    Ingest(#[from] IngestError),
    /// The import's own task failed.
    #[error("the import failed by a defect: {0}")]
    Defect(String),
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> ImportError {
        ImportError::Ingest(error.into())
    }
}

impl From<FileDefect> for ImportError {
    fn from(defect: FileDefect) -> ImportError {
        ImportError::Malformed(defect)
    }
}

impl ImportError {
    /// The name of the reason in the contract.
    pub fn reason(&self) -> &'static str {
        match self {
            ImportError::Malformed(_) => "FILE_MALFORMED",
            ImportError::Option { .. } => "FIELD_INVALID",
            ImportError::Limit { .. } | ImportError::TooManyRejects { .. } => "LIMIT_EXCEEDED",
            ImportError::Conflict { .. } | ImportError::Superseded(_) => "IMPORT_CONFLICT",
            ImportError::Exists(_) => "RUN_EXISTS",
            ImportError::Cancelled(_) => "RUN_CANCELLED",
            ImportError::Unknown(_) => "RUN_UNKNOWN",
            ImportError::Cut(_) => "CANCELLED",
            ImportError::Spool(_) => "STORE_UNAVAILABLE",
            ImportError::Ingest(IngestError::QueueFull { .. }) => "QUEUE_FULL",
            ImportError::Ingest(IngestError::TooManyCorrections { .. }) => "LIMIT_EXCEEDED",
            ImportError::Ingest(IngestError::ShuttingDown) => "SHUTTING_DOWN",
            ImportError::Ingest(_) => "STORE_UNAVAILABLE",
            ImportError::Defect(_) => "INTERNAL",
        }
    }

    /// What the store keeps of a run that it ended.
    pub(super) fn failure(&self) -> RunFailure {
        let (rejected, rejects) = match self {
            ImportError::TooManyRejects { unstored, rejects, .. } => (*unstored, rejects.clone()),
            _ => (0, Vec::new()),
        };
        RunFailure { error: self.stored(), rejected, rejects }
    }

    /// What a run's row keeps of it.
    pub(super) fn stored(&self) -> RunError {
        RunError { reason: self.reason().to_owned(), message: clipped(&self.to_string(), MAX_MESSAGE_BYTES) }
    }

    /// Carries an error through code that speaks `io::Error`; [`ImportError::from_io`] takes it out again.
    pub(super) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// The error inside an `io::Error`, or the file's error made by `otherwise`.
    pub(super) fn from_io(error: io::Error, otherwise: impl FnOnce(io::Error) -> ImportError) -> ImportError {
        error.downcast::<ImportError>().unwrap_or_else(otherwise)
    }
}

/// Longest message that a run's row keeps, as the contract says.
const MAX_MESSAGE_BYTES: usize = 1_024;

/// The start of a text, at most `bytes` long, cut between characters.
pub(super) fn clipped(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

fn too_many(max: u64, rejected: u64, first: &[Reject]) -> String {
    use fmt::Write as _;

    let mut text = format!("{rejected} lines were rejected, and max_rejects allows {max}");
    for (index, reject) in first.iter().take(3).enumerate() {
        let start = if index == 0 { ": " } else { "; " };
        write!(text, "{start}line {} {} in {:?}", reject.line, reject.reason, clipped(&reject.text, 64))
            .expect("writing to a String cannot fail");
    }
    text
}
