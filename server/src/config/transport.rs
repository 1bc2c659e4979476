//! How connections are held: every value has its default in [`Limits`].

use std::num::NonZeroUsize;

use clap::{ArgAction, Args};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::units::{ByteCount, Span};
use crate::accept::Limits;

/// The options of connections, in the command line and in the file alike.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct TransportOptions {
    /// Connections at a time; more are closed at once. [default: 1024]
    #[arg(long, value_name = "NUMBER", env = "TAPEFEED_MAX_CONNECTIONS")]
    pub(super) max_connections: Option<NonZeroUsize>,
    /// Connections at a time from one address. [default: 32, and from this machine any number]
    #[arg(long, value_name = "NUMBER", env = "TAPEFEED_MAX_CONNECTIONS_PER_ADDRESS")]
    pub(super) max_connections_per_address: Option<NonZeroUsize>,
    /// Calls at a time on one connection. [default: 100]
    #[arg(long, value_name = "NUMBER", env = "TAPEFEED_MAX_STREAMS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_streams: Option<u32>,
    /// Calls that one connection may begin each second. [default: 200, and from this machine any number]
    #[arg(long, value_name = "NUMBER", env = "TAPEFEED_STREAM_RATE", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) stream_rate: Option<u32>,
    /// Calls that all connections from one address may begin each second. [default: 1000, and from this machine any number]
    #[arg(long, value_name = "NUMBER", env = "TAPEFEED_STREAM_RATE_PER_ADDRESS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) stream_rate_per_address: Option<u32>,
    /// How long a connection may take to send its first bytes. [default: 5s]
    #[arg(long, value_name = "TIME", env = "TAPEFEED_FIRST_BYTE_DEADLINE")]
    pub(super) first_byte_deadline: Option<Span>,
    /// How long a silent connection is left alone before it is asked for a sign of life. [default: 20s]
    #[arg(long, value_name = "TIME", env = "TAPEFEED_KEEPALIVE_INTERVAL")]
    pub(super) keepalive_interval: Option<Span>,
    /// How long that sign may take. [default: 10s]
    #[arg(long, value_name = "TIME", env = "TAPEFEED_KEEPALIVE_TIMEOUT")]
    pub(super) keepalive_timeout: Option<Span>,
    /// How old a connection gets, give or take a tenth, before its streams are told to come back on another. [default: 1h]
    #[arg(long, value_name = "TIME", env = "TAPEFEED_CONNECTION_AGE")]
    pub(super) connection_age: Option<Span>,
    /// How long calls on an old connection may go on. [default: 30s]
    #[arg(long, value_name = "TIME", env = "TAPEFEED_CONNECTION_GRACE")]
    pub(super) connection_grace: Option<Span>,
    /// What one call may send before it is read, from 64KiB: a publisher's whole message. [default: 1MiB]
    #[arg(long, value_name = "BYTES", env = "TAPEFEED_STREAM_WINDOW", value_parser = window)]
    #[serde(default, deserialize_with = "file_window")]
    pub(super) stream_window: Option<ByteCount>,
    /// What one connection may send before it is read, from 64KiB. [default: 4MiB]
    #[arg(long, value_name = "BYTES", env = "TAPEFEED_CONNECTION_WINDOW", value_parser = window)]
    #[serde(default, deserialize_with = "file_window")]
    pub(super) connection_window: Option<ByteCount>,
    /// The largest HTTP/2 frame that is taken, 16KiB to 16777215. [default: 16KiB]
    #[arg(long, value_name = "BYTES", env = "TAPEFEED_FRAME_SIZE", value_parser = frame)]
    #[serde(default, deserialize_with = "file_frame")]
    pub(super) frame_size: Option<ByteCount>,
    /// Whether small segments leave at once. [default: true]
    #[arg(long, value_name = "BOOL", env = "TAPEFEED_NODELAY", action = ArgAction::Set)]
    pub(super) nodelay: Option<bool>,
}

/// A window of HTTP/2, no smaller than the one that every connection begins with.
pub(super) fn window(text: &str) -> Result<ByteCount, String> {
    within(text, 65_535, i32::MAX as u64)
}

/// A frame of HTTP/2.
pub(super) fn frame(text: &str) -> Result<ByteCount, String> {
    within(text, 16_384, (1 << 24) - 1)
}

fn within(text: &str, least: u64, most: u64) -> Result<ByteCount, String> {
    let count: ByteCount = text.parse()?;
    if (least..=most).contains(&count.0) { Ok(count) } else { Err(format!("{text} is not {least} to {most} bytes")) }
}

fn file_window<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ByteCount>, D::Error> {
    window(&String::deserialize(from)?).map(Some).map_err(D::Error::custom)
}

fn file_frame<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ByteCount>, D::Error> {
    frame(&String::deserialize(from)?).map(Some).map_err(D::Error::custom)
}

impl TransportOptions {
    /// What the command line leaves open is the file's.
    pub(super) fn or(self, file: TransportOptions) -> TransportOptions {
        TransportOptions {
            max_connections: self.max_connections.or(file.max_connections),
            max_connections_per_address: self.max_connections_per_address.or(file.max_connections_per_address),
            max_streams: self.max_streams.or(file.max_streams),
            stream_rate: self.stream_rate.or(file.stream_rate),
            stream_rate_per_address: self.stream_rate_per_address.or(file.stream_rate_per_address),
            first_byte_deadline: self.first_byte_deadline.or(file.first_byte_deadline),
            keepalive_interval: self.keepalive_interval.or(file.keepalive_interval),
            keepalive_timeout: self.keepalive_timeout.or(file.keepalive_timeout),
            connection_age: self.connection_age.or(file.connection_age),
            connection_grace: self.connection_grace.or(file.connection_grace),
            stream_window: self.stream_window.or(file.stream_window),
            connection_window: self.connection_window.or(file.connection_window),
            frame_size: self.frame_size.or(file.frame_size),
            nodelay: self.nodelay.or(file.nodelay),
        }
    }

    /// What connections are held to.
    pub(super) fn limits(self) -> Limits {
        let defaults = Limits::default();
        let bytes = |count: Option<ByteCount>, default: u32| {
            count.map_or(default, |count| u32::try_from(count.0).expect("its bounds were checked"))
        };
        Limits {
            connections: self.max_connections.map_or(defaults.connections, NonZeroUsize::get),
            connections_per_address: self.max_connections_per_address.map(NonZeroUsize::get),
            streams: self.max_streams.unwrap_or(defaults.streams),
            streams_per_second: self.stream_rate,
            streams_per_second_of_address: self.stream_rate_per_address,
            opening: self.first_byte_deadline.map_or(defaults.opening, |span| span.0),
            keepalive_interval: self.keepalive_interval.map_or(defaults.keepalive_interval, |span| span.0),
            keepalive_timeout: self.keepalive_timeout.map_or(defaults.keepalive_timeout, |span| span.0),
            age: self.connection_age.map_or(defaults.age, |span| span.0),
            grace: self.connection_grace.map_or(defaults.grace, |span| span.0),
            stream_window: bytes(self.stream_window, defaults.stream_window),
            connection_window: bytes(self.connection_window, defaults.connection_window),
            frame_size: bytes(self.frame_size, defaults.frame_size),
            nodelay: self.nodelay.unwrap_or(defaults.nodelay),
        }
    }
}
