//! The column of trade ids: numbers where the venue counts, text where it does not.

use super::ChunkCorrupt;
use super::column::{self, Codes, Shape};
use crate::domain::TradeId;
use crate::domain::tick::MAX_TRADE_ID_BYTES;
use crate::domain::varint::{self, Reader};

/// The trade ids of a chunk.
///
/// All texts are held in one piece, so that decoding allocates once and not once a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TradeIds {
    kinds: Codes,
    /// For each tick its number or, by [`span`], its text; empty when the venue gives no ids.
    values: Vec<u64>,
    /// The texts, one after the other.
    text: String,
}

/// The kinds of [`TradeId`] as codes.
const NONE: u8 = 0;
const NUMBER: u8 = 1;
const TEXT: u8 = 2;

/// Codes stay below this.
const KINDS: u8 = 3;

/// zstd's default level: texts are rare, and mostly prefixes and counters.
const TEXT_LEVEL: i32 = 3;

/// Where a text stands among the others: its start, and its length in the lowest 8 bits.
fn span(start: usize, length: usize) -> u64 {
    (start as u64) << 8 | length as u64
}

impl TradeIds {
    /// The column of ids.
    pub(super) fn new<'a>(ids: impl Iterator<Item = &'a TradeId> + Clone) -> TradeIds {
        let kind = |id: &TradeId| match id {
            TradeId::None => NONE,
            TradeId::Number(_) => NUMBER,
            TradeId::Text(_) => TEXT,
        };
        let kinds = Codes::new(ids.clone().map(kind).collect());
        let (mut values, mut text) = (Vec::new(), String::new());
        if kinds != Codes::Same(NONE) {
            values.reserve_exact(ids.size_hint().0);
            for id in ids {
                values.push(match id {
                    TradeId::None => 0,
                    TradeId::Number(number) => *number,
                    TradeId::Text(id) => {
                        text.push_str(id);
                        span(text.len() - id.len(), id.len())
                    }
                });
            }
        }
        TradeIds { kinds, values, text }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.kinds == Codes::Same(NONE)
    }

    /// The ids, if all are numbers.
    pub(super) fn numbers(&self) -> Option<&[u64]> {
        (self.kinds == Codes::Same(NUMBER)).then_some(&self.values)
    }

    /// The id at an index.
    pub(super) fn at(&self, index: usize) -> TradeId {
        match self.kinds.at(index) {
            NONE => TradeId::None,
            NUMBER => TradeId::Number(self.values[index]),
            _ => {
                let (start, length) = ((self.values[index] >> 8) as usize, (self.values[index] & 0xff) as usize);
                TradeId::text(&self.text[start..start + length])
            }
        }
    }

    /// Whether the id at an index is this one.
    pub(super) fn is(&self, index: usize, id: &TradeId) -> bool {
        match (self.kinds.at(index), id) {
            (NONE, TradeId::None) => true,
            (NUMBER, TradeId::Number(number)) => self.values[index] == *number,
            (TEXT, TradeId::Text(_)) => self.at(index) == *id,
            _ => false,
        }
    }

    /// Memory that it holds, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.kinds.memory() + self.values.capacity() * size_of::<u64>() + self.text.capacity()
    }

    /// Appends the column: kinds, the numbers, the lengths of the texts, the texts.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        self.kinds.put(out);
        let (mut numbers, mut lengths) = (Vec::new(), Vec::new());
        for (index, &value) in self.values.iter().enumerate() {
            match self.kinds.at(index) {
                NUMBER => numbers.push(value as i64),
                TEXT => lengths.push((value & 0xff) as i64),
                _ => (),
            }
        }
        column::put(out, &numbers, Shape::Steps);
        column::put(out, &lengths, Shape::Values);
        if !lengths.is_empty() {
            let packed = zstd::bulk::compress(self.text.as_bytes(), TEXT_LEVEL).expect("the buffer is large enough");
            varint::put(out, packed.len() as u64);
            out.extend_from_slice(&packed);
        }
    }

    /// Reads the ids of `count` ticks.
    pub(super) fn take(reader: &mut Reader<'_>, count: usize) -> Result<TradeIds, ChunkCorrupt> {
        let kinds = Codes::take(reader, count, KINDS)?;
        let numbers = column::take(reader, kinds.count(NUMBER, count))?;
        if let Codes::Same(NUMBER) = kinds {
            let values = numbers.into_iter().map(|number| number as u64).collect();
            return Ok(TradeIds { kinds, values, text: String::new() });
        }
        let lengths = column::take(reader, kinds.count(TEXT, count))?;
        let text = take_text(reader, &lengths)?;
        let mut values = Vec::new();
        if kinds != Codes::Same(NONE) {
            values.reserve_exact(count);
            let (mut numbers, mut lengths) = (numbers.into_iter(), lengths.into_iter());
            let mut start = 0;
            for index in 0..count {
                let value = match kinds.at(index) {
                    NUMBER => numbers.next().map(|number| number as u64),
                    TEXT => lengths.next().map(|length| {
                        start += length as usize;
                        span(start - length as usize, length as usize)
                    }),
                    _ => Some(0),
                };
                values.push(value.expect("each column was read with as many values as there are kinds"));
            }
        }
        Ok(TradeIds { kinds, values, text })
    }
}

/// Reads texts of known lengths.
fn take_text(reader: &mut Reader<'_>, lengths: &[i64]) -> Result<String, ChunkCorrupt> {
    const DAMAGED: ChunkCorrupt = ChunkCorrupt("the texts of trade ids are damaged");
    let mut total = 0;
    for &length in lengths {
        let length = usize::try_from(length).ok().filter(|&length| length <= MAX_TRADE_ID_BYTES);
        total += length.ok_or(ChunkCorrupt("a trade id is too long"))?;
    }
    if lengths.is_empty() {
        return Ok(String::new());
    }
    let length = reader.length(reader.rest().len()).ok_or(DAMAGED)?;
    let packed = reader.bytes(length).ok_or(DAMAGED)?;
    let text = zstd::bulk::decompress(packed, total).map_err(|_| DAMAGED)?;
    let text = String::from_utf8(text).map_err(|_| DAMAGED)?;
    let mut end = 0;
    let whole = lengths.iter().all(|&length| {
        end += length as usize;
        text.is_char_boundary(end)
    });
    if whole && end == text.len() { Ok(text) } else { Err(DAMAGED) }
}
