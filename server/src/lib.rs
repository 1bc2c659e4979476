//! Tapefeed's server. The floors, in reading order: imports go down only.

pub mod domain;
pub mod store;
