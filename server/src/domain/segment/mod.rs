//! The codec of the log's segments.
//!
//! A segment is a version, a CRC32C over everything else, the length of the body, and the body: the columns of the
//! ticks (`ticks.rs`), then the other entries (`controls.rs`), by zstd unless that would be longer. The bytes hold no
//! absolute position and no origin, because both are known only when the segment has been appended.

mod controls;
mod dictionary;
mod ticks;

#[cfg(test)]
mod tests;

use std::cell::RefCell;

use sha2::{Digest, Sha256};

use super::varint::Reader;
use super::{Control, Epoch, Origin, Tick};

/// The entries of one segment, split by kind; together their positions are dense.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Entries {
    /// The ticks, ascending by `log_seq`.
    pub ticks: Vec<Tick>,
    /// The other entries with their positions, ascending.
    pub controls: Vec<(u64, Control)>,
}

impl Entries {
    /// How many entries.
    pub fn len(&self) -> usize {
        self.ticks.len() + self.controls.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ticks.is_empty() && self.controls.is_empty()
    }
}

/// Stored bytes that are no segment: damaged, or from a newer version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment is damaged: {0}")]
pub struct SegmentCorrupt(pub &'static str);

/// Most entries of a segment: a bound on what damaged bytes may ask for.
pub const MAX_SEGMENT_ENTRIES: usize = 1 << 20;

/// Longest body before compression. The greatest number of ticks fits at their greatest length, 120 bytes.
pub const MAX_BODY_BYTES: usize = 1 << 27;

const VERSION: u8 = 1;

/// Version, checksum, length of the body.
const HEADER_BYTES: usize = 9;

/// Bodies shorter than this are not worth a try: zstd's own header costs more than it saves.
const MIN_ZSTD_BYTES: usize = 256;

/// The fastest regular level; higher ones take several times as long for a tenth of the bytes.
const ZSTD_LEVEL: i32 = 1;

thread_local! {
    // The tables of a compression context take longer to make than a small segment takes to compress, and fresh memory
    // longer to touch than a body to write. Each thread keeps its own.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// What one thread keeps between segments.
#[derive(Default)]
struct Workspace {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
    /// A body before compression.
    body: Vec<u8>,
    /// A body after compression.
    packed: Vec<u8>,
}

/// Bodies longer than this are rare and give their memory back.
const KEPT_BODY_BYTES: usize = 1 << 20;

impl Workspace {
    /// Gives back what an unusually long body took.
    fn trim(&mut self) {
        for buffer in [&mut self.body, &mut self.packed] {
            if buffer.capacity() > KEPT_BODY_BYTES {
                *buffer = Vec::new();
            }
        }
    }
}

/// Encodes entries whose positions are dense from `first_seq`. The bytes hold no absolute position and no origin.
///
/// Stops on entries that no reader would accept: a writer that goes on would lose them.
pub fn encode(entries: &Entries, first_seq: u64) -> Vec<u8> {
    assert!(entries.len() <= MAX_SEGMENT_ENTRIES, "the writer cuts its groups at {MAX_SEGMENT_ENTRIES} entries");
    WORKSPACE.with_borrow_mut(|workspace| {
        workspace.body.clear();
        ticks::put(&mut workspace.body, &entries.ticks);
        controls::put(&mut workspace.body, &entries.controls, first_seq);
        assert!(workspace.body.len() <= MAX_BODY_BYTES, "the writer's groups are far below {MAX_BODY_BYTES} bytes");
        let segment = workspace.seal();
        workspace.trim();
        segment
    })
}

/// Decodes a segment's entries for the position it was stored at.
pub fn decode(bytes: &[u8], first_seq: u64, origin: Origin) -> Result<Entries, SegmentCorrupt> {
    let (header, stored) = bytes.split_at_checked(HEADER_BYTES).ok_or(SegmentCorrupt("it is cut off"))?;
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("a slice of four bytes"));
    if checksum(bytes) != number(1) {
        return Err(SegmentCorrupt("the checksum differs"));
    }
    if header[0] != VERSION {
        return Err(SegmentCorrupt("not a version that this program knows"));
    }
    let length = number(5) as usize;
    if length > MAX_BODY_BYTES {
        return Err(SegmentCorrupt("the body is too long"));
    }
    if stored.len() == length {
        return take(stored, first_seq, origin);
    }
    WORKSPACE.with_borrow_mut(|workspace| {
        let entries = workspace.unpack(stored, length).and_then(|()| take(&workspace.body, first_seq, origin));
        workspace.trim();
        entries
    })
}

/// The kind and the bytes of one entry that is not a tick. They never change, so that digests may cover them.
pub fn control_bytes(control: &Control) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    let kind = controls::put_control(&mut bytes, control);
    (kind, bytes)
}

/// Reads the entries of a body.
fn take(body: &[u8], first_seq: u64, origin: Origin) -> Result<Entries, SegmentCorrupt> {
    let mut reader = Reader::new(body);
    let mut ticks = ticks::take(&mut reader, first_seq, origin)?;
    let controls = controls::take(&mut reader, first_seq, ticks.len())?;
    if !reader.is_empty() {
        return Err(SegmentCorrupt("bytes after the end"));
    }
    let entry_count = (ticks.len() + controls.len()) as u64;
    if first_seq.checked_add(entry_count).is_none() {
        return Err(SegmentCorrupt("its positions are out of range"));
    }
    // Ticks were numbered as if they were alone; each other entry moves those after it up by one.
    let mut moved = 0;
    for (index, (log_seq, _)) in controls.iter().enumerate() {
        let before = (log_seq - first_seq) as usize - index;
        for tick in &mut ticks[moved..before] {
            tick.log_seq += index as u64;
        }
        moved = before;
    }
    for tick in &mut ticks[moved..] {
        tick.log_seq += controls.len() as u64;
    }
    Ok(Entries { ticks, controls })
}

/// CRC32C over everything but the checksum itself.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..1]), &bytes[5..])
}

impl Workspace {
    /// The segment of the body: header, and the body by zstd unless that is not shorter.
    fn seal(&mut self) -> Vec<u8> {
        let Workspace { compressor, body, packed, .. } = self;
        packed.clear();
        if body.len() >= MIN_ZSTD_BYTES {
            let compressor = compressor.get_or_insert_with(|| {
                let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("the level exists");
                // The header has the length already.
                compressor.include_contentsize(false).expect("the parameter exists");
                compressor
            });
            packed.reserve(zstd::zstd_safe::compress_bound(body.len()));
            compressor.compress_to_buffer(body, packed).expect("the buffer is large enough for any body");
        }
        let stored = if packed.is_empty() || packed.len() >= body.len() { &body } else { &packed };
        let mut out = Vec::with_capacity(HEADER_BYTES + stored.len());
        out.push(VERSION);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(stored);
        let checksum = checksum(&out);
        out[1..5].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Unpacks a body of a known, bounded length.
    fn unpack(&mut self, packed: &[u8], length: usize) -> Result<(), SegmentCorrupt> {
        let decompressor = self
            .decompressor
            .get_or_insert_with(|| zstd::bulk::Decompressor::new().expect("there is memory for a context"));
        self.body.clear();
        self.body.reserve(length);
        let unpacked = decompressor.decompress_to_buffer(packed, &mut self.body);
        unpacked.map_err(|_| SegmentCorrupt("the body is not readable by zstd"))?;
        if self.body.len() == length { Ok(()) } else { Err(SegmentCorrupt("the body's length is not the header's")) }
    }
}

/// What a segment's chain value covers beside its predecessor's.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// The log.
    pub epoch: Epoch,
    /// Position of the first entry.
    pub first_seq: u64,
    /// How many entries.
    pub entry_count: u32,
    /// How many ticks.
    pub tick_count: u32,
    /// Nanoseconds since 1970.
    pub append_time: i64,
    /// Whether it is backfill.
    pub backfill: bool,
    /// The encoded entries.
    pub bytes: &'a [u8],
}

/// The chain value of a segment: the first 16 bytes of SHA-256 over the predecessor's chain value and the link.
///
/// The link's fields have fixed widths, little-endian, in their order, so that the bytes of no two links agree.
pub fn chain(previous: &[u8; 16], link: Link<'_>) -> [u8; 16] {
    let Link { epoch, first_seq, entry_count, tick_count, append_time, backfill, bytes } = link;
    let digest = Sha256::new()
        .chain_update(previous)
        .chain_update(epoch.0.to_le_bytes())
        .chain_update(first_seq.to_le_bytes())
        .chain_update(entry_count.to_le_bytes())
        .chain_update(tick_count.to_le_bytes())
        .chain_update(append_time.to_le_bytes())
        .chain_update([u8::from(backfill)])
        .chain_update(bytes)
        .finalize();
    let mut chain = [0; 16];
    chain.copy_from_slice(&digest[..16]);
    chain
}
