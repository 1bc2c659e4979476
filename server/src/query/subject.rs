//! What a history call looks at: one instrument or one symbol over all venues, and a stretch of event time.

use std::fmt;
use std::time::Duration;

use crate::domain::{Instrument, InstrumentId, Symbol, TimeRange, UnixNanos, Venue};
use crate::tape::Registry;

/// One instrument, or one symbol over all venues together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The venue; `None` means all venues of the symbol.
    pub venue: Option<Venue>,
    /// The symbol.
    pub symbol: Symbol,
}

impl Subject {
    /// The ids of its instruments, ascending; empty when none is known.
    pub(super) fn instruments(&self, registry: &Registry) -> Vec<InstrumentId> {
        match &self.venue {
            Some(venue) => registry.find(venue, &self.symbol).into_iter().collect(),
            None => registry.with_symbol(&self.symbol),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.venue {
            Some(venue) => write!(out, "{} on {venue}", self.symbol),
            None => write!(out, "{} on any venue", self.symbol),
        }
    }
}

/// A predicate over instruments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The venue; `None` matches all.
    pub venue: Option<Venue>,
    /// The symbol; `None` matches all.
    pub symbol: Option<Symbol>,
}

impl Selector {
    /// Whether an instrument is meant.
    pub fn matches(&self, instrument: &Instrument) -> bool {
        let venue = self.venue.as_ref();
        let symbol = self.symbol.as_ref();
        venue.is_none_or(|venue| *venue == instrument.venue) && symbol.is_none_or(|symbol| *symbol == instrument.symbol)
    }
}

/// No instrument of this name was ever published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no instrument {0} is known")]
pub struct InstrumentUnknown(pub Subject);

/// A stretch of event time as a caller says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Between fixed instants.
    Range(TimeRange),
    /// From this long ago until now.
    Period(Duration),
}

impl Span {
    /// The range that is meant at `now`.
    pub fn at(self, now: UnixNanos) -> TimeRange {
        match self {
            Span::Range(range) => range,
            Span::Period(period) => TimeRange::new(Some(now.saturating_sub(period)), Some(now))
                .expect("an instant does not lie before an earlier one"),
        }
    }
}
