//! Corrections and cancels: what a source says later about a trade that it has told.
//!
//! A correction is an entry of the log of its own and changes no other entry. What a trade is at a position follows from
//! the corrections up to there with its instrument, its trade id and its event time: a cancel among them takes it back
//! for good, else the last of them has its values. Which of them came before the trade makes no difference.

use super::{Decimal, InstrumentId, Origin, Side, Tick, TradeId, UnixNanos};

/// What a tick does to those of its instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Action {
    /// It is a new trade.
    #[default]
    New = 0,
    /// It replaces price, quantity and side of a trade.
    Correct = 1,
    /// It takes a trade back.
    Cancel = 2,
}

/// A trade's values are replaced, or the trade is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The trade's instrument.
    pub instrument: InstrumentId,
    /// The trade's identifier, never [`TradeId::None`].
    pub trade_id: TradeId,
    /// The event time of the trade, as it was told.
    pub event_time: UnixNanos,
    /// When the correction was received.
    pub receive_time: UnixNanos,
    /// The new values; `None` cancels the trade.
    pub values: Option<Values>,
}

/// What a correction replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values {
    /// The price.
    pub price: Decimal,
    /// How much was traded; `None` when the source does not say.
    pub quantity: Option<Decimal>,
    /// The aggressor.
    pub side: Side,
}

impl Correction {
    /// What it does.
    pub fn action(&self) -> Action {
        if self.values.is_some() { Action::Correct } else { Action::Cancel }
    }

    /// Whether it is about a trade of its instrument.
    pub fn is_about(&self, event_time: UnixNanos, trade_id: &TradeId) -> bool {
        self.event_time == event_time && self.trade_id == *trade_id
    }

    /// The correction as streams tell it: a tick with its new values. Those of a cancel carry no meaning.
    pub fn as_tick(&self, log_seq: u64, origin: Origin) -> Tick {
        let Correction { instrument, trade_id, event_time, receive_time, values } = self;
        let nothing = Values { price: Decimal::ZERO, quantity: None, side: Side::Unspecified };
        let Values { price, quantity, side } = values.unwrap_or(nothing);
        Tick {
            instrument: *instrument,
            log_seq,
            event_time: *event_time,
            receive_time: *receive_time,
            price,
            quantity,
            side,
            trade_id: trade_id.clone(),
            origin,
        }
    }
}

/// Where a correction stands on its way into the chunks of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Standing {
    /// No chunk has been changed by it yet.
    Waiting = 0,
    /// Every chunk is as it says, and no trade was found that it is about.
    Unmatched = 1,
    /// Every chunk is as it says, and its trade is known.
    Settled = 2,
}

impl Standing {
    /// The standing of a stored number, or `None` for a number that no version wrote.
    pub fn from_code(code: u8) -> Option<Standing> {
        match code {
            0 => Some(Standing::Waiting),
            1 => Some(Standing::Unmatched),
            2 => Some(Standing::Settled),
            _ => None,
        }
    }
}

/// What becomes of a trade by its corrections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has these values.
    Corrected(Values),
    /// It is no more.
    Cancelled,
}

impl Verdict {
    /// What becomes of a trade by all corrections of it, in the order of the log; `None` if there is none.
    pub fn of<'a>(corrections: impl Iterator<Item = &'a Correction>) -> Option<Verdict> {
        let mut verdict = None;
        for correction in corrections {
            verdict = match correction.values {
                None => return Some(Verdict::Cancelled),
                Some(values) => Some(Verdict::Corrected(values)),
            };
        }
        verdict
    }

    /// The trade as it is then; `None` if it is no more.
    pub fn apply(self, tick: &Tick) -> Option<Tick> {
        match self {
            Verdict::Cancelled => None,
            Verdict::Corrected(Values { price, quantity, side }) => {
                Some(Tick { price, quantity, side, ..tick.clone() })
            }
        }
    }
}
