//! The bytes of a chunk.
//!
//! Version, count of ticks, exponents, the index of pages, then the columns: event times, prices, presence of
//! quantities, quantities, positions, receive times, sides, trade ids, origins; CRC32C at the end. The checksum is
//! verified before anything else is believed, and what follows is checked all the same: a value that decodes is valid.
//! The first version had no index, and positions and receive times before the prices.

use std::ops::Range;
use std::sync::Arc;

use super::column::{self, Codes, Shape};
use super::index::Index;
use super::trade_ids::TradeIds;
use super::{Chunk, ChunkCorrupt, MAX_CHUNK_TICKS, Points};
use crate::domain::decimal::{MAX_DECIMALS, MAX_MAGNITUDE, POW10};
use crate::domain::time_unit::TimeUnit;
use crate::domain::varint::{self, Reader, zigzag};
use crate::domain::{InstrumentId, Side};

const VERSION: u8 = 2;
const FIRST_VERSION: u8 = 1;

/// Ticks of a page. An edge of a sum reads one of each column, half of it on the average: 9 us, where half a chunk takes
/// 26. Pages of half the size take 8 us, and a decoding 7 % longer.
pub(super) const PAGE_TICKS: usize = 1_024;

/// Receive times as a column of their own.
const RECEIVED_ALONE: u8 = 0;
/// Receive times by what they lag behind the event, or behind the tick before at the same event time.
const RECEIVED_BY_LAG: u8 = 1;

pub(super) const CUT: ChunkCorrupt = ChunkCorrupt("it is cut off");
pub(super) const OUTSIDE_DOOR: ChunkCorrupt = ChunkCorrupt("a price or quantity is out of range");
pub(super) const TIME: ChunkCorrupt = ChunkCorrupt("an event time is out of range");
const BEFORE_1970: ChunkCorrupt = ChunkCorrupt("a time lies before 1970");
pub(super) const INDEX: ChunkCorrupt = ChunkCorrupt("the index of pages is damaged");

impl Chunk {
    /// The bytes of the chunk.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_in_pages(PAGE_TICKS)
    }

    /// The bytes of the chunk, in pages of so many ticks, a power of two.
    pub(super) fn encode_in_pages(&self, page_ticks: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 8 * self.len());
        out.push(VERSION);
        varint::put(&mut out, self.len() as u64);
        out.extend_from_slice(&[self.price_exponent as u8, self.quantity_exponent as u8]);
        Index::put(Index::of(self, page_ticks).as_ref(), &mut out);
        put_event_times(&mut out, &self.event_times, page_ticks);
        column::put_in_pages(&mut out, &self.prices, Shape::Walk, page_ticks);
        self.present.put(&mut out);
        match &self.present {
            Codes::Same(_) => column::put_in_pages(&mut out, &self.quantities, Shape::Values, page_ticks),
            Codes::Each(present) => {
                let only = self.quantities.iter().zip(present).filter(|(_, present)| **present == 1);
                let only: Vec<i64> = only.map(|(quantity, _)| *quantity).collect();
                column::put_in_pages(&mut out, &only, Shape::Values, page_ticks);
            }
        }
        let log_seqs: Vec<i64> = self.log_seqs.iter().map(|&log_seq| log_seq as i64).collect();
        column::put(&mut out, &log_seqs, Shape::Steps);
        put_receive_times(&mut out, &self.receive_times, &self.event_times);
        self.sides.put(&mut out);
        self.trade_ids.put(&mut out);
        self.backfill.put(&mut out);
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }
}

/// A chunk's bytes up to its index.
pub(super) struct Opened<'a> {
    pub(super) reader: Reader<'a>,
    /// Whether an index comes next; event times if not.
    pub(super) is_indexed: bool,
    pub(super) count: usize,
    pub(super) price_exponent: i8,
    pub(super) quantity_exponent: i8,
}

/// The bytes before the checksum, which is verified.
pub(super) fn verified(bytes: &[u8]) -> Result<&[u8], ChunkCorrupt> {
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(CUT)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(ChunkCorrupt("the checksum differs"));
    }
    Ok(body)
}

/// Reads what stands before the index.
pub(super) fn open(body: &[u8]) -> Result<Opened<'_>, ChunkCorrupt> {
    let mut reader = Reader::new(body);
    let is_indexed = match reader.byte() {
        Some(VERSION) => true,
        Some(FIRST_VERSION) => false,
        _ => return Err(ChunkCorrupt("not a version that this program knows")),
    };
    let count = reader.length(MAX_CHUNK_TICKS).filter(|&count| count > 0);
    let count = count.ok_or(ChunkCorrupt("the count of ticks is out of range"))?;
    let price_exponent = reader.byte().ok_or(CUT)? as i8;
    let quantity_exponent = reader.byte().ok_or(CUT)? as i8;
    Ok(Opened { reader, is_indexed, count, price_exponent, quantity_exponent })
}

/// The first columns of a chunk, and what follows them.
struct Begun<'a> {
    index: Index,
    points: Points,
    present: Codes,
    /// Already read in the first version, where they come before prices.
    receive_times: Option<Vec<i64>>,
    rest: Reader<'a>,
}

/// Reads the first columns from the bytes without the checksum.
fn begin(body: &[u8]) -> Result<Begun<'_>, ChunkCorrupt> {
    let mut opened = open(body)?;
    let index = opened.index()?;
    let Opened { mut reader, is_indexed, count, price_exponent, quantity_exponent } = opened;
    let reader = &mut reader;
    let event_times = take_event_times(reader, count, 0..count)?;
    let take_log_seqs = |reader: &mut Reader<'_>| -> Result<Vec<u64>, ChunkCorrupt> {
        Ok(column::take(reader, count)?.into_iter().map(|log_seq| log_seq as u64).collect())
    };
    let received_first = match is_indexed {
        true => None,
        false => Some((take_log_seqs(reader)?, take_receive_times(reader, &event_times)?)),
    };
    let prices = column::take(reader, count)?;
    let present = Codes::take(reader, count, 2)?;
    let quantities = take_quantities(reader, count, &present)?;
    let (log_seqs, receive_times) = match received_first {
        Some((log_seqs, receive_times)) => (log_seqs, Some(receive_times)),
        None => (take_log_seqs(reader)?, None),
    };
    // The checks look at every value instead of stopping at the first bad one: without a branch they are almost free.
    let neighbours = event_times.windows(2).zip(log_seqs.windows(2));
    let disorder = neighbours.fold(false, |disorder, (times, seqs)| {
        disorder | (times[0] > times[1]) | (times[0] == times[1]) & (seqs[0] > seqs[1])
    });
    if event_times.first() < Some(&0) {
        return Err(BEFORE_1970);
    }
    if disorder {
        return Err(ChunkCorrupt("the ticks are not in order"));
    }
    if !inside_door(&prices, price_exponent) || !inside_door(&quantities, quantity_exponent) {
        return Err(OUTSIDE_DOOR);
    }
    let points = Points { event_times, log_seqs, price_exponent, prices, quantity_exponent, quantities };
    Ok(Begun { index, points, present, receive_times, rest: reader.clone() })
}

/// Decodes the columns that come first, and no other; of the first version receive times stand among them.
pub(super) fn points(body: &[u8]) -> Result<Points, ChunkCorrupt> {
    Ok(begin(body)?.points)
}

/// Decodes a chunk of an instrument, and the index of its pages.
pub(super) fn chunk(body: &[u8], instrument: InstrumentId) -> Result<(Chunk, Index), ChunkCorrupt> {
    let Begun { index, points, present, receive_times, mut rest } = begin(body)?;
    let count = points.len();
    let receive_times = match receive_times {
        Some(receive_times) => receive_times,
        None => take_receive_times(&mut rest, &points.event_times)?,
    };
    let sides = Codes::take(&mut rest, count, Side::Sell as u8 + 1)?;
    let trade_ids = TradeIds::take(&mut rest, count)?;
    let backfill = Codes::take(&mut rest, count, 2)?;
    if !rest.is_empty() {
        return Err(ChunkCorrupt("bytes after the end"));
    }
    if receive_times.iter().fold(0, |all, time| all | time) < 0 {
        return Err(BEFORE_1970);
    }
    Ok((Chunk { instrument, points: Arc::new(points), receive_times, present, sides, trade_ids, backfill }, index))
}

/// Whether all mantissas make valid decimals at an exponent.
pub(super) fn inside_door(mantissas: &[i64], exponent: i8) -> bool {
    let greatest = mantissas.iter().fold(0, |greatest, mantissa| mantissa.unsigned_abs().max(greatest));
    door_bound(exponent).is_some_and(|bound| greatest < bound)
}

/// What the mantissas of valid decimals at an exponent are smaller than; `None` if no decimal has it.
pub(super) fn door_bound(exponent: i8) -> Option<u64> {
    // Below 10^-3 every 64-bit mantissa is small enough.
    let bound = || POW10.get((MAX_MAGNITUDE - exponent) as usize).map_or(u64::MAX, |&bound| bound as u64);
    (-MAX_DECIMALS..MAX_MAGNITUDE).contains(&exponent).then(bound)
}

/// Appends event times in the coarsest unit that holds them.
fn put_event_times(out: &mut Vec<u8>, times: &[i64], page_ticks: usize) {
    let unit = TimeUnit::of(times.iter().copied());
    out.push(unit as u8);
    let counts: Vec<i64> = times.iter().map(|&time| unit.count(time)).collect();
    column::put_in_pages(out, &counts, Shape::Steps, page_ticks);
}

/// Reads some of what [`put_event_times`] wrote of so many ticks.
pub(super) fn take_event_times(
    reader: &mut Reader<'_>,
    count: usize,
    wanted: Range<usize>,
) -> Result<Vec<i64>, ChunkCorrupt> {
    let unit = reader.byte().ok_or(CUT)?;
    let unit = TimeUnit::from_code(unit).ok_or(ChunkCorrupt("the unit of time is unknown"))?;
    let mut times = column::take_range(reader, count, wanted)?;
    for time in &mut times {
        *time = time.checked_mul(unit.nanos()).ok_or(TIME)?;
    }
    Ok(times)
}

/// Appends receive times.
///
/// Ticks at one event time come in one message and are received moments apart; others lag their event by about the
/// same. Kept as two columns, that takes a quarter less than differences. Where times were stamped by the server on a
/// whole batch, as in imports, the lag only repeats the event times, and a column of its own is shorter.
fn put_receive_times(out: &mut Vec<u8>, received: &[i64], events: &[i64]) {
    let bits = |difference: i64| u64::from(64 - zigzag(difference).leading_zeros());
    let (mut alone, mut by_lag) = (0, 0);
    let mut lag = 0i64;
    for (times, events) in received.windows(2).zip(events.windows(2)) {
        let difference = times[1].wrapping_sub(times[0]);
        alone += bits(difference);
        if events[0] == events[1] {
            by_lag += bits(difference);
        } else {
            let next = times[1].wrapping_sub(events[1]);
            by_lag += bits(next.wrapping_sub(lag));
            lag = next;
        }
    }
    if alone <= by_lag {
        out.push(RECEIVED_ALONE);
        return column::put(out, received, Shape::Steps);
    }
    let (mut lags, mut followers) = (Vec::new(), Vec::new());
    for (index, (&time, &event)) in received.iter().zip(events).enumerate() {
        if index > 0 && events[index - 1] == event {
            followers.push(time.wrapping_sub(received[index - 1]));
        } else {
            lags.push(time.wrapping_sub(event));
        }
    }
    out.push(RECEIVED_BY_LAG);
    column::put(out, &lags, Shape::Values);
    column::put(out, &followers, Shape::Values);
}

/// Reads what [`put_receive_times`] wrote.
fn take_receive_times(reader: &mut Reader<'_>, events: &[i64]) -> Result<Vec<i64>, ChunkCorrupt> {
    match reader.byte().ok_or(CUT)? {
        RECEIVED_ALONE => column::take(reader, events.len()),
        RECEIVED_BY_LAG => {
            let follower_count = events.windows(2).filter(|pair| pair[0] == pair[1]).count();
            let columns = [column::take(reader, events.len() - follower_count)?, column::take(reader, follower_count)?];
            let mut received = Vec::with_capacity(events.len());
            // Which column is due cannot be predicted, so that it is an index and no branch.
            let mut used = [0; 2];
            let (mut time, mut previous) = (0i64, None);
            for &event in events {
                let due = usize::from(previous == Some(event));
                time = [event, time][due].wrapping_add(columns[due][used[due]]);
                used[due] += 1;
                received.push(time);
                previous = Some(event);
            }
            Ok(received)
        }
        _ => Err(ChunkCorrupt("receive times have an unknown encoding")),
    }
}

/// Reads the quantities of ticks that have one, and spreads them.
fn take_quantities(reader: &mut Reader<'_>, count: usize, present: &Codes) -> Result<Vec<i64>, ChunkCorrupt> {
    let only = column::take(reader, present.count(1, count))?;
    let Codes::Each(present) = present else { return Ok(only) };
    Ok(spread(only, present))
}

/// Quantities for all ticks of those that have one: zero where it is absent.
pub(super) fn spread(only: Vec<i64>, present: &[u8]) -> Vec<i64> {
    let mut only = only.into_iter();
    let one = |&present: &u8| {
        if present == 1 { only.next().expect("the column was read with as many values as are present") } else { 0 }
    };
    present.iter().map(one).collect()
}
