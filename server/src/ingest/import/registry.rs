//! The uploads of this process, and what became of those that never reached the store.
//!
//! A run is in the store only once its file is here and checked; until then it lives in this memory, and a while
//! after, so that whoever watches it learns its end.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::error::ImportError;
use super::limits::{REMEMBERED, REMEMBERED_RUNS};
use super::options::ImportStart;
use crate::domain::UnixNanos;
use crate::store::{RunError, RunId};

/// An upload of this process.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) start: ImportStart,
    pub(super) create_time: UnixNanos,
    /// Bytes that have arrived.
    pub(super) uploaded: AtomicU64,
    /// Cancelled when the upload should stop; the phase tells why.
    pub(super) stop: CancellationToken,
    /// Never held across an await.
    phase: Mutex<Phase>,
}

/// How far an upload has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its file arrives.
    Uploading,
    /// It is a run of the store: of its own name, or of the earlier run that it joined.
    Stored(RunId),
    /// It ended before it was stored.
    Failed { error: RunError, at: UnixNanos },
    /// It was cancelled before it was stored.
    Cancelled { at: UnixNanos },
}

impl Entry {
    pub(super) fn phase(&self) -> Phase {
        self.phase.lock().expect("no holder of the lock panics").clone()
    }

    /// Leaves the uploading phase; whatever ended it first stands.
    pub(super) fn end(&self, phase: Phase) {
        let mut current = self.phase.lock().expect("no holder of the lock panics");
        if *current == Phase::Uploading {
            *current = phase;
        }
    }
}

/// All uploads that are known.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// Never held across an await.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<RunId, Arc<Entry>>,
    /// Those that have ended, the oldest first, with the time of their end.
    ended: VecDeque<(UnixNanos, Arc<Entry>)>,
}

impl Known {
    /// Forgets what ended long ago.
    fn sweep(&mut self, now: UnixNanos) {
        let before = now.saturating_sub(REMEMBERED);
        while self.ended.len() > REMEMBERED_RUNS || self.ended.front().is_some_and(|(at, _)| *at < before) {
            let Some((_, entry)) = self.ended.pop_front() else {
                return;
            };
            let name = &entry.start.run;
            if self.entries.get(name).is_some_and(|current| Arc::ptr_eq(current, &entry)) {
                self.entries.remove(name);
            }
        }
    }
}

impl Registry {
    /// Enters an upload. An older one of the same name stops: its client has come back on a new connection.
    pub(super) fn enter(&self, start: ImportStart, now: UnixNanos) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            start,
            create_time: now,
            uploaded: AtomicU64::new(0),
            stop: CancellationToken::new(),
            phase: Mutex::new(Phase::Uploading),
        });
        let mut known = self.known.lock().expect("no holder of the lock panics");
        known.sweep(now);
        let older = known.entries.insert(entry.start.run.clone(), entry.clone());
        if let Some(older) = older {
            let error = ImportError::Superseded(older.start.run.clone()).stored();
            older.end(Phase::Failed { error, at: now });
            older.stop.cancel();
        }
        entry
    }

    /// The upload of a name.
    pub(super) fn get(&self, run: &RunId) -> Option<Arc<Entry>> {
        let known = self.known.lock().expect("no holder of the lock panics");
        known.entries.get(run).cloned()
    }

    /// Starts to forget an upload whose task is done.
    pub(super) fn leave(&self, entry: &Arc<Entry>, now: UnixNanos) {
        let mut known = self.known.lock().expect("no holder of the lock panics");
        known.ended.push_back((now, entry.clone()));
        known.sweep(now);
    }

    /// All uploads, in no order.
    pub(super) fn all(&self, now: UnixNanos) -> Vec<Arc<Entry>> {
        let mut known = self.known.lock().expect("no holder of the lock panics");
        known.sweep(now);
        known.entries.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::import::options::ImportOptions;

    fn start(name: &str) -> ImportStart {
        ImportStart {
            run: RunId::new(name).unwrap(),
            file_name: String::new(),
            size_bytes: None,
            options: ImportOptions::default(),
            max_rejects: 0,
            again: false,
            trace_id: String::new(),
        }
    }

    fn at(seconds: i64) -> UnixNanos {
        UnixNanos::from_seconds(seconds, 0).unwrap()
    }

    #[test]
    fn ended_uploads_are_remembered_for_a_while_and_in_number() {
        let registry = Registry::default();
        let first = registry.enter(start("first"), at(0));
        registry.leave(&first, at(0));
        assert_eq!(registry.all(at(600)).len(), 1);
        assert_eq!(registry.all(at(601)).len(), 0);
        for number in 0..2 * REMEMBERED_RUNS {
            let entry = registry.enter(start(&format!("run-{number}")), at(1_000));
            registry.leave(&entry, at(1_000));
        }
        assert_eq!(registry.all(at(1_000)).len(), REMEMBERED_RUNS);
        assert!(registry.get(&RunId::new("run-0").unwrap()).is_none());
        assert!(registry.get(&RunId::new("run-199").unwrap()).is_some());
    }

    #[test]
    fn a_newer_upload_of_a_name_stops_the_older_and_outlives_it() {
        let registry = Registry::default();
        let older = registry.enter(start("r"), at(0));
        let newer = registry.enter(start("r"), at(1));
        assert!(older.stop.is_cancelled() && !newer.stop.is_cancelled());
        assert!(matches!(older.phase(), Phase::Failed { error, .. } if error.reason == "IMPORT_CONFLICT"));
        registry.leave(&older, at(1));
        assert_eq!(registry.all(at(10_000)).len(), 1);
        assert!(Arc::ptr_eq(&registry.get(&newer.start.run).unwrap(), &newer));
    }
}
