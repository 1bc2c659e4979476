//! The behaviour of Tapefeed, feature by feature, against the real binaries.

mod bad_input;
mod failpoints;
mod first_minute;
mod floors;
mod oracle;
mod publish;
mod questions;
mod raw;
mod readme;
mod recipes;
mod reflection;
mod replica;
mod shutdown;
mod stumbling;
mod values;
mod workload;
