//! Floor 0: values, codecs and arithmetic.
//!
//! Nothing here waits, does I/O, reads a clock or knows protobuf. A value that exists is valid: constructors check,
//! and past the door nothing checks again. Start with [`Tick`], then [`segment`] (the log's codec) and [`chunk`]
//! (the history's codec).

pub mod bar;
pub mod block;
pub mod chunk;
pub mod clock;
pub mod correction;
pub mod cursor;
pub mod date;
pub mod decimal;
pub mod instrument;
pub mod name;
pub mod outage;
pub mod published;
pub mod ratio;
#[cfg(test)]
pub(crate) mod samples;
mod scale;
pub mod segment;
pub mod source;
pub mod statistics;
pub mod tally;
pub mod tick;
pub mod time;
mod time_unit;
mod trace_context;
pub(crate) mod varint;
pub mod wide;

pub use block::Block;
pub use clock::Clock;
pub use correction::{Action, Correction};
pub use cursor::{Cursor, CursorInvalid, Epoch};
pub use decimal::{Decimal, DecimalInvalid};
pub use instrument::{Instrument, InstrumentId};
pub use name::{NameInvalid, Symbol, Venue};
pub use published::{InstrumentDetails, Published, PublishedBar, PublishedBarKey};
pub use tick::{Batch, Control, Entry, NewTick, Origin, Side, Tick, TradeId, TradeIdInvalid};
pub use time::{TimeInvalid, TimeRange, UnixNanos};
pub use trace_context::{TraceContext, TraceId, Traced};
pub use wide::I256;
