//! Batches: what they hold, how large they get, and what of a refused one was wrong.

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::publish_batch::Content as WireContent;

use super::{RefusedBatch, TickViolation};
use crate::columns;
use crate::{Error, NewTick, SourceEvent};

/// The most bytes of a batch by the estimate of [`bytes_of`]: below the 1 MiB that the server takes.
pub(super) const MAX_BATCH_BYTES: usize = 960 * 1024;

/// What the fields of a tick take at most in rows, without its texts. Columns take less.
const FIXED_TICK_BYTES: usize = 96;

/// What a source event takes at most, without its symbols: 1,000 of them fit.
const EVENT_BYTES: usize = 1_024;

/// What a batch holds.
#[derive(Debug)]
pub(super) enum Content {
    Ticks(Vec<NewTick>),
    Event(SourceEvent),
}

/// An upper bound of a tick's bytes in any encoding.
pub(super) fn bytes_of(tick: &NewTick) -> usize {
    FIXED_TICK_BYTES + tick.venue.len() + tick.symbol.len() + tick.trade_id.len()
}

impl Content {
    pub(super) fn tick_count(&self) -> usize {
        match self {
            Content::Ticks(ticks) => ticks.len(),
            Content::Event(_) => 0,
        }
    }

    /// An upper bound of the message's bytes: what counts against the credit.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Content::Ticks(ticks) => ticks.iter().map(bytes_of).sum(),
            Content::Event(event) => {
                let symbols: &[String] = match event {
                    SourceEvent::Gap(gap) => &gap.symbols,
                    SourceEvent::GapFilled(filled) => &filled.symbols,
                    SourceEvent::Status(status) => &status.symbols,
                    SourceEvent::Watermark(_) => &[],
                };
                EVENT_BYTES + symbols.iter().map(|symbol| symbol.len() + 4).sum::<usize>()
            }
        }
    }

    /// Whether a message can hold it.
    pub(super) fn check(&self) -> Result<(), Error> {
        let bytes = self.bytes();
        match self {
            Content::Ticks(ticks) if ticks.is_empty() => Err(Error::Invalid("a batch has at least one tick".into())),
            _ if bytes > MAX_BATCH_BYTES => Err(Error::Invalid(format!(
                "a batch of up to {bytes} bytes passes the limit of {MAX_BATCH_BYTES}: make smaller batches"
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn to_wire(&self, rows: bool) -> WireContent {
        match self {
            Content::Ticks(ticks) => {
                let columns = (!rows).then(|| columns::encode(ticks)).flatten();
                match columns {
                    Some(columns) => WireContent::Columns(columns),
                    None => WireContent::Rows(proto::TickBatch {
                        ticks: ticks.iter().map(NewTick::to_wire).collect(),
                        merged_counts: Vec::new(),
                    }),
                }
            }
            Content::Event(SourceEvent::Gap(gap)) => WireContent::SourceGap(gap.to_wire()),
            Content::Event(SourceEvent::GapFilled(filled)) => WireContent::SourceGapFilled(filled.to_wire()),
            Content::Event(SourceEvent::Status(status)) => WireContent::SourceStatus(status.to_wire()),
            Content::Event(SourceEvent::Watermark(watermark)) => WireContent::Watermark(watermark.to_wire()),
        }
    }

    /// Hands the content back, with what the server found.
    pub(super) fn refused(self, error: Error) -> RefusedBatch {
        let violations = error.violations().iter().map(|violation| TickViolation {
            index: tick_index(&self, &violation.field),
            field: violation.field.clone(),
            description: violation.description.clone(),
        });
        let violations: Vec<TickViolation> = violations.collect();
        let counted = error.metadata("violation_count");
        let violation_count = counted.and_then(|count| count.parse().ok()).unwrap_or(violations.len() as u64);
        let (ticks, event) = match self {
            Content::Ticks(ticks) => (ticks, None),
            Content::Event(event) => (Vec::new(), Some(event)),
        };
        RefusedBatch { ticks, event, violations, violation_count, error }
    }
}

/// Which tick a path such as `batch.rows.ticks[3].price` or `batch.columns.quantity[3]` is about. A path into the table
/// of instruments is about the first tick of that entry.
fn tick_index(content: &Content, path: &str) -> Option<usize> {
    let Content::Ticks(ticks) = content else {
        return None;
    };
    let (array, rest) = path.split_once('[')?;
    let (index, _) = rest.split_once(']')?;
    let index: usize = index.parse().ok()?;
    let index = if array.ends_with("instruments") {
        let table = columns::encode(ticks)?.instrument_index;
        table.iter().position(|&entry| entry as usize == index)?
    } else {
        index
    };
    (index < ticks.len()).then_some(index)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{Side, UnixNanos};

    fn tick(symbol: &str) -> NewTick {
        NewTick::new("X", symbol, UnixNanos(1), "1".parse().unwrap())
    }

    #[test]
    fn violations_name_the_tick() {
        let content = Content::Ticks(vec![tick("A"), tick("A"), tick("B")]);
        for (path, index) in [
            ("batch.rows.ticks[2].price", Some(2)),
            ("batch.columns.quantity[1]", Some(1)),
            ("batch.columns.instruments[1].symbol", Some(2)),
            ("batch.columns.instruments[7].symbol", None),
            ("batch.rows.ticks[3].price", None),
            ("batch.batch_seq", None),
            ("batch.rows.ticks[x]", None),
        ] {
            assert_eq!(tick_index(&content, path), index, "{path}");
        }
    }

    #[test]
    fn estimate_is_never_below_the_message() {
        let mut widest =
            NewTick::new("V".repeat(32), "S".repeat(64), UnixNanos(i64::MAX), "-9.223372036854775808".parse().unwrap());
        widest.receive_time = Some(UnixNanos(i64::MAX - 1));
        widest.quantity = Some("9.223372036854775807".parse().unwrap());
        widest.side = Some(Side::Sell);
        widest.trade_id = "t".repeat(64);
        for ticks in [vec![widest; 50], vec![tick("A"); 50], vec![tick("A")]] {
            let content = Content::Ticks(ticks);
            for rows in [true, false] {
                let message = proto::PublishBatch { batch_seq: 1, content: Some(content.to_wire(rows)) };
                assert!(message.encoded_len() <= content.bytes());
            }
        }
    }

    #[test]
    fn batches_that_no_message_holds_are_refused_here() {
        assert!(Content::Ticks(Vec::new()).check().is_err());
        assert!(Content::Ticks(vec![tick("A"); 11_000]).check().is_err());
        assert!(Content::Ticks(vec![tick("A")]).check().is_ok());
    }
}
