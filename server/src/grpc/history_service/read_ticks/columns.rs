//! Messages of columns, made from columns: a chunk's arrays are written block by block, without a tick between.

use std::sync::Arc;

use prost::Message as _;
use prost::encoding::encode_varint;

use super::varint::{self, zigzag};
use super::{AROUND_TICKS, COLUMNS, MAX_MESSAGE_BYTES, Messages};
use crate::domain::chunk::Chunk;
use crate::domain::tick::MAX_TRADE_ID_BYTES;
use crate::domain::{Decimal, InstrumentId, Origin, Side, Tick, TradeId, UnixNanos};
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::query::{Key, Query, Stretch};

/// Ticks that are written together. A block is begun only where it fits, whatever its numbers.
const BLOCK: usize = 64;

/// What a tick takes at most without a text for its id: five numbers, its id, its entry, side and origin.
const TICK_BYTES: usize = 6 * varint::LONGEST + 5 + 2;

/// What an entry of the table takes at most: two names, three numbers, and tags.
const ENTRY_BYTES: usize = 128;

/// Field numbers of `TickColumns`, in the order in which they are written.
const FIELDS: [u8; 10] = [2, 3, 4, 5, 6, 7, 8, 9, 10, 13];

/// How a message names its trades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    None,
    Numbers,
    Texts,
}

impl Ids {
    fn of_chunk(chunk: &Chunk) -> Ids {
        match (chunk.trade_numbers(), chunk.has_trade_ids()) {
            (Some(_), _) => Ids::Numbers,
            (None, true) => Ids::Texts,
            (None, false) => Ids::None,
        }
    }

    fn of_tick(tick: &Tick) -> Ids {
        match tick.trade_id {
            TradeId::None => Ids::None,
            TradeId::Number(_) => Ids::Numbers,
            TradeId::Text(_) => Ids::Texts,
        }
    }
}

/// One entry of the table, and where its prices stand.
#[derive(Debug)]
struct Entry {
    instrument: InstrumentId,
    price_exponent: i8,
    quantity_exponent: i8,
    price: i64,
}

/// A message of columns in the making.
#[derive(Debug)]
pub(super) struct Columns {
    query: Arc<Query>,
    count: usize,
    ids: Ids,
    entries: Vec<Entry>,
    /// The entries as bytes, each with its tag and length.
    table: Vec<u8>,
    indexes: Vec<u8>,
    event_times: Vec<u8>,
    receive_times: Vec<u8>,
    prices: Vec<u8>,
    /// Empty while no tick has one; so are the four after it while they say what an absent column says.
    quantities: Vec<u8>,
    sides: Vec<u8>,
    texts: Vec<u8>,
    numbers: Vec<u8>,
    origins: Vec<u8>,
    log_seqs: Vec<u8>,
    /// The last tick's.
    event_time: i64,
    receive_time: i64,
    log_seq: i64,
    number: i64,
}

impl Columns {
    pub(super) fn new(query: Arc<Query>) -> Columns {
        Columns {
            query,
            count: 0,
            ids: Ids::None,
            entries: Vec::new(),
            table: Vec::new(),
            indexes: Vec::new(),
            event_times: Vec::new(),
            receive_times: Vec::new(),
            prices: Vec::new(),
            quantities: Vec::new(),
            sides: Vec::new(),
            texts: Vec::new(),
            numbers: Vec::new(),
            origins: Vec::new(),
            log_seqs: Vec::new(),
            event_time: 0,
            receive_time: 0,
            log_seq: 0,
            number: 0,
        }
    }

    pub(super) fn push(&mut self, stretch: Stretch<'_>, messages: &mut Messages) -> Result<(), Refusal> {
        match stretch {
            Stretch::Chunk(chunk, range) => {
                let (mut from, ids) = (range.start, Ids::of_chunk(chunk));
                while from < range.end {
                    let to = range.end.min(from + BLOCK);
                    self.make_room(to - from, ids, messages);
                    self.add_block(chunk, from, to)?;
                    from = to;
                }
            }
            Stretch::Hot(hot) => {
                for tick in hot.ticks() {
                    self.make_room(1, Ids::of_tick(tick), messages);
                    self.add(tick)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn end(&mut self, messages: &mut Messages) {
        if self.count == 0 {
            messages.end(None);
            return;
        }
        let last = self.last();
        self.pieces(|pieces| messages.end(Some((COLUMNS, pieces, last))));
    }

    /// Completes the message if it cannot take so many ticks more.
    fn make_room(&mut self, ticks: usize, ids: Ids, messages: &mut Messages) {
        if self.count == 0 {
            self.ids = ids;
            return;
        }
        let fits_ids = self.ids == Ids::Texts || self.ids == ids;
        let id_bytes = if self.ids == Ids::Texts { MAX_TRADE_ID_BYTES + 2 } else { 0 };
        let needed = ticks * (TICK_BYTES + id_bytes) + ENTRY_BYTES + FIELDS.len() * 4 + AROUND_TICKS;
        if fits_ids && self.len() + needed <= MAX_MESSAGE_BYTES {
            return;
        }
        let last = self.last();
        self.pieces(|pieces| messages.push(COLUMNS, pieces, last));
        self.clear();
        // Where kinds of ids alternate, messages of texts take them all.
        self.ids = if fits_ids { ids } else { Ids::Texts };
    }

    fn add_block(&mut self, chunk: &Chunk, from: usize, to: usize) -> Result<(), Refusal> {
        let count = to - from;
        let entry = self.entry(chunk.instrument(), chunk.price_exponent(), chunk.quantity_exponent())?;
        let mut block = [0; BLOCK];
        let block = &mut block[..count];
        self.add_index(entry, count);
        differences(block, &chunk.event_times()[from..to], &mut self.event_time);
        varint::put(&mut self.event_times, block);
        differences(block, &chunk.receive_times()[from..to], &mut self.receive_time);
        varint::put(&mut self.receive_times, block);
        differences(block, &chunk.price_mantissas()[from..to], &mut self.entries[entry].price);
        varint::put(&mut self.prices, block);
        let log_seqs = &chunk.log_seqs()[from..to];
        for (difference, log_seq) in block.iter_mut().zip(log_seqs) {
            *difference = zigzag(step(&mut self.log_seq, log_seq.cast_signed()));
        }
        varint::put(&mut self.log_seqs, block);
        match chunk.quantity_mantissas() {
            Some(mantissas) => {
                self.quantities.resize(self.quantities.len().max(self.count), 0);
                for (index, above) in (from..to).zip(block.iter_mut()) {
                    // Quantities are not negative, and one more than the greatest still fits.
                    *above = (mantissas[index].cast_unsigned() + 1) * u64::from(chunk.has_quantity(index));
                }
                varint::put(&mut self.quantities, block);
            }
            None => pad(&mut self.quantities, count, 0),
        }
        match chunk.same_side() {
            Some(side) => self.add_sides(count, |_| side),
            None => self.add_sides(count, |index| chunk.side(from + index)),
        }
        match chunk.same_origin() {
            Some(origin) => self.add_origins(count, |_| origin),
            None => self.add_origins(count, |index| chunk.origin(from + index)),
        }
        match (self.ids, chunk.trade_numbers()) {
            (Ids::None, _) => {}
            (Ids::Numbers, numbers) => {
                let numbers = numbers.expect("room was made for ids of this kind");
                for (difference, number) in block.iter_mut().zip(&numbers[from..to]) {
                    *difference = zigzag(step(&mut self.number, number.cast_signed()));
                }
                varint::put(&mut self.numbers, block);
            }
            (Ids::Texts, _) => (from..to).for_each(|index| self.add_text(&chunk.trade_id(index))),
        }
        self.count += count;
        Ok(())
    }

    fn add(&mut self, tick: &Tick) -> Result<(), Refusal> {
        let Tick { instrument, log_seq, event_time, receive_time, price, quantity, side, trade_id, origin } = tick;
        let entry = self.entry_of(*instrument, *price, *quantity)?;
        let Entry { price_exponent, quantity_exponent, .. } = self.entries[entry];
        self.add_index(entry, 1);
        let event_time = step(&mut self.event_time, event_time.nanos());
        varint::put(&mut self.event_times, &[zigzag(event_time)]);
        let receive_time = step(&mut self.receive_time, receive_time.nanos());
        varint::put(&mut self.receive_times, &[zigzag(receive_time)]);
        let mantissa = price.mantissa_at(price_exponent).expect(FITS);
        let difference = step(&mut self.entries[entry].price, mantissa);
        varint::put(&mut self.prices, &[zigzag(difference)]);
        let log_seq = step(&mut self.log_seq, log_seq.cast_signed());
        varint::put(&mut self.log_seqs, &[zigzag(log_seq)]);
        match quantity {
            Some(quantity) => {
                self.quantities.resize(self.quantities.len().max(self.count), 0);
                let mantissa = quantity.mantissa_at(quantity_exponent).expect(FITS);
                varint::put(&mut self.quantities, &[mantissa.cast_unsigned() + 1]);
            }
            None => pad(&mut self.quantities, 1, 0),
        }
        self.add_sides(1, |_| *side);
        self.add_origins(1, |_| *origin);
        match (self.ids, trade_id) {
            (Ids::Numbers, TradeId::Number(number)) => {
                let difference = step(&mut self.number, number.cast_signed());
                varint::put(&mut self.numbers, &[zigzag(difference)]);
            }
            (Ids::Texts, trade_id) => self.add_text(trade_id),
            _ => {}
        }
        self.count += 1;
        Ok(())
    }

    fn add_index(&mut self, entry: usize, count: usize) {
        match u8::try_from(entry) {
            Ok(small) if small < 0x80 => self.indexes.resize(self.indexes.len() + count, small),
            _ => (0..count).for_each(|_| encode_varint(entry as u64, &mut self.indexes)),
        }
    }

    fn add_sides(&mut self, count: usize, side: impl Fn(usize) -> Side) {
        let codes = (0..count).map(|index| i32::from(proto::Side::from(side(index))) as u8);
        add_codes(&mut self.sides, codes, self.count, i32::from(proto::Side::Unspecified) as u8);
    }

    fn add_origins(&mut self, count: usize, origin: impl Fn(usize) -> Origin) {
        let codes = (0..count).map(|index| i32::from(proto::Origin::from(origin(index))) as u8);
        add_codes(&mut self.origins, codes, self.count, i32::from(proto::Origin::Live) as u8);
    }

    fn add_text(&mut self, id: &TradeId) {
        let written;
        let text = match id {
            TradeId::None => "",
            TradeId::Number(number) => {
                written = number.to_string();
                &written
            }
            TradeId::Text(text) => text,
        };
        self.texts.extend_from_slice(&[TEXT, text.len() as u8]);
        self.texts.extend_from_slice(text.as_bytes());
    }

    /// The entry at which a tick's numbers fit: the newest of its instrument, or a new one.
    fn entry_of(
        &mut self,
        instrument: InstrumentId,
        price: Decimal,
        quantity: Option<Decimal>,
    ) -> Result<usize, Refusal> {
        let quantity = quantity.unwrap_or(Decimal::ZERO);
        let fits = |price_exponent, quantity_exponent| {
            price.mantissa_at(price_exponent).is_some() && quantity.mantissa_at(quantity_exponent).is_some()
        };
        let (mut price_exponent, mut quantity_exponent) = (price.exponent(), quantity.exponent());
        if let Some(index) = self.entries.iter().rposition(|entry| entry.instrument == instrument) {
            let entry = &self.entries[index];
            if fits(entry.price_exponent, entry.quantity_exponent) {
                return Ok(index);
            }
            let finest = (entry.price_exponent.min(price_exponent), entry.quantity_exponent.min(quantity_exponent));
            if fits(finest.0, finest.1) {
                (price_exponent, quantity_exponent) = finest;
            }
        }
        self.entry(instrument, price_exponent, quantity_exponent)
    }

    /// The entry of an instrument and its exponents, which joins the table if it is new.
    fn entry(&mut self, instrument: InstrumentId, price_exponent: i8, quantity_exponent: i8) -> Result<usize, Refusal> {
        let same = |entry: &Entry| {
            (entry.instrument, entry.price_exponent, entry.quantity_exponent)
                == (instrument, price_exponent, quantity_exponent)
        };
        if let Some(index) = self.entries.iter().rposition(same) {
            return Ok(index);
        }
        let known = self.query.registry().get(instrument).ok_or_else(|| super::nameless(instrument))?;
        let entry = proto::ColumnInstrument {
            instrument_id: instrument.0,
            venue: known.venue.as_str().to_owned(),
            symbol: known.symbol.as_str().to_owned(),
            price_exponent: price_exponent.into(),
            quantity_exponent: quantity_exponent.into(),
        };
        self.table.push(TABLE);
        entry.encode_length_delimited(&mut self.table).expect("a vector takes every write");
        self.entries.push(Entry { instrument, price_exponent, quantity_exponent, price: 0 });
        Ok(self.entries.len() - 1)
    }

    fn columns(&self) -> [&Vec<u8>; FIELDS.len()] {
        [
            &self.indexes,
            &self.event_times,
            &self.receive_times,
            &self.prices,
            &self.quantities,
            &self.sides,
            &self.texts,
            &self.log_seqs,
            &self.origins,
            &self.numbers,
        ]
    }

    /// The bytes so far, without tags and lengths of columns.
    fn len(&self) -> usize {
        self.table.len() + self.columns().iter().map(|column| column.len()).sum::<usize>()
    }

    /// The key of the last tick.
    fn last(&self) -> Key {
        let time = UnixNanos::new(self.event_time).expect("the time of a stored tick");
        (time, self.log_seq.cast_unsigned())
    }

    /// Gives the message's pieces, in the order of their fields.
    fn pieces(&self, take: impl FnOnce(&[&[u8]])) {
        let mut heads = [const { Vec::new() }; FIELDS.len()];
        for ((head, field), column) in heads.iter_mut().zip(FIELDS).zip(self.columns()) {
            // Texts have a tag each.
            if !column.is_empty() && field << 3 | 2 != TEXT {
                head.push(field << 3 | 2);
                encode_varint(column.len() as u64, head);
            }
        }
        let mut pieces = vec![&self.table[..]];
        for (head, column) in heads.iter().zip(self.columns()) {
            pieces.push(head);
            pieces.push(column);
        }
        take(&pieces);
    }

    /// Begins a new message.
    fn clear(&mut self) {
        let Columns { table, indexes, event_times, receive_times, prices, .. } = self;
        [table, indexes, event_times, receive_times, prices].into_iter().for_each(Vec::clear);
        let Columns { quantities, sides, texts, numbers, origins, log_seqs, .. } = self;
        [quantities, sides, texts, numbers, origins, log_seqs].into_iter().for_each(Vec::clear);
        self.entries.clear();
        self.count = 0;
        (self.event_time, self.receive_time, self.log_seq, self.number) = (0, 0, 0, 0);
    }
}

const FITS: &str = "the entry was chosen by this number";

/// Tags of `TickColumns`: an entry of the table, a text.
const TABLE: u8 = 1 << 3 | 2;
const TEXT: u8 = 8 << 3 | 2;

/// How far a value is from the one before.
#[inline]
fn step(before: &mut i64, value: i64) -> i64 {
    value.wrapping_sub(std::mem::replace(before, value))
}

#[inline]
fn differences(block: &mut [u64], values: &[i64], before: &mut i64) {
    for (difference, &value) in block.iter_mut().zip(values) {
        *difference = zigzag(step(before, value));
    }
}

/// Appends the code of an absent column, if it is there.
fn pad(column: &mut Vec<u8>, count: usize, code: u8) {
    if !column.is_empty() {
        column.resize(column.len() + count, code);
    }
}

/// Appends codes to a column that is absent while all are `absent`.
fn add_codes(column: &mut Vec<u8>, mut codes: impl Iterator<Item = u8> + Clone, before: usize, absent: u8) {
    if column.is_empty() {
        if codes.clone().all(|code| code == absent) {
            return;
        }
        column.resize(before, absent);
    }
    column.extend(&mut codes);
}
