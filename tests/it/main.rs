//! The behaviour of Tapefeed, feature by feature, against the real binaries.

mod failpoints;
mod floors;
mod publish;
