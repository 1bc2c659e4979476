//! A file on this machine, read as an import would read it, for programs that want its ticks and no server.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::container::Intake;
use super::content::Spooled;
use super::error::{FileDefect, ImportError};
use super::format::{BatchBuilder, Line, RejectCode};
use super::limits::Limits;
use super::lines::Lines;
use super::options::ImportOptions;
use super::spool::Spool;
use crate::domain::{NewTick, Published, Symbol, Venue};

/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 256 << 10;

/// Instruments that are remembered between lines.
const KNOWN_INSTRUMENTS: usize = 10_000;

/// A checked file, and what has become of its lines so far: an iterator in the order of the file.
///
/// The file was unpacked into a temporary one, so memory is bounded whatever its size.
#[derive(Debug)]
pub struct FileReader {
    spooled: Spooled,
    lines: Lines,
    builder: BatchBuilder,
}

/// One line, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLine {
    /// Its number, from 1, the header included.
    pub number: u64,
    /// What became of it.
    pub content: LineContent,
}

/// What became of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineContent {
    /// A tick.
    Tick {
        /// Where.
        venue: Venue,
        /// What.
        symbol: Symbol,
        /// The trade. Its `instrument` is 0 and means nothing: there is no batch around it.
        tick: NewTick,
    },
    /// What a venue publishes beside ticks.
    Published(Published<(Venue, Symbol)>),
    /// Something of this kind, and no trade.
    Ignored(&'static str),
    /// Refused.
    Rejected {
        /// For programs.
        code: RejectCode,
        /// For people.
        reason: String,
    },
}

impl FileReader {
    /// Unpacks and checks a file, with the limits of an import. `spool_folder` takes the temporary file.
    pub fn open(path: &Path, options: ImportOptions, spool_folder: PathBuf) -> Result<FileReader, ImportError> {
        let unreadable = |error: io::Error| FileDefect::new(format!("{} cannot be read: {error}", path.display()));
        FileReader::read(File::open(path).map_err(unreadable)?, options, spool_folder)
    }

    /// The same from any source of bytes.
    pub fn read(
        mut source: impl Read,
        options: ImportOptions,
        spool_folder: PathBuf,
    ) -> Result<FileReader, ImportError> {
        let limits = Limits::default();
        let spool = Spool::new(spool_folder, limits.spool_bytes);
        let mut intake = Intake::new(limits, options, spool);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match source.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => intake.push(&piece[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FileDefect::new(format!("the file cannot be read: {error}")).into()),
            }
        }
        let spooled = intake.finish(None)?;
        let lines = spooled.lines()?;
        Ok(FileReader { spooled, lines, builder: BatchBuilder::default() })
    }

    /// The options with everything that the file told.
    pub fn options(&self) -> &ImportOptions {
        self.spooled.parser.options()
    }

    /// How many lines hold data.
    pub fn line_count(&self) -> u64 {
        self.spooled.line_count
    }

    /// The version of the format's parser.
    pub fn parser_version(&self) -> u32 {
        self.spooled.parser.version()
    }

    fn content(&mut self) -> LineContent {
        let line = self.spooled.parser.line(self.lines.text(), &mut self.builder);
        let instruments = &self.builder.batch.instruments;
        let content = match line {
            Line::Tick => {
                let mut tick = self.builder.batch.ticks.pop().expect("the parser has just pushed it");
                let (venue, symbol) = instruments[tick.instrument as usize].clone();
                tick.instrument = 0;
                LineContent::Tick { venue, symbol, tick }
            }
            Line::Published => {
                let published = std::mem::take(&mut self.builder.published);
                LineContent::Published(published.named(|index| instruments[*index as usize].clone()))
            }
            Line::Ignored(kind) => LineContent::Ignored(kind),
            Line::Rejected { code, reason } => LineContent::Rejected { code, reason },
        };
        if self.builder.batch.instruments.len() > KNOWN_INSTRUMENTS {
            self.builder.take();
        }
        content
    }
}

impl Iterator for FileReader {
    type Item = Result<FileLine, ImportError>;

    fn next(&mut self) -> Option<Result<FileLine, ImportError>> {
        match self.lines.next() {
            Ok(true) => Some(Ok(FileLine { number: self.lines.number(), content: self.content() })),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_in_its_order_without_a_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trades.csv");
        std::fs::write(&path, "venue,symbol,time_s,price\nV,A,1,1.5\nV,A,1,x\n\nV,B,2,2.5\n").unwrap();
        let reader = FileReader::open(&path, ImportOptions::default(), folder.path().to_owned()).unwrap();
        assert_eq!(reader.line_count(), 4);
        let lines: Vec<FileLine> = reader.map(Result::unwrap).collect();
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 3, 4, 5]);
        let LineContent::Tick { venue, symbol, tick } = &lines[3].content else { panic!("{lines:?}") };
        assert_eq!((venue.as_str(), symbol.as_str(), tick.price.to_string()), ("V", "B", "2.5".to_owned()));
        assert!(matches!(&lines[1].content, LineContent::Rejected { code: RejectCode::FieldInvalid, .. }));
        assert_eq!(lines[2].content, LineContent::Ignored("blank"));
    }

    #[test]
    fn a_file_that_is_not_there_or_not_whole_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.csv");
        for (path, part) in [(missing.as_path(), "missing.csv cannot be read"), (folder.path(), "cannot be read")] {
            let error = FileReader::open(path, ImportOptions::default(), folder.path().to_owned()).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let error = FileReader::read(&b"time,price\n"[..], ImportOptions::default(), folder.path().to_owned());
        assert_eq!(error.unwrap_err().reason(), "FILE_MALFORMED");
    }
}
