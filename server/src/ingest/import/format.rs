//! What a format of files has to do: read a header, then turn one line after the other into ticks.

use std::collections::HashMap;

use super::csv::CsvTrades;
use super::error::ImportError;
use super::options::{FileFormat, ImportOptions};
use crate::domain::{Batch, NameInvalid, Published, Symbol, Venue};

/// A reader of one format, set up for one file.
#[derive(Clone, Debug)]
pub enum Parser {
    /// Trades in columns.
    Csv(CsvTrades),
}

/// What became of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It is a tick of the batch now.
    Tick,
    /// It is something published of the batch now, and no tick.
    Published,
    /// It holds no trade, but something of this kind.
    Ignored(&'static str),
    /// It has a defect, told in words.
    Rejected(String),
}

impl Parser {
    /// Recognises the format and reads the header: the first line, without its line break.
    pub fn open(options: &ImportOptions, header: &[u8]) -> Result<Parser, ImportError> {
        match options.format {
            Some(FileFormat::Csv) | None => CsvTrades::open(options, header).map(Parser::Csv),
        }
    }

    /// The options with everything that the header told.
    pub fn options(&self) -> &ImportOptions {
        match self {
            Parser::Csv(csv) => csv.options(),
        }
    }

    /// Raised whenever the same lines give other ticks than before.
    pub fn version(&self) -> u32 {
        match self {
            Parser::Csv(_) => CsvTrades::VERSION,
        }
    }

    /// Reads a line, without its line break, into the batch.
    pub(super) fn line(&mut self, line: &[u8], batch: &mut BatchBuilder) -> Line {
        match self {
            Parser::Csv(csv) => csv.line(line, batch),
        }
    }
}

/// Which name of an instrument was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameProblem {
    Venue(NameInvalid),
    Symbol(NameInvalid),
}

/// A batch in the making: knows the instruments that it has seen.
#[derive(Debug, Default)]
pub(super) struct BatchBuilder {
    pub(super) batch: Batch,
    /// What the lines publish beside ticks.
    pub(super) published: Published<u32>,
    /// Index by venue, a zero byte, and symbol: valid names hold no zero byte.
    known: HashMap<Box<[u8]>, u32>,
    key: Vec<u8>,
    /// The instrument of the line before, which is mostly that of the next.
    last: Option<u32>,
}

impl BatchBuilder {
    /// The index of an instrument, entered into the batch if it is new there.
    pub(super) fn instrument(&mut self, venue: &[u8], symbol: &[u8]) -> Result<u32, NameProblem> {
        let same = |index: &u32| {
            let (last_venue, last_symbol) = &self.batch.instruments[*index as usize];
            last_venue.as_str().as_bytes() == venue && last_symbol.as_str().as_bytes() == symbol
        };
        if let Some(index) = self.last.filter(same) {
            return Ok(index);
        }
        self.key.clear();
        self.key.extend_from_slice(venue);
        self.key.push(0);
        self.key.extend_from_slice(symbol);
        let index = match self.known.get(self.key.as_slice()) {
            Some(index) => *index,
            None => {
                let venue = text(venue, false).and_then(Venue::new);
                let venue = venue.map_err(NameProblem::Venue)?;
                let symbol = text(symbol, true).and_then(Symbol::new);
                let symbol = symbol.map_err(NameProblem::Symbol)?;
                let index = self.batch.instruments.len() as u32;
                self.batch.instruments.push((venue, symbol));
                self.known.insert(self.key.as_slice().into(), index);
                index
            }
        };
        self.last = Some(index);
        Ok(index)
    }

    /// The batch so far, and what it publishes; the builder begins anew.
    pub(super) fn take(&mut self) -> (Batch, Published<u32>) {
        self.known.clear();
        self.last = None;
        (std::mem::take(&mut self.batch), std::mem::take(&mut self.published))
    }
}

/// A name's bytes as text. The first byte that is no UTF-8 is outside the alphabet too.
fn text(bytes: &[u8], slash: bool) -> Result<&str, NameInvalid> {
    std::str::from_utf8(bytes).map_err(|error| NameInvalid::Character { position: error.valid_up_to(), slash })
}
