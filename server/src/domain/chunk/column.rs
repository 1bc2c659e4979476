//! Columns of a chunk: numbers, and codes of small alphabets.
//!
//! A column does not hold its length: the chunk knows it. A numeric column is an arithmetic progression (also one
//! repeated value), variable-length numbers for the few ticks of a thin instrument, or pco for everything else, in one
//! page or in several, told apart by its first byte. Codes are stored as runs, since neighbours mostly agree.

use std::ops::Range;

use pco::errors::PcoResult;
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec, PagingSpec};

use super::ChunkCorrupt;
use crate::domain::varint::{self, Reader};

/// What a column's numbers look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Neighbours lie close together and have no other pattern: times, positions, ids.
    Steps,
    /// Neighbours lie close together on a grid that the codec looks for: prices.
    Walk,
    /// Neighbours have nothing to do with each other; the codec looks for a grid: quantities, lengths of runs.
    Values,
}

/// First byte of a column: `start + index * step`.
const PROGRESSION: u8 = 0;
/// First byte of a column: variable-length differences.
const DIFFERENCES: u8 = 1;
/// First byte of a column: variable-length numbers.
const NUMBERS: u8 = 2;
/// First byte of a column: pco.
const PCO: u8 = 3;
/// First byte of a column: pco in pages, each of which can be read alone.
const PAGES: u8 = 4;

/// Up to this many numbers, pco's own tables cost more than they save.
const ALWAYS_VARINTS: usize = 16;

/// Up to this many numbers both are tried; beyond, pco always wins.
const MAYBE_VARINTS: usize = 256;

/// Level 8, pco's default, costs four times the encoding time for 1% of the bytes.
const PCO_LEVEL: usize = 4;

/// Appends a numeric column.
pub(super) fn put(out: &mut Vec<u8>, values: &[i64], shape: Shape) {
    put_in_pages(out, values, shape, values.len());
}

/// Appends a numeric column of which [`take_range`] reads one page without the others.
pub(super) fn put_in_pages(out: &mut Vec<u8>, values: &[i64], shape: Shape, page: usize) {
    let Some(&start) = values.first() else { return };
    let step = values.get(1).map_or(0, |second| second.wrapping_sub(start));
    if values.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step) {
        out.push(PROGRESSION);
        varint::put_signed(out, start);
        varint::put_signed(out, step);
        return;
    }
    let begin = out.len();
    if values.len() <= MAYBE_VARINTS {
        put_varints(out, values, shape);
    }
    if values.len() > ALWAYS_VARINTS {
        let packed = pack(values, shape, page);
        let short = out.len() - begin;
        if short == 0 || packed.len() + 3 < short {
            out.truncate(begin);
            if page < values.len() {
                out.push(PAGES);
                varint::put(out, page as u64);
            } else {
                out.push(PCO);
            }
            varint::put(out, packed.len() as u64);
            out.extend_from_slice(&packed);
        }
    }
}

/// Appends a numeric column in variable-length numbers.
fn put_varints(out: &mut Vec<u8>, values: &[i64], shape: Shape) {
    if shape == Shape::Values {
        out.push(NUMBERS);
        for &value in values {
            varint::put_signed(out, value);
        }
        return;
    }
    out.push(DIFFERENCES);
    let mut previous = 0;
    for &value in values {
        // Wrapping differences are exact: the reader adds them back in the same ring.
        varint::put_signed(out, value.wrapping_sub(previous));
        previous = value;
    }
}

/// The numbers by pco in pages: the lengths of all pages but the last, pco's header, which names the version of its
/// format, what the pages share, and the pages.
fn pack(values: &[i64], shape: Shape, page: usize) -> Vec<u8> {
    let paging = PagingSpec::Exact(values.chunks(page).map(<[i64]>::len).collect());
    let config = ChunkConfig::default().with_compression_level(PCO_LEVEL).with_paging_spec(paging);
    let config = match shape {
        Shape::Steps => config.with_delta_spec(DeltaSpec::TryConsecutive(1)).with_mode_spec(ModeSpec::Classic),
        Shape::Walk => config.with_delta_spec(DeltaSpec::TryConsecutive(1)),
        // Trying differences takes two fifths more time, and saved no byte of the quantities of four real captures.
        Shape::Values => config.with_delta_spec(DeltaSpec::NoOp),
    };
    let file = FileCompressor::default();
    let mut chunk = file.chunk_compressor(values, &config).expect("the configuration is valid and there are values");
    const WRITTEN: &str = "a vector takes every write";
    let mut packed = file.write_header(Vec::with_capacity(values.len())).expect(WRITTEN);
    packed = chunk.write_meta(packed).expect(WRITTEN);
    let mut lengths = Vec::new();
    for page in 0..values.len().div_ceil(page) {
        let begin = packed.len();
        packed = chunk.write_page(page, packed).expect(WRITTEN);
        lengths.push(packed.len() - begin);
    }
    lengths.pop();
    if lengths.is_empty() {
        return packed;
    }
    let mut out = Vec::with_capacity(packed.len() + 2 * lengths.len());
    for length in lengths {
        varint::put(&mut out, length as u64);
    }
    out.extend_from_slice(&packed);
    out
}

/// Reads a numeric column of a known length.
pub(super) fn take(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>, ChunkCorrupt> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if let Some(pages) = Pages::take(reader, count)? {
        return pages.all();
    }
    match reader.byte().ok_or(CUT)? {
        PROGRESSION => {
            let mut next = reader.signed().ok_or(CUT)?;
            let step = reader.signed().ok_or(CUT)?;
            let mut values = Vec::with_capacity(count);
            for _ in 0..count {
                values.push(next);
                next = next.wrapping_add(step);
            }
            Ok(values)
        }
        DIFFERENCES => {
            let mut values = take_varints(reader, count)?;
            let mut sum = 0i64;
            for value in &mut values {
                sum = sum.wrapping_add(*value);
                *value = sum;
            }
            Ok(values)
        }
        NUMBERS => take_varints(reader, count),
        _ => Err(ChunkCorrupt("a column has an unknown encoding")),
    }
}

/// Reads some neighbours out of a numeric column of a known length. Of pco's, pages without any of them are passed over,
/// and the last page is read no further than they go; other columns are short or cheap, and are read as a whole.
pub(super) fn take_range(
    reader: &mut Reader<'_>,
    count: usize,
    wanted: Range<usize>,
) -> Result<Vec<i64>, ChunkCorrupt> {
    if wanted == (0..count) {
        return take(reader, count);
    }
    match Pages::take(reader, count)? {
        Some(pages) if !wanted.is_empty() => pages.some(wanted),
        Some(_) => Ok(Vec::new()),
        None => Ok(take(reader, count)?.drain(wanted).collect()),
    }
}

const CUT: ChunkCorrupt = ChunkCorrupt("a column is cut off");
const UNREADABLE: ChunkCorrupt = ChunkCorrupt("a column is not readable by pco");

/// Reads variable-length numbers.
fn take_varints(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>, ChunkCorrupt> {
    // Each number has at least one byte: what is allocated is bounded by what is there.
    if count > reader.rest().len() {
        return Err(CUT);
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(reader.signed().ok_or(CUT)?);
    }
    Ok(values)
}

/// What [`pack`] wrote.
struct Pages<'a> {
    count: usize,
    /// Numbers of each page but the last.
    page: usize,
    /// The lengths of all pages but the last, in bytes.
    lengths: Reader<'a>,
    packed: &'a [u8],
}

impl<'a> Pages<'a> {
    /// Finds the parts of a column of pco's; `None`, and nothing read, if it is none.
    fn take(reader: &mut Reader<'a>, count: usize) -> Result<Option<Pages<'a>>, ChunkCorrupt> {
        let page = match reader.rest().first() {
            Some(&PCO) if count > 0 => {
                reader.byte();
                count
            }
            Some(&PAGES) if count > 0 => {
                reader.byte();
                reader.length(count).filter(|&page| page > 0).ok_or(CUT)?
            }
            _ => return Ok(None),
        };
        let length = reader.length(reader.rest().len()).ok_or(CUT)?;
        let mut packed = Reader::new(reader.bytes(length).ok_or(CUT)?);
        let lengths = packed.clone();
        for _ in 1..count.div_ceil(page) {
            packed.varint().ok_or(CUT)?;
        }
        Ok(Some(Pages { count, page, lengths, packed: packed.rest() }))
    }

    /// All numbers.
    fn all(mut self) -> Result<Vec<i64>, ChunkCorrupt> {
        let mut read = || -> PcoResult<Option<Vec<i64>>> {
            let (file, rest) = FileDecompressor::new(self.packed)?;
            let (mut chunk, mut rest) = file.chunk_decompressor::<i64, _>(rest)?;
            let mut values = vec![0; self.count];
            for own in values.chunks_mut(self.page) {
                let mut page = chunk.page_decompressor(rest, own.len())?;
                let progress = page.read(own)?;
                let following = page.into_src();
                // Of the last page, the column's own length tells.
                let is_last = following.is_empty();
                let length = rest.len() - following.len();
                let is_told = is_last || self.lengths.length(self.packed.len()) == Some(length);
                if !progress.finished || progress.n_processed != own.len() || !is_told {
                    return Ok(None);
                }
                rest = following;
            }
            Ok(rest.is_empty().then_some(values))
        };
        let values = read().map_err(|_| UNREADABLE)?;
        values.ok_or(ChunkCorrupt("a column has another length than its chunk"))
    }

    /// Some neighbours, at least one.
    fn some(mut self, wanted: Range<usize>) -> Result<Vec<i64>, ChunkCorrupt> {
        let (first, last) = (wanted.start / self.page, (wanted.end - 1) / self.page);
        let mut skipped = 0;
        for _ in 0..first {
            skipped += self.lengths.length(self.packed.len()).ok_or(CUT)?;
        }
        let read = || -> PcoResult<Option<Vec<i64>>> {
            let (file, rest) = FileDecompressor::new(self.packed)?;
            let (mut chunk, rest) = file.chunk_decompressor::<i64, _>(rest)?;
            let Some(mut rest) = rest.get(skipped..) else { return Ok(None) };
            let mut values = Vec::with_capacity((last - first + 1) * self.page);
            for number in first..=last {
                let own = self.page.min(self.count - number * self.page);
                let read = own.min((wanted.end - number * self.page).next_multiple_of(PCO_BATCH));
                let begin = values.len();
                values.resize(begin + read, 0);
                let mut page = chunk.page_decompressor(rest, own)?;
                page.read(&mut values[begin..])?;
                rest = page.into_src();
            }
            Ok(Some(values))
        };
        let mut values = read().map_err(|_| UNREADABLE)?.ok_or(CUT)?;
        values.truncate(wanted.end - first * self.page);
        values.drain(..wanted.start - first * self.page);
        Ok(values)
    }
}

/// Numbers that pco decodes together: only whole batches of them can be read.
const PCO_BATCH: usize = 256;

/// One small code for each tick: a side, a flag, a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Codes {
    /// The same for all.
    Same(u8),
    /// One each, not all equal.
    Each(Vec<u8>),
}

/// First byte of codes that are not all the same: two that take turns.
const TWO: u8 = 0xfe;
/// First byte of codes that are not all the same: more than two.
const MANY: u8 = 0xff;

impl Codes {
    /// The compact form of codes, which are below [`TWO`].
    pub(super) fn new(codes: Vec<u8>) -> Codes {
        let first = codes.first().copied().unwrap_or(0);
        if codes.iter().all(|&code| code == first) { Codes::Same(first) } else { Codes::Each(codes) }
    }

    /// The code at an index.
    #[inline]
    pub(super) fn at(&self, index: usize) -> u8 {
        match self {
            Codes::Same(code) => *code,
            Codes::Each(codes) => codes[index],
        }
    }

    /// The code of all, if it is the same.
    pub(super) fn same(&self) -> Option<u8> {
        match self {
            Codes::Same(code) => Some(*code),
            Codes::Each(_) => None,
        }
    }

    /// How many of the first `count` are a code.
    pub(super) fn count(&self, code: u8, count: usize) -> usize {
        match self {
            Codes::Same(same) => {
                if *same == code {
                    count
                } else {
                    0
                }
            }
            Codes::Each(codes) => codes.iter().filter(|&&each| each == code).count(),
        }
    }

    /// Memory that it holds, in bytes.
    pub(super) fn memory(&self) -> usize {
        match self {
            Codes::Same(_) => 0,
            Codes::Each(codes) => codes.capacity(),
        }
    }

    /// Appends the codes as runs.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let codes = match self {
            Codes::Same(code) => return out.push(*code),
            Codes::Each(codes) => codes,
        };
        let (mut symbols, mut lengths) = (Vec::new(), Vec::new());
        for run in codes.chunk_by(|a, b| a == b) {
            symbols.push(i64::from(run[0]));
            lengths.push(run.len() as i64);
        }
        let (first, second) = (symbols[0], symbols[1]);
        let take_turns =
            symbols.chunks(2).all(|pair| pair[0] == first && pair.get(1).is_none_or(|&other| other == second));
        if take_turns {
            out.extend_from_slice(&[TWO, first as u8, second as u8]);
            varint::put(out, lengths.len() as u64);
        } else {
            out.push(MANY);
            varint::put(out, lengths.len() as u64);
            put(out, &symbols, Shape::Values);
        }
        put(out, &lengths, Shape::Values);
    }

    /// Reads `count` codes below `bound`.
    pub(super) fn take(reader: &mut Reader<'_>, count: usize, bound: u8) -> Result<Codes, ChunkCorrupt> {
        let head = reader.byte().ok_or(CUT)?;
        let symbols = match head {
            TWO => {
                let pair = [reader.byte().ok_or(CUT)?, reader.byte().ok_or(CUT)?];
                let runs = reader.length(count).ok_or(CUT)?;
                (0..runs).map(|run| i64::from(pair[run % 2])).collect()
            }
            MANY => {
                let runs = reader.length(count).ok_or(CUT)?;
                take(reader, runs)?
            }
            code if code < bound => return Ok(Codes::Same(code)),
            _ => return Err(ChunkCorrupt("a code is out of range")),
        };
        let lengths = take(reader, symbols.len())?;
        let mut codes = Vec::with_capacity(count);
        for (symbol, length) in symbols.into_iter().zip(lengths) {
            let code = u8::try_from(symbol).ok().filter(|&code| code < bound);
            let code = code.ok_or(ChunkCorrupt("a code is out of range"))?;
            let length = usize::try_from(length).ok().filter(|&length| length <= count - codes.len());
            let length = length.ok_or(ChunkCorrupt("runs of codes are longer than their chunk"))?;
            codes.resize(codes.len() + length, code);
        }
        if codes.len() == count { Ok(Codes::new(codes)) } else { Err(ChunkCorrupt("runs of codes are too short")) }
    }
}
