//! Where the pages of a chunk's columns begin in time, and what the ticks before each add up to.
//!
//! With it, a sum up to an instant takes one page of each column and not all before it. It stands before the columns: a
//! byte that is 0 where there is none, else the size of a page as a power of two, the event time of the first tick, and
//! for each page after the first the time since the page before and the sums of that page at the chunk's exponents.

use super::codec::{CUT, INDEX, Opened, door_bound};
use super::{ChunkCorrupt, MAX_CHUNK_TICKS, Points, Reader};
use crate::domain::UnixNanos;
use crate::domain::statistics::ColumnSums;
use crate::domain::varint;

/// One page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The event time of its first tick in nanoseconds since 1970; [`i64::MIN`] of ticks that have no index.
    pub(super) first_time: i64,
    /// Of all pages before it.
    pub(super) before: ColumnSums,
}

/// The pages of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// Ticks of a page but the last.
    pub(super) page_ticks: usize,
    /// At least one.
    pub(super) pages: Vec<Page>,
}

impl Index {
    /// The index of ticks by pages of so many, a power of two. `None` if there would be one page alone, or sums
    /// that leave 128 bits.
    pub(super) fn of(points: &Points, page_ticks: usize) -> Option<Index> {
        let (prices, quantities) = (points.price_mantissas(), points.quantity_mantissas());
        if prices.len() <= page_ticks {
            return None;
        }
        let mut page = Page { first_time: points.event_times()[0], before: ColumnSums::default() };
        let mut pages = vec![page];
        for begin in (page_ticks..prices.len()).step_by(page_ticks) {
            let own = begin - page_ticks..begin;
            let quantities = quantities.map(|quantities| &quantities[own.clone()]);
            let before = page.before.checked_add(ColumnSums::of(&prices[own], quantities)?)?;
            page = Page { first_time: points.event_times()[begin], before };
            pages.push(page);
        }
        Some(Index { page_ticks, pages })
    }

    /// Appends it, or that there is none.
    pub(super) fn put(index: Option<&Index>, out: &mut Vec<u8>) {
        let Some(Index { page_ticks, pages }) = index else { return out.push(0) };
        out.push(page_ticks.ilog2() as u8);
        varint::put_signed(out, pages[0].first_time);
        for pair in pages.windows(2) {
            let (own, next) = (pair[0].before, pair[1].before);
            varint::put(out, pair[1].first_time.abs_diff(pair[0].first_time));
            varint::put_signed_wide(out, next.price - own.price);
            varint::put(out, next.volume_count - own.volume_count);
            varint::put_signed_wide(out, next.volume - own.volume);
            varint::put_signed_wide(out, next.notional - own.notional);
        }
    }

    /// The last page that begins before an instant, if one does.
    pub(super) fn page_before(&self, instant: UnixNanos) -> Option<usize> {
        self.pages.partition_point(|page| page.first_time < instant.nanos()).checked_sub(1)
    }
}

impl Opened<'_> {
    /// Reads what [`Index::put`] wrote, before anything else is read. A chunk without an index is one page.
    pub(super) fn index(&mut self) -> Result<Index, ChunkCorrupt> {
        let Opened { reader, is_indexed, count, price_exponent, quantity_exponent } = self;
        let power = if *is_indexed { reader.byte().ok_or(CUT)? } else { 0 };
        if power == 0 {
            let whole = Page { first_time: i64::MIN, before: ColumnSums::default() };
            return Ok(Index { page_ticks: MAX_CHUNK_TICKS, pages: vec![whole] });
        }
        let page_ticks = 1usize.checked_shl(power.into()).filter(|ticks| ticks < count).ok_or(INDEX)?;
        let bounds = door_bound(*price_exponent).zip(door_bound(*quantity_exponent)).ok_or(INDEX)?;
        let mut page = Page { first_time: reader.signed().ok_or(CUT)?, before: ColumnSums::default() };
        let mut pages = vec![page];
        for _ in 1..count.div_ceil(page_ticks) {
            page = take_next(reader, page, page_ticks).filter(|page| is_plausible(page, bounds)).ok_or(INDEX)?;
            pages.push(page);
        }
        Ok(Index { page_ticks, pages })
    }
}

fn take_next(reader: &mut Reader<'_>, Page { first_time, before }: Page, page_ticks: usize) -> Option<Page> {
    let first_time = first_time.checked_add_unsigned(reader.varint()?)?;
    let own = ColumnSums {
        count: page_ticks as u64,
        price: reader.signed_wide()?,
        volume_count: reader.varint()?,
        volume: reader.signed_wide()?,
        notional: reader.signed_wide()?,
    };
    Some(Page { first_time, before: before.checked_add(own)? })
}

/// Whether ticks with these sums can exist: others might not be widened.
fn is_plausible(page: &Page, (price, quantity): (u64, u64)) -> bool {
    let ColumnSums { count, price: prices, volume_count, volume, notional } = page.before;
    let (price, quantity) = (u128::from(price), u128::from(quantity));
    let product = price.saturating_mul(quantity);
    page.first_time >= 0
        && volume_count <= count
        && volume >= 0
        && prices.unsigned_abs() <= price.saturating_mul(count.into())
        && volume.unsigned_abs() <= quantity.saturating_mul(count.into())
        && notional.unsigned_abs() <= product.saturating_mul(count.into())
}
