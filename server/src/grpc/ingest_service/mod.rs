//! `tapefeed.v1.IngestService`: what comes in.

pub mod publish_ticks;
