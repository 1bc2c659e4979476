//! The rejected lines of a run, page by page.

use super::error::ImportError;
use super::limits::KEPT_REJECTS;
use super::{Imports, RunStatus};
use crate::store::{Reject, RunId};

/// Most lines of a page: with a message and a text of 256 bytes each they stay below the limit of a response.
const MAX_PAGE: usize = 4_000;

/// A page of rejected lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectPage {
    /// The lines, in the order of the file.
    pub rejects: Vec<Reject>,
    /// The line to go on behind; `None` at the end.
    pub next_after: Option<u64>,
    /// How many lines the run has rejected.
    pub rejected: u64,
    /// How many of them are kept.
    pub kept: u64,
}

impl Imports {
    /// The rejected lines of a run behind a line (0: from the first), at most `limit` of them, at least 1.
    pub async fn rejects(&self, run: &RunId, after_line: u64, limit: usize) -> Result<RejectPage, ImportError> {
        let RunStatus { rejected, .. } = self.status(run).await?;
        let limit = limit.clamp(1, MAX_PAGE);
        let stored = self.0.stored_name(run);
        // One more than the page needs tells whether there is another.
        let mut rejects = self.0.store.rejects(&stored, after_line, limit + 1).await?;
        let more = rejects.len() > limit;
        rejects.truncate(limit);
        let next_after = rejects.last().filter(|_| more).map(|last| last.line);
        Ok(RejectPage { rejects, next_after, rejected, kept: rejected.min(KEPT_REJECTS) })
    }
}
