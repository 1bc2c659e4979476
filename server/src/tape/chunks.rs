//! The ordinary chunks of an instrument, with sums that make any stretch of them one subtraction.

use std::ops::{Deref, Range};
use std::sync::Arc;

use super::ChunkHeader;
use crate::domain::I256;
use crate::domain::statistics::{PricePoint, Sums, Totals};

/// Entries of one level that share an entry of the next. A stretch costs at most two of these a level.
const FAN: usize = 32;

/// Ordinary chunks: disjoint and ascending by (event_time, log_seq).
#[derive(Debug, Default)]
pub struct Chunks {
    headers: Vec<Arc<ChunkHeader>>,
    /// What the chunks before each one add up to; one more than there are chunks.
    before: Vec<Before>,
    /// Extremes do not subtract: each level has the totals of [`FAN`] neighbours of the level below, the first those of
    /// chunks.
    levels: Vec<Vec<Totals>>,
}

/// What all chunks before one add up to.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    sums: Sums,
    /// The time-weighted integral from the first tick to the last one before.
    integral: I256,
}

impl Chunks {
    /// The chunks in their order, and their sums.
    pub fn new(headers: Vec<Arc<ChunkHeader>>) -> Chunks {
        let mut before = Vec::with_capacity(headers.len() + 1);
        let mut sum = Before::default();
        let mut last: Option<PricePoint> = None;
        for header in &headers {
            before.push(sum);
            let totals = &header.statistics.totals;
            sum.sums.add(&Sums::from(totals));
            if let (Some(last), Some(first)) = (last, totals.first) {
                sum.integral += last.weight_until(first.event_time);
            }
            sum.integral += header.statistics.integral;
            last = totals.last;
        }
        before.push(sum);
        let mut levels = Vec::new();
        let mut level = merge_all(headers.iter().map(|header| &header.statistics.totals));
        while !level.is_empty() {
            let next = if level.len() > FAN { merge_all(level.iter()) } else { Vec::new() };
            levels.push(level);
            level = next;
        }
        Chunks { headers, before, levels }
    }

    /// The sums of a stretch of chunks.
    pub fn sums(&self, stretch: Range<usize>) -> Sums {
        let mut sums = self.before[stretch.end].sums;
        sums.subtract(&self.before[stretch.start].sums);
        sums
    }

    /// The time-weighted integral from the first tick of a stretch of chunks to its last.
    pub fn integral(&self, stretch: Range<usize>) -> I256 {
        if stretch.is_empty() {
            return I256::ZERO;
        }
        let integral = self.before[stretch.end].integral - self.before[stretch.start].integral;
        let (Some(previous), first) = (stretch.start.checked_sub(1), &self.headers[stretch.start]) else {
            return integral;
        };
        match (self.headers[previous].statistics.totals.last, first.statistics.totals.first) {
            // The step into the stretch belongs to what is before it.
            (Some(last), Some(first)) => integral - last.weight_until(first.event_time),
            _ => integral,
        }
    }

    /// Sums and extremes of a stretch of chunks.
    pub fn totals(&self, stretch: Range<usize>) -> Totals {
        let mut totals = Totals::default();
        let Range { mut start, mut end } = stretch;
        let merge_chunks = |range: Range<usize>, totals: &mut Totals| {
            for header in &self.headers[range] {
                totals.merge(&header.statistics.totals);
            }
        };
        let mut level = 0;
        loop {
            // What fills whole entries of the next level is left to it, while there is enough of it.
            let inner = start.next_multiple_of(FAN)..end / FAN * FAN;
            let climbs = inner.start < inner.end && level < self.levels.len();
            let sides = if climbs { [start..inner.start, inner.end..end] } else { [start..end, 0..0] };
            for side in sides {
                match level {
                    0 => merge_chunks(side, &mut totals),
                    level => self.levels[level - 1][side].iter().for_each(|entry| totals.merge(entry)),
                }
            }
            if !climbs {
                return totals;
            }
            (start, end) = (inner.start / FAN, inner.end / FAN);
            level += 1;
        }
    }
}

/// One entry for each [`FAN`] neighbours.
fn merge_all<'a>(entries: impl Iterator<Item = &'a Totals>) -> Vec<Totals> {
    let mut merged: Vec<Totals> = Vec::new();
    for (index, entry) in entries.enumerate() {
        match merged.last_mut() {
            Some(last) if index % FAN != 0 => last.merge(entry),
            _ => merged.push(entry.clone()),
        }
    }
    merged
}

impl Deref for Chunks {
    type Target = [Arc<ChunkHeader>];

    fn deref(&self) -> &[Arc<ChunkHeader>] {
        &self.headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::UnixNanos;
    use crate::domain::statistics::Statistics;
    use crate::store::ChunkId;

    /// Chunks of one to three ticks with walking prices.
    fn chunks(count: usize) -> Chunks {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut seq = 0;
        let mut headers = Vec::new();
        for id in 0..count {
            let mut statistics = Statistics::default();
            let first_seq = seq + 1;
            for _ in 0..=random(3) {
                seq += 1;
                let price = crate::domain::Decimal::new(random(2_000) as i64 - 500, -2).unwrap();
                let event_time = UnixNanos::new(seq as i64 * 1_000 + random(900) as i64).unwrap();
                let quantity = (random(4) > 0).then(|| crate::domain::Decimal::new(random(50) as i64, -1).unwrap());
                statistics.push_point(PricePoint { price, event_time, log_seq: seq }, quantity);
            }
            let (first, last) = (statistics.totals.first.unwrap(), statistics.totals.last.unwrap());
            headers.push(Arc::new(ChunkHeader {
                id: ChunkId(id as u64),
                day: 0,
                min_seq: first_seq,
                max_seq: seq,
                byte_count: 1,
                first_time: first.event_time,
                last_time: last.event_time,
                statistics,
            }));
        }
        Chunks::new(headers)
    }

    #[test]
    fn every_stretch_is_the_sum_of_its_chunks() {
        for count in [0, 1, 2, FAN - 1, FAN, FAN + 1, 3 * FAN, FAN * FAN + 5] {
            let chunks = chunks(count);
            let step = (count / 40).max(1);
            for start in (0..=count).step_by(step) {
                for end in (start..=count).step_by(step) {
                    let mut whole = Statistics::default();
                    for header in &chunks[start..end] {
                        whole.append(&header.statistics);
                    }
                    assert_eq!(chunks.totals(start..end), whole.totals, "{count}: {start}..{end}");
                    assert_eq!(chunks.sums(start..end), Sums::from(&whole.totals), "{count}: {start}..{end}");
                    assert_eq!(chunks.integral(start..end), whole.integral, "{count}: {start}..{end}");
                }
            }
        }
    }
}
