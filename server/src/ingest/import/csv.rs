//! Trades in columns: one line a trade, the columns named by a header.

use super::columns::{Columns, Naming};
use super::error::{FileDefect, ImportError};
use super::format::{BatchBuilder, Frame, Line, Reader};
use super::options::{FileFormat, ImportOptions};
use super::record::Record;
use super::value;
use crate::domain::{Action, NewTick, Side, TradeId};

/// A reader of trades in columns, set up for one header.
#[derive(Debug)]
pub(super) struct CsvTrades {
    columns: Columns,
    options: ImportOptions,
    delimiter: u8,
    record: Record,
}

/// The longest name of a column.
const MAX_COLUMN_NAME_BYTES: usize = 128;

impl CsvTrades {
    /// Reads the header.
    pub(super) fn open(given: &ImportOptions, header: &[u8]) -> Result<CsvTrades, ImportError> {
        let text = header_text(header)?;
        let delimiter = given.delimiter.unwrap_or_else(|| evident_delimiter(text));
        let mut record = Record::default();
        record
            .split(text.as_bytes(), delimiter)
            .map_err(|problem| FileDefect::at_line(1, 0, format!("the header's {problem}")))?;
        let mut names = Vec::with_capacity(record.len());
        for index in 0..record.len() {
            // The header is UTF-8 and is cut at ASCII characters only.
            let name = String::from_utf8_lossy(record.field(text.as_bytes(), index)).into_owned();
            if name.len() > MAX_COLUMN_NAME_BYTES {
                let problem = format!("the name of column {} is longer than {MAX_COLUMN_NAME_BYTES} bytes", index + 1);
                return Err(FileDefect::at_line(1, 0, problem).into());
            }
            names.push(name);
        }
        let (columns, mut options) = Columns::find(&names, given)?;
        options.format = Some(FileFormat::Csv);
        options.delimiter = Some(delimiter);
        Ok(CsvTrades { columns, options, delimiter, record })
    }

    fn tick(&self, line: &[u8], batch: &mut BatchBuilder) -> Result<(), String> {
        let Columns { count, event_time, receive_time, venue, symbol, price, quantity, side, trade_id } = &self.columns;
        let found = self.record.len();
        if found != *count {
            return Err(format!("has {found} fields, the header has {count}"));
        }
        let field = |column: usize| self.record.field(line, column);

        let event_time = value::time(field(event_time.column), event_time.unit)
            .map_err(|problem| format!("event_time: {problem}"))?;
        let receive_time = match receive_time {
            Some(at) if !field(at.column).is_empty() => {
                Some(value::time(field(at.column), at.unit).map_err(|problem| format!("receive_time: {problem}"))?)
            }
            _ => None,
        };
        let price = value::decimal(field(*price)).map_err(|problem| format!("price: {problem}"))?;
        let quantity = match quantity {
            Some(at) if !field(*at).is_empty() => {
                Some(value::decimal(field(*at)).map_err(|problem| format!("quantity: {problem}"))?)
            }
            _ => None,
        };
        if quantity.is_some_and(|quantity| quantity.is_negative()) {
            return Err("quantity: must not be negative".to_owned());
        }
        let side = match side {
            Some(at) if at.buyer_is_maker => value::taker(field(at.column))
                .ok_or("side: must be true or false in a column that says whether the buyer was the maker")?,
            Some(at) => value::side(field(at.column)).ok_or("side: must be buy, sell or empty")?,
            None => Side::Unspecified,
        };
        let trade_id = match trade_id {
            Some(at) => {
                let text = std::str::from_utf8(field(*at)).map_err(|_| "trade_id: not UTF-8")?;
                TradeId::new(text).map_err(|problem| format!("trade_id: {problem}"))?
            }
            None => TradeId::None,
        };
        let venue = match (venue, &self.options.venue) {
            (Naming::Column(at), _) => field(*at),
            (Naming::Fixed, fixed) => fixed.as_ref().map_or(&[][..], |name| name.as_str().as_bytes()),
        };
        let symbol = match (symbol, &self.options.symbol) {
            (Naming::Column(at), _) => field(*at),
            (Naming::Fixed, fixed) => fixed.as_ref().map_or(&[][..], |name| name.as_str().as_bytes()),
        };
        let instrument = batch.instrument(venue, symbol).map_err(|problem| problem.to_string())?;
        let action = Action::New;
        let tick = NewTick { instrument, event_time, receive_time, price, quantity, side, trade_id, action };
        batch.batch.ticks.push(tick);
        Ok(())
    }
}

impl Reader for CsvTrades {
    fn options(&self) -> &ImportOptions {
        &self.options
    }

    fn version(&self) -> u32 {
        1
    }

    fn frame(&self) -> Frame {
        Frame { header: 1, trailer: 0 }
    }

    fn line(&mut self, line: &[u8], batch: &mut BatchBuilder) -> Line {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Line::Ignored("blank");
        }
        if let Err(problem) = self.record.split(line, self.delimiter) {
            return Line::invalid(problem);
        }
        match self.tick(line, batch) {
            Ok(()) => Line::Tick,
            Err(problem) => Line::invalid(problem),
        }
    }
}

/// The header as text: UTF-8 without the mark that some programs put before it.
fn header_text(header: &[u8]) -> Result<&str, ImportError> {
    let bytes = header.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(header);
    let skipped = header.len() - bytes.len();
    let place = |at: usize| (at + skipped) as u64;
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let problem = "the header is not UTF-8: convert the file to UTF-8";
        FileDefect::at_line(1, place(error.valid_up_to()), problem)
    })?;
    if text.trim().is_empty() {
        return Err(FileDefect::at_line(1, 0, "the first line is empty: it must name the columns").into());
    }
    if text.contains("{\"") {
        let problem = "the file looks like lines of JSON: this server reads trades in columns, with a header";
        return Err(FileDefect::at_line(1, 0, problem).into());
    }
    if let Some(at) = text.find(|character: char| character.is_control() && character != '\t') {
        let problem = match text.as_bytes()[at] {
            b'\r' => "the lines end with a carriage return alone: end them with a line feed",
            _ => "the header holds a control character: the file is not text in UTF-8",
        };
        return Err(FileDefect::at_line(1, place(at), problem).into());
    }
    Ok(text)
}

/// The most frequent of comma, semicolon and tab in the header; a comma if there is none.
fn evident_delimiter(header: &str) -> u8 {
    let mut best = (b',', 0);
    for delimiter in [b',', b';', b'\t'] {
        let count = header.bytes().filter(|byte| *byte == delimiter).count();
        if count > best.1 {
            best = (delimiter, count);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::super::format::RejectCode;
    use super::*;
    use crate::domain::{Symbol, UnixNanos, Venue};

    const HEADER: &str = "venue,symbol,trade_id,event_time_ms,receive_time_ns,price,quantity,side";

    fn open(header: &str) -> CsvTrades {
        CsvTrades::open(&ImportOptions::default(), header.as_bytes()).unwrap()
    }

    fn read(parser: &mut CsvTrades, line: &[u8]) -> (Line, Option<NewTick>) {
        let mut builder = BatchBuilder::default();
        let outcome = parser.line(line, &mut builder);
        (outcome, builder.take().0.ticks.pop())
    }

    #[test]
    fn a_line_becomes_a_tick() {
        let mut builder = BatchBuilder::default();
        let mut parser = open(HEADER);
        let line = b"BINANCE,BTCUSDT,37,1723161255342,1723161254087896568,61837.63000000,0.02,sell";
        assert_eq!(parser.line(line, &mut builder), Line::Tick);
        let (batch, _) = builder.take();
        assert_eq!(batch.instruments, [(Venue::new("BINANCE").unwrap(), Symbol::new("BTCUSDT").unwrap())]);
        assert_eq!(
            batch.ticks,
            [NewTick {
                instrument: 0,
                event_time: UnixNanos::new(1_723_161_255_342_000_000).unwrap(),
                receive_time: Some(UnixNanos::new(1_723_161_254_087_896_568).unwrap()),
                price: "61837.63".parse().unwrap(),
                quantity: Some("0.02".parse().unwrap()),
                side: Side::Sell,
                trade_id: TradeId::Number(37),
                action: Action::New,
            }]
        );
    }

    #[test]
    fn good_lines_in_many_forms() {
        let mut parser = open(HEADER);
        let expected = read(&mut parser, b"V,S,7,1000,,1.5,2,buy").1.unwrap();
        for line in [
            "V, S ,7,1000,,1.50,2.0,BUY",
            "\"V\",\"S\",\"7\",\"1000\",\"\",\"1.5\",\"2\",\"buy\"",
            "\"V\" ,S,7,1000,,1.5,2,b",
            "V,S,7,1000.000,,+1.5,2,b",
        ] {
            assert_eq!(read(&mut parser, line.as_bytes()), (Line::Tick, Some(expected.clone())), "{line}");
        }
        let sparse = read(&mut parser, b"V,S,,1000,,1.5,,").1.unwrap();
        assert_eq!((sparse.quantity, sparse.side, sparse.trade_id), (None, Side::Unspecified, TradeId::None));
        let quoted = read(&mut parser, b"V,S,\"a \"\"b\"\", c\",1000,,1.5,,").1.unwrap();
        assert_eq!(quoted.trade_id.to_string(), "a \"b\", c");
        assert_eq!(read(&mut parser, b"").0, Line::Ignored("blank"));
        assert_eq!(read(&mut parser, b" \t").0, Line::Ignored("blank"));
    }

    #[test]
    fn bad_lines_are_rejected_with_the_field_and_the_reason() {
        let digits = "9".repeat(400);
        let cases: Vec<(String, &str)> = vec![
            ("V,S,1,1000,,NaN,1,buy".into(), "price: not a decimal number"),
            ("V,S,1,1000,,,1,buy".into(), "price: not a decimal number"),
            (format!("V,S,1,1000,,{digits},1,buy"), "price: longer than"),
            ("V,S,1,1000,,1000000000000000,1,buy".into(), "price: absolute value"),
            ("V,S,1,1000,,1e5,1,buy".into(), "price: not a decimal number"),
            ("V,S,1,-1000,,1,1,buy".into(), "event_time: before 1970"),
            ("V,S,1,10413792000000,,1,1,buy".into(), "event_time: after 2262"),
            ("V,S,1,,,1,1,buy".into(), "event_time: not a number of milliseconds"),
            ("V,S,1,1000,x,1,1,buy".into(), "receive_time: not a number"),
            ("V,S,1,1000,,1,-1,buy".into(), "quantity: must not be negative"),
            ("V,S,1,1000,,1,inf,buy".into(), "quantity: not a decimal"),
            ("V,S,1,1000,,1,1,up".into(), "side: must be buy"),
            ("V,A B,1,1000,,1,1,buy".into(), "symbol: byte 1"),
            ("V,,1,1000,,1,1,buy".into(), "symbol: must not be empty"),
            ("V/W,S,1,1000,,1,1,buy".into(), "venue: byte 1"),
            (format!("V,S,{},1000,,1,1,buy", "x".repeat(65)), "trade_id: longer"),
            ("V,S,1,1000,,1,1".into(), "has 7 fields, the header has 8"),
            ("V,S,1,1000,,5,970,1,buy".into(), "has 9 fields, the header has 8"),
            ("V,S,\"1,1000,,1,1,buy".into(), "quote is not closed"),
            ("V,S,\"1\"2,1000,,1,1,buy".into(), "quote ends before"),
            ("V,S,1\"2,1000,,1,1,buy".into(), "quote stands inside"),
        ];
        let mut parser = open(HEADER);
        for (line, expected) in &cases {
            let (outcome, tick) = read(&mut parser, line.as_bytes());
            let Line::Rejected { code: RejectCode::FieldInvalid, reason } = outcome else {
                panic!("{line}: {outcome:?}")
            };
            assert!(reason.contains(expected), "{line}: {reason}");
            assert_eq!(tick, None, "{line}");
        }
        let latin = read(&mut parser, b"V,caf\xE9,1,1000,,1,1,buy").0;
        assert!(matches!(latin, Line::Rejected { reason, .. } if reason.starts_with("symbol: byte 3")));
        let latin = read(&mut parser, b"V,S,\xE9,1000,,1,1,buy").0;
        assert_eq!(latin, Line::invalid("trade_id: not UTF-8"));
    }

    #[test]
    fn delimiters_are_evident_from_the_header_or_given() {
        for (header, line) in [
            ("venue;symbol;time_s;price", "V;S;1;1.5"),
            ("venue\tsymbol\ttime_s\tprice", "V\tS\t1\t1.5"),
            ("\u{feff}venue,symbol,time_s,price", "V,S,1,1.5"),
            ("\"venue\",\"symbol\",\"time_s\",\"price\"", "V,S,1,1.5"),
        ] {
            assert_eq!(read(&mut open(header), line.as_bytes()).0, Line::Tick, "{header}");
        }
        let mut comma = open("venue;symbol;time_s;price");
        assert!(
            matches!(read(&mut comma, b"V;S;1;5,970").0, Line::Rejected { reason, .. } if reason.starts_with("price"))
        );
        let given = ImportOptions { delimiter: Some(b'|'), ..ImportOptions::default() };
        let mut bar = CsvTrades::open(&given, b"venue|symbol|time_s|price").unwrap();
        assert_eq!(read(&mut bar, b"V|S|1|1.5").0, Line::Tick);
    }

    #[test]
    fn headers_that_are_no_text_are_refused_with_the_place() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "the first line is empty"),
            (b"  ", "the first line is empty"),
            (b"venue,symb\xE9l,time_s,price", "not UTF-8: convert the file to UTF-8 (line 1, byte 10)"),
            (b"venue,symbol\rV,S", "carriage return alone"),
            (b"v\0e\0n\0u\0e\0", "control character"),
            (b"venue,\"symbol,time_s,price", "quote is not closed"),
        ];
        for (header, expected) in cases {
            let error = CsvTrades::open(&ImportOptions::default(), header).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
