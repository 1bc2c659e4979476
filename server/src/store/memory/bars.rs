//! The table of bars in memory.

use std::collections::BTreeMap;

use crate::store::{BarKey, BarRow, BarsChange, BarsMark};

/// One row for each key, and where they stand.
#[derive(Clone, Debug, Default)]
pub(super) struct BarsState {
    pub(super) mark: BarsMark,
    rows: BTreeMap<BarKey, BarRow>,
}

impl BarsState {
    /// Makes a change of the current epoch; false if another version was expected.
    pub(super) fn change(&mut self, change: BarsChange) -> bool {
        let BarsChange { epoch, version, position, forget_above, gone, rows } = change;
        if self.mark.version != version {
            return false;
        }
        self.mark = BarsMark { version: version + 1, epoch: Some(epoch), position };
        if let Some(above) = forget_above {
            self.rows.retain(|_, row| row.revision <= above);
        }
        for key in gone {
            self.rows.remove(&key);
        }
        for row in rows {
            if self.rows.get(&row.key).is_none_or(|known| known.revision <= row.revision) {
                self.rows.insert(row.key, row);
            }
        }
        true
    }

    #[cfg(test)]
    pub(super) fn rows(&self) -> Vec<BarRow> {
        self.rows.values().cloned().collect()
    }
}
