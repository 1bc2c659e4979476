//! The lines of a checked file that hold data.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};

use super::error::ImportError;
use super::format::Frame;
use super::spool::SpoolFile;

/// A pass over a file. One pass at a time: they share the file's position.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
    number: u64,
    /// The number of the last line that holds data.
    last: u64,
}

impl Lines {
    /// Stands before the first of `count` lines of data.
    pub(super) fn open(file: &SpoolFile, frame: Frame, count: u64) -> Result<Lines, ImportError> {
        let mut file = file.file().try_clone().map_err(ImportError::Spool)?;
        file.seek(SeekFrom::Start(0)).map_err(ImportError::Spool)?;
        let reader = BufReader::with_capacity(256 << 10, file);
        let mut lines = Lines { reader, line: Vec::new(), number: 0, last: frame.header + count };
        while lines.number < frame.header && lines.next()? {}
        Ok(lines)
    }

    /// Goes to the next line; false at the end.
    pub(super) fn next(&mut self) -> Result<bool, ImportError> {
        self.line.clear();
        if self.number >= self.last {
            return Ok(false);
        }
        let found = self.reader.read_until(b'\n', &mut self.line).map_err(ImportError::Spool)? > 0;
        self.number += u64::from(found);
        Ok(found)
    }

    /// The number of the current line in the file, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The current line without its line break.
    pub(super) fn text(&self) -> &[u8] {
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}
