//! The bytes of a chunk.
//!
//! Version, count of ticks, exponents, then the columns: event times, positions, receive times, prices, presence of
//! quantities, quantities, sides, trade ids, origins; CRC32C at the end. The checksum is verified before anything else
//! is believed, and what follows is checked all the same: a value that decodes is valid.

use super::column::{self, Codes, Shape};
use super::trade_ids::TradeIds;
use super::{Chunk, ChunkCorrupt, MAX_CHUNK_TICKS};
use crate::domain::decimal::{MAX_DECIMALS, MAX_MAGNITUDE, POW10};
use crate::domain::varint::{self, Reader, zigzag};
use crate::domain::{InstrumentId, Side};

const VERSION: u8 = 1;

/// Units of time that venues stamp in, the coarsest first: seconds, milliseconds, microseconds, nanoseconds.
const TIME_UNITS: [i64; 4] = [1_000_000_000, 1_000_000, 1_000, 1];

/// Receive times as a column of their own.
const RECEIVED_ALONE: u8 = 0;
/// Receive times by what they lag behind the event, or behind the tick before at the same event time.
const RECEIVED_BY_LAG: u8 = 1;

const CUT: ChunkCorrupt = ChunkCorrupt("it is cut off");

impl Chunk {
    /// The bytes of the chunk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 8 * self.len());
        out.push(VERSION);
        varint::put(&mut out, self.len() as u64);
        out.extend_from_slice(&[self.price_exponent as u8, self.quantity_exponent as u8]);
        put_event_times(&mut out, &self.event_times);
        let log_seqs: Vec<i64> = self
            .log_seqs
            .iter()
            .map(|&log_seq| log_seq as i64)
            .collect();
        column::put(&mut out, &log_seqs, Shape::Steps);
        put_receive_times(&mut out, &self.receive_times, &self.event_times);
        column::put(&mut out, &self.prices, Shape::Walk);
        self.present.put(&mut out);
        match &self.present {
            Codes::Same(_) => column::put(&mut out, &self.quantities, Shape::Values),
            Codes::Each(present) => {
                let only = self
                    .quantities
                    .iter()
                    .zip(present)
                    .filter(|(_, present)| **present == 1);
                let only: Vec<i64> = only.map(|(quantity, _)| *quantity).collect();
                column::put(&mut out, &only, Shape::Values);
            }
        }
        self.sides.put(&mut out);
        self.trade_ids.put(&mut out);
        self.backfill.put(&mut out);
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }
}

/// Decodes a chunk of an instrument.
pub fn decode(bytes: &[u8], instrument: InstrumentId) -> Result<Chunk, ChunkCorrupt> {
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(CUT)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(ChunkCorrupt("the checksum differs"));
    }
    let mut reader = Reader::new(body);
    if reader.byte() != Some(VERSION) {
        return Err(ChunkCorrupt("not a version that this program knows"));
    }
    let count = reader.length(MAX_CHUNK_TICKS).filter(|&count| count > 0);
    let count = count.ok_or(ChunkCorrupt("the count of ticks is out of range"))?;
    let price_exponent = reader.byte().ok_or(CUT)? as i8;
    let quantity_exponent = reader.byte().ok_or(CUT)? as i8;
    let event_times = take_event_times(&mut reader, count)?;
    let log_seqs: Vec<u64> = column::take(&mut reader, count)?
        .into_iter()
        .map(|log_seq| log_seq as u64)
        .collect();
    let receive_times = take_receive_times(&mut reader, &event_times)?;
    let prices = column::take(&mut reader, count)?;
    let present = Codes::take(&mut reader, count, 2)?;
    let quantities = take_quantities(&mut reader, count, &present)?;
    let sides = Codes::take(&mut reader, count, Side::Sell as u8 + 1)?;
    let trade_ids = TradeIds::take(&mut reader, count)?;
    let backfill = Codes::take(&mut reader, count, 2)?;
    if !reader.is_empty() {
        return Err(ChunkCorrupt("bytes after the end"));
    }
    if event_times.first() < Some(&0) || receive_times.iter().any(|&time| time < 0) {
        return Err(ChunkCorrupt("a time lies before 1970"));
    }
    let in_order = |index: usize| {
        (event_times[index - 1], log_seqs[index - 1]) <= (event_times[index], log_seqs[index])
    };
    if !(1..count).all(in_order) {
        return Err(ChunkCorrupt("the ticks are not in order"));
    }
    if !inside_door(&prices, price_exponent) || !inside_door(&quantities, quantity_exponent) {
        return Err(ChunkCorrupt("a price or quantity is out of range"));
    }
    Ok(Chunk {
        instrument,
        event_times,
        log_seqs,
        receive_times,
        price_exponent,
        prices,
        quantity_exponent,
        quantities,
        present,
        sides,
        trade_ids,
        backfill,
    })
}

/// Whether all mantissas make valid decimals at an exponent.
fn inside_door(mantissas: &[i64], exponent: i8) -> bool {
    if !(-MAX_DECIMALS..MAX_MAGNITUDE).contains(&exponent) {
        return false;
    }
    // Below 10^-3 every 64-bit mantissa is small enough.
    let bound = POW10
        .get((MAX_MAGNITUDE - exponent) as usize)
        .map_or(u64::MAX, |&bound| bound as u64);
    mantissas
        .iter()
        .all(|mantissa| mantissa.unsigned_abs() < bound)
}

/// Appends event times in the coarsest unit that holds them: it halves their bytes, and a column in its own unit is
/// quicker to pack than one whose grid must be found.
fn put_event_times(out: &mut Vec<u8>, times: &[i64]) {
    let fits = |unit: &i64| times.iter().all(|time| time % unit == 0);
    let code = TIME_UNITS
        .iter()
        .position(fits)
        .expect("everything is a multiple of one");
    out.push(code as u8);
    let unit = TIME_UNITS[code];
    if unit == 1 {
        return column::put(out, times, Shape::Steps);
    }
    let scaled: Vec<i64> = times.iter().map(|time| time / unit).collect();
    column::put(out, &scaled, Shape::Steps);
}

/// Reads what [`put_event_times`] wrote.
fn take_event_times(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>, ChunkCorrupt> {
    let code = usize::from(reader.byte().ok_or(CUT)?);
    let &unit = TIME_UNITS
        .get(code)
        .ok_or(ChunkCorrupt("the unit of time is unknown"))?;
    let mut times = column::take(reader, count)?;
    if unit != 1 {
        for time in &mut times {
            *time = time
                .checked_mul(unit)
                .ok_or(ChunkCorrupt("an event time is out of range"))?;
        }
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
            let mut lags = column::take(reader, events.len() - follower_count)?.into_iter();
            let mut followers = column::take(reader, follower_count)?.into_iter();
            let mut received = Vec::with_capacity(events.len());
            let (mut time, mut previous) = (0i64, None);
            for &event in events {
                let (base, difference) = if previous == Some(event) {
                    (time, followers.next())
                } else {
                    (event, lags.next())
                };
                time = base.wrapping_add(
                    difference.expect("both columns were read with as many values as are due"),
                );
                received.push(time);
                previous = Some(event);
            }
            Ok(received)
        }
        _ => Err(ChunkCorrupt("receive times have an unknown encoding")),
    }
}

/// Reads the quantities of ticks that have one, and spreads them.
fn take_quantities(
    reader: &mut Reader<'_>,
    count: usize,
    present: &Codes,
) -> Result<Vec<i64>, ChunkCorrupt> {
    let only = column::take(reader, present.count(1, count))?;
    let Codes::Each(present) = present else {
        return Ok(only);
    };
    let mut only = only.into_iter();
    let spread = |&present: &u8| {
        if present == 1 {
            only.next()
                .expect("the column was read with as many values as are present")
        } else {
            0
        }
    };
    Ok(present.iter().map(spread).collect())
}
