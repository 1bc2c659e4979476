//! The behaviour of Tapefeed, feature by feature, against the real binaries.

mod bad_input;
mod first_minute;
mod floors;
mod shutdown;
mod values;
