//! The behaviour of Tapefeed, feature by feature, against the real binaries.

mod floors;
mod publish;
