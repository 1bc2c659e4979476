//! Lists of runs: those of the store and those of this memory, in one order.

use std::cmp::Reverse;

use super::Imports;
use super::error::ImportError;
use super::status::{RunStatus, State};
use crate::domain::UnixNanos;
use crate::store::RunId;

/// Stored runs that one call looks at: a rare state may need several pages, some of them empty.
const SCAN: usize = 10_000;

/// Most runs of a page: with options and errors of any length they stay below the limit of a response.
const MAX_PAGE: usize = 1_000;

/// Where a list goes on: behind everything up to this rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPosition {
    /// The time of the last run that was looked at.
    pub create_time: UnixNanos,
    /// Its name.
    pub run: RunId,
    /// The last run of the store that was looked at.
    pub stored: Option<RunId>,
}

impl ListPosition {
    fn rank(&self) -> (Reverse<UnixNanos>, &str) {
        (Reverse(self.create_time), self.run.as_str())
    }
}

/// A page in the making.
struct Page {
    state: Option<State>,
    limit: usize,
    runs: Vec<RunStatus>,
    position: Option<ListPosition>,
}

impl Page {
    /// Takes the next run by rank, if its state is asked for. False once the page is full.
    fn take(&mut self, run: RunStatus, stored: bool) -> bool {
        if self.runs.len() == self.limit {
            return false;
        }
        let before = self.position.take().and_then(|position| position.stored);
        self.position = Some(ListPosition {
            create_time: run.create_time,
            run: run.id.clone(),
            stored: if stored { Some(run.id.clone()) } else { before },
        });
        if self.state.is_none_or(|state| state == run.state) {
            self.runs.push(run);
        }
        true
    }
}

impl Imports {
    /// Runs from the newest, behind `after`, in a state if one is given; and where to go on, if there is more. Their
    /// rejected lines are left out.
    pub async fn list(
        &self,
        state: Option<State>,
        after: Option<ListPosition>,
        limit: usize,
    ) -> Result<(Vec<RunStatus>, Option<ListPosition>), ImportError> {
        let mut fresh = self.unstored(after.as_ref()).await?.into_iter().peekable();
        let limit = limit.clamp(1, MAX_PAGE);
        let mut page = Page { state, limit, runs: Vec::new(), position: after };
        let epoch = self.0.store.head().await?.epoch;
        let mut scanned = 0;
        while scanned < SCAN {
            let before = page.position.as_ref().and_then(|position| position.stored.clone());
            // One more than the page needs tells whether there is another.
            let asked = limit + 1;
            let stored = self.0.store.runs(before.as_ref(), asked).await?;
            let is_last = stored.len() < asked;
            scanned += stored.len();
            for run in stored {
                let run = RunStatus::stored(run, Vec::new(), epoch, None);
                while let Some(newer) = fresh.next_if(|newer| newer.rank() < run.rank()) {
                    if !page.take(newer, false) {
                        return Ok((page.runs, page.position));
                    }
                }
                if !page.take(run, true) {
                    return Ok((page.runs, page.position));
                }
            }
            if is_last {
                for older in fresh {
                    if !page.take(older, false) {
                        return Ok((page.runs, page.position));
                    }
                }
                return Ok((page.runs, None));
            }
        }
        Ok((page.runs, page.position))
    }

    /// The runs behind a position that are in memory alone, by rank.
    async fn unstored(&self, after: Option<&ListPosition>) -> Result<Vec<RunStatus>, ImportError> {
        let mut found = Vec::new();
        for entry in self.0.registry.all(self.0.clock.now()) {
            let Some(status) = RunStatus::unstored(&entry) else {
                continue;
            };
            let is_behind = after.is_none_or(|after| status.rank() > after.rank());
            // An upload that wants to continue a stored run is listed as that.
            if is_behind && self.0.store.run(&status.id).await?.is_none() {
                found.push(status);
            }
        }
        found.sort_by(|a, b| a.rank().cmp(&b.rank()));
        Ok(found)
    }
}
