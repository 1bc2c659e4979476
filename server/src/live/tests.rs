//! Streams over a whole replica in memory. Time stands still unless every task waits, so nothing here sleeps to be sure.

mod bars;
mod conflation;
mod delivery;
mod joining;
mod matching;
mod refusals;
mod resume;
mod slow;
mod snapshots;
mod sources;
pub(crate) mod world;
