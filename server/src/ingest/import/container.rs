//! What a file is packed in: nothing, gzip, or a zip with one data entry. Recognised by the first bytes, never by the
//! file's name, and unpacked while the bytes arrive (a zip's table of contents is at its end: it is spooled first).

use std::io::Write as _;

use flate2::write::MultiGzDecoder;

use super::content::{Content, Spooled};
use super::error::{FileDefect, ImportError};
use super::limits::Limits;
use super::options::ImportOptions;
use super::spool::{Spool, SpoolWriter};
use super::zip;

/// The receiving end of an upload's bytes.
#[derive(Debug)]
pub(super) struct Intake {
    limits: Limits,
    options: ImportOptions,
    spool: Spool,
    received: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Fewer bytes than are needed to tell.
    Start(Vec<u8>),
    Plain(Box<Content>),
    Gzip(Box<MultiGzDecoder<Content>>),
    Zip(SpoolWriter),
    /// Ended by an error: nothing more is taken.
    Broken,
}

/// How many bytes tell the containers apart.
const MAGIC_BYTES: usize = 4;

impl Intake {
    pub(super) fn new(limits: Limits, options: ImportOptions, spool: Spool) -> Intake {
        Intake { limits, options, spool, received: 0, stage: Stage::Start(Vec::new()) }
    }

    /// Takes the next bytes of the upload. After an error, nothing more may come.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        self.received += bytes.len() as u64;
        let max = self.limits.upload_bytes;
        if self.received > max {
            return Err(too_large(max, None));
        }
        match std::mem::replace(&mut self.stage, Stage::Broken) {
            Stage::Start(mut start) => {
                start.extend_from_slice(bytes);
                if start.len() < MAGIC_BYTES {
                    self.stage = Stage::Start(start);
                    return Ok(());
                }
                let stage = self.recognise(&start)?;
                self.feed(stage, &start)
            }
            stage => self.feed(stage, bytes),
        }
    }

    fn recognise(&self, start: &[u8]) -> Result<Stage, ImportError> {
        if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
            return Ok(Stage::Zip(self.spool.file()?));
        }
        let content = Content::new(self.limits.clone(), self.options.clone(), self.spool.file()?);
        if start.starts_with(b"\x1F\x8B") {
            Ok(Stage::Gzip(Box::new(MultiGzDecoder::new(content))))
        } else {
            Ok(Stage::Plain(Box::new(content)))
        }
    }

    fn feed(&mut self, stage: Stage, bytes: &[u8]) -> Result<(), ImportError> {
        self.stage = match stage {
            Stage::Plain(mut content) => {
                content.push(bytes)?;
                Stage::Plain(content)
            }
            Stage::Gzip(mut decoder) => {
                decoder.get_mut().set_packed(self.received);
                decoder.write_all(bytes).map_err(|error| self.gzip_damaged(error))?;
                Stage::Gzip(decoder)
            }
            Stage::Zip(mut raw) => {
                raw.write(bytes)?;
                Stage::Zip(raw)
            }
            Stage::Start(_) | Stage::Broken => Stage::Broken,
        };
        Ok(())
    }

    fn gzip_damaged(&self, error: std::io::Error) -> ImportError {
        ImportError::from_io(error, |_| {
            FileDefect::at_byte(
                self.received,
                "the gzip data are damaged before this byte of the upload: pack the file again",
            )
            .into()
        })
    }

    /// The end of the upload. `told` is the size that the client announced.
    pub(super) fn finish(mut self, told: Option<u64>) -> Result<Spooled, ImportError> {
        if let Some(told) = told.filter(|told| *told != self.received) {
            return Err(FileDefect::at_byte(
                self.received,
                format!("the upload has {} bytes, and size_bytes says {told}", self.received),
            )
            .into());
        }
        match std::mem::replace(&mut self.stage, Stage::Broken) {
            Stage::Start(start) => {
                let mut content = Content::new(self.limits.clone(), self.options.clone(), self.spool.file()?);
                content.push(&start)?;
                content.finish()
            }
            Stage::Plain(content) => content.finish(),
            Stage::Gzip(decoder) => decoder
                .finish()
                .map_err(|error| {
                    ImportError::from_io(error, |_| {
                        FileDefect::at_byte(
                            self.received,
                            "the gzip data end too early, or their checksum is wrong: the file is truncated or damaged",
                        )
                        .into()
                    })
                })?
                .finish(),
            Stage::Zip(raw) => {
                let content = Content::new(self.limits.clone(), self.options.clone(), self.spool.file()?);
                zip::unpack(&raw.finish()?, content, &self.limits)
            }
            Stage::Broken => Err(FileDefect::new("the upload went on after an error").into()),
        }
    }
}

/// The refusal of an upload that is too large, announced or sent.
pub(super) fn too_large(max: u64, actual: Option<u64>) -> ImportError {
    ImportError::Limit {
        limit: "import_bytes",
        max,
        actual,
        problem: format!("the upload is larger than the {max} bytes of import_bytes: split the file, or pack it"),
    }
}
