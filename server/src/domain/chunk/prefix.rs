//! What the first ticks of a stored chunk add up to, without decoding the rest.
//!
//! An average needs times, prices and quantities up to the edge of its range, and nothing else. These stand first, and
//! the index has the sums of all whole pages before the edge, so that one page of each is read; of quantities two where
//! some are absent. Of a chunk of the first version these columns are decoded.

use std::ops::Range;

use super::codec::{self, Opened};
use super::column::{self, Codes};
use super::index::Index;
use super::{ChunkCorrupt, Reader};
use crate::domain::UnixNanos;
use crate::domain::statistics::{ColumnSums, Sums, Totals};

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

/// Adds up the ticks of a chunk whose event time lies before an instant, from its bytes without the checksum.
pub(super) fn prefix(body: &[u8], until: UnixNanos) -> Result<Prefix, ChunkCorrupt> {
    let mut opened = codec::open(body)?;
    if opened.is_indexed
        && let Some(prefix) = by_page(&mut opened, until)?
    {
        return Ok(prefix);
    }
    let points = codec::points(body)?;
    let before = points.index_at(until);
    Ok(Prefix {
        sums: Sums::from(&Totals::of_range(&points, 0..before)),
        last_before: before.checked_sub(1).map(|last| points.event_time(last)),
        first_after: (before < points.len()).then(|| points.event_time(before)),
    })
}

/// `None` if a sum leaves 128 bits, which is rare enough for the thorough way.
fn by_page(opened: &mut Opened<'_>, until: UnixNanos) -> Result<Option<Prefix>, ChunkCorrupt> {
    let index = opened.index()?;
    let Index { page_ticks, pages } = &index;
    let Opened { reader, count, price_exponent, quantity_exponent, .. } = opened;
    let time = |nanos: Option<i64>| nanos.map(UnixNanos::new).transpose().map_err(|_| codec::TIME);
    let Some(page) = index.page_before(until) else {
        return Ok(Some(Prefix { first_after: time(pages.first().map(|page| page.first_time))?, ..Prefix::default() }));
    };
    let begin = page * page_ticks;
    let times = codec::take_event_times(reader, *count, begin..(*count).min(begin + page_ticks))?;
    if pages.len() > 1 && times.first() != Some(&pages[page].first_time) {
        return Err(codec::INDEX);
    }
    let inside = times.partition_point(|&time| time < until.nanos());
    let following = pages.get(page + 1).map(|page| page.first_time);
    let last_before = time(inside.checked_sub(1).map(|last| times[last]))?;
    let first_after = time(times.get(inside).copied().or(following))?;
    let own = begin..begin + inside;
    let prices = column::take_range(reader, *count, own.clone())?;
    let quantities = some_quantities(reader, *count, own)?;
    let quantities = quantities.as_deref();
    if !codec::inside_door(&prices, *price_exponent)
        || !codec::inside_door(quantities.unwrap_or(&[]), *quantity_exponent)
    {
        return Err(codec::OUTSIDE_DOOR);
    }
    let own = ColumnSums::of(&prices, quantities).and_then(|own| own.checked_add(pages[page].before));
    let sums = own.map(|sums| sums.widen(*price_exponent, *quantity_exponent));
    Ok(sums.map(|sums| Prefix { sums, last_before, first_after }))
}

/// The quantities of some ticks, zero where one is absent; `None` when all are.
fn some_quantities(
    reader: &mut Reader<'_>,
    count: usize,
    wanted: Range<usize>,
) -> Result<Option<Vec<i64>>, ChunkCorrupt> {
    match &Codes::take(reader, count, 2)? {
        Codes::Same(0) => Ok(None),
        Codes::Same(_) => column::take_range(reader, count, wanted).map(Some),
        present @ Codes::Each(codes) => {
            let present_in = |codes: &[u8]| codes.iter().filter(|&&code| code == 1).count();
            let before = present_in(&codes[..wanted.start]);
            let codes = &codes[wanted];
            let only = column::take_range(reader, present.count(1, count), before..before + present_in(codes))?;
            Ok(Some(codec::spread(only, codes)))
        }
    }
}
