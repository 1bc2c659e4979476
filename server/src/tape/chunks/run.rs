//! Headers of neighbouring chunks, packed, and those that are unpacked at hand.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;

use crate::domain::statistics::{PricePoint, Statistics, Sums, Totals};
use crate::domain::varint::{self, Reader};
use crate::domain::{I256, UnixNanos};
use crate::store::ChunkId;
use crate::tape::ChunkHeader;

/// Headers of a run at most. Longer ones take less memory, shorter ones are unpacked sooner.
pub(super) const RUN: usize = if cfg!(test) { 4 } else { 64 };

/// Memory of unpacked headers that a server keeps unless told otherwise: those of about 50,000 chunks.
pub const HEADER_CACHE_BYTES: u64 = 32 << 20;

/// With less, a cache of many parts has no room for a run in any of them.
pub const LEAST_HEADER_CACHE_BYTES: u64 = 1 << 20;

/// What all chunks before one add up to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    pub(super) chunks: usize,
    pub(super) sums: Sums,
    /// The time-weighted integral from the first tick to the last one before.
    pub(super) integral: I256,
    /// That last one.
    pub(super) last: Option<PricePoint>,
}

impl Before {
    /// Goes on past chunks that follow, of which the integral is known.
    pub(super) fn add(&mut self, chunks: usize, totals: &Totals, integral: I256) {
        self.chunks += chunks;
        self.sums.add(&Sums::from(totals));
        self.integral += self.step_to(totals.first) + integral;
        self.last = totals.last;
    }

    /// The integral from the last tick to the one that follows.
    pub(super) fn step_to(&self, first: Option<PricePoint>) -> I256 {
        match (self.last, first) {
            (Some(last), Some(first)) => last.weight_until(first.event_time),
            _ => I256::ZERO,
        }
    }
}

/// The unpacked headers at hand, bounded by their memory.
#[derive(Debug)]
pub struct Shelf {
    unpacked: Cache<u64, Arc<Unpacked>, Memory>,
    /// How many runs were ever made: the name of the next one.
    runs: AtomicU64,
}

#[derive(Clone, Debug)]
struct Memory;

impl quick_cache::Weighter<u64, Arc<Unpacked>> for Memory {
    fn weight(&self, _: &u64, unpacked: &Arc<Unpacked>) -> u64 {
        let each = size_of::<ChunkHeader>() + size_of::<Arc<ChunkHeader>>() + size_of::<Before>() + ARC_COUNTS;
        (unpacked.headers.len() * each + size_of::<Unpacked>() + ARC_COUNTS) as u64
    }
}

/// What an `Arc` counts with.
const ARC_COUNTS: usize = 2 * size_of::<usize>();

impl Shelf {
    /// Keeps at most about so many bytes.
    pub fn new(bytes: u64) -> Arc<Shelf> {
        let full_run = (RUN * (size_of::<ChunkHeader>() + size_of::<Before>())) as u64;
        let unpacked = Cache::with_weighter((bytes / full_run).max(16) as usize, bytes, Memory);
        Arc::new(Shelf { unpacked, runs: AtomicU64::new(0) })
    }

    /// The memory of what is unpacked, and how much it may be.
    pub fn held(&self) -> (u64, u64) {
        (self.unpacked.weight(), self.unpacked.capacity())
    }
}

/// Neighbouring chunks, at least one.
#[derive(Debug)]
pub(super) struct Run {
    /// Its name on the shelf.
    number: u64,
    pub(super) shelf: Arc<Shelf>,
    pub(super) ids: Box<[ChunkId]>,
    pub(super) first: Arc<ChunkHeader>,
    pub(super) last: Arc<ChunkHeader>,
    pub(super) totals: Totals,
    /// From the first tick of the first chunk to the last tick of the last one.
    pub(super) integral: I256,
    /// Days on which two neighbours fit one chunk.
    pub(super) joinable_days: Box<[u32]>,
    packed: Box<[u8]>,
}

/// The headers of a run.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) headers: Box<[Arc<ChunkHeader>]>,
    /// What the chunks of the run before each one add up to.
    pub(super) before: Box<[Before]>,
}

impl Unpacked {
    fn new(headers: Box<[Arc<ChunkHeader>]>) -> Unpacked {
        let mut before = Vec::with_capacity(headers.len());
        let mut sum = Before::default();
        for header in &headers {
            before.push(sum);
            sum.add(1, &header.statistics.totals, header.statistics.integral);
        }
        Unpacked { headers, before: before.into() }
    }
}

impl Run {
    pub(super) fn new(headers: &[Arc<ChunkHeader>], shelf: &Arc<Shelf>) -> Arc<Run> {
        let mut whole = Statistics::default();
        headers.iter().for_each(|header| whole.append(&header.statistics));
        let joinable = headers.windows(2).filter(|pair| pair[0].fits_with(&pair[1]));
        let mut joinable_days: Vec<u32> = joinable.map(|pair| pair[0].day).collect();
        joinable_days.dedup();
        let number = shelf.runs.fetch_add(1, Ordering::Relaxed);
        let [mut first, mut last] =
            [headers.first(), headers.last()].map(|end| end.expect("a run has a chunk").clone());
        let mut packed = Vec::new();
        if headers.len() > 2 {
            pack(headers, &mut packed);
            shelf.unpacked.insert(number, Arc::new(Unpacked::new(headers.into())));
            // The others go; what stays shall not stand among them and keep their memory.
            [first, last] = [first, last].map(|end| Arc::new(ChunkHeader::clone(&end)));
        }
        Arc::new(Run {
            number,
            shelf: shelf.clone(),
            ids: headers.iter().map(|header| header.id).collect(),
            first,
            last,
            totals: whole.totals,
            integral: whole.integral,
            joinable_days: joinable_days.into(),
            packed: packed.into(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn unpack(&self) -> Arc<Unpacked> {
        if self.packed.is_empty() {
            let ends = [self.first.clone(), self.last.clone()];
            return Arc::new(Unpacked::new(ends[2 - self.len()..].into()));
        }
        if let Some(unpacked) = self.shelf.unpacked.get(&self.number) {
            return unpacked;
        }
        let mut headers = unpack(&self.ids, &self.packed);
        // The ends are here already.
        (headers[0], headers[self.len() - 1]) = (self.first.clone(), self.last.clone());
        let unpacked = Arc::new(Unpacked::new(headers.into()));
        self.shelf.unpacked.insert(self.number, unpacked.clone());
        unpacked
    }

    pub(super) fn get(&self, index: usize) -> Arc<ChunkHeader> {
        match index {
            0 => self.first.clone(),
            _ if index + 1 == self.len() => self.last.clone(),
            _ => self.unpack().headers[index].clone(),
        }
    }

    pub(super) fn range(&self, range: Range<usize>) -> impl DoubleEndedIterator<Item = Arc<ChunkHeader>> + use<> {
        let unpacked = self.unpack();
        range.map(move |index| unpacked.headers[index].clone())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.packed.is_empty() {
            self.shelf.unpacked.remove(&self.number);
        }
    }
}

/// Appends headers, without their ids. Numbers are the differences from the header before; times those from the
/// statistics', which have them too.
fn pack(headers: &[Arc<ChunkHeader>], out: &mut Vec<u8>) {
    let (mut day, mut min_seq) = (0, 0);
    for header in headers {
        let (first_time, last_time) = header.times_of_statistics();
        varint::put_signed(out, i64::from(header.day) - i64::from(day));
        varint::put_signed(out, header.min_seq.wrapping_sub(min_seq).cast_signed());
        varint::put(out, header.max_seq.wrapping_sub(header.min_seq));
        varint::put(out, u64::from(header.byte_count));
        varint::put_signed(out, header.first_time.nanos().wrapping_sub(first_time.nanos()));
        varint::put_signed(out, header.last_time.nanos().wrapping_sub(last_time.nanos()));
        let statistics = header.statistics.encode();
        varint::put(out, statistics.len() as u64);
        out.extend_from_slice(&statistics);
        (day, min_seq) = (header.day, header.min_seq);
    }
}

/// The inverse of [`pack`].
fn unpack(ids: &[ChunkId], packed: &[u8]) -> Vec<Arc<ChunkHeader>> {
    let mut reader = Reader::new(packed);
    let (mut day, mut min_seq) = (0_i64, 0_u64);
    let mut next = |id: ChunkId| -> Option<Arc<ChunkHeader>> {
        day += reader.signed()?;
        min_seq = min_seq.wrapping_add(reader.signed()?.cast_unsigned());
        let max_seq = min_seq.wrapping_add(reader.varint()?);
        let byte_count = reader.varint()? as u32;
        let (first_time, last_time) = (reader.signed()?, reader.signed()?);
        let length = reader.length(packed.len())?;
        let statistics = Statistics::decode(reader.bytes(length)?).ok()?;
        let mut header = ChunkHeader {
            id,
            day: day as u32,
            min_seq,
            max_seq,
            byte_count,
            statistics,
            first_time: UnixNanos::MIN,
            last_time: UnixNanos::MIN,
        };
        let (first, last) = header.times_of_statistics();
        header.first_time = UnixNanos::new(first.nanos().wrapping_add(first_time)).ok()?;
        header.last_time = UnixNanos::new(last.nanos().wrapping_add(last_time)).ok()?;
        Some(Arc::new(header))
    };
    ids.iter().map(|&id| next(id).expect("it was packed here")).collect()
}
