//! The log: lines on standard error, filtered by `--log`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The filter is not one, or a log is set up already.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Not a filter.
    #[error("--log: {0}; write a level such as info, or pairs such as info,tapefeed_server=debug")]
    Filter(#[from] ParseError),
    /// Somebody else was first.
    #[error("a log is set up already")]
    Taken,
}

/// Sets up the log of this process, once.
pub fn init(filter: &str) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::try_new(filter)?).with_writer(std::io::stderr);
    // On a terminal the subscriber itself decides, which honours NO_COLOR.
    let taken = if std::io::stderr().is_terminal() { builder.try_init() } else { builder.with_ansi(false).try_init() };
    taken.map_err(|_| TelemetryError::Taken)
}
