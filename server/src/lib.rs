//! Tapefeed's server. The floors, in reading order: imports go down only.

pub mod bus;
pub mod domain;
pub mod grpc;
pub mod ingest;
pub mod live;
pub mod query;
pub mod replica;
pub mod store;
pub mod tape;
