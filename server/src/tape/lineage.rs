//! The epochs that the log has had, and which cursors of earlier ones still name the same entries.

use crate::domain::{Cursor, Epoch};
use crate::store::{EpochStart, Store, StoreError};

/// The epochs of a log, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    epochs: Vec<EpochStart>,
}

impl Lineage {
    /// Reads them.
    pub async fn load(store: &dyn Store) -> Result<Lineage, StoreError> {
        Ok(Lineage { epochs: store.epochs().await? })
    }

    /// The lineage of these epochs, the newest first.
    pub fn new(epochs: Vec<EpochStart>) -> Lineage {
        Lineage { epochs }
    }

    /// Where the newest epoch began.
    pub fn newest(&self) -> Option<&EpochStart> {
        self.epochs.first()
    }

    /// The log that the newest epoch forked from, and the last position that they share.
    pub fn fork(&self) -> Option<(Epoch, u64)> {
        self.newest().and_then(|start| Some((start.parent?, start.fork)))
    }

    /// The same place in the newest epoch, if everything up to it is the same there. `None`: the place was lost, or is of
    /// another log.
    pub fn carry(&self, cursor: Cursor) -> Option<Cursor> {
        let shared = self.shared_with(cursor.epoch)?;
        (cursor.position <= shared).then_some(Cursor { epoch: self.newest()?.epoch, position: cursor.position })
    }

    /// The last position that the newest epoch shares with another: with each of its ancestors, what lies at or below
    /// every fork between them. `None`: that is of another log.
    pub fn shared_with(&self, other: Epoch) -> Option<u64> {
        let (mut epoch, mut shared) = (self.newest()?.epoch, u64::MAX);
        while epoch != other {
            let start = self.epochs.iter().find(|start| start.epoch == epoch)?;
            epoch = start.parent?;
            shared = shared.min(start.fork);
        }
        Some(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::UnixNanos;

    #[test]
    fn a_cursor_is_carried_over_every_fork_above_it_and_no_other() {
        let start = |epoch, parent: Option<u64>, fork| EpochStart {
            epoch: Epoch(epoch),
            parent: parent.map(Epoch),
            fork,
            start_time: UnixNanos::MIN,
        };
        let lineage = Lineage::new(vec![start(3, Some(2), 50), start(2, Some(1), 70), start(1, None, 0)]);
        let table = [(3, 900, true), (2, 50, true), (2, 51, false), (1, 50, true), (1, 60, false), (9, 1, false)];
        for (epoch, position, carried) in table {
            let found = lineage.carry(Cursor { epoch: Epoch(epoch), position });
            assert_eq!(found, carried.then_some(Cursor { epoch: Epoch(3), position }), "{epoch} {position}");
        }
        assert_eq!(lineage.fork(), Some((Epoch(2), 50)));
    }
}
