//! Ticks, and the other entries of the log.

use std::fmt;
use std::sync::Arc;

use super::source::{Scope, SourceGap, SourceGapFilled, SourceStatus};
use super::{Action, Correction, Decimal, InstrumentId, Symbol, UnixNanos, Venue, segment};

/// Which side was the aggressor of a trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Side {
    /// Not known.
    #[default]
    Unspecified = 0,
    /// A buyer took an offer.
    Buy = 1,
    /// A seller hit a bid.
    Sell = 2,
}

impl Side {
    /// The side of a stored number, or `None` for a number that no version wrote.
    pub fn from_code(code: u8) -> Option<Side> {
        match code {
            0 => Some(Side::Unspecified),
            1 => Some(Side::Buy),
            2 => Some(Side::Sell),
            _ => None,
        }
    }
}

/// How a tick came into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Origin {
    /// As it happened.
    #[default]
    Live,
    /// Later, by an import or a publisher that said so.
    Backfill,
}

/// Longest trade id in bytes.
pub const MAX_TRADE_ID_BYTES: usize = 64;

/// The venue's own identifier of a trade, up to 64 bytes of UTF-8; empty when the venue gives none.
///
/// Numbers in canonical form are held as numbers, because most venues count and numbers compress to almost nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum TradeId {
    /// The venue gave none.
    #[default]
    None,
    /// Decimal digits without leading zeros that fit 64 bits.
    Number(u64),
    /// Anything else.
    // One pointer, because ticks are kept by the million and few venues have such names.
    Text(Arc<Box<str>>),
}

/// A trade id is longer than 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("longer than {MAX_TRADE_ID_BYTES} bytes")]
pub struct TradeIdInvalid;

impl TradeId {
    /// Text that is no number, of a length that was checked.
    pub(crate) fn text(text: &str) -> TradeId {
        TradeId::Text(Arc::new(text.into()))
    }

    /// Checks the length and picks the compact form. Empty text is [`TradeId::None`].
    pub fn new(text: &str) -> Result<TradeId, TradeIdInvalid> {
        if text.is_empty() {
            return Ok(TradeId::None);
        }
        if text.len() > MAX_TRADE_ID_BYTES {
            return Err(TradeIdInvalid);
        }
        Ok(TradeId::number(text.as_bytes()).unwrap_or_else(|| TradeId::text(text)))
    }

    /// The id of a number in canonical form: decimal digits without leading zeros that fit 64 bits.
    #[inline]
    pub(crate) fn number(text: &[u8]) -> Option<TradeId> {
        if text.is_empty() || (text[0] == b'0' && text.len() > 1) {
            return None;
        }
        let mut number = 0u64;
        let mut eights = text.chunks_exact(8);
        for eight in &mut eights {
            let eight = eight_digits(eight.try_into().expect("chunks of eight bytes"))?;
            number = number.checked_mul(100_000_000)?.checked_add(eight)?;
        }
        for byte in eights.remainder() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            number = number.checked_mul(10)?.checked_add(digit.into())?;
        }
        Some(TradeId::Number(number))
    }
}

/// The number that eight digits write, if they are that: neighbours are put together three times, as in fast_float
/// (Lemire, "Number Parsing at a Gigabyte per Second", 2021).
#[inline]
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(text);
    let above = word.wrapping_add(0x0606_0606_0606_0606);
    if (word & 0xf0f0_f0f0_f0f0_f0f0) | ((above & 0xf0f0_f0f0_f0f0_f0f0) >> 4) != 0x3333_3333_3333_3333 {
        return None;
    }
    let digits = word & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (digits.wrapping_mul(1 + (10 << 8)) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(1 + (100 << 16)) >> 16) & 0x0000_ffff_0000_ffff;
    Some((fours.wrapping_mul(1 + (10_000 << 32)) >> 32) & 0xffff_ffff)
}

impl fmt::Display for TradeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TradeId::None => Ok(()),
            TradeId::Number(number) => write!(out, "{number}"),
            TradeId::Text(text) => out.write_str(text),
        }
    }
}

/// One trade as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// What was traded where.
    pub instrument: InstrumentId,
    /// The tick's position in its epoch's log, from 1.
    pub log_seq: u64,
    /// When it happened, by the venue.
    pub event_time: UnixNanos,
    /// When it was received: by the source if that said so, else by the server.
    pub receive_time: UnixNanos,
    /// The price. Zero and negative prices are valid.
    pub price: Decimal,
    /// How much was traded, zero or more; `None` when the source does not say.
    pub quantity: Option<Decimal>,
    /// The aggressor.
    pub side: Side,
    /// The venue's identifier of the trade.
    pub trade_id: TradeId,
    /// Live or backfilled.
    pub origin: Origin,
}

// One line of the processor's cache: ticks are copied and kept by the million.
const _: () = assert!(std::mem::size_of::<Tick>() == 64 && std::mem::size_of::<NewTick>() == 64);

impl Tick {
    /// The order of ticks in history.
    pub fn key(&self) -> (UnixNanos, u64) {
        (self.event_time, self.log_seq)
    }
}

/// A tick on its way in: no position yet, and its instrument is an index into its [`Batch`]'s table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTick {
    /// Index into [`Batch::instruments`].
    pub instrument: u32,
    /// When it happened, by the venue.
    pub event_time: UnixNanos,
    /// When the source received it; `None` asks the server to stamp it.
    pub receive_time: Option<UnixNanos>,
    /// The price.
    pub price: Decimal,
    /// How much was traded, zero or more.
    pub quantity: Option<Decimal>,
    /// The aggressor.
    pub side: Side,
    /// The venue's identifier of the trade; never [`TradeId::None`] of a correction or a cancel.
    pub trade_id: TradeId,
    /// Whether it is a trade, or is about an earlier one with its identifier and its event time. Price, quantity and side
    /// of a cancel are not looked at.
    pub action: Action,
}

impl NewTick {
    /// The same without what does not count in a cancel, so that equal cancels are equal however they were sent.
    pub fn canonical(self) -> NewTick {
        match self.action {
            Action::New | Action::Correct => self,
            Action::Cancel => NewTick { price: Decimal::ZERO, quantity: None, side: Side::Unspecified, ..self },
        }
    }
}

/// What one sender sends at once, all of it valid: ticks, or what its source says about itself. Stored all or not at
/// all.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Batch {
    /// The distinct instruments, in the order of their first tick.
    pub instruments: Vec<(Venue, Symbol)>,
    /// The ticks, corrections and cancels, in the order sent.
    pub ticks: Vec<NewTick>,
    /// Other entries, which follow the ticks.
    pub controls: Vec<Control>,
}

impl Batch {
    /// How many entries of the log it becomes.
    pub fn entry_count(&self) -> usize {
        self.ticks.len() + self.controls.len()
    }

    /// About how much memory it holds, in bytes.
    pub fn memory(&self) -> usize {
        let controls = self.controls.iter().map(Control::memory).sum::<usize>();
        self.ticks.len() * super::block::TICK_BYTES + controls
    }

    /// A digest of the entries as sent, before the server stamps anything: rows and columns of the same ticks agree.
    ///
    /// XXH3 with 128 bits over a fixed layout. It recognises a repeated batch; it is no defence against forgery.
    pub fn digest(&self) -> [u8; 16] {
        const STRETCH: usize = 4_096;
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for (venue, symbol) in &self.instruments {
            hash.update(&[venue.as_str().len() as u8]);
            hash.update(venue.as_str().as_bytes());
            hash.update(&[symbol.as_str().len() as u8]);
            hash.update(symbol.as_str().as_bytes());
        }
        // The hash takes long stretches several times as fast as single ticks.
        let mut stretch = Vec::with_capacity(STRETCH + 128);
        for tick in &self.ticks {
            // The last eight bytes are a trade id that is a number.
            let mut fixed = [0u8; 4 + 8 + 9 + 9 + 10 + 1 + 1 + 8];
            fixed[0..4].copy_from_slice(&tick.instrument.to_le_bytes());
            fixed[4..12].copy_from_slice(&tick.event_time.nanos().to_le_bytes());
            if let Some(time) = tick.receive_time {
                fixed[12] = 1;
                fixed[13..21].copy_from_slice(&time.nanos().to_le_bytes());
            }
            fixed[21..29].copy_from_slice(&tick.price.mantissa().to_le_bytes());
            fixed[29] = tick.price.exponent() as u8;
            if let Some(quantity) = tick.quantity {
                fixed[30] = 1;
                fixed[31..39].copy_from_slice(&quantity.mantissa().to_le_bytes());
                fixed[39] = quantity.exponent() as u8;
            }
            fixed[40] = tick.side as u8 | (tick.action as u8) << 4;
            match &tick.trade_id {
                TradeId::None => stretch.extend_from_slice(&fixed[..42]),
                TradeId::Number(number) => {
                    fixed[41] = 1;
                    fixed[42..].copy_from_slice(&number.to_le_bytes());
                    stretch.extend_from_slice(&fixed);
                }
                TradeId::Text(text) => {
                    fixed[41] = 2 + text.len() as u8;
                    stretch.extend_from_slice(&fixed[..42]);
                    stretch.extend_from_slice(text.as_bytes());
                }
            }
            if stretch.len() >= STRETCH {
                hash.update(&stretch);
                stretch.clear();
            }
        }
        hash.update(&stretch);
        for control in &self.controls {
            let (kind, bytes) = segment::control_bytes(control);
            hash.update(&[0xff, kind]);
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        }
        hash.digest128().to_le_bytes()
    }
}

/// An entry of the log that is not a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// A source lost data.
    SourceGap(SourceGap),
    /// A source got lost data back.
    SourceGapFilled(SourceGapFilled),
    /// A source went up or down.
    SourceStatus(SourceStatus),
    /// A source says that nothing older than this will come for its venue.
    Watermark {
        /// The venue.
        venue: Venue,
        /// Complete up to here, by event time.
        time: UnixNanos,
    },
    /// A trade's values are replaced, or the trade is cancelled.
    Correction(Correction),
    /// A kind that this version does not know: kept and skipped.
    Unknown {
        /// Its number.
        kind: u8,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

impl Control {
    /// About how much memory it holds, in bytes.
    pub fn memory(&self) -> usize {
        /// A symbol is shared text behind a pointer.
        const SYMBOL_BYTES: usize = 64;
        let symbols = self.scope().map_or(0, |scope| scope.symbols.len());
        std::mem::size_of::<Control>() + 512 + symbols * SYMBOL_BYTES
    }

    /// Which feed it is about, if it is an entry about a feed.
    pub fn scope(&self) -> Option<&Scope> {
        match self {
            Control::SourceGap(gap) => Some(&gap.scope),
            Control::SourceGapFilled(filled) => Some(&filled.scope),
            Control::SourceStatus(status) => Some(&status.scope),
            Control::Watermark { .. } | Control::Correction(_) | Control::Unknown { .. } => None,
        }
    }
}

/// One entry of the log. Every entry has its own position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A trade.
    Tick(Tick),
    /// Anything else.
    Control(Control),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trade_ids_keep_their_text() {
        for text in ["", "0", "7", "007", "18446744073709551615", "18446744073709551616", "+7", "a-1", "-1"] {
            assert_eq!(TradeId::new(text).map(|id| id.to_string()).as_deref(), Ok(text));
        }
        for length in 1..=21 {
            let text: String = "90817263540918273645".chars().cycle().take(length).collect();
            assert_eq!(TradeId::new(&text), Ok(text.parse().map_or_else(|_| TradeId::text(&text), TradeId::Number)));
            for at in 0..length {
                for other in ["/", ":", " ", "\u{0}", "\u{7f}", "a"] {
                    let mut text = text.clone();
                    text.replace_range(at..=at, other);
                    assert_eq!(TradeId::new(&text), Ok(TradeId::text(&text)), "{text}");
                }
            }
        }
        assert_eq!(TradeId::new("007").unwrap(), TradeId::text("007"));
        assert_eq!(TradeId::new("7").unwrap(), TradeId::Number(7));
        assert_eq!(TradeId::new(&"9".repeat(65)), Err(TradeIdInvalid));
    }

    #[test]
    fn digests_tell_batches_apart_by_every_field() {
        let tick = NewTick {
            instrument: 0,
            event_time: UnixNanos::new(1).unwrap(),
            receive_time: None,
            price: "1.5".parse().unwrap(),
            quantity: None,
            side: Side::Buy,
            trade_id: TradeId::None,
            action: Action::New,
        };
        let base = Batch {
            instruments: vec![(Venue::new("V").unwrap(), Symbol::new("S").unwrap())],
            ticks: vec![tick],
            controls: Vec::new(),
        };
        let variants: Vec<fn(&mut Batch)> = vec![
            |_| (),
            |batch| batch.instruments[0].0 = Venue::new("W").unwrap(),
            |batch| batch.ticks[0].event_time = UnixNanos::new(2).unwrap(),
            |batch| batch.ticks[0].receive_time = Some(UnixNanos::MIN),
            |batch| batch.ticks[0].price = "1.6".parse().unwrap(),
            |batch| batch.ticks[0].quantity = Some(Decimal::ZERO),
            |batch| batch.ticks[0].side = Side::Sell,
            |batch| batch.ticks[0].action = Action::Correct,
            |batch| batch.ticks[0].action = Action::Cancel,
            |batch| batch.ticks[0].trade_id = TradeId::Number(0),
            |batch| batch.ticks[0].trade_id = TradeId::text(""),
            |batch| batch.ticks.push(batch.ticks[0].clone()),
            |batch| batch.controls.push(Control::Unknown { kind: 200, bytes: vec![1] }),
            |batch| batch.controls.push(Control::Unknown { kind: 200, bytes: vec![2] }),
            |batch| batch.controls.push(Control::Unknown { kind: 201, bytes: vec![1] }),
        ];
        let mut digests = std::collections::BTreeSet::new();
        for change in &variants {
            let mut batch = base.clone();
            change(&mut batch);
            assert!(digests.insert(batch.digest()));
            assert_eq!(batch.digest(), batch.clone().digest());
        }
    }
}
