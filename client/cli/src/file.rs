//! How a file is to be read: the options that `import` and `replay` share.

use clap::{Args as ClapArgs, ValueEnum};
use tapefeed_client::{ImportFormat, ImportOptions, TickField, TimeUnit};
use tapefeed_server::domain::{Symbol, Venue};
use tapefeed_server::ingest::import as reader;

use crate::failure::Failure;

/// How a file is read where its content does not tell.
#[derive(Debug, ClapArgs)]
pub(crate) struct FileArgs {
    /// The venue of all ticks, if the file has none
    #[arg(long)]
    venue: Option<String>,

    /// The symbol of all ticks, if the file has none
    #[arg(long)]
    symbol: Option<String>,

    /// Which column holds which field, such as time=ts,price=px. Fields: time, receive_time, venue, symbol, price,
    /// quantity, side, trade_id
    #[arg(long, value_delimiter = ',', value_parser = parse_mapping, value_name = "FIELD=COLUMN")]
    map: Vec<(TickField, String)>,

    /// The unit of times that are numbers; without it, it must be evident from the column's name
    #[arg(long, value_enum, value_name = "UNIT")]
    time_unit: Option<UnitArg>,

    /// The same for receive times
    #[arg(long, value_enum, value_name = "UNIT")]
    receive_time_unit: Option<UnitArg>,

    /// The format; without it, recognised by the content
    #[arg(long, value_enum)]
    format: Option<FormatArg>,

    /// The character between two columns, or `tab`
    #[arg(long, value_parser = parse_delimiter, value_name = "CHARACTER")]
    delimiter: Option<char>,

    /// How many lines may be rejected before it fails [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    max_rejects: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UnitArg {
    S,
    Ms,
    Us,
    Ns,
    /// RFC 3339
    Text,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    /// Trades in columns, with a header
    Csv,
    /// A capture of Binance's WebSocket
    Binance,
    /// One tick a line as JSON
    JsonLines,
    /// Trades of B3 (NEGOCIOSAVISTA)
    B3,
    /// Daily quotes of B3 (COTAHIST)
    Cotahist,
}

impl FileArgs {
    /// How many lines may be rejected.
    pub(crate) fn max_rejects(&self) -> u32 {
        self.max_rejects.unwrap_or(reader::DEFAULT_MAX_REJECTS)
    }

    /// The options of an import, for the server to check.
    pub(crate) fn import_options(&self) -> ImportOptions {
        let mut options = ImportOptions::new();
        if let Some(venue) = &self.venue {
            options = options.venue(venue);
        }
        if let Some(symbol) = &self.symbol {
            options = options.symbol(symbol);
        }
        for (field, column) in &self.map {
            options = options.map(*field, column);
        }
        if let Some(unit) = self.time_unit {
            options = options.time_unit(unit.into());
        }
        if let Some(unit) = self.receive_time_unit {
            options = options.receive_time_unit(unit.into());
        }
        if let Some(format) = self.format {
            options = options.format(match format {
                FormatArg::Csv => ImportFormat::Csv,
                FormatArg::Binance => ImportFormat::BinanceCapture,
                FormatArg::JsonLines => ImportFormat::JsonLines,
                FormatArg::B3 => ImportFormat::B3Trades,
                FormatArg::Cotahist => ImportFormat::Cotahist,
            });
        }
        if let Some(delimiter) = self.delimiter {
            options = options.delimiter(delimiter);
        }
        if let Some(max_rejects) = self.max_rejects {
            options = options.max_rejects(max_rejects);
        }
        options
    }

    /// The options of the server's reader, for a file that is read here.
    pub(crate) fn reader_options(&self) -> Result<reader::ImportOptions, Failure> {
        let option = |name: &str, problem: &dyn std::fmt::Display| Failure::message(format!("--{name}: {problem}"));
        let mut options = reader::ImportOptions { format: self.format.map(Into::into), ..Default::default() };
        if let Some(venue) = &self.venue {
            options.venue = Some(Venue::new(venue).map_err(|problem| option("venue", &problem))?);
        }
        if let Some(symbol) = &self.symbol {
            options.symbol = Some(Symbol::new(symbol).map_err(|problem| option("symbol", &problem))?);
        }
        options.columns = self.map.iter().map(|(field, column)| (reader_field(*field), column.clone())).collect();
        options.time_unit = self.time_unit.map(Into::into);
        options.receive_time_unit = self.receive_time_unit.map(Into::into);
        if let Some(delimiter) = self.delimiter {
            let mut text = [0; 4];
            options.delimiter = reader::ImportOptions::check_delimiter(delimiter.encode_utf8(&mut text))
                .map_err(|problem| Failure::message(problem.to_string()))?;
        }
        Ok(options)
    }
}

impl From<UnitArg> for TimeUnit {
    fn from(unit: UnitArg) -> TimeUnit {
        match unit {
            UnitArg::S => TimeUnit::Seconds,
            UnitArg::Ms => TimeUnit::Milliseconds,
            UnitArg::Us => TimeUnit::Microseconds,
            UnitArg::Ns => TimeUnit::Nanoseconds,
            UnitArg::Text => TimeUnit::Text,
        }
    }
}

impl From<UnitArg> for reader::TimeUnit {
    fn from(unit: UnitArg) -> reader::TimeUnit {
        match unit {
            UnitArg::S => reader::TimeUnit::Seconds,
            UnitArg::Ms => reader::TimeUnit::Milliseconds,
            UnitArg::Us => reader::TimeUnit::Microseconds,
            UnitArg::Ns => reader::TimeUnit::Nanoseconds,
            UnitArg::Text => reader::TimeUnit::Text,
        }
    }
}

impl From<FormatArg> for reader::FileFormat {
    fn from(format: FormatArg) -> reader::FileFormat {
        match format {
            FormatArg::Csv => reader::FileFormat::Csv,
            FormatArg::Binance => reader::FileFormat::BinanceCapture,
            FormatArg::JsonLines => reader::FileFormat::JsonLines,
            FormatArg::B3 => reader::FileFormat::B3Trades,
            FormatArg::Cotahist => reader::FileFormat::Cotahist,
        }
    }
}

fn reader_field(field: TickField) -> reader::Field {
    match field {
        TickField::EventTime => reader::Field::EventTime,
        TickField::ReceiveTime => reader::Field::ReceiveTime,
        TickField::Venue => reader::Field::Venue,
        TickField::Symbol => reader::Field::Symbol,
        TickField::Price => reader::Field::Price,
        TickField::Quantity => reader::Field::Quantity,
        TickField::Side => reader::Field::Side,
        TickField::TradeId => reader::Field::TradeId,
    }
}

fn parse_mapping(text: &str) -> Result<(TickField, String), String> {
    let (field, column) = text.split_once('=').ok_or("write FIELD=COLUMN, such as time=ts")?;
    let field = match field {
        "time" | "event_time" => TickField::EventTime,
        "receive_time" => TickField::ReceiveTime,
        "venue" => TickField::Venue,
        "symbol" => TickField::Symbol,
        "price" => TickField::Price,
        "quantity" => TickField::Quantity,
        "side" => TickField::Side,
        "trade_id" => TickField::TradeId,
        other => return Err(format!("{other} is no field of a tick")),
    };
    if column.is_empty() {
        return Err("the column's name is missing".to_owned());
    }
    Ok((field, column.to_owned()))
}

fn parse_delimiter(text: &str) -> Result<char, String> {
    if matches!(text, "tab" | "\\t") {
        return Ok('\t');
    }
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(one), None) => Ok(one),
        _ => Err("one character, or tab".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_name_a_field_and_a_column() {
        assert_eq!(parse_mapping("time=ts"), Ok((TickField::EventTime, "ts".to_owned())));
        assert_eq!(parse_mapping("price=Px (USD)"), Ok((TickField::Price, "Px (USD)".to_owned())));
        for text in ["time", "time=", "=ts", "colour=red"] {
            assert!(parse_mapping(text).is_err(), "{text}");
        }
    }

    #[test]
    fn delimiters_are_one_character() {
        assert_eq!(parse_delimiter(";"), Ok(';'));
        assert_eq!(parse_delimiter("tab"), Ok('\t'));
        assert_eq!(parse_delimiter("\\t"), Ok('\t'));
        for text in ["", ";;"] {
            assert!(parse_delimiter(text).is_err(), "{text:?}");
        }
    }
}
