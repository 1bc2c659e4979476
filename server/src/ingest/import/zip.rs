//! Zip archives with one data entry.
//!
//! Only what an upload needs is read, in bounded memory: the table of contents, up to [`MAX_ENTRIES`], and one entry,
//! stored or deflated. Numbers that the archive tells are compared with the file and the limits before they are
//! believed. Resource forks and folders are passed over.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write as _};

use flate2::Crc;
use flate2::write::DeflateDecoder;

use super::content::{Content, Spooled};
use super::error::{FileDefect, ImportError, clipped};
use super::limits::Limits;
use super::spool::SpoolFile;

/// Most entries of an archive, resource forks and folders included.
const MAX_ENTRIES: u64 = 1_000;

/// Length of the record at the end of an archive, without its comment.
const END_BYTES: usize = 22;

/// Longest comment after that record.
const MAX_COMMENT_BYTES: u64 = 0xFFFF;

/// Length of the record that leads to the large form of the end.
const LOCATOR_BYTES: u64 = 20;

const ENTRY_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;
const ENCRYPTED: u16 = 1;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Where the table of contents lies.
#[derive(Clone, Copy, Debug)]
struct Table {
    entries: u64,
    offset: u64,
}

/// What the table of contents says about the data entry.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    unpacked: u64,
    offset: u64,
}

/// Unpacks the data entry of an archive into `content`.
pub(super) fn unpack(archive: &SpoolFile, mut content: Content, limits: &Limits) -> Result<Spooled, ImportError> {
    let length = archive.len().map_err(ImportError::Spool)?;
    let mut reader = BufReader::new(archive.file());
    let table = find_table(&mut reader, length).map_err(|error| read_failed(error, length))?;
    let entry = data_entry(&mut reader, table)?;
    check_entry(&entry, limits)?;

    let mut local = [0; LOCAL_BYTES];
    reader
        .seek(SeekFrom::Start(entry.offset))
        .and_then(|_| reader.read_exact(&mut local))
        .map_err(|error| read_failed(error, length))?;
    if !local.starts_with(b"PK\x03\x04") {
        return Err(damaged("an entry does not begin where the table of contents says"));
    }
    let skip = i64::from(u16_at(&local, 26)) + i64::from(u16_at(&local, 28));
    reader.seek_relative(skip).map_err(|error| read_failed(error, length))?;

    let unpacked = inflate(&mut reader, &entry, &mut content)
        .map_err(|error| ImportError::from_io(error, |error| read_failed(error, length)))?;
    if unpacked.amount != entry.unpacked || unpacked.crc != entry.crc {
        return Err(damaged("the entry's size or checksum is wrong"));
    }
    content.finish()
}

/// Finds the record at the end of an archive, and the table of contents by it.
fn find_table(reader: &mut BufReader<&File>, length: u64) -> io::Result<Table> {
    let tail = length.min(END_BYTES as u64 + MAX_COMMENT_BYTES);
    let mut bytes = vec![0; tail as usize];
    reader.seek(SeekFrom::Start(length - tail))?;
    reader.read_exact(&mut bytes)?;
    let last = bytes.len().checked_sub(END_BYTES).ok_or_else(truncated)?;
    let at = (0..=last)
        .rev()
        .find(|&at| {
            bytes[at..].starts_with(b"PK\x05\x06")
                && at + END_BYTES + usize::from(u16_at(&bytes, at + 20)) == bytes.len()
        })
        .ok_or_else(truncated)?;
    let end = &bytes[at..];
    let table = Table { entries: u64::from(u16_at(end, 10)), offset: u64::from(u32_at(end, 16)) };
    if table.entries < 0xFFFF && table.offset < 0xFFFF_FFFF {
        return Ok(table);
    }
    // The large form has its own end record, and the one just read is preceded by where that lies.
    let end_offset = length - tail + at as u64;
    let mut locator = [0; LOCATOR_BYTES as usize];
    reader.seek(SeekFrom::Start(end_offset.checked_sub(LOCATOR_BYTES).ok_or_else(truncated)?))?;
    reader.read_exact(&mut locator)?;
    if !locator.starts_with(b"PK\x06\x07") {
        return Ok(table);
    }
    let mut large = [0; 56];
    reader.seek(SeekFrom::Start(u64_at(&locator, 8)))?;
    reader.read_exact(&mut large)?;
    if !large.starts_with(b"PK\x06\x06") {
        return Err(truncated());
    }
    Ok(Table { entries: u64_at(&large, 32), offset: u64_at(&large, 48) })
}

/// Reads the table of contents and picks the one entry that holds data.
fn data_entry(reader: &mut BufReader<&File>, table: Table) -> Result<Entry, ImportError> {
    if table.entries > MAX_ENTRIES {
        return Err(FileDefect::new(format!("the zip has {} entries: pack one file alone", table.entries)).into());
    }
    let broken = |_| damaged("its table of contents is cut off");
    reader.seek(SeekFrom::Start(table.offset)).map_err(broken)?;
    let mut found: Option<Entry> = None;
    for _ in 0..table.entries {
        let entry = read_entry(reader).map_err(broken)?;
        if is_no_data(&entry.name) {
            continue;
        }
        if let Some(found) = &found {
            return Err(FileDefect::new(format!(
                "the zip holds several files, {:?} and {:?} among them: pack one file alone",
                clipped(&found.name, 80),
                clipped(&entry.name, 80)
            ))
            .into());
        }
        found = Some(entry);
    }
    found.ok_or_else(|| FileDefect::new("the zip holds no file").into())
}

fn read_entry(reader: &mut BufReader<&File>) -> io::Result<Entry> {
    let mut fixed = [0; ENTRY_BYTES];
    reader.read_exact(&mut fixed)?;
    if !fixed.starts_with(b"PK\x01\x02") {
        return Err(truncated());
    }
    let mut name = vec![0; usize::from(u16_at(&fixed, 28))];
    reader.read_exact(&mut name)?;
    let mut extra = vec![0; usize::from(u16_at(&fixed, 30))];
    reader.read_exact(&mut extra)?;
    reader.seek_relative(i64::from(u16_at(&fixed, 32)))?;
    let mut entry = Entry {
        name: String::from_utf8_lossy(&name).into_owned(),
        flags: u16_at(&fixed, 8),
        method: u16_at(&fixed, 10),
        crc: u32_at(&fixed, 16),
        packed: u64::from(u32_at(&fixed, 20)),
        unpacked: u64::from(u32_at(&fixed, 24)),
        offset: u64::from(u32_at(&fixed, 42)),
    };
    widen(&mut entry, &extra);
    Ok(entry)
}

/// Takes the numbers that do not fit 32 bits from the extra field, where they stand in this order.
fn widen(entry: &mut Entry, mut extra: &[u8]) {
    while extra.len() >= 4 {
        let (kind, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let mut body = &extra[4..extra.len().min(4 + length)];
        if kind == 1 {
            for number in [&mut entry.unpacked, &mut entry.packed, &mut entry.offset] {
                if *number == 0xFFFF_FFFF && body.len() >= 8 {
                    *number = u64_at(body, 0);
                    body = &body[8..];
                }
            }
        }
        extra = &extra[extra.len().min(4 + length)..];
    }
}

/// Folders, and what macOS puts beside a file.
fn is_no_data(name: &str) -> bool {
    let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
    name.ends_with('/') || name.starts_with("__MACOSX/") || last.starts_with("._") || last == ".DS_Store"
}

/// Refuses an entry for what its table says, before a byte of it is unpacked.
fn check_entry(entry: &Entry, limits: &Limits) -> Result<(), ImportError> {
    let name = clipped(&entry.name, 80);
    if entry.flags & ENCRYPTED != 0 {
        return Err(FileDefect::new(format!("{name:?} is encrypted: pack it without a password")).into());
    }
    if entry.method != STORED && entry.method != DEFLATED {
        return Err(FileDefect::new(format!(
            "{name:?} is packed by method {}: stored and deflated entries are read",
            entry.method
        ))
        .into());
    }
    if entry.unpacked > limits.content_bytes {
        let max = limits.content_bytes;
        return Err(ImportError::Limit {
            limit: "import_content_bytes",
            max,
            actual: Some(entry.unpacked),
            problem: format!("the file unpacks to more than the {max} bytes of import_content_bytes: split it"),
        });
    }
    Ok(())
}

/// What came out of an entry.
struct Unpacked {
    amount: u64,
    crc: u32,
}

/// Passes an entry's bytes on, counted and summed, and never more than it says it has.
struct Counted<'a> {
    content: &'a mut Content,
    crc: Crc,
    amount: u64,
    max: u64,
}

impl io::Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.amount += bytes.len() as u64;
        if self.amount > self.max {
            return Err(damaged("the entry is larger than it says").into_io());
        }
        self.crc.update(bytes);
        self.content.push(bytes).map_err(ImportError::into_io)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn inflate(reader: &mut BufReader<&File>, entry: &Entry, content: &mut Content) -> io::Result<Unpacked> {
    let counted = Counted { content, crc: Crc::new(), amount: 0, max: entry.unpacked };
    let mut packed = reader.take(entry.packed);
    let mut buffer = vec![0; 64 << 10];
    let mut taken = 0;
    if entry.method == STORED {
        let mut out = counted;
        loop {
            let count = packed.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            out.write_all(&buffer[..count])?;
        }
        return Ok(Unpacked { amount: out.amount, crc: out.crc.sum() });
    }
    let mut decoder = DeflateDecoder::new(counted);
    loop {
        let count = packed.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        taken += count as u64;
        decoder.get_mut().content.set_packed(taken);
        decoder.write_all(&buffer[..count])?;
    }
    let out = decoder.finish()?;
    Ok(Unpacked { amount: out.amount, crc: out.crc.sum() })
}

fn damaged(problem: &str) -> ImportError {
    FileDefect::new(format!("the zip is damaged: {problem}")).into()
}

fn truncated() -> io::Error {
    io::Error::from(io::ErrorKind::UnexpectedEof)
}

/// An archive that contradicts itself is the client's; a disk that does not read is ours.
fn read_failed(error: io::Error, length: u64) -> ImportError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidData
        | io::ErrorKind::WriteZero => {
            FileDefect::at_byte(length, "the zip is truncated or damaged: its end, or an entry, is missing").into()
        }
        _ => ImportError::Spool(error),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
