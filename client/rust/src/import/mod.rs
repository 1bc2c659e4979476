//! Importing files: upload, progress, and the runs that the server keeps of them.
//!
//! The server knows a file by its content: the same file again joins the run that exists. That makes retrying safe, and
//! [`Client::import_file`] does it by itself. Uploads are in `upload`, runs in `run`, the
//! lines that they rejected in `reject`.

mod reject;
mod run;
#[cfg(test)]
mod tests;
mod upload;

use std::path::Path;

use tapefeed_proto::v1 as proto;
use tokio::io::AsyncRead;

pub use reject::{RejectPage, RejectQuery, RejectedLine};
pub use run::{IgnoredLines, ImportFailure, Run, RunQuery, RunState};

use crate::{Client, Error};

/// How many uploads are tried, unless the options say otherwise.
const DEFAULT_ATTEMPTS: u32 = 10;

/// How to read a file. All defaults suit a CSV of trades with a header, venue and symbol included.
///
/// ```
/// use tapefeed_client::{ImportOptions, TickField, TimeUnit};
/// let options = ImportOptions::new()
///     .venue("BINANCE")
///     .symbol("BTCUSDT")
///     .map(TickField::EventTime, "ts")
///     .time_unit(TimeUnit::Milliseconds);
/// ```
#[derive(Clone, Debug)]
pub struct ImportOptions {
    wire: proto::ImportOptions,
    run_id: Option<String>,
    attempts: u32,
}

/// A field of a tick that a column of a file can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TickField {
    /// The time of the trade.
    EventTime,
    /// The time at which the trade was received.
    ReceiveTime,
    /// The venue.
    Venue,
    /// The symbol.
    Symbol,
    /// The price.
    Price,
    /// The quantity.
    Quantity,
    /// The side of the aggressor.
    Side,
    /// The venue's name for the trade.
    TradeId,
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImportFormat {
    /// Trades in columns, with a header; columns are found by name.
    Csv,
    /// A capture of Binance's WebSocket, one message a line. Trades are ticks, other messages are ignored.
    BinanceCapture,
    /// One tick a line, as a JSON object.
    JsonLines,
    /// B3's file of a day's trades.
    B3Trades,
    /// B3's history of daily quotes: published bars and details of instruments, no ticks.
    Cotahist,
}

/// The unit of times in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeUnit {
    /// Seconds since 1970, decimals allowed.
    Seconds,
    /// Milliseconds since 1970, decimals allowed.
    Milliseconds,
    /// Microseconds since 1970, decimals allowed.
    Microseconds,
    /// Nanoseconds since 1970.
    Nanoseconds,
    /// RFC 3339 with its offset.
    Text,
}

/// How far an import is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImportProgress {
    /// The attempt that runs, from 1.
    pub attempt: u32,
    /// How many bytes of the file have been handed to the network in this attempt.
    pub sent_bytes: u64,
    /// The size of the file in bytes, if known.
    pub size_bytes: Option<u64>,
    /// The run as the server last told it. `None` until it has.
    pub run: Option<Run>,
    /// Why the attempt before this one failed.
    pub last_error: Option<Error>,
}

/// How an import ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Import {
    /// The run. Of a file that was imported before: the earlier run.
    pub run: Run,
    /// Whether nothing was stored because the same file is stored already.
    pub duplicate: bool,
}

// === impl ImportOptions ===

impl Default for ImportOptions {
    fn default() -> ImportOptions {
        ImportOptions::new()
    }
}

impl ImportOptions {
    /// All defaults.
    pub fn new() -> ImportOptions {
        ImportOptions { wire: proto::ImportOptions::default(), run_id: None, attempts: DEFAULT_ATTEMPTS }
    }

    /// The format. Default: recognised by the content, and refused if that is not certain.
    pub fn format(mut self, format: ImportFormat) -> ImportOptions {
        let format = match format {
            ImportFormat::Csv => proto::ImportFormat::Csv,
            ImportFormat::BinanceCapture => proto::ImportFormat::BinanceCapture,
            ImportFormat::JsonLines => proto::ImportFormat::JsonLines,
            ImportFormat::B3Trades => proto::ImportFormat::B3Trades,
            ImportFormat::Cotahist => proto::ImportFormat::Cotahist,
        };
        self.wire.format = format.into();
        self
    }

    /// The venue of all ticks. Required if the file has no venue, refused if it has one.
    pub fn venue(mut self, venue: impl Into<String>) -> ImportOptions {
        self.wire.venue = venue.into();
        self
    }

    /// The symbol of all ticks. Required if the file has no symbol, refused if it has one.
    pub fn symbol(mut self, symbol: impl Into<String>) -> ImportOptions {
        self.wire.symbol = symbol.into();
        self
    }

    /// The name of the column that holds a field, where it is not one of the usual synonyms.
    pub fn map(mut self, field: TickField, column: impl Into<String>) -> ImportOptions {
        self.wire
            .column_mappings
            .push(proto::ColumnMapping { field: field.as_str().to_owned(), column: column.into() });
        self
    }

    /// The unit of event times that are numbers. Without it, it must be evident from the column's name.
    pub fn time_unit(mut self, unit: TimeUnit) -> ImportOptions {
        self.wire.time_unit = unit.to_wire();
        self
    }

    /// The unit of receive times that are numbers. Without it, it must be evident from the column's name.
    pub fn receive_time_unit(mut self, unit: TimeUnit) -> ImportOptions {
        self.wire.receive_time_unit = unit.to_wire();
        self
    }

    /// The character between two columns. Default: a comma.
    pub fn delimiter(mut self, delimiter: char) -> ImportOptions {
        self.wire.delimiter = delimiter.to_string();
        self
    }

    /// How many lines may be rejected before the run fails. Default 1,000, at most 1,000,000.
    pub fn max_rejects(mut self, lines: u32) -> ImportOptions {
        self.wire.max_rejects = Some(lines);
        self
    }

    /// Allows the same bytes to be imported again with other options.
    pub fn again(mut self, again: bool) -> ImportOptions {
        self.wire.again = again;
        self
    }

    /// The name of the run: 1 to 64 bytes of `A-Z a-z 0-9 _ -`. Default: a random one.
    pub fn run_id(mut self, run_id: impl Into<String>) -> ImportOptions {
        self.run_id = Some(run_id.into());
        self
    }

    /// How many times [`Client::import_file`] uploads at most, the first time included, while the server is unavailable
    /// or the connection breaks. Default 10. The server continues where it was.
    pub fn attempts(mut self, attempts: u32) -> ImportOptions {
        self.attempts = attempts.max(1);
        self
    }
}

impl TickField {
    /// The field's name in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            TickField::EventTime => "event_time",
            TickField::ReceiveTime => "receive_time",
            TickField::Venue => "venue",
            TickField::Symbol => "symbol",
            TickField::Price => "price",
            TickField::Quantity => "quantity",
            TickField::Side => "side",
            TickField::TradeId => "trade_id",
        }
    }
}

impl TimeUnit {
    fn to_wire(self) -> i32 {
        let unit = match self {
            TimeUnit::Seconds => proto::TimeUnit::Seconds,
            TimeUnit::Milliseconds => proto::TimeUnit::Milliseconds,
            TimeUnit::Microseconds => proto::TimeUnit::Microseconds,
            TimeUnit::Nanoseconds => proto::TimeUnit::Nanoseconds,
            TimeUnit::Text => proto::TimeUnit::Text,
        };
        unit.into()
    }
}

impl Client {
    /// Imports a file: plain, gzip, or a zip with one data entry. Returns when the run has ended.
    ///
    /// A broken connection or an unavailable server makes it upload again, up to [`ImportOptions::attempts`] times; the
    /// server goes on where it was. If another importer works on the same file, its run is waited for. `progress` is
    /// called several times a second.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read; `FILE_MALFORMED`, `IMPORT_CONFLICT` and the other reasons of ImportFile.
    /// A run that the server could not finish is not an error here: look at [`Run::state`].
    pub async fn import_file(
        &self,
        path: impl AsRef<Path>,
        options: ImportOptions,
        progress: impl FnMut(&ImportProgress) + Send,
    ) -> Result<Import, Error> {
        upload::file(self, path.as_ref(), options, progress).await
    }

    /// Imports what a reader yields, once: it cannot be read again, so nothing is tried again. `file_name` is for people
    /// and for recognising the format.
    ///
    /// # Errors
    ///
    /// As [`Client::import_file`], and [`Error::Transport`] if the connection breaks.
    pub async fn import_reader(
        &self,
        reader: impl AsyncRead + Send + Unpin,
        file_name: impl Into<String>,
        options: ImportOptions,
        progress: impl FnMut(&ImportProgress) + Send,
    ) -> Result<Import, Error> {
        upload::reader(self, reader, file_name.into(), options, progress).await
    }
}
