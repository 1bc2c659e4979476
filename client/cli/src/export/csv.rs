//! Ticks as CSV, with the names and units that `tapefeed import` knows by itself.

use std::io::{self, Write};

use tapefeed_client::Tick;

const HEADER: &str = "venue,symbol,event_time_ns,receive_time_ns,price,quantity,side,trade_id,log_seq";

pub(super) struct Csv<W> {
    out: W,
}

impl<W: Write> Csv<W> {
    pub(super) fn new(mut out: W) -> io::Result<Csv<W>> {
        writeln!(out, "{HEADER}")?;
        Ok(Csv { out })
    }

    pub(super) fn write(&mut self, ticks: &[Tick]) -> io::Result<()> {
        for tick in ticks {
            let out = &mut self.out;
            let (event, receive) = (tick.event_time.nanos(), tick.receive_time.nanos());
            // Venues and symbols have no characters that need quotes.
            write!(out, "{},{},{event},{receive},{},", tick.venue, tick.symbol, tick.price)?;
            if let Some(quantity) = tick.quantity {
                write!(out, "{quantity}")?;
            }
            let side = tick.side.map_or("", |side| side.as_str());
            writeln!(out, ",{side},{},{}", quoted(&tick.trade_id), tick.log_seq)?;
        }
        Ok(())
    }

    pub(super) fn end(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Text as a field: in quotes where it would not come back as it is.
fn quoted(text: &str) -> std::borrow::Cow<'_, str> {
    let plain = !text.contains([',', '"', '\n', '\r']) && text.trim() == text;
    if plain { text.into() } else { format!("\"{}\"", text.replace('"', "\"\"")).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_that_needs_quotes_has_them() {
        for (text, field) in
            [("", ""), ("12", "12"), ("a b", "a b"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\""), (" a", "\" a\"")]
        {
            assert_eq!(quoted(text), field);
        }
    }
}
