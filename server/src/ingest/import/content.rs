//! The uncompressed bytes of a file, checked while they arrive: lines, size, ratio, digest, the format as soon as the
//! first line is complete, and whatever that format judges.

use std::io;

use sha2::{Digest as _, Sha256};

use super::detect::open_reader;
use super::error::{FileDefect, ImportError};
use super::format::{Place, Reader};
use super::limits::Limits;
use super::lines::Lines;
use super::options::ImportOptions;
use super::spool::{SpoolFile, SpoolWriter};

/// A file on its way to the spool.
#[derive(Debug)]
pub(super) struct Content {
    limits: Limits,
    options: ImportOptions,
    out: SpoolWriter,
    hash: Sha256,
    bytes: u64,
    /// Bytes of the packed form that were read for them; `None` for a plain file.
    packed: Option<u64>,
    /// Lines that are complete.
    lines: u64,
    /// Bytes of the line that is not.
    open_line: usize,
    /// The first line, until it is complete.
    header: Vec<u8>,
    parser: Option<Box<dyn Reader>>,
    /// Where the next line begins that the parser judges.
    judged: Place,
    /// What is here of that line.
    unjudged: Vec<u8>,
}

/// A whole file without defects, ready to be parsed.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) file: SpoolFile,
    pub(super) parser: Box<dyn Reader>,
    /// SHA-256 of the uncompressed bytes.
    pub(super) digest: [u8; 32],
    /// Lines that hold data.
    pub(super) line_count: u64,
}

impl Spooled {
    /// A pass over the lines that hold data.
    pub(super) fn lines(&self) -> Result<Lines, ImportError> {
        Lines::open(&self.file, self.parser.frame(), self.line_count)
    }
}

/// Pieces in which content is looked at: never longer than a line may be, so that only the line that is open at the
/// start of a piece can grow too long.
const PIECE_BYTES: usize = 32 << 10;

/// How many first bytes tell text from what is none.
const SIGNATURE_BYTES: usize = 6;

impl Content {
    pub(super) fn new(limits: Limits, options: ImportOptions, out: SpoolWriter) -> Content {
        Content {
            limits,
            options,
            out,
            hash: Sha256::new(),
            bytes: 0,
            packed: None,
            lines: 0,
            open_line: 0,
            header: Vec::new(),
            parser: None,
            judged: Place { line: 1, byte: 0 },
            unjudged: Vec::new(),
        }
    }

    /// Tells how many bytes of the packed form belong to what follows and came before.
    pub(super) fn set_packed(&mut self, packed: u64) {
        self.packed = Some(packed);
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        for piece in bytes.chunks(PIECE_BYTES.min(self.limits.line_bytes)) {
            self.look_at(piece)?;
            self.hash.update(piece);
            self.out.write(piece)?;
        }
        Ok(())
    }

    fn look_at(&mut self, piece: &[u8]) -> Result<(), ImportError> {
        let line_feed = |byte: &u8| *byte == b'\n';
        let first = piece.iter().position(line_feed);
        let grown = self.open_line + first.unwrap_or(piece.len());
        if grown > self.limits.line_bytes {
            let start = self.bytes - self.open_line as u64;
            return Err(FileDefect::at_line(
                self.lines + 1,
                start + self.limits.line_bytes as u64,
                format!("the line is longer than {} bytes", self.limits.line_bytes),
            )
            .into());
        }
        let mut unjudged = piece;
        if self.parser.is_none() {
            let known = self.header.len();
            self.header.extend_from_slice(&piece[..first.unwrap_or(piece.len())]);
            if known < SIGNATURE_BYTES && self.header.len() >= SIGNATURE_BYTES {
                refuse_foreign(&self.header)?;
            }
            unjudged = &[];
            if let Some(first) = first {
                self.open_parser()?;
                unjudged = &piece[first + 1..];
            }
        }
        self.judge(unjudged)?;
        match piece.iter().rposition(line_feed) {
            Some(last) => {
                self.lines += piece.iter().filter(|byte| line_feed(byte)).count() as u64;
                self.open_line = piece.len() - last - 1;
            }
            None => self.open_line = grown,
        }
        self.bytes += piece.len() as u64;
        self.check_size()
    }

    fn check_size(&self) -> Result<(), ImportError> {
        let max = self.limits.content_bytes;
        if self.bytes > max {
            return Err(ImportError::Limit {
                limit: "import_content_bytes",
                max,
                actual: None,
                problem: format!("the file unpacks to more than the {max} bytes of import_content_bytes: split it"),
            });
        }
        let Some(packed) = self.packed else {
            return Ok(());
        };
        let max = self.limits.ratio;
        if self.bytes > self.limits.ratio_floor && self.bytes > packed.saturating_mul(max) {
            return Err(ImportError::Limit {
                limit: "import_ratio",
                max,
                actual: Some(self.bytes / packed.max(1)),
                problem: format!(
                    "the file unpacks to more than {max} times its size, which is import_ratio: upload it unpacked"
                ),
            });
        }
        Ok(())
    }

    fn open_parser(&mut self) -> Result<(), ImportError> {
        let header = std::mem::take(&mut self.header);
        refuse_foreign(&header)?;
        let line = without_return(&header);
        let mut parser = open_reader(&self.options, line)?;
        if parser.judges() {
            parser.judge(line, self.judged)?;
        }
        self.judged = Place { line: 2, byte: header.len() as u64 + 1 };
        self.parser = Some(parser);
        Ok(())
    }

    /// Passes whole lines after the first on to a parser that asks for them.
    fn judge(&mut self, mut bytes: &[u8]) -> Result<(), ImportError> {
        let Some(parser) = self.parser.as_mut().filter(|parser| parser.judges()) else {
            return Ok(());
        };
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.unjudged.extend_from_slice(&bytes[..end]);
            parser.judge(without_return(&self.unjudged), self.judged)?;
            self.judged.line += 1;
            self.judged.byte += self.unjudged.len() as u64 + 1;
            self.unjudged.clear();
            bytes = &bytes[end + 1..];
        }
        self.unjudged.extend_from_slice(bytes);
        Ok(())
    }

    /// Judges the last line, if it has no line break, and the whole.
    fn judge_end(&mut self, parser: &mut dyn Reader) -> Result<(), ImportError> {
        if parser.judges() && !self.unjudged.is_empty() {
            parser.judge(without_return(&self.unjudged), self.judged)?;
        }
        Ok(parser.judge_end()?)
    }

    /// The end of the file: what was checked, ready to be read.
    pub(super) fn finish(mut self) -> Result<Spooled, ImportError> {
        if self.bytes == 0 {
            return Err(FileDefect::new("the file is empty").into());
        }
        if self.parser.is_none() {
            self.open_parser()?;
        }
        let mut parser = self.parser.take().expect("opened above");
        self.judge_end(&mut *parser)?;
        let unfinished = u64::from(self.open_line > 0);
        let frame = parser.frame();
        Ok(Spooled {
            file: self.out.finish()?,
            parser,
            digest: self.hash.finalize().into(),
            line_count: (self.lines + unfinished).saturating_sub(frame.header + frame.trailer),
        })
    }
}

impl io::Write for Content {
    /// Takes all bytes, or ends with an [`ImportError`] inside the `io::Error`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(ImportError::into_io)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Refuses content that is known not to be lines of text, by its first bytes.
fn refuse_foreign(start: &[u8]) -> Result<(), ImportError> {
    let problem = if start.starts_with(b"\xFF\xFE") || start.starts_with(b"\xFE\xFF") {
        "the file is UTF-16: convert it to UTF-8"
    } else if start.starts_with(b"\x1F\x8B") || start.starts_with(b"PK\x03\x04") {
        "an archive inside an archive is not read: unpack the outer one"
    } else if start.starts_with(b"\x28\xB5\x2F\xFD") {
        "the file is compressed with zstd: gzip and zip are read, or upload it unpacked"
    } else if start.starts_with(b"BZh") {
        "the file is compressed with bzip2: gzip and zip are read, or upload it unpacked"
    } else if start.starts_with(b"\xFD7zXZ") || start.starts_with(b"7z\xBC\xAF") {
        "the file is compressed with xz or 7z: gzip and zip are read, or upload it unpacked"
    } else if start.starts_with(b"PAR1") {
        "the file is Parquet: export it as CSV"
    } else {
        return Ok(());
    };
    Err(FileDefect::at_byte(0, problem).into())
}
