//! What queries and streams of bars share: how a bar is finished, and who reads the past for a stream and for the table.

use std::sync::Arc;

use async_trait::async_trait;

use super::{VenueFacts, View};
use crate::domain::bar::{Bar, BarBuilder, Contents, Interval};
use crate::domain::outage::Outages;
use crate::domain::{InstrumentId, Symbol, UnixNanos};
use crate::store::StoreError;

/// Reads bars of a view at a position. Queries do, whose floor holds the chunks; streams and the recorder need them, and
/// do not know queries.
#[async_trait]
pub trait BarReader: Send + Sync + std::fmt::Debug {
    /// The bars with ticks, of instruments together, that begin in `[from, until)`; without an end all from there on.
    async fn bars(
        &self,
        at: (&View, u64),
        instruments: &[InstrumentId],
        interval: Interval,
        (from, until): (UnixNanos, Option<UnixNanos>),
    ) -> Result<BarBuilder, StoreError>;

    /// An instant at or after `from` before which an instrument has no tick; `None` when it has none from there on. Nothing
    /// is read for it, so there may still be none right behind it.
    fn next_from(&self, at: (&View, u64), instrument: InstrumentId, from: UnixNanos) -> Option<UnixNanos>;

    /// The newest event time of an instrument; `None` if it has no tick at the position.
    async fn newest(&self, at: (&View, u64), instrument: InstrumentId) -> Result<Option<UnixNanos>, StoreError>;
}

/// Turns what ticks add up to into bars: how far their venues have come says what is final, and what feeds lost says
/// where something is missing.
#[derive(Clone, Debug)]
pub struct Finish {
    interval: Interval,
    symbol: Symbol,
    outages: Vec<Arc<Outages>>,
    position: u64,
    final_until: UnixNanos,
}

impl Finish {
    /// For bars of a symbol at a position, of which those are final that end at or before an instant.
    pub fn new(
        facts: &[VenueFacts],
        symbol: Symbol,
        (position, final_until): (u64, UnixNanos),
        interval: Interval,
    ) -> Finish {
        let outages = facts.iter().map(|facts| facts.outages().clone()).filter(|outages| !outages.is_empty()).collect();
        Finish { interval, symbol, outages, position, final_until }
    }

    /// The length of its bars.
    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// The position.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bars that end at or before this are final.
    pub fn final_until(&self) -> UnixNanos {
        self.final_until
    }

    /// The bar that begins at `start`.
    pub fn bar(&self, start: UnixNanos, contents: Contents) -> Bar {
        let end = self.interval.end_of(start);
        let lost = |outages: &Arc<Outages>| outages.overlap(&self.symbol, start, end, self.position);
        Bar {
            start,
            end: end.unwrap_or(UnixNanos::MAX),
            contents,
            carried: None,
            is_final: end.is_some_and(|end| end <= self.final_until),
            has_gap: self.outages.iter().any(lost),
        }
    }
}
