//! Tapefeed's server. The floors, in reading order: imports go down only.

pub mod accept;
pub mod app;
pub mod banner;
pub mod bus;
pub mod config;
pub mod domain;
mod dormant;
pub mod grpc;
pub mod http;
pub mod ingest;
pub mod live;
pub mod metrics;
pub mod notify;
pub mod query;
pub mod replica;
pub mod shutdown;
pub mod store;
pub mod tape;
pub mod telemetry;
pub mod trace;
