//! Queries against a naive oracle: any split of the ticks into chunks, late chunks and hot ticks gives the answers
//! that a list of raw ticks and big integers give.

mod bars;
mod bench;
mod caches;
mod corrections;
mod edges;
mod moving;
mod naive;
mod oracle;
mod pages;
pub(crate) mod world;
