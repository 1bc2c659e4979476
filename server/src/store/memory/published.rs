//! Published bars and details in memory.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use crate::domain::{InstrumentDetails, InstrumentId, Published, PublishedBar, PublishedBarKey};
use crate::store::published::{last_bars, newest_details};

/// One bar for each instrument and key, one set of details for each instrument.
#[derive(Clone, Debug, Default)]
pub(super) struct PublishedState {
    bars: BTreeMap<(InstrumentId, PublishedBarKey), PublishedBar>,
    details: BTreeMap<InstrumentId, InstrumentDetails>,
}

impl PublishedState {
    pub(super) fn store(&mut self, published: &Published<InstrumentId>) {
        for (key, bar) in last_bars(published) {
            self.bars.insert(key, bar.clone());
        }
        for (instrument, details) in newest_details(published) {
            if self.details.get(&instrument).is_none_or(|known| known.day <= details.day) {
                self.details.insert(instrument, details.clone());
            }
        }
    }

    pub(super) fn bars(
        &self,
        instrument: InstrumentId,
        days: Range<u32>,
        after: Option<PublishedBarKey>,
        limit: usize,
    ) -> Vec<PublishedBar> {
        let first = PublishedBarKey { day: days.start, market: 0, term: 0 };
        let start = match after {
            Some(after) if after >= first => Bound::Excluded((instrument, after)),
            _ => Bound::Included((instrument, first)),
        };
        let behind = self.bars.range((start, Bound::Unbounded));
        let inside = behind.take_while(|((of, key), _)| *of == instrument && key.day < days.end);
        inside.take(limit).map(|(_, bar)| bar.clone()).collect()
    }

    pub(super) fn details(&self, instruments: &[InstrumentId]) -> Vec<(InstrumentId, InstrumentDetails)> {
        let mut found: Vec<_> =
            instruments.iter().filter_map(|id| self.details.get(id).map(|details| (*id, details.clone()))).collect();
        found.sort_by_key(|(id, _)| *id);
        found.dedup_by_key(|(id, _)| *id);
        found
    }
}
