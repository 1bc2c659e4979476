//! Floor 3: the services of the contract.
//!
//! The only module that speaks `tapefeed_proto`; its types are written `proto::Tick`. Requests come in through
//! [`convert`], and every refusal goes out through [`error`].

pub mod convert;
pub mod error;
pub mod ingest_service;
pub mod history_service;
pub mod instrument_service;
pub mod limits;
pub mod live_service;
pub mod violation;

pub use tapefeed_proto::v1 as proto;
