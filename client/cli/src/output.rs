//! Where results go: JSON lines for programs, or lines for people, on standard output.
//!
//! Notices go to standard error, so that a pipe only carries data.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::table::{Table, pairs};

pub(crate) struct Output {
    json: bool,
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(crate) fn stdout(json: bool) -> Output {
        Output { json, out: BufWriter::new(io::stdout().lock()) }
    }

    /// Whether programs read this.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Writes an object as one line.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, object)?;
        self.out.write_all(b"\n")
    }

    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// Writes a table with its header, or a sentence in its place.
    pub(crate) fn table(&mut self, mut table: Table, when_empty: &str) -> io::Result<()> {
        if table.is_empty() {
            return notice(when_empty);
        }
        self.line(&table.header())?;
        self.rows(&mut table)
    }

    /// Writes the rows that a table has gathered.
    pub(crate) fn rows(&mut self, table: &mut Table) -> io::Result<()> {
        for line in table.drain() {
            self.line(&line)?;
        }
        Ok(())
    }

    /// Writes names and values below each other.
    pub(crate) fn pairs(&mut self, values: &[(&str, String)]) -> io::Result<()> {
        for line in pairs(values) {
            self.line(&line)?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Tells people something that is no data.
pub(crate) fn notice(text: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{text}")
}

/// A number with spaces between groups of three digits would not paste; this one has none, but a unit.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    let noun = if number == 1 { one } else { many };
    format!("{number} {noun}")
}
