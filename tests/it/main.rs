//! The behaviour of Tapefeed, feature by feature, against the real binaries.

mod acknowledged;
mod bad_input;
mod failpoints;
mod first_minute;
mod floors;
mod live;
mod publish;
mod raw;
mod readme;
mod recipes;
mod reflection;
mod resume;
mod shutdown;
mod values;
