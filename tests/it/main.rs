//! The behaviour of Tapefeed, feature by feature, against the real binaries.

mod failpoints;
mod floors;
mod oracle;
mod publish;
mod questions;
mod replica;
mod stumbling;
mod workload;
