//! What one entry of the stream holds.
//!
//! A version, a kind, the sender, the log and the range, for a block the columns of its segment and its bytes, and a
//! CRC32C over all of it. A block decodes here exactly as one that is read from the store.

use std::sync::Arc;

use bytes::Bytes;

use super::MAX_PAYLOAD_BYTES;
use crate::bus::{Announcement, ManifestNews};
use crate::domain::{Block, Epoch, UnixNanos};

const VERSION: u8 = 1;

const RANGE: u8 = 1;
const BLOCK: u8 = 2;
const MANIFEST: u8 = 3;

/// The longest entry that is looked at.
pub(super) const MAX_MESSAGE_BYTES: usize = MAX_PAYLOAD_BYTES + 128;

/// Something to tell the other replicas.
#[derive(Clone, Debug)]
pub(super) enum Message {
    /// A committed range, to be read from the store.
    Range { epoch: Epoch, first_seq: u64, last_seq: u64 },
    /// A committed segment.
    Block { columns: Columns, bytes: Bytes },
    /// A commit of the manifest.
    Manifest(ManifestNews),
}

/// A segment's columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    epoch: Epoch,
    first_seq: u64,
    entry_count: u32,
    append_time: UnixNanos,
    chain: [u8; 16],
}

/// Bytes that are no message of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What a replica hears.
#[derive(Debug)]
pub(super) enum Heard {
    Announcement(Announcement),
    Manifest(ManifestNews),
    /// Our own words.
    Echo,
}

impl Message {
    /// What other replicas are told of an announcement. Backfill is large and nobody waits for it: its range is enough.
    pub(super) fn of(announcement: &Announcement) -> Message {
        let Announcement { epoch, first_seq, last_seq, block, bytes } = announcement;
        match (block, bytes) {
            (Some(block), Some(bytes)) if !block.backfill && bytes.len() <= MAX_PAYLOAD_BYTES => Message::Block {
                columns: Columns {
                    epoch: block.epoch,
                    first_seq: block.first_seq,
                    entry_count: block.entry_count,
                    append_time: block.append_time,
                    chain: block.chain,
                },
                bytes: bytes.clone(),
            },
            _ => Message::Range { epoch: *epoch, first_seq: *first_seq, last_seq: *last_seq },
        }
    }

    /// The log that it is about.
    pub(super) fn epoch(&self) -> Epoch {
        match self {
            Message::Range { epoch, .. } => *epoch,
            Message::Block { columns, .. } => columns.epoch,
            Message::Manifest(news) => news.epoch,
        }
    }

    pub(super) fn encode(&self, origin: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let mut begin = |kind: u8, epoch: Epoch| {
            out.extend_from_slice(&[VERSION, kind]);
            out.extend_from_slice(&origin.to_le_bytes());
            out.extend_from_slice(&epoch.0.to_le_bytes());
        };
        match self {
            Message::Range { epoch, first_seq, last_seq } => {
                begin(RANGE, *epoch);
                out.extend_from_slice(&first_seq.to_le_bytes());
                out.extend_from_slice(&last_seq.to_le_bytes());
            }
            Message::Block { columns: Columns { epoch, first_seq, entry_count, append_time, chain }, bytes } => {
                begin(BLOCK, *epoch);
                out.extend_from_slice(&first_seq.to_le_bytes());
                out.extend_from_slice(&entry_count.to_le_bytes());
                out.extend_from_slice(&append_time.nanos().to_le_bytes());
                out.extend_from_slice(chain);
                out.extend_from_slice(bytes);
            }
            Message::Manifest(ManifestNews { epoch, version }) => {
                begin(MANIFEST, *epoch);
                out.extend_from_slice(&version.to_le_bytes());
            }
        }
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads what a replica sent. Anything else, from whomever, is refused whole.
    pub(super) fn decode(bytes: &[u8], own: u64) -> Result<Heard, Malformed> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Malformed);
        }
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(Malformed)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err(Malformed);
        }
        let mut rest = body;
        let [version, kind] = take(&mut rest)?;
        if version != VERSION {
            return Err(Malformed);
        }
        if u64::from_le_bytes(take(&mut rest)?) == own {
            return Ok(Heard::Echo);
        }
        let epoch = Epoch(u64::from_le_bytes(take(&mut rest)?));
        let number = u64::from_le_bytes(take(&mut rest)?);
        match kind {
            RANGE => {
                let last_seq = u64::from_le_bytes(take(&mut rest)?);
                if last_seq < number {
                    return Err(Malformed);
                }
                let range = Announcement { epoch, first_seq: number, last_seq, block: None, bytes: None };
                Ok(Heard::Announcement(range))
            }
            BLOCK => {
                let entry_count = u32::from_le_bytes(take(&mut rest)?);
                let append_time = UnixNanos::new(i64::from_le_bytes(take(&mut rest)?)).map_err(|_| Malformed)?;
                let chain = take(&mut rest)?;
                if entry_count == 0 || number.checked_add(u64::from(entry_count)).is_none() {
                    return Err(Malformed);
                }
                let place = (epoch, number, entry_count);
                let block = Block::decode(place, append_time, false, chain, rest).map_err(|_| Malformed)?;
                Ok(Heard::Announcement(Announcement {
                    epoch,
                    first_seq: number,
                    last_seq: block.last_seq(),
                    block: Some(Arc::new(block)),
                    bytes: Some(Bytes::copy_from_slice(rest)),
                }))
            }
            MANIFEST => Ok(Heard::Manifest(ManifestNews { epoch, version: number })),
            _ => Err(Malformed),
        }
    }
}

/// The next bytes.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (bytes, behind) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    *rest = behind;
    Ok(*bytes)
}
