//! What a power cut would leave of a store: recorded writes, of which only the synced ones are certain.
//!
//! Reads the same records as [`crate::strace`]. A write is on the disk if a sync of its file began after it had
//! returned and had returned at the moment of the cut; whether any other write is there, a lottery decides.

use std::collections::BTreeMap;
use std::path::Path;

use crate::strace::{self, Call};

/// The suffixes of the files that make up a store; the shared memory beside them does not outlive a process.
const SUFFIXES: [&str; 2] = ["", "-wal"];

/// A record of a server's calls.
#[derive(Debug)]
pub struct Record {
    /// Writes, in the order in which they began.
    writes: Vec<Call>,
    /// Where each sync of a file begins and ends.
    syncs: BTreeMap<String, Vec<(usize, usize)>>,
    /// The lines on which acknowledgements were about to be sent.
    acknowledged: Vec<usize>,
}

impl Record {
    /// Reads a record.
    pub fn read(trace: &str) -> Record {
        let calls = strace::read(trace);
        let acknowledged = strace::acknowledgements(&calls, &mut Vec::new()).iter().map(|sent| sent.begin).collect();
        let mut record = Record { writes: Vec::new(), syncs: BTreeMap::new(), acknowledged };
        for call in calls {
            match call.name.as_str() {
                "pwrite64" | "ftruncate" if call.result >= 0 => record.writes.push(call),
                "fsync" | "fdatasync" if call.result == 0 => {
                    record.syncs.entry(call.file).or_default().push((call.begin, call.end));
                }
                _ => (),
            }
        }
        record.writes.sort_by_key(|call| call.begin);
        record
    }

    /// The lines between the first acknowledgement and the last.
    pub fn lines(&self) -> std::ops::Range<usize> {
        let first = self.acknowledged.first().expect("something was acknowledged");
        let last = self.acknowledged.last().expect("something was acknowledged");
        *first..*last + 1
    }

    /// How many acknowledgements may have left before a line.
    pub fn acknowledged_before(&self, line: usize) -> usize {
        self.acknowledged.iter().filter(|sent| **sent <= line).count()
    }

    /// Writes what a cut at a line leaves of the store `name` into a folder, and returns how many writes were in the
    /// lottery.
    pub fn cut(&self, line: usize, name: &str, folder: &Path, mut lottery: impl FnMut() -> bool) -> usize {
        let mut uncertain = 0;
        for suffix in SUFFIXES {
            let file_name = format!("{name}{suffix}");
            let mut content: Vec<u8> = Vec::new();
            let ours = |call: &&Call| call.file.ends_with(&format!("/{file_name}")) && call.begin <= line;
            for write in self.writes.iter().filter(ours) {
                let syncs = self.syncs.get(&write.file).map_or(&[][..], Vec::as_slice);
                let synced = syncs.iter().any(|(begin, end)| *begin > write.end && *end <= line);
                uncertain += usize::from(!synced);
                if synced || lottery() {
                    apply(write, &mut content);
                }
            }
            std::fs::write(folder.join(file_name), content).expect("the folder takes files");
        }
        uncertain
    }
}

fn apply(write: &Call, content: &mut Vec<u8>) {
    let at = write.last.expect("these calls end with a number") as usize;
    if write.name == "ftruncate" {
        content.resize(at, 0);
        return;
    }
    let count = write.result as usize;
    assert!(write.bytes.len() >= count, "line {}: a write was not recorded as a whole", write.begin + 1);
    let end = at + count;
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(&write.bytes[..count]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file is written, synced, and written again.
    const TRACE: &str = r#"7 1.0 pwrite64(5</d/a.db>, "abcd", 4, 0) = 4
7 1.0 fsync(5</d/a.db>) = 0
7 1.0 pwrite64(5</d/a.db>, "XY", 2, 1) = 2
7 1.0 pwrite64(6</d/a.db-wal>, "wal\0", 4, 2) = 4
7 1.0 fdatasync(6</d/a.db-wal>) = 0
7 1.0 ftruncate(6</d/a.db-wal>, 3) = 0
7 1.0 pwrite64(8</d/b.db>, "other", 5, 0) = 5
"#;

    fn cut(line: usize, luck: bool) -> (usize, Vec<u8>, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder");
        let uncertain = Record::read(TRACE).cut(line, "a.db", folder.path(), || luck);
        let content = |name: &str| std::fs::read(folder.path().join(name)).expect("it was written");
        (uncertain, content("a.db"), content("a.db-wal"))
    }

    #[test]
    fn only_what_was_synced_is_certain() {
        let empty = Vec::new;
        assert_eq!(cut(0, false), (1, empty(), empty()));
        assert_eq!(cut(1, false), (0, b"abcd".to_vec(), empty()));
        assert_eq!(cut(3, false), (2, b"abcd".to_vec(), empty()));
        assert_eq!(cut(4, false), (1, b"abcd".to_vec(), b"\0\0wal\0".to_vec()));
        assert_eq!(cut(6, false), (2, b"abcd".to_vec(), b"\0\0wal\0".to_vec()));
        assert_eq!(cut(6, true), (2, b"aXYd".to_vec(), b"\0\0w".to_vec()));
    }
}
