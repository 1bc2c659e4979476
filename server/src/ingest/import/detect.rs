//! Which format a file has: as told, else by its first line, and never by its name.

use super::csv::CsvTrades;
use super::error::ImportError;
use super::format::Reader;
use super::options::{FileFormat, ImportOptions};

/// Sets up the reader of a file by its first line, which comes without its line break.
pub(super) fn open_reader(options: &ImportOptions, first_line: &[u8]) -> Result<Box<dyn Reader>, ImportError> {
    match options.format {
        Some(FileFormat::Csv) | None => Ok(Box::new(CsvTrades::open(options, first_line)?)),
    }
}
