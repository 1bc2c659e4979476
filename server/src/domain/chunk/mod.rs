//! The codec of history's chunks: seven columns of one instrument and one UTC day, compressed by pco.
//!
//! A [`Chunk`] holds the decoded columns; queries read those and assemble ticks only to hand them out. Sums, extremes and
//! bars need no more than its [`Points`].
//! Prices and quantities are mantissas at one exponent each, which is why [`cuts`] may end a chunk early. The bytes
//! begin with a version and end with a CRC32C over everything before it; see `codec.rs` for their order. Sums up to an
//! instant need a page of them alone: a [`StoredChunk`] has its checksum verified once, and gives a [`Prefix`].

mod codec;
mod column;
mod index;
mod points;
mod prefix;
mod stored;
mod trade_ids;

#[cfg(test)]
mod tests;

use std::ops::{Deref, Range};
use std::sync::Arc;

use column::Codes;
use index::Index;
use trade_ids::TradeIds;

use super::scale::Scale;
use super::varint::Reader;
use super::{Decimal, InstrumentId, Origin, Side, Tick, TradeId, UnixNanos};

pub use points::Points;
pub use prefix::Prefix;
pub use stored::StoredChunk;

/// Ticks in a full chunk.
pub const CHUNK_TICKS: usize = 4_096;

/// Most ticks that a chunk can hold: a bound on what damaged bytes may ask for.
pub const MAX_CHUNK_TICKS: usize = 1 << 20;

/// Stored bytes that are no chunk: damaged, or from a newer version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk is damaged: {0}")]
pub struct ChunkCorrupt(pub &'static str);

/// A decoded chunk: its [`Points`], and the columns that only ticks as a whole need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    instrument: InstrumentId,
    points: Arc<Points>,
    receive_times: Vec<i64>,
    /// 1 where a quantity is present.
    present: Codes,
    sides: Codes,
    trade_ids: TradeIds,
    /// 1 where a tick is backfill.
    backfill: Codes,
}

impl Deref for Chunk {
    type Target = Points;

    fn deref(&self) -> &Points {
        &self.points
    }
}

/// Cuts ticks sorted by (event_time, log_seq), of one instrument and one UTC day, into ranges that each fit one chunk:
/// at most `most` ticks, one price exponent, one quantity exponent.
pub fn cuts(ticks: &[Tick], most: usize) -> Vec<Range<usize>> {
    let most = most.clamp(1, MAX_CHUNK_TICKS);
    let mut ranges = Vec::with_capacity(ticks.len() / most + 1);
    let mut start = 0;
    let (mut prices, mut quantities) = (Scale::default(), Scale::default());
    for (index, tick) in ticks.iter().enumerate() {
        let fits = index - start < most
            && prices.widen(tick.price)
            && tick.quantity.is_none_or(|quantity| quantities.widen(quantity));
        if !fits {
            ranges.push(start..index);
            start = index;
            // One tick alone always fits.
            prices = Scale::of(tick.price);
            quantities = tick.quantity.map(Scale::of).unwrap_or_default();
        }
    }
    if start < ticks.len() {
        ranges.push(start..ticks.len());
    }
    ranges
}

/// Encodes ticks that fit one chunk, by [`cuts`].
pub fn encode(ticks: &[Tick]) -> Vec<u8> {
    Chunk::from_ticks(ticks).encode()
}

/// Decodes a chunk of an instrument that is read once.
///
/// # Errors
///
/// The bytes are not those of a chunk as it was written, or of a newer version.
pub fn decode(bytes: &[u8], instrument: InstrumentId) -> Result<Chunk, ChunkCorrupt> {
    Ok(codec::chunk(codec::verified(bytes)?, instrument)?.0)
}

/// Decodes what an instrument's ticks were encoded to, before it takes their place: a defect of the codec must not lose
/// any.
///
/// # Errors
///
/// The bytes are no chunk, or one of other ticks or other sums.
pub fn read_back(bytes: &[u8], instrument: InstrumentId, ticks: &[Tick]) -> Result<Chunk, ChunkCorrupt> {
    let (chunk, index) = codec::chunk(codec::verified(bytes)?, instrument)?;
    if !chunk.holds(ticks) {
        return Err(ChunkCorrupt("it reads back as other ticks"));
    }
    if index.pages.len() > 1 && Index::of(&chunk, index.page_ticks) != Some(index) {
        return Err(ChunkCorrupt("its index reads back with other sums"));
    }
    Ok(chunk)
}

impl Chunk {
    /// The columns of ticks that fit one chunk, by [`cuts`]. Stops on ticks that do not: their bytes would be unreadable.
    pub fn from_ticks(ticks: &[Tick]) -> Chunk {
        let first = ticks.first().expect("a chunk has at least one tick");
        assert!(ticks.len() <= MAX_CHUNK_TICKS, "a chunk is cut at {MAX_CHUNK_TICKS} ticks");
        assert!(ticks.is_sorted_by_key(Tick::key), "a chunk's ticks are sorted by (event_time, log_seq)");
        assert!(ticks.iter().all(|tick| tick.instrument == first.instrument), "a chunk has one instrument");
        const CUT: &str = "ticks were cut where their exponents drift apart";
        let (mut prices, mut quantities) = (Scale::default(), Scale::default());
        for tick in ticks {
            assert!(prices.widen(tick.price) && tick.quantity.is_none_or(|value| quantities.widen(value)), "{CUT}");
        }
        let price_exponent = prices.exponent();
        let quantity_exponent = quantities.exponent();
        let present = Codes::new(ticks.iter().map(|tick| u8::from(tick.quantity.is_some())).collect());
        let quantities = if present == Codes::Same(0) {
            Vec::new()
        } else {
            let quantity =
                |tick: &Tick| tick.quantity.map_or(0, |value| value.mantissa_at(quantity_exponent).expect(CUT));
            ticks.iter().map(quantity).collect()
        };
        let points = Points {
            event_times: ticks.iter().map(|tick| tick.event_time.nanos()).collect(),
            log_seqs: ticks.iter().map(|tick| tick.log_seq).collect(),
            price_exponent,
            prices: ticks.iter().map(|tick| tick.price.mantissa_at(price_exponent).expect(CUT)).collect(),
            quantity_exponent,
            quantities,
        };
        Chunk {
            instrument: first.instrument,
            points: Arc::new(points),
            receive_times: ticks.iter().map(|tick| tick.receive_time.nanos()).collect(),
            present,
            sides: Codes::new(ticks.iter().map(|tick| tick.side as u8).collect()),
            trade_ids: TradeIds::new(ticks.iter().map(|tick| &tick.trade_id)),
            backfill: Codes::new(ticks.iter().map(|tick| u8::from(tick.origin == Origin::Backfill)).collect()),
        }
    }

    /// Whose ticks.
    pub fn instrument(&self) -> InstrumentId {
        self.instrument
    }

    /// The columns that sums, extremes and bars are made of.
    pub fn points(&self) -> &Arc<Points> {
        &self.points
    }

    /// The tick at an index.
    pub fn tick(&self, index: usize) -> Tick {
        Tick {
            instrument: self.instrument,
            log_seq: self.log_seqs[index],
            event_time: self.event_time(index),
            receive_time: UnixNanos::new(self.receive_times[index]).expect("decoding checked every time"),
            price: self.price_at(index),
            quantity: self.quantity(index),
            side: self.side(index),
            trade_id: self.trade_ids.at(index),
            origin: self.origin(index),
        }
    }

    /// All ticks in order.
    pub fn ticks(&self) -> impl DoubleEndedIterator<Item = Tick> + ExactSizeIterator {
        (0..self.len()).map(|index| self.tick(index))
    }

    /// Whether these are its ticks. Numbers are compared where they stand: assembling ticks takes several times as long.
    pub fn holds(&self, ticks: &[Tick]) -> bool {
        self.len() == ticks.len() && ticks.iter().enumerate().all(|(index, tick)| self.holds_at(index, tick))
    }

    fn holds_at(&self, index: usize, tick: &Tick) -> bool {
        let Tick { instrument, log_seq, event_time, receive_time, price, quantity, side, trade_id, origin } = tick;
        let same_quantity = match quantity {
            Some(quantity) => {
                self.present.at(index) == 1
                    && quantity.mantissa_at(self.quantity_exponent) == Some(self.quantities[index])
            }
            None => self.present.at(index) == 0,
        };
        *instrument == self.instrument
            && *log_seq == self.log_seqs[index]
            && event_time.nanos() == self.event_times[index]
            && receive_time.nanos() == self.receive_times[index]
            && price.mantissa_at(self.price_exponent) == Some(self.prices[index])
            && same_quantity
            && *side as u8 == self.sides.at(index)
            && self.trade_ids.is(index, trade_id)
            && *origin == self.origin(index)
    }

    /// Receive times in nanoseconds since 1970, in the order of the event times.
    pub fn receive_times(&self) -> &[i64] {
        &self.receive_times
    }

    /// The quantity at an index.
    pub fn quantity(&self, index: usize) -> Option<Decimal> {
        (self.present.at(index) == 1).then(|| decimal(self.quantities[index], self.quantity_exponent))
    }

    /// Whether the tick at an index has a quantity.
    #[inline]
    pub fn has_quantity(&self, index: usize) -> bool {
        self.present.at(index) == 1
    }

    /// The aggressor of all ticks, if it is the same.
    pub fn same_side(&self) -> Option<Side> {
        self.sides.same().map(|code| Side::from_code(code).expect("decoding checked every side"))
    }

    /// How all ticks came into the log, if it is the same.
    pub fn same_origin(&self) -> Option<Origin> {
        self.backfill.same().map(|_| self.origin(0))
    }

    /// Whether any tick has a trade id.
    pub fn has_trade_ids(&self) -> bool {
        !self.trade_ids.is_empty()
    }

    /// The trade ids, if all are numbers, in the order of the event times.
    pub fn trade_numbers(&self) -> Option<&[u64]> {
        self.trade_ids.numbers()
    }

    /// The aggressor at an index.
    pub fn side(&self, index: usize) -> Side {
        Side::from_code(self.sides.at(index)).expect("decoding checked every side")
    }

    /// The trade id at an index.
    pub fn trade_id(&self, index: usize) -> TradeId {
        self.trade_ids.at(index)
    }

    /// How the tick at an index came into the log.
    pub fn origin(&self, index: usize) -> Origin {
        if self.backfill.at(index) == 1 { Origin::Backfill } else { Origin::Live }
    }

    /// Memory that it holds, in bytes.
    pub fn memory(&self) -> usize {
        let received = self.receive_times.capacity() * size_of::<u64>();
        let codes = self.present.memory() + self.sides.memory() + self.backfill.memory();
        size_of::<Chunk>() + self.points.memory() + received + codes + self.trade_ids.memory()
    }
}

/// The canonical form of a checked mantissa.
fn decimal(mantissa: i64, exponent: i8) -> Decimal {
    Decimal::new(mantissa, exponent.into()).expect("decoding checked every mantissa against the door rule")
}
