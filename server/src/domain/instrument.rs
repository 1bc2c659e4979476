//! Instruments: a venue and a symbol under a small integer that never changes.

use super::{Symbol, Venue};

/// The number of an instrument inside one epoch's registry: dense from 1, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstrumentId(pub u32);

/// A venue and a symbol. Publishing creates it; nothing changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instrument {
    /// Its number.
    pub id: InstrumentId,
    /// Where it is traded.
    pub venue: Venue,
    /// What is traded.
    pub symbol: Symbol,
}
