//! The behaviour of Tapefeed, feature by feature, against the real binaries.

mod acknowledged;
mod bad_input;
mod failpoints;
mod first_minute;
mod floors;
mod import;
mod import_formats;
mod import_kills;
mod kills;
mod live;
mod metrics;
mod publish;
mod published;
mod raw;
mod readme;
mod recipes;
mod redis_bus;
mod reflection;
mod replay;
mod replicas;
mod resume;
mod shutdown;
mod streams;
mod systemd;
mod telemetry;
mod values;
