//! The fields of a tick and the usual names of their columns.

use super::options::TimeUnit;

/// A field of a tick that a column may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// When it happened.
    EventTime,
    /// When the source received it.
    ReceiveTime,
    /// Where.
    Venue,
    /// What.
    Symbol,
    /// At which price.
    Price,
    /// How much.
    Quantity,
    /// Who was the aggressor.
    Side,
    /// The venue's identifier.
    TradeId,
}

impl Field {
    /// All fields, in the order in which messages name them.
    pub const ALL: [Field; 8] = [
        Field::EventTime,
        Field::ReceiveTime,
        Field::Venue,
        Field::Symbol,
        Field::Price,
        Field::Quantity,
        Field::Side,
        Field::TradeId,
    ];

    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Field::EventTime => "event_time",
            Field::ReceiveTime => "receive_time",
            Field::Venue => "venue",
            Field::Symbol => "symbol",
            Field::Price => "price",
            Field::Quantity => "quantity",
            Field::Side => "side",
            Field::TradeId => "trade_id",
        }
    }

    /// The field of a name in the contract.
    pub fn named(name: &str) -> Option<Field> {
        Field::ALL.into_iter().find(|field| field.name() == name)
    }

    /// The usual names of its columns, in the form of [`words`] joined without gaps.
    fn synonyms(self) -> &'static [&'static str] {
        match self {
            Field::EventTime => &[
                "eventtime",
                "eventts",
                "eventtimestamp",
                "timestamp",
                "ts",
                "time",
                "tradetime",
                "tradets",
                "tradetimestamp",
                "date",
                "datetime",
                "transacttime",
                "exchangetime",
                "exchangets",
                "exchangetimestamp",
            ],
            Field::ReceiveTime => &[
                "receivetime",
                "receivets",
                "receivetimestamp",
                "receivedtime",
                "receivedat",
                "recvtime",
                "recvts",
                "recvtimestamp",
                "localtime",
                "localts",
                "localtimestamp",
            ],
            Field::Venue => &["venue", "exchange", "market"],
            Field::Symbol => &["symbol", "ticker", "instrument", "pair"],
            Field::Price => &["price", "px", "last", "lastprice", "tradeprice"],
            Field::Quantity => &["quantity", "qty", "size", "amount", "volume", "vol", "tradesize", "tradequantity"],
            Field::Side => {
                &["side", "aggressor", "aggressorside", "takerside", "tradeside", "buyerismaker", "isbuyermaker"]
            }
            Field::TradeId => &["tradeid", "id", "t", "aggtradeid"],
        }
    }

    fn has_time(self) -> bool {
        matches!(self, Field::EventTime | Field::ReceiveTime)
    }
}

/// Whether a column of this name usually holds the field.
pub(super) fn names(field: Field, name: &str) -> bool {
    let (base, _) = split_unit(field, name);
    // Binance calls the trade id `t` and its time `T`.
    field.synonyms().contains(&base.as_str()) && (base != "t" || name.trim() == "t")
}

/// The words of a column's name in lower case: `eventTime (ms)` and `event_time_ms` are `event`, `time`, `ms`.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    let mut previous_lower = false;
    for character in name.chars() {
        if !character.is_alphanumeric() {
            open = false;
            previous_lower = false;
            continue;
        }
        if !open || (previous_lower && character.is_uppercase()) {
            words.push(String::new());
            open = true;
        }
        if let Some(word) = words.last_mut() {
            word.extend(character.to_lowercase());
        }
        previous_lower = character.is_lowercase();
    }
    words
}

/// A column's name in lower case, without gaps.
pub(super) fn joined(name: &str) -> String {
    words(name).concat()
}

/// A column's name without its unit, and the unit if the name says one.
pub(super) fn split_unit(field: Field, name: &str) -> (String, Option<TimeUnit>) {
    let mut words = words(name);
    let mut unit = None;
    if field.has_time() {
        unit = match words.last().map(String::as_str) {
            Some("s" | "sec" | "secs" | "seconds") => Some(TimeUnit::Seconds),
            Some("ms" | "millis" | "milliseconds") => Some(TimeUnit::Milliseconds),
            Some("us" | "micros" | "microseconds") => Some(TimeUnit::Microseconds),
            Some("ns" | "nano" | "nanos" | "nanoseconds") => Some(TimeUnit::Nanoseconds),
            _ => None,
        };
        if unit.is_some() {
            words.pop();
        }
        if words.len() > 1 && words.last().is_some_and(|word| word == "unix" || word == "epoch") {
            words.pop();
        }
    }
    (words.concat(), unit)
}
