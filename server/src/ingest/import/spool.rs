//! Temporary files: where an upload waits until the whole of it is checked.
//!
//! A file has no name a client chose, is deleted when its last handle closes, and counts against one bound for all.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::ImportError;

/// The folder of temporary files, and how much of it is in use.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
    used: Arc<AtomicU64>,
    max: u64,
}

impl Spool {
    /// A spool in an existing folder, at most `max` bytes over all its files.
    pub fn new(folder: PathBuf, max: u64) -> Spool {
        Spool { folder, used: Arc::default(), max }
    }

    /// A new file.
    pub(super) fn file(&self) -> Result<SpoolWriter, ImportError> {
        let file = tempfile::tempfile_in(&self.folder).map_err(ImportError::Spool)?;
        let share = Share { used: self.used.clone(), bytes: 0 };
        Ok(SpoolWriter { out: BufWriter::with_capacity(BUFFER_BYTES, file), share, max: self.max })
    }
}

/// Bytes held back before a write.
const BUFFER_BYTES: usize = 128 << 10;

/// What one file has taken of the spool; given back when dropped.
#[derive(Debug)]
struct Share {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A temporary file that is being written.
#[derive(Debug)]
pub(super) struct SpoolWriter {
    out: BufWriter<File>,
    share: Share,
    max: u64,
}

impl SpoolWriter {
    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        let added = bytes.len() as u64;
        let used = self.share.used.fetch_add(added, Ordering::Relaxed) + added;
        self.share.bytes += added;
        if used > self.max {
            return Err(ImportError::Limit {
                limit: "import_spool_bytes",
                max: self.max,
                actual: Some(used),
                problem: format!(
                    "uploads in progress need more than the {} bytes of import_spool_bytes: try again later",
                    self.max
                ),
            });
        }
        self.out.write_all(bytes).map_err(ImportError::Spool)
    }

    /// The finished file, to be read from its start.
    pub(super) fn finish(self) -> Result<SpoolFile, ImportError> {
        let mut file = self.out.into_inner().map_err(|error| ImportError::Spool(error.into_error()))?;
        file.rewind().map_err(ImportError::Spool)?;
        Ok(SpoolFile { file, _share: self.share })
    }
}

/// A finished temporary file.
#[derive(Debug)]
pub(super) struct SpoolFile {
    file: File,
    _share: Share,
}

impl SpoolFile {
    /// The open file. Its position is the caller's to set.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_counts_all_files_and_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().to_owned(), 100);
        let mut first = spool.file().unwrap();
        first.write(&[0; 60]).unwrap();
        let first = first.finish().unwrap();
        assert_eq!(first.len().unwrap(), 60);
        let mut second = spool.file().unwrap();
        second.write(&[0; 40]).unwrap();
        let error = second.write(&[0; 1]).unwrap_err();
        assert!(matches!(error, ImportError::Limit { limit: "import_spool_bytes", .. }));
        drop((first, second));
        spool.file().unwrap().write(&[0; 100]).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files have no name");
    }

    #[test]
    fn a_missing_folder_is_an_error_that_says_so() {
        let spool = Spool::new(PathBuf::from("/nonexistent/spool"), 100);
        let error = spool.file().unwrap_err();
        assert!(error.to_string().contains("cannot keep the upload"), "{error}");
    }
}
