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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::segment::{self, Entries};
    use crate::domain::{Decimal, InstrumentId, Origin, Side, Tick, TradeId};

    fn announcement(ticks: usize, backfill: bool) -> Announcement {
        let time = UnixNanos::new(1_700_000_000_000_000_000).unwrap();
        let tick = |index: usize| Tick {
            instrument: InstrumentId(1),
            log_seq: 7 + index as u64,
            event_time: time,
            receive_time: time,
            price: Decimal::new(index as i64 * 7_919 % 1_000, -2).unwrap(),
            quantity: None,
            side: Side::Buy,
            trade_id: TradeId::Number((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            origin: if backfill { Origin::Backfill } else { Origin::Live },
        };
        let entries = Entries { ticks: (0..ticks).map(tick).collect(), controls: Vec::new() };
        let bytes = Bytes::from(segment::encode(&entries, 7));
        let place = (Epoch(3), 7, ticks as u32);
        let block = Block::decode(place, time, backfill, [9; 16], &bytes).unwrap();
        let last_seq = block.last_seq();
        Announcement { epoch: Epoch(3), first_seq: 7, last_seq, block: Some(Arc::new(block)), bytes: Some(bytes) }
    }

    #[test]
    fn a_block_comes_out_as_it_went_in_and_an_echo_is_known() {
        let sent = announcement(20, false);
        let bytes = Message::of(&sent).encode(1);
        let Ok(Heard::Announcement(heard)) = Message::decode(&bytes, 2) else { panic!("it is an announcement") };
        let (one, other) = (sent.block.as_ref().unwrap(), heard.block.as_ref().unwrap());
        assert_eq!((one.epoch, one.first_seq, one.chain), (other.epoch, other.first_seq, other.chain));
        assert_eq!(one.entries, other.entries);
        assert_eq!((sent.bytes, sent.last_seq), (heard.bytes, heard.last_seq));
        assert!(matches!(Message::decode(&bytes, 1), Ok(Heard::Echo)));
    }

    #[test]
    fn what_is_large_or_backfill_is_told_as_a_range() {
        let large = Announcement { bytes: Some(vec![7; MAX_PAYLOAD_BYTES + 1].into()), ..announcement(3, false) };
        for sent in [large, announcement(3, true)] {
            let bytes = Message::of(&sent).encode(1);
            assert!(bytes.len() < 100, "{}", bytes.len());
            let Ok(Heard::Announcement(heard)) = Message::decode(&bytes, 2) else { panic!("it is an announcement") };
            assert_eq!((heard.first_seq, heard.last_seq), (sent.first_seq, sent.last_seq));
            assert!(heard.block.is_none() && heard.bytes.is_none());
        }
    }

    #[test]
    fn a_flipped_bit_a_cut_and_foreign_bytes_are_refused() {
        let news = Message::Manifest(ManifestNews { epoch: Epoch(3), version: 8 });
        for message in [Message::of(&announcement(20, false)), Message::of(&announcement(3, true)), news] {
            let bytes = message.encode(1);
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Message::decode(&damaged, 2).err(), Some(Malformed), "bit {bit}");
            }
            for length in 0..bytes.len() {
                assert_eq!(Message::decode(&bytes[..length], 2).err(), Some(Malformed), "{length} bytes");
            }
        }
        assert_eq!(Message::decode(&vec![0; 10 << 20], 2).err(), Some(Malformed));
    }
}
