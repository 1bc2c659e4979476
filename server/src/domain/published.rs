//! What a venue publishes about a day after its end: bars and facts about instruments.
//!
//! They are no ticks: they have no place in the log, no position, and nothing is computed from them. They stand beside
//! what the server computes itself, marked as the venue's. Codes of the venue are kept as given and never interpreted.

use super::Decimal;

/// Which published bar: at most one for each instrument and key; a later one replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishedBarKey {
    /// The session's day, in days since 1970.
    pub day: u32,
    /// The venue's code of the market, such as B3's TPMERC: 10 is cash, 70 are calls.
    pub market: u16,
    /// The term of a forward in days; 0 if the venue gives none.
    pub term: u16,
}

/// A day of an instrument as its venue published it. Prices are for one unit, already divided by `quote_factor`, and
/// not adjusted for corporate actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedBar {
    /// Which bar of the instrument it is.
    pub key: PublishedBarKey,
    /// The first price.
    pub open: Decimal,
    /// The highest price.
    pub high: Decimal,
    /// The lowest price.
    pub low: Decimal,
    /// The average price, as the venue rounds it.
    pub average: Decimal,
    /// The last price.
    pub close: Decimal,
    /// The best bid at the end, as given: zero may mean none.
    pub bid: Decimal,
    /// The best ask at the end, as given: zero may mean none.
    pub ask: Decimal,
    /// How many trades. A venue's field may be too narrow for very active days (B3's holds 99,999).
    pub trade_count: u64,
    /// How many units were traded.
    pub quantity: Decimal,
    /// What was paid for them, in the currency of the instrument.
    pub value: Decimal,
    /// The strike of an option, in currency and for one unit; zero if there is none.
    pub strike: Decimal,
    /// The strike of an option in points; as given: zero if there is none.
    pub strike_points: Decimal,
    /// The day of expiry, in days since 1970; as given: 9999-12-31 where nothing expires.
    pub expiry_day: u32,
    /// How many units a published price was for.
    pub quote_factor: u32,
    /// The venue's code of the board or lot, such as B3's CODBDI. At most 8 bytes.
    pub board: Box<str>,
    /// The venue's code of the correction of strikes, such as B3's INDOPC. At most 8 bytes; may be empty.
    pub strike_correction: Box<str>,
    /// The venue's number of the distribution, such as B3's DISMES. At most 8 bytes; may be empty.
    pub distribution: Box<str>,
}

/// What a venue says about an instrument on a day. A later day replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstrumentDetails {
    /// The day on which it was published, in days since 1970.
    pub day: u32,
    /// The ISIN, or the venue's internal code in its place. At most 16 bytes of UTF-8; may be empty.
    pub isin: Box<str>,
    /// The issuer's short name. At most 64 bytes of UTF-8; may be empty.
    pub issuer: Box<str>,
    /// The class of the share and its marks, such as `ON` or `PN  EJ N1`. At most 32 bytes of UTF-8; may be empty.
    pub share_class: Box<str>,
    /// The currency as the venue writes it, such as `R$`. At most 16 bytes of UTF-8; may be empty.
    pub currency: Box<str>,
}

/// What a batch of lines publishes beside ticks. `I` names the instrument: an index into a batch's table on the way in,
/// an id on the way to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published<I> {
    /// Bars, in the order of the file.
    pub bars: Vec<(I, PublishedBar)>,
    /// Facts about instruments, in the order of the file.
    pub details: Vec<(I, InstrumentDetails)>,
}

// Derived, it would ask for a default instrument.
impl<I> Default for Published<I> {
    fn default() -> Published<I> {
        Published { bars: Vec::new(), details: Vec::new() }
    }
}

impl<I> Published<I> {
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.bars.is_empty() && self.details.is_empty()
    }

    /// The same under other names of instruments.
    pub fn named<J>(&self, name: impl Fn(&I) -> J) -> Published<J> {
        Published {
            bars: self.bars.iter().map(|(instrument, bar)| (name(instrument), bar.clone())).collect(),
            details: self.details.iter().map(|(instrument, details)| (name(instrument), details.clone())).collect(),
        }
    }
}
