//! What a format of files has to do: know its own first line, judge the file as a whole, then turn one line after the
//! other into ticks.

use std::collections::HashMap;
use std::fmt;

use super::error::FileDefect;
use super::options::ImportOptions;
use crate::domain::{Batch, NameInvalid, Published, Symbol, Venue};

/// A reader of one format, set up for one file by its first line.
///
/// While the bytes arrive, `judge` sees every line of a format that asks for it, so that a defect is found before
/// anything is stored. `line` sees the lines that hold data, in their order, perhaps several times, perhaps not from
/// the beginning: what it makes of one may depend on nothing but that line and what `judge` has found in the file.
pub(super) trait Reader: fmt::Debug + Send {
    /// The options with everything that the first line told.
    fn options(&self) -> &ImportOptions;

    /// Raised whenever the same lines give other ticks than before.
    fn version(&self) -> u32;

    /// The lines that hold no data.
    fn frame(&self) -> Frame;

    /// Reads a line, without its line break, into the batch.
    fn line(&mut self, line: &[u8], batch: &mut BatchBuilder) -> Line;

    /// Whether the file can only be judged line by line.
    fn judges(&self) -> bool {
        false
    }

    /// Judges the next line, from the first one on, without its line break.
    fn judge(&mut self, _line: &[u8], _place: Place) -> Result<(), FileDefect> {
        Ok(())
    }

    /// Judges the file after its last line.
    fn judge_end(&self) -> Result<(), FileDefect> {
        Ok(())
    }
}

/// How many lines stand before and after those that hold data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) header: u64,
    pub(super) trailer: u64,
}

/// Where a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its number, from 1.
    pub(super) line: u64,
    /// The offset of its first byte.
    pub(super) byte: u64,
}

impl Place {
    pub(super) fn defect(self, problem: impl Into<String>) -> FileDefect {
        FileDefect::at_line(self.line, self.byte, problem)
    }
}

/// Why a line was rejected, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectCode {
    /// A field is missing or cannot be read.
    FieldInvalid,
}

impl RejectCode {
    /// The name of the reason in the contract.
    pub fn name(self) -> &'static str {
        match self {
            RejectCode::FieldInvalid => "FIELD_INVALID",
        }
    }
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
    Rejected { code: RejectCode, reason: String },
}

impl Line {
    /// A line with a field that cannot be read.
    pub(super) fn invalid(reason: impl Into<String>) -> Line {
        Line::Rejected { code: RejectCode::FieldInvalid, reason: reason.into() }
    }
}

/// Which name of an instrument was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameProblem {
    #[error("venue: {0}")]
    Venue(NameInvalid),
    #[error("symbol: {0}")]
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
