//! Files: an upload is checked as a whole, then stored in batches that a later upload can continue.
//!
//! [`Imports`] holds every run that this process works on. Read on in [`upload`] (one upload, from its first byte to
//! the end of its run), [`container`] and [`content`] (what is checked while bytes arrive), [`work`] (batches, leases),
//! [`mod@format`] (what a format has to do), [`detect`] (which one it is) and [`csv`] (one that does it). Nothing here knows the contract's messages.
//! [`FileReader`] reads the same files without a server.

mod b3_trades;
mod binance;
mod calendar;
mod columns;
mod container;
mod content;
mod cotahist;
mod csv;
mod detect;
mod error;
mod field;
mod format;
mod json;
mod json_lines;
mod limits;
mod lines;
mod list;
mod options;
mod read;
mod record;
mod registry;
mod rejects;
mod spool;
mod status;
mod upload;
mod value;
mod work;
mod zip;

#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::{FileDefect, ImportError};
pub use field::Field;
pub use format::RejectCode;
pub use limits::{DEFAULT_MAX_REJECTS, Limits};
pub use list::ListPosition;
pub use options::{FileFormat, ImportOptions, ImportStart, TimeUnit};
pub use read::{FileLine, FileReader, LineContent};
pub use rejects::RejectPage;
pub use status::{RunStatus, State};
pub use upload::{Imported, Upload};

use super::Ingest;
use crate::domain::Clock;
use crate::metrics::Metrics;
use crate::store::{RunId, RunOwner, Store};
use limits::SHOWN_REJECTS;
use registry::{Phase, Registry};
use spool::Spool;

/// What imports work with.
#[derive(Debug)]
pub struct ImportsConfig {
    /// The door of the log.
    pub ingest: Ingest,
    /// Keeps the runs.
    pub store: Arc<dyn Store>,
    /// Leases and times of runs.
    pub clock: Arc<dyn Clock>,
    /// An existing folder for temporary files.
    pub spool_folder: PathBuf,
    /// What an import may cost.
    pub limits: Limits,
    /// A random number of this process: owners of leases count from it.
    pub first_owner: u64,
    /// Cancelled when the server stops: uploads end, runs stay RUNNING and can be continued.
    pub stop: CancellationToken,
    /// Counts.
    pub metrics: Metrics,
}

/// All imports of this process. Clones share them.
#[derive(Clone, Debug)]
pub struct Imports(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ingest: Ingest,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    spool: Spool,
    next_owner: AtomicU64,
    stop: CancellationToken,
    registry: Registry,
    /// One for each upload that may be in progress.
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    metrics: Metrics,
}

impl Imports {
    /// Nothing runs until an upload comes.
    pub fn new(config: ImportsConfig) -> Imports {
        let ImportsConfig { ingest, store, clock, spool_folder, limits, first_owner, stop, metrics } = config;
        Imports(Arc::new(Inner {
            ingest,
            store,
            clock,
            spool: Spool::new(spool_folder, limits.spool_bytes),
            next_owner: AtomicU64::new(first_owner),
            stop,
            registry: Registry::default(),
            slots: Arc::new(Semaphore::new(limits.uploads)),
            tasks: TaskTracker::new(),
            limits,
            metrics,
        }))
    }

    /// The limits of uploads.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// How many imports are worked on, from the first byte of the upload to the end of the run.
    pub fn running(&self) -> usize {
        self.0.tasks.len()
    }

    /// Begins an upload: from here on its run can be watched.
    pub fn begin(&self, start: ImportStart) -> Result<Upload, ImportError> {
        let inner = &self.0;
        let Ok(slot) = inner.slots.clone().try_acquire_owned() else {
            let max = inner.limits.uploads as u64;
            return Err(ImportError::Limit {
                limit: "import_uploads",
                max,
                actual: None,
                problem: format!("{max} uploads are in progress, which is import_uploads: try again later"),
            });
        };
        let entry = inner.registry.enter(start, inner.clock.now());
        Ok(Upload::start(inner, entry, slot))
    }

    /// A run as it is now.
    pub async fn status(&self, run: &RunId) -> Result<RunStatus, ImportError> {
        self.0.status(run).await
    }

    /// Cancels a run and returns it as it then is; one that has ended stays as it is.
    pub async fn cancel(&self, run: &RunId) -> Result<RunStatus, ImportError> {
        let inner = &self.0;
        if let Some(entry) = inner.registry.get(run) {
            entry.end(Phase::Cancelled { at: inner.clock.now() });
            if let Phase::Cancelled { .. } = entry.phase() {
                entry.stop.cancel();
                return RunStatus::unstored(&entry).ok_or_else(|| ImportError::Unknown(run.clone()));
            }
        }
        inner.store.cancel_run(&inner.stored_name(run)).await?;
        inner.status(run).await
    }

    /// Waits until the server stops.
    pub async fn stopping(&self) {
        self.0.stop.cancelled().await;
    }

    /// Waits until no task works any more; call it after `stop` is cancelled, before the writer ends.
    pub async fn finished(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    /// A new owner of leases.
    fn owner(&self) -> RunOwner {
        RunOwner(self.next_owner.fetch_add(1, Ordering::Relaxed))
    }

    /// The name under which a run is stored: an upload that joined an earlier run stands for that.
    fn stored_name(&self, run: &RunId) -> RunId {
        match self.registry.get(run).map(|entry| entry.phase()) {
            Some(Phase::Stored(name)) => name,
            _ => run.clone(),
        }
    }

    async fn status(&self, run: &RunId) -> Result<RunStatus, ImportError> {
        let entry = self.registry.get(run);
        if let Some(entry) = &entry
            && entry.phase() == Phase::Uploading
            && let Some(status) = RunStatus::unstored(entry)
        {
            return Ok(status);
        }
        if let Some(stored) = self.store.run(&self.stored_name(run)).await? {
            let rejects = match stored.rejected() {
                0 => Vec::new(),
                _ => self.store.rejects(&stored.run.id, 0, SHOWN_REJECTS).await?,
            };
            let epoch = self.store.head().await?.epoch;
            let max_rejects = entry.map(|entry| entry.start.max_rejects);
            return Ok(RunStatus::stored(stored, rejects, epoch, max_rejects));
        }
        entry.and_then(|entry| RunStatus::unstored(&entry)).ok_or_else(|| ImportError::Unknown(run.clone()))
    }
}
