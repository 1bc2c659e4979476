//! The bars that the log has touched and that are not in the table as they are now.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::INTERVALS;
use crate::domain::bar::Interval;
use crate::domain::{Block, Control, InstrumentId, UnixNanos, Venue};
use crate::store::BarKey;
use crate::tape::{Registry, Venues};

/// A bar: its end, and whose it is. The order is that in which bars become final.
type Ending = (UnixNanos, Interval, InstrumentId);

/// Touched bars, which wait for their venue to come past their end.
#[derive(Debug, Default)]
pub(super) struct Pending {
    venues: BTreeMap<Venue, BTreeSet<Ending>>,
    /// The minute of each instrument that was touched last: most ticks touch the same bars again.
    last: HashMap<InstrumentId, UnixNanos>,
}

impl Pending {
    /// How many bars wait.
    pub(super) fn len(&self) -> usize {
        self.venues.values().map(BTreeSet::len).sum()
    }

    /// Takes in what the entries of a block behind one position and up to another touch.
    pub(super) fn take(&mut self, block: &Block, (after, until): (u64, u64), registry: &Registry) {
        let inside = |log_seq: u64| log_seq > after && log_seq <= until;
        for tick in block.entries.ticks.iter().filter(|tick| inside(tick.log_seq)) {
            self.touch(tick.instrument, tick.event_time, registry);
        }
        for (_, control) in block.entries.controls.iter().filter(|(log_seq, _)| inside(*log_seq)) {
            if let Control::Correction(correction) = control {
                self.touch(correction.instrument, correction.event_time, registry);
            }
        }
    }

    /// The bars of every interval that an instant belongs to wait.
    pub(super) fn touch(&mut self, instrument: InstrumentId, time: UnixNanos, registry: &Registry) {
        let minute = Interval::MINUTE.start_of(time);
        if self.last.insert(instrument, minute) == Some(minute) {
            return;
        }
        let Some(named) = registry.get(instrument) else { return };
        for interval in INTERVALS {
            self.add(&named.venue, BarKey { instrument, interval, start: interval.start_of(time) });
        }
    }

    /// A bar waits. One without an end never becomes final.
    pub(super) fn add(&mut self, venue: &Venue, BarKey { instrument, interval, start }: BarKey) {
        let Some(end) = interval.end_of(start) else { return };
        let ending = (end, interval, instrument);
        match self.venues.get_mut(venue) {
            Some(endings) => {
                endings.insert(ending);
            }
            None => {
                self.venues.insert(venue.clone(), BTreeSet::from([ending]));
            }
        }
    }

    /// Takes those out that are final, by instrument, interval and start.
    pub(super) fn due(&mut self, venues: &Venues) -> Vec<BarKey> {
        let mut due = Vec::new();
        for (venue, endings) in &mut self.venues {
            let Some(facts) = venues.get(venue) else { continue };
            let final_until = facts.final_until();
            while let Some(&(end, interval, instrument)) = endings.first().filter(|(end, ..)| *end <= final_until) {
                endings.pop_first();
                due.push(BarKey { instrument, interval, start: interval.earlier(end, 1) });
            }
        }
        self.last.clear();
        due.sort_unstable();
        due
    }
}
