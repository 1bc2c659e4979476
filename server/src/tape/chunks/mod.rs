//! The ordinary chunks of an instrument: their headers, and sums that make any stretch of them one subtraction.
//!
//! Neighbours lie in a run (`run.rs`). A run knows its ends and what it adds up to; its headers are packed, and unpacked when a
//! question needs one between the ends. What was unpacked stays on a [`Shelf`], which is bounded by bytes. A change
//! makes those runs anew that it touches, and shares the others.

mod run;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::ChunkHeader;
use crate::domain::I256;
use crate::domain::statistics::{Sums, Totals};
use crate::store::ChunkId;
use run::{Before, RUN, Run};

pub use run::{HEADER_CACHE_BYTES, LEAST_HEADER_CACHE_BYTES, Shelf};

/// Entries of one level that share an entry of the next. A stretch costs at most two of these a level.
const FAN: usize = 32;

/// Ordinary chunks: disjoint and ascending by (event_time, log_seq).
#[derive(Debug, Default)]
pub struct Chunks {
    runs: Vec<Arc<Run>>,
    /// What the chunks before each run add up to; one more than there are runs, or none.
    before: Vec<Before>,
    /// Extremes do not subtract: each level has the totals of [`FAN`] neighbours of the level below, the first those of
    /// runs.
    levels: Vec<Vec<Totals>>,
}

impl Chunks {
    /// The chunks after a change.
    pub fn changed(&self, dropped: &HashSet<ChunkId>, mut added: Vec<Arc<ChunkHeader>>, shelf: &Arc<Shelf>) -> Chunks {
        added.sort_by_key(|header| header.first_key());
        let mut added = added.into_iter().peekable();
        let mut runs: Vec<Arc<Run>> = Vec::with_capacity(self.runs.len() + 1);
        for (number, run) in self.runs.iter().enumerate() {
            let next = self.runs.get(number + 1).map(|run| run.first.first_key());
            // What belongs before the next run is this one's, but for what only follows a full one.
            let full = next.is_none() && run.len() >= RUN;
            let fits = |header: &Arc<ChunkHeader>| match next {
                Some(next) => header.first_key() < next,
                None => !full || header.first_key() < run.last.first_key(),
            };
            let mut own: Vec<_> = std::iter::from_fn(|| added.next_if(fits)).collect();
            let drops = !dropped.is_empty() && run.ids.iter().any(|id| dropped.contains(id));
            if own.is_empty() && !drops {
                runs.push(run.clone());
                continue;
            }
            own.extend(run.range(0..run.len()).filter(|header| !dropped.contains(&header.id)));
            if let Some(previous) = runs.pop_if(|previous| previous.len() + own.len() <= RUN) {
                own.extend(previous.range(0..previous.len()));
            }
            own.sort_by_key(|header| header.first_key());
            // The last run grows at its end, and is best full; others have room left for what comes between.
            let pieces = own.len().div_ceil(RUN);
            let length = if next.is_none() { RUN } else { own.len().div_ceil(pieces.max(1)).max(1) };
            runs.extend(own.chunks(length).map(|piece| Run::new(piece, shelf)));
        }
        let rest: Vec<_> = added.collect();
        runs.extend(rest.chunks(RUN).map(|piece| Run::new(piece, shelf)));
        Chunks::of(runs)
    }

    /// The same without some of them.
    pub fn without(&self, gone: &HashSet<ChunkId>) -> Chunks {
        match self.runs.first() {
            Some(run) => self.changed(gone, Vec::new(), &run.shelf),
            None => Chunks::default(),
        }
    }

    fn of(runs: Vec<Arc<Run>>) -> Chunks {
        let mut before = Vec::with_capacity(runs.len() + 1);
        let mut sum = Before::default();
        for run in &runs {
            before.push(sum);
            sum.add(run.len(), &run.totals, run.integral);
        }
        before.push(sum);
        let mut levels = Vec::new();
        let mut level = if runs.len() < FAN { Vec::new() } else { merge_all(runs.iter().map(|run| &run.totals)) };
        while !level.is_empty() {
            let next = if level.len() > FAN { merge_all(level.iter()) } else { Vec::new() };
            levels.push(level);
            level = next;
        }
        Chunks { runs, before, levels }
    }

    /// How many chunks there are.
    pub fn len(&self) -> usize {
        self.before.last().map_or(0, |whole| whole.chunks)
    }

    /// Whether there is no chunk.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// One chunk.
    pub fn get(&self, index: usize) -> Option<Arc<ChunkHeader>> {
        (index < self.len()).then(|| {
            let (run, index) = self.place(index);
            self.runs[run].get(index)
        })
    }

    /// The last chunk.
    pub fn last(&self) -> Option<&Arc<ChunkHeader>> {
        self.runs.last().map(|run| &run.last)
    }

    /// All chunks in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Arc<ChunkHeader>> {
        self.range(0..self.len())
    }

    /// A stretch of chunks in order. Unpacks one run after the other.
    pub fn range(&self, stretch: Range<usize>) -> impl DoubleEndedIterator<Item = Arc<ChunkHeader>> {
        let ((from, low), (to, high)) = match stretch.is_empty() {
            true => ((0, 0), (0, 0)),
            false => (self.place(stretch.start), self.place(stretch.end)),
        };
        let runs = from..if high > 0 { to + 1 } else { to };
        runs.flat_map(move |number| {
            let run = &self.runs[number];
            run.range(if number == from { low } else { 0 }..if number == to { high } else { run.len() })
        })
    }

    /// How many chunks from the first on are so, of which all are that come before one that is.
    pub fn partition_point(&self, mut is_so: impl FnMut(&ChunkHeader) -> bool) -> usize {
        let number = self.runs.partition_point(|run| is_so(&run.last));
        let Some(run) = self.runs.get(number) else { return self.len() };
        let inside = match is_so(&run.first) {
            false => 0,
            true => run.unpack().headers.partition_point(|header| is_so(header)),
        };
        self.before[number].chunks + inside
    }

    /// The chunks of a day.
    pub fn of_day(&self, day: u32) -> Range<usize> {
        let from = self.partition_point(|header| header.day < day);
        from..self.partition_point(|header| header.day <= day)
    }

    /// The days on which two neighbours fit one chunk, ascending; some perhaps twice.
    pub fn joinable_days(&self) -> impl Iterator<Item = u32> {
        self.runs.iter().enumerate().flat_map(|(number, run)| {
            let next = self.runs.get(number + 1).filter(|next| run.last.fits_with(&next.first));
            run.joinable_days.iter().copied().chain(next.map(|next| next.first.day))
        })
    }

    /// The run of a chunk, and its index there; of the one after the last chunk: behind the last run.
    fn place(&self, index: usize) -> (usize, usize) {
        let run = self.before.partition_point(|before| before.chunks <= index) - 1;
        (run, index - self.before[run].chunks)
    }

    /// What the chunks before one add up to.
    fn before(&self, index: usize) -> Before {
        if self.is_empty() {
            return Before::default();
        }
        let (run, inside) = self.place(index);
        let mut before = self.before[run];
        if inside > 0 {
            let run = &self.runs[run];
            let own = run.unpack().before[inside];
            before.sums.add(&own.sums);
            before.integral += before.step_to(run.totals.first) + own.integral;
            before.chunks += own.chunks;
            before.last = own.last;
        }
        before
    }

    /// The sums of a stretch of chunks.
    pub fn sums(&self, stretch: Range<usize>) -> Sums {
        let (whole, before) = (self.before(stretch.end).sums, self.before(stretch.start).sums);
        whole.without(&before).expect("the chunks before the start are among those before the end")
    }

    /// The time-weighted integral from the first tick of a stretch of chunks to its last.
    pub fn integral(&self, stretch: Range<usize>) -> I256 {
        let Some(first) = self.get(stretch.start).filter(|_| !stretch.is_empty()) else {
            return I256::ZERO;
        };
        let before = self.before(stretch.start);
        // The step into the stretch belongs to what is before it.
        self.before(stretch.end).integral - before.integral - before.step_to(first.statistics.totals.first)
    }

    /// Sums and extremes of a stretch of chunks.
    pub fn totals(&self, stretch: Range<usize>) -> Totals {
        let mut totals = Totals::default();
        if stretch.is_empty() {
            return totals;
        }
        let merge_chunks = |run: usize, range: Range<usize>, totals: &mut Totals| {
            if !range.is_empty() {
                let unpacked = self.runs[run].unpack();
                unpacked.headers[range].iter().for_each(|header| totals.merge(&header.statistics.totals));
            }
        };
        let ((mut start, low), (mut end, high)) = (self.place(stretch.start), self.place(stretch.end));
        if start == end {
            merge_chunks(start, low..high, &mut totals);
            return totals;
        }
        if low > 0 {
            merge_chunks(start, low..self.runs[start].len(), &mut totals);
            start += 1;
        }
        merge_chunks(end, 0..high, &mut totals);
        let mut level = 0;
        loop {
            // What fills whole entries of the next level is left to it, while there is enough of it.
            let inner = start.next_multiple_of(FAN)..end / FAN * FAN;
            let climbs = inner.start < inner.end && level < self.levels.len();
            let sides = if climbs { [start..inner.start, inner.end..end] } else { [start..end, 0..0] };
            for side in sides {
                match level {
                    0 => self.runs[side].iter().for_each(|run| totals.merge(&run.totals)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::statistics::{PricePoint, Statistics};
    use crate::domain::{Decimal, UnixNanos};

    /// Numbers that look random, always the same ones.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    /// A chunk of one to three ticks at a walking price, of a place in the order of history.
    fn chunk(id: u64, place: u64, random: &mut Random) -> Arc<ChunkHeader> {
        let mut statistics = Statistics::default();
        let seqs = 1_000_000 - 4 * id..=1_000_000 - 4 * id + random.below(3);
        for (at, log_seq) in seqs.clone().enumerate() {
            let price = Decimal::new(random.below(2_000) as i64 - 500, -2).unwrap();
            let event_time = UnixNanos::new((place * 10_000 + at as u64 * 1_000 + random.below(900)) as i64).unwrap();
            let quantity = (random.below(4) > 0).then(|| Decimal::new(random.below(50) as i64, -1).unwrap());
            statistics.push_point(PricePoint { price, event_time, log_seq }, quantity);
        }
        let (first, last) = (statistics.totals.first.unwrap(), statistics.totals.last.unwrap());
        Arc::new(ChunkHeader {
            id: ChunkId(id),
            day: (place / 7) as u32,
            min_seq: *seqs.start(),
            max_seq: *seqs.end(),
            byte_count: random.below(100_000) as u32,
            first_time: first.event_time,
            last_time: last.event_time,
            statistics,
        })
    }

    fn in_order(count: usize, random: &mut Random) -> Vec<Arc<ChunkHeader>> {
        (0..count as u64).map(|place| chunk(place, place, random)).collect()
    }

    #[test]
    fn every_stretch_is_the_sum_of_its_chunks() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let most = RUN * FAN * FAN + 5;
        for count in [0, 1, 2, 3, RUN - 1, RUN, RUN + 1, 3 * RUN + 2, RUN * FAN, RUN * FAN + 1, most] {
            let headers = in_order(count, &mut random);
            let chunks = Chunks::default().changed(&HashSet::new(), headers.clone(), &Shelf::new(1 << 20));
            let step = (count / 40).max(1);
            for start in (0..=count).step_by(step) {
                for end in (start..=count).step_by(step) {
                    let mut whole = Statistics::default();
                    for header in &headers[start..end] {
                        whole.append(&header.statistics);
                    }
                    assert_eq!(chunks.totals(start..end), whole.totals, "{count}: {start}..{end}");
                    assert_eq!(chunks.sums(start..end), Sums::from(&whole.totals), "{count}: {start}..{end}");
                    assert_eq!(chunks.integral(start..end), whole.integral, "{count}: {start}..{end}");
                }
            }
        }
    }

    fn ids(headers: impl Iterator<Item = Arc<ChunkHeader>>) -> Vec<u64> {
        headers.map(|header| header.id.0).collect()
    }

    #[test]
    fn changes_leave_what_a_plain_list_would_be() {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        for shelf in [Shelf::new(1 << 12), Shelf::new(1 << 24)] {
            let (mut plain, mut chunks): (Vec<Arc<ChunkHeader>>, _) = (Vec::new(), Chunks::default());
            let (mut next_id, mut end) = (0, 0);
            for round in 0..600 {
                let mut dropped = HashSet::new();
                let mut added = Vec::new();
                // Mostly more at the end; now and then some go, or come between, or everything goes.
                for _ in 0..random.below(6) {
                    next_id += 1;
                    end += 2;
                    added.push(chunk(next_id, end, &mut random));
                }
                if random.below(3) == 0 && !plain.is_empty() {
                    let from = random.below(plain.len() as u64) as usize;
                    let gone = plain.iter().skip(from).take(random.below(9) as usize);
                    dropped.extend(gone.map(|header| header.id));
                    for place in (1..end).step_by(random.below(400) as usize + 2) {
                        if plain.iter().chain(&added).all(|other| other.first_time.nanos() as u64 / 10_000 != place) {
                            next_id += 1;
                            added.push(chunk(next_id, place, &mut random));
                        }
                    }
                }
                if round == 300 {
                    dropped = plain.iter().map(|header| header.id).collect();
                }
                chunks = match added.is_empty() && random.below(2) == 0 {
                    true => chunks.without(&dropped),
                    false => chunks.changed(&dropped, added.clone(), &shelf),
                };
                plain.retain(|header| !dropped.contains(&header.id));
                plain.extend(added);
                plain.sort_by_key(|header| header.first_key());

                assert_eq!(chunks.len(), plain.len());
                assert_eq!(chunks.is_empty(), plain.is_empty());
                assert_eq!(ids(chunks.iter()), ids(plain.iter().cloned()));
                assert_eq!(chunks.last().map(|last| last.id), plain.last().map(|last| last.id));
                let runs = &chunks.runs;
                assert!(runs.iter().all(|run| (1..=RUN).contains(&run.len())));
                // What lies side by side would not have fitted one run when it was made.
                assert!(runs.len() <= 3 * plain.len().div_ceil(RUN) + 1, "{} of {}", runs.len(), plain.len());
                let at = random.below(plain.len() as u64 + 1) as usize;
                let stretch = at..at + random.below((plain.len() - at) as u64 + 1) as usize;
                assert_eq!(ids(chunks.range(stretch.clone())), ids(plain[stretch.clone()].iter().cloned()));
                assert_eq!(ids(chunks.range(stretch.clone()).rev()), ids(plain[stretch.clone()].iter().rev().cloned()));
                let time = UnixNanos::new((end * 10_000 * at as u64 / (plain.len() as u64 + 1)) as i64).unwrap();
                let before = |header: &ChunkHeader| header.first_time < time;
                assert_eq!(chunks.partition_point(before), plain.partition_point(|header| before(header)));
                for (index, header) in plain.iter().enumerate().skip(at).take(3) {
                    let ours = chunks.get(index).unwrap();
                    assert_eq!(format!("{ours:?}"), format!("{header:?}"));
                }
                assert!(chunks.get(plain.len()).is_none());
                let mut whole = Statistics::default();
                plain[stretch.clone()].iter().for_each(|header| whole.append(&header.statistics));
                assert_eq!(chunks.totals(stretch.clone()), whole.totals);
                assert_eq!(chunks.sums(stretch.clone()), Sums::from(&whole.totals));
                assert_eq!(chunks.integral(stretch), whole.integral);
                let day = plain.get(at).map_or(7, |header| header.day);
                let of_day = plain.iter().filter(|header| header.day == day).cloned();
                assert_eq!(ids(chunks.range(chunks.of_day(day))), ids(of_day));
                let mut days: Vec<u32> = chunks.joinable_days().collect();
                days.dedup();
                let pairs = plain.windows(2).filter(|pair| pair[0].day == pair[1].day);
                let mut expected: Vec<u32> = pairs.map(|pair| pair[0].day).collect();
                expected.dedup();
                assert_eq!(days, expected);
            }
            let (held, limit) = shelf.held();
            assert!(held <= limit, "{held} of {limit} bytes");
        }
    }

    #[test]
    fn what_nobody_names_leaves_the_shelf() {
        let mut random = Random(7);
        let shelf = Shelf::new(1 << 20);
        let chunks = Chunks::default().changed(&HashSet::new(), in_order(10 * RUN, &mut random), &shelf);
        assert!(shelf.held().0 > 0);
        drop(chunks);
        assert_eq!(shelf.held().0, 0);
    }
}
