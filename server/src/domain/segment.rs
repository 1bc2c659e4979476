//! The codec of the log's segments.

use super::{Control, Epoch, Origin, Tick};

/// The entries of one segment, split by kind; together their positions are dense.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Entries {
    /// The ticks, ascending by `log_seq`.
    pub ticks: Vec<Tick>,
    /// The other entries with their positions, ascending.
    pub controls: Vec<(u64, Control)>,
}

/// Stored bytes that are no segment: damaged, or from a newer version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment is damaged: {0}")]
pub struct SegmentCorrupt(pub &'static str);

/// Encodes entries whose positions are dense from `first_seq`. The bytes hold no absolute position and no origin.
pub fn encode(entries: &Entries, first_seq: u64) -> Vec<u8> {
    let _ = (entries, first_seq);
    todo!()
}

/// Decodes a segment's entries for the position it was stored at.
pub fn decode(bytes: &[u8], first_seq: u64, origin: Origin) -> Result<Entries, SegmentCorrupt> {
    let _ = (bytes, first_seq, origin);
    todo!()
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
pub fn chain(previous: &[u8; 16], link: Link<'_>) -> [u8; 16] {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(previous);
    hash.update(link.epoch.0.to_le_bytes());
    hash.update(link.first_seq.to_le_bytes());
    hash.update(link.entry_count.to_le_bytes());
    hash.update(link.tick_count.to_le_bytes());
    hash.update(link.append_time.to_le_bytes());
    hash.update([u8::from(link.backfill)]);
    hash.update(Sha256::digest(link.bytes));
    let mut chain = [0; 16];
    chain.copy_from_slice(&hash.finalize()[..16]);
    chain
}
