//! What the first ticks of a stored chunk add up to, without decoding the rest.
//!
//! An average needs times, prices and quantities up to the edge of its range, and nothing else: the columns between
//! are passed over by their lengths, and each column is read only as far as the edge. That is a fraction of a decoding.

use super::codec::{self, CUT, Opened, RECEIVED_ALONE, RECEIVED_BY_LAG};
use super::column::{self, Codes};
use super::{ChunkCorrupt, Reader};
use crate::domain::statistics::{Statistics, Sums};
use crate::domain::time_unit::TimeUnit;
use crate::domain::{InstrumentId, UnixNanos};

/// The ticks of a chunk before an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Prefix {
    /// What they add up to.
    pub sums: Sums,
    /// The event time of the last of them.
    pub last_before: Option<UnixNanos>,
    /// The event time of the first tick that is not among them.
    pub first_after: Option<UnixNanos>,
}

/// Adds up the ticks of a stored chunk whose event time lies before an instant.
///
/// # Errors
///
/// The bytes are no chunk, as far as they were read.
pub fn prefix(bytes: &[u8], until: UnixNanos) -> Result<Prefix, ChunkCorrupt> {
    let Opened { mut reader, count, price_exponent, quantity_exponent } = codec::open(bytes)?;
    let at_times = reader.clone();
    let times = times_until(&mut reader, count, until)?;
    let before = times.partition_point(|&time| time < until.nanos());
    let time = |index: usize| times.get(index).map(|&time| UnixNanos::new(time)).transpose();
    let last_before = before.checked_sub(1).map_or(Ok(None), time).map_err(|_| TIME)?;
    let first_after = time(before).map_err(|_| TIME)?;
    let found = |sums| Prefix { sums, last_before, first_after };
    if before == 0 {
        return Ok(found(Sums::default()));
    }
    column::skip(&mut reader, count)?;
    skip_receive_times(&mut reader, count, &times, at_times)?;
    let prices = column::take_first(&mut reader, count, before)?;
    let quantities = first_quantities(&mut reader, count, before)?;
    let quantities = quantities.as_deref();
    if !codec::inside_door(&prices, price_exponent) || !codec::inside_door(quantities.unwrap_or(&[]), quantity_exponent)
    {
        return Err(codec::OUTSIDE_DOOR);
    }
    if let Some(sums) = Sums::of_columns(&prices, price_exponent, quantities, quantity_exponent) {
        return Ok(found(sums));
    }
    // Products that leave 128 bits are rare enough for the thorough way.
    let chunk = codec::decode(bytes, InstrumentId(0))?;
    Ok(found(Sums::from(&Statistics::of_range(&chunk, 0..before).totals)))
}

const TIME: ChunkCorrupt = ChunkCorrupt("an event time is out of range");

/// Event times up to the first that does not lie before an instant, and maybe some after it.
fn times_until(reader: &mut Reader<'_>, count: usize, until: UnixNanos) -> Result<Vec<i64>, ChunkCorrupt> {
    let unit = TimeUnit::from_code(reader.byte().ok_or(CUT)?).ok_or(codec::TIME_UNIT)?.nanos();
    // Times are whole units: the last one before the instant is at most this.
    let before = (until.nanos() - 1) / unit;
    let mut times = column::take_until(reader, count, |last| last > before)?;
    for time in &mut times {
        *time = time.checked_mul(unit).ok_or(TIME)?;
    }
    Ok(times)
}

/// Passes over receive times. Where their columns do not tell their own length, the event times do; an empty column is
/// not there at all.
fn skip_receive_times(
    reader: &mut Reader<'_>,
    count: usize,
    first_times: &[i64],
    mut times: Reader<'_>,
) -> Result<(), ChunkCorrupt> {
    let share_a_time = |times: &[i64]| times.windows(2).filter(|pair| pair[0] == pair[1]).count();
    match reader.byte().ok_or(CUT)? {
        RECEIVED_ALONE => column::skip(reader, count),
        RECEIVED_BY_LAG => {
            let mut ahead = reader.clone();
            let shared = first_times.windows(2).any(|pair| pair[0] == pair[1]);
            if shared && column::skip_measured(&mut ahead)? && column::skip_measured(&mut ahead)? {
                *reader = ahead;
                return Ok(());
            }
            let followers = share_a_time(&codec::take_event_times(&mut times, count)?);
            column::skip(reader, count - followers)?;
            column::skip(reader, followers)
        }
        _ => Err(codec::RECEIVE_ENCODING),
    }
}

/// The first quantities, zero where one is absent; `None` when all are.
fn first_quantities(reader: &mut Reader<'_>, count: usize, first: usize) -> Result<Option<Vec<i64>>, ChunkCorrupt> {
    let present = Codes::take(reader, count, 2)?;
    match &present {
        Codes::Same(0) => Ok(None),
        Codes::Same(_) => column::take_first(reader, count, first).map(Some),
        Codes::Each(codes) => {
            let codes = &codes[..first];
            let wanted = codes.iter().filter(|&&code| code == 1).count();
            let mut only = column::take_first(reader, present.count(1, count), wanted)?.into_iter();
            let spread = |&code: &u8| if code == 1 { only.next().ok_or(CUT) } else { Ok(0) };
            codes.iter().map(spread).collect::<Result<_, _>>().map(Some)
        }
    }
}
