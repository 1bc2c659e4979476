//! B3's file of a day's trades (`NEGOCIOSAVISTA`): columns with a header, semicolons between them, decimal commas.
//!
//! The number of a trade is unique only together with its day and its instrument: it is kept as the trade id, which
//! means just that. A line that changes or cancels a trade names it by its number and its time. Brokers and the session's
//! type have no place in a tick.

use jiff::civil::Date;

use super::calendar::{SaoPaulo, compact_time, dashed_date};
use super::error::{FileDefect, ImportError};
use super::format::{BatchBuilder, Frame, Line, Reader, RejectCode};
use super::json::without_mark;
use super::options::{FileFormat, Fits, ImportOptions};
use super::record::Record;
use super::value;
use crate::domain::{Action, Decimal, DecimalInvalid, NewTick, Side, TradeId, Venue};

/// The venue of B3's files, unless another is given.
pub(super) const VENUE: &str = "B3";

const DELIMITER: u8 = b';';

/// The columns that are needed, as B3 names them. Others may stand between them.
const COLUMNS: [&str; 8] = [
    "DataReferencia",
    "CodigoInstrumento",
    "AcaoAtualizacao",
    "PrecoNegocio",
    "QuantidadeNegociada",
    "HoraFechamento",
    "CodigoIdentificadorNegocio",
    "DataNegocio",
];

/// A reader of B3's trades, set up for one header.
#[derive(Debug)]
pub(super) struct B3Trades {
    options: ImportOptions,
    venue: Venue,
    clock: SaoPaulo,
    /// Where each of [`COLUMNS`] stands.
    places: [usize; COLUMNS.len()],
    /// How many columns the header has.
    count: usize,
    record: Record,
}

/// Why a line is refused.
type Refused = (RejectCode, String);

fn invalid(reason: impl Into<String>) -> Refused {
    (RejectCode::FieldInvalid, reason.into())
}

impl B3Trades {
    pub(super) fn open(given: &ImportOptions, header: &[u8]) -> Result<B3Trades, ImportError> {
        given.refuse_unfit(FileFormat::B3Trades, Fits { symbol: false, units: false })?;
        let header = without_mark(header);
        let mut record = Record::default();
        record
            .split(header, DELIMITER)
            .map_err(|problem| FileDefect::at_line(1, 0, format!("the header's {problem}")))?;
        let mut places = [0; COLUMNS.len()];
        let mut missing = Vec::new();
        for (place, name) in places.iter_mut().zip(COLUMNS) {
            let mut found = (0..record.len()).filter(|&at| record.field(header, at) == name.as_bytes());
            match (found.next(), found.next()) {
                (Some(at), None) => *place = at,
                (None, _) => missing.push(name),
                (Some(_), Some(_)) => {
                    return Err(FileDefect::at_line(1, 0, format!("the header names column {name} twice")).into());
                }
            }
        }
        if !missing.is_empty() {
            let problem = format!(
                "the header lacks columns of B3's trades: {}; import the file as B3 publishes it, or name another format",
                missing.join(", ")
            );
            return Err(FileDefect::at_line(1, 0, problem).into());
        }
        let venue = given.venue.clone().unwrap_or_else(|| Venue::new(VENUE).expect("a valid name"));
        let options = ImportOptions {
            format: Some(FileFormat::B3Trades),
            venue: Some(venue.clone()),
            ..ImportOptions::default()
        };
        let count = record.len();
        Ok(B3Trades { options, venue, clock: SaoPaulo::new()?, places, count, record })
    }

    fn tick(&self, line: &[u8], batch: &mut BatchBuilder) -> Result<(), Refused> {
        let found = self.record.len();
        if found != self.count {
            return Err(invalid(format!("has {found} fields, the header has {}", self.count)));
        }
        let [reference, symbol, action, price, quantity, time, id, date] =
            self.places.map(|at| self.record.field(line, at));
        let action = match action {
            b"0" => Action::New,
            b"1" => Action::Correct,
            b"2" => Action::Cancel,
            _ => return Err(invalid("AcaoAtualizacao: must be 0, 1 or 2")),
        };
        let day = |text, column| -> Result<Date, Refused> {
            dashed_date(text).ok_or_else(|| invalid(format!("{column}: must be a day, as in 2025-04-28")))
        };
        let reference = day(reference, "DataReferencia")?;
        let date = day(date, "DataNegocio")?;
        if date > reference {
            return Err(invalid("DataNegocio: lies after DataReferencia, the day of the file"));
        }
        let time = compact_time(time)
            .ok_or_else(|| invalid("HoraFechamento: must be a time as HHMMSSmmm, as in 024810098"))?;
        let event_time =
            self.clock.instant(date, time).map_err(|problem| invalid(format!("HoraFechamento: {problem}")))?;
        let price = decimal(price).map_err(|problem| invalid(format!("PrecoNegocio: {problem}")))?;
        let quantity = decimal(quantity).map_err(|problem| invalid(format!("QuantidadeNegociada: {problem}")))?;
        if quantity.is_negative() {
            return Err(invalid("QuantidadeNegociada: must not be negative"));
        }
        let id = std::str::from_utf8(id).map_err(|_| invalid("CodigoIdentificadorNegocio: not UTF-8"))?;
        if id.is_empty() {
            return Err(invalid("CodigoIdentificadorNegocio: must not be empty"));
        }
        let trade_id = TradeId::new(id).map_err(|problem| invalid(format!("CodigoIdentificadorNegocio: {problem}")))?;
        let instrument = batch
            .instrument(self.venue.as_str().as_bytes(), symbol)
            .map_err(|problem| invalid(format!("CodigoInstrumento: {problem}")))?;
        let quantity = Some(quantity);
        let (receive_time, side) = (None, Side::Unspecified);
        let tick = NewTick { instrument, event_time, receive_time, price, quantity, side, trade_id, action };
        batch.batch.ticks.push(tick);
        Ok(())
    }
}

impl Reader for B3Trades {
    fn options(&self) -> &ImportOptions {
        &self.options
    }

    fn version(&self) -> u32 {
        2
    }

    fn frame(&self) -> Frame {
        Frame { header: 1, trailer: 0 }
    }

    fn line(&mut self, line: &[u8], batch: &mut BatchBuilder) -> Line {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Line::Ignored("blank");
        }
        if let Err(problem) = self.record.split(line, DELIMITER) {
            return Line::invalid(problem);
        }
        match self.tick(line, batch) {
            Ok(()) => Line::Tick,
            Err((code, reason)) => Line::Rejected { code, reason },
        }
    }
}

/// Whether a first line is certain to be the header of B3's trades, whole or not.
pub(super) fn is_header(line: &[u8]) -> bool {
    let has = |name: &str| line.split(|&byte| byte == DELIMITER).any(|field| field.trim_ascii() == name.as_bytes());
    has("DataReferencia") && has("CodigoInstrumento")
}

/// A number with a decimal comma. A point is refused: it might have been meant to group thousands.
fn decimal(text: &[u8]) -> Result<Decimal, DecimalInvalid> {
    if text.contains(&b'.') {
        return Err(DecimalInvalid::Syntax);
    }
    match text.iter().position(|&byte| byte == b',') {
        None => value::decimal(text),
        Some(comma) => {
            let mut text = text.to_vec();
            text[comma] = b'.';
            value::decimal(&text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "DataReferencia;CodigoInstrumento;AcaoAtualizacao;PrecoNegocio;QuantidadeNegociada;HoraFechamento;\
                          CodigoIdentificadorNegocio;TipoSessaoPregao;DataNegocio;CodigoParticipanteComprador;\
                          CodigoParticipanteVendedor";
    const LINE: &str = "2025-04-29;TEST4;0;5,970;118;024810098;10;1;2025-04-28;127;127";

    fn open(header: &str) -> Result<B3Trades, String> {
        B3Trades::open(&ImportOptions::default(), header.as_bytes()).map_err(|error| error.to_string())
    }

    fn read(line: &str) -> (Line, Option<NewTick>, Option<String>) {
        let mut builder = BatchBuilder::default();
        let outcome = open(HEADER).unwrap().line(line.as_bytes(), &mut builder);
        let mut batch = builder.take().0;
        let symbol = batch.instruments.first().map(|(venue, symbol)| format!("{venue}/{symbol}"));
        (outcome, batch.ticks.pop(), symbol)
    }

    #[test]
    fn a_line_becomes_a_tick_at_the_instant_of_sao_paulo() {
        let expected = NewTick {
            instrument: 0,
            // 02:48:10.098 in Sao Paulo, three hours behind.
            event_time: crate::domain::UnixNanos::new(1_745_819_290_098_000_000).unwrap(),
            receive_time: None,
            price: "5.97".parse().unwrap(),
            quantity: Some("118".parse().unwrap()),
            side: Side::Unspecified,
            trade_id: TradeId::Number(10),
            action: Action::New,
        };
        for line in [
            LINE.to_owned(),
            LINE.replace(";024810098", ";24810098"),
            LINE.replace("2025-04-29", "2025-04-28"),
            LINE.replace(";127;127", ";;"),
            LINE.replace(";5,970;", ";5,97;"),
        ] {
            assert_eq!(read(&line), (Line::Tick, Some(expected.clone()), Some("B3/TEST4".to_owned())), "{line}");
        }
        assert_eq!(read("").0, Line::Ignored("blank"));
        // The same number on another instrument is another trade.
        let (_, tick, symbol) = read(&LINE.replace("TEST4", "TEST3").replace("5,970", "-0,005"));
        assert_eq!((tick.unwrap().price.to_string(), symbol), ("-0.005".to_owned(), Some("B3/TEST3".to_owned())));
    }

    #[test]
    fn columns_may_stand_anywhere_and_must_be_there() {
        let turned = HEADER.split(';').rev().collect::<Vec<_>>().join(";");
        let line = LINE.split(';').rev().collect::<Vec<_>>().join(";");
        let mut builder = BatchBuilder::default();
        assert_eq!(open(&turned).unwrap().line(line.as_bytes(), &mut builder), Line::Tick);
        for (header, expected) in [
            (
                "DataReferencia;CodigoInstrumento".to_owned(),
                "lacks columns of B3's trades: AcaoAtualizacao, PrecoNegocio, QuantidadeNegociada, HoraFechamento, \
                 CodigoIdentificadorNegocio, DataNegocio;",
            ),
            (HEADER.replace(";DataNegocio", ";DataDoNegocio"), "trades: DataNegocio;"),
            (format!("{HEADER};DataNegocio"), "column DataNegocio twice"),
            (HEADER.replace(';', ","), "lacks columns of B3's trades: DataReferencia"),
            (format!("\"{HEADER}"), "quote is not closed"),
        ] {
            let error = open(&header).unwrap_err();
            assert!(error.contains(expected) && error.contains("line 1"), "{header}: {error}");
        }
    }

    #[test]
    fn bad_lines_are_rejected_with_the_field_and_the_reason() {
        for (from, to, expected) in [
            ("5,970", "5.970", "PrecoNegocio: not a decimal"),
            ("5,970", "1.005,97", "PrecoNegocio: not a decimal"),
            ("5,970", "5,9,7", "PrecoNegocio: not a decimal"),
            ("5,970", "", "PrecoNegocio: not a decimal"),
            (";118;", ";-1;", "QuantidadeNegociada: must not"),
            (";118;", ";x;", "QuantidadeNegociada: not a decimal"),
            ("024810098", "240000000", "HoraFechamento: must be a time"),
            ("024810098", "02:48:10", "HoraFechamento: must be a time"),
            ("2025-04-29", "29/04/2025", "DataReferencia: must be a day"),
            ("2025-04-28", "2025-04-31", "DataNegocio: must be a day"),
            ("2025-04-28", "2025-04-30", "DataNegocio: lies after"),
            (";024810098;10;1;2025-04-28", ";000000000;10;1;2018-11-04", "HoraFechamento: the clocks"),
            ("2025-04-28", "1969-12-31", "HoraFechamento: outside 1970"),
            (";10;1;", ";;1;", "CodigoIdentificadorNegocio: must not be empty"),
            ("TEST4", "TEST 4", "CodigoInstrumento: symbol: byte 4"),
            ("TEST4", "", "CodigoInstrumento: symbol: must not be empty"),
            (";0;", ";3;", "AcaoAtualizacao: must be"),
            (";0;", ";;", "AcaoAtualizacao: must be"),
            (";127;127", ";127", "has 10 fields, the header has 11"),
            (";127;127", ";127;127;", "has 12 fields"),
            ("TEST4", "\"TEST4", "quote is not closed"),
        ] {
            assert!(LINE.contains(from), "{from}");
            let line = LINE.replace(from, to);
            let (outcome, tick, _) = read(&line);
            let Line::Rejected { code: RejectCode::FieldInvalid, reason } = outcome else {
                panic!("{line}: {outcome:?}")
            };
            assert!(reason.contains(expected), "{line}: {reason}");
            assert_eq!(tick, None);
        }
    }

    #[test]
    fn lines_that_change_or_cancel_a_trade_say_so() {
        let trade = read(LINE).1.unwrap();
        for (code, action) in [(";1;", Action::Correct), (";2;", Action::Cancel)] {
            let (outcome, tick, _) = read(&LINE.replacen(";0;", code, 1));
            assert_eq!((outcome, tick), (Line::Tick, Some(NewTick { action, ..trade.clone() })));
        }
    }

    #[test]
    fn options_that_mean_nothing_here_are_refused() {
        for (given, expected) in [
            (ImportOptions { delimiter: Some(b','), ..ImportOptions::default() }, "options.delimiter"),
            (
                ImportOptions {
                    columns: [(super::super::Field::Price, "PrecoNegocio".to_owned())].into(),
                    ..ImportOptions::default()
                },
                "options.column_mappings",
            ),
            (
                ImportOptions { time_unit: Some(super::super::TimeUnit::Seconds), ..ImportOptions::default() },
                "options.time_unit",
            ),
        ] {
            let error = B3Trades::open(&given, HEADER.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
