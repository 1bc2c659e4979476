//! What a view knows of each venue beside its ticks: how far it has come, and what its feeds lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Registry, View};
use crate::domain::bar::final_until;
use crate::domain::outage::Outages;
use crate::domain::{Control, InstrumentId, UnixNanos, Venue};

/// What is known of venues at the position of a view.
#[derive(Clone, Debug, Default)]
pub struct Venues(BTreeMap<Venue, VenueFacts>);

/// What is known of one venue.
#[derive(Clone, Debug, Default)]
pub struct VenueFacts {
    /// The newest event time among its ticks.
    newest: Option<UnixNanos>,
    /// Up to where it was told to be complete: positions and times, both ascending.
    watermarks: Arc<Vec<(u64, UnixNanos)>>,
    outages: Arc<Outages>,
}

impl Venues {
    /// What is known of a venue; `None` if the log has nothing of it.
    pub fn get(&self, venue: &Venue) -> Option<&VenueFacts> {
        self.0.get(venue)
    }

    /// What is known of the venues of those instruments that have ticks in a view, each venue once.
    ///
    /// An instrument is registered before its first tick, and that is no entry of the log: until then it must not count.
    pub fn of(&self, view: &View, registry: &Registry, instruments: &[InstrumentId]) -> Vec<VenueFacts> {
        let traded = instruments.iter().filter(|&&id| view.holding(id).is_some());
        let mut venues: Vec<Venue> = traded.filter_map(|&id| Some(registry.get(id)?.venue.clone())).collect();
        venues.sort_unstable();
        venues.dedup();
        venues.iter().filter_map(|venue| self.get(venue).cloned()).collect()
    }

    /// Every venue that the log has something of.
    pub fn iter(&self) -> impl Iterator<Item = (&Venue, &VenueFacts)> {
        self.0.iter()
    }

    /// Takes in that a venue has a tick of this time.
    pub(super) fn saw(&mut self, venue: &Venue, time: UnixNanos) {
        let newest = &mut self.facts(venue).newest;
        *newest = (*newest).max(Some(time));
    }

    /// Whether a tick of this time would say something new.
    pub(super) fn is_news(&self, venue: &Venue, time: UnixNanos) -> bool {
        self.0.get(venue).is_none_or(|facts| facts.newest < Some(time))
    }

    /// Takes in an entry that is not a tick, appended at a time.
    pub(super) fn told(&mut self, log_seq: u64, appended: UnixNanos, control: &Control) {
        if let Control::Watermark { venue, time } = control {
            let watermarks = &mut self.facts(venue).watermarks;
            if watermarks.last().is_none_or(|(_, last)| last < time) {
                Arc::make_mut(watermarks).push((log_seq, *time));
            }
        } else if let Some(scope) = control.scope() {
            Arc::make_mut(&mut self.facts(&scope.venue).outages).push(log_seq, appended, control);
        }
    }

    fn facts(&mut self, venue: &Venue) -> &mut VenueFacts {
        if !self.0.contains_key(venue) {
            self.0.insert(venue.clone(), VenueFacts::default());
        }
        self.0.get_mut(venue).expect("it was put there if it was missing")
    }
}

impl VenueFacts {
    /// Bars of the venue that end at or before this are final at the view's position.
    pub fn final_until(&self) -> UnixNanos {
        final_until(self.newest, self.watermarks.last().map(|(_, time)| *time))
    }

    /// Up to where the venue was told to be complete, at a position.
    pub fn watermark(&self, position: u64) -> Option<UnixNanos> {
        let known = self.watermarks.partition_point(|(log_seq, _)| *log_seq <= position);
        known.checked_sub(1).map(|last| self.watermarks[last].1)
    }

    /// The newest event time among its ticks.
    pub fn newest(&self) -> Option<UnixNanos> {
        self.newest
    }

    /// What the venue's feeds lost.
    pub fn outages(&self) -> &Arc<Outages> {
        &self.outages
    }
}
