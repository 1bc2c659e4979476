//! How a file is to be read: the options, their stored form, and the identity of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::error::ImportError;
use super::field::Field;
use crate::domain::{Symbol, Venue};
use crate::store::RunId;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FileFormat {
    /// Trades separated by commas or the like, with a header.
    #[default]
    Csv,
    /// What Binance's WebSocket sent, one message a line, each perhaps behind the time of its receipt.
    BinanceCapture,
    /// One tick a line, as a JSON object.
    JsonLines,
    /// B3's file of a day's trades.
    B3Trades,
    /// B3's file of daily quotes, in fixed columns.
    Cotahist,
}

impl FileFormat {
    /// All formats.
    pub const ALL: [FileFormat; 5] = [
        FileFormat::Csv,
        FileFormat::BinanceCapture,
        FileFormat::JsonLines,
        FileFormat::B3Trades,
        FileFormat::Cotahist,
    ];

    /// Its short name.
    pub fn name(self) -> &'static str {
        match self {
            FileFormat::Csv => "csv",
            FileFormat::BinanceCapture => "binance",
            FileFormat::JsonLines => "json-lines",
            FileFormat::B3Trades => "b3",
            FileFormat::Cotahist => "cotahist",
        }
    }

    fn named(name: &str) -> Option<FileFormat> {
        FileFormat::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// How times are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since 1970, decimals allowed.
    Seconds,
    /// Milliseconds since 1970, decimals allowed.
    Milliseconds,
    /// Microseconds since 1970, decimals allowed.
    Microseconds,
    /// Nanoseconds since 1970.
    Nanoseconds,
    /// RFC 3339 with an offset.
    Text,
}

/// The options that change ticks: they belong to a run's identity.
///
/// Those of an upload may leave almost everything open; those of a run are resolved against the file's header.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ImportOptions {
    /// The format; `None` is recognised by the content.
    pub format: Option<FileFormat>,
    /// The venue of all ticks.
    pub venue: Option<Venue>,
    /// The symbol of all ticks.
    pub symbol: Option<Symbol>,
    /// Which column holds which field, by the names in the header.
    pub columns: BTreeMap<Field, String>,
    /// The unit of event times.
    pub time_unit: Option<TimeUnit>,
    /// The unit of receive times.
    pub receive_time_unit: Option<TimeUnit>,
    /// The character between two columns.
    pub delimiter: Option<u8>,
}

/// The first message of an upload, checked.
#[derive(Clone, Debug)]
pub struct ImportStart {
    /// The run's name.
    pub run: RunId,
    /// The file's name: data for people, never a path.
    pub file_name: String,
    /// The size of the upload, if the client told it.
    pub size_bytes: Option<u64>,
    /// How to read the file.
    pub options: ImportOptions,
    /// How many lines may be rejected.
    pub max_rejects: u32,
    /// Whether the same bytes may be imported with other options.
    pub again: bool,
    /// The trace that the run belongs to; may be empty.
    pub trace_id: String,
}

impl TimeUnit {
    const ALL: [TimeUnit; 5] =
        [TimeUnit::Seconds, TimeUnit::Milliseconds, TimeUnit::Microseconds, TimeUnit::Nanoseconds, TimeUnit::Text];

    fn name(self) -> &'static str {
        match self {
            TimeUnit::Seconds => "s",
            TimeUnit::Milliseconds => "ms",
            TimeUnit::Microseconds => "us",
            TimeUnit::Nanoseconds => "ns",
            TimeUnit::Text => "text",
        }
    }

    fn named(name: &str) -> Option<TimeUnit> {
        TimeUnit::ALL.into_iter().find(|unit| unit.name() == name)
    }
}

impl ImportOptions {
    /// One `name=value` a line, in a fixed order: equal options give equal bytes, and people can read them.
    ///
    /// No value holds a line break: header names with control characters are refused.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            writeln!(text, "{name}={value}").expect("writing to a String cannot fail");
        };
        if let Some(format) = self.format {
            line("format", format.name());
        }
        if let Some(venue) = &self.venue {
            line("venue", venue.as_str());
        }
        if let Some(symbol) = &self.symbol {
            line("symbol", symbol.as_str());
        }
        for (field, column) in &self.columns {
            line(&format!("column.{}", field.name()), column);
        }
        if let Some(unit) = self.time_unit {
            line("time_unit", unit.name());
        }
        if let Some(unit) = self.receive_time_unit {
            line("receive_time_unit", unit.name());
        }
        if let Some(delimiter) = self.delimiter {
            line("delimiter", char::from(delimiter).encode_utf8(&mut [0; 4]));
        }
        text.into_bytes()
    }

    /// Reads the bytes of [`ImportOptions::encode`]; `None` for those of another version.
    pub fn decode(bytes: &[u8]) -> Option<ImportOptions> {
        let mut options = ImportOptions::default();
        for line in std::str::from_utf8(bytes).ok()?.split_terminator('\n') {
            let (name, value) = line.split_once('=')?;
            match name {
                "format" => options.format = Some(FileFormat::named(value)?),
                "venue" => options.venue = Some(Venue::new(value).ok()?),
                "symbol" => options.symbol = Some(Symbol::new(value).ok()?),
                "time_unit" => options.time_unit = Some(TimeUnit::named(value)?),
                "receive_time_unit" => options.receive_time_unit = Some(TimeUnit::named(value)?),
                "delimiter" => options.delimiter = Some(*value.as_bytes().first()?),
                _ => {
                    let field = Field::named(name.strip_prefix("column.")?)?;
                    options.columns.insert(field, value.to_owned());
                }
            }
        }
        Some(options)
    }

    /// What makes two uploads the same run: the content, what these (resolved) options make of it, and the parser.
    pub fn identity(&self, content: &[u8; 32], parser_version: u32, again: Option<&RunId>) -> [u8; 32] {
        let options = self.encode();
        let mut hash = Sha256::new();
        hash.update(content);
        hash.update((options.len() as u64).to_le_bytes());
        hash.update(&options);
        hash.update(parser_version.to_le_bytes());
        if let Some(run) = again {
            hash.update(run.as_str().as_bytes());
        }
        hash.finalize().into()
    }

    /// Refuses what means nothing in a format that knows its own columns: they would change the run's identity and
    /// no tick.
    pub(super) fn refuse_unfit(&self, format: FileFormat, fits: Fits) -> Result<(), ImportError> {
        let Fits { symbol, units } = fits;
        for (given, field) in [
            (self.symbol.is_some() && !symbol, "options.symbol"),
            (!self.columns.is_empty(), "options.column_mappings"),
            (self.time_unit.is_some() && !units, "options.time_unit"),
            (self.receive_time_unit.is_some() && !units, "options.receive_time_unit"),
            (self.delimiter.is_some(), "options.delimiter"),
        ] {
            if given {
                let problem = format!(
                    "means nothing in a file of the format {}: leave it out, or name another format",
                    format.name()
                );
                return Err(ImportError::Option { field, problem });
            }
        }
        Ok(())
    }

    /// Checks a delimiter given as an option.
    pub fn check_delimiter(text: &str) -> Result<Option<u8>, ImportError> {
        match text.as_bytes() {
            [] => Ok(None),
            [b'"' | b'\'' | b'\r' | b'\n' | 0] => Err(delimiter_invalid()),
            [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() => Ok(Some(*byte)),
            _ => Err(delimiter_invalid()),
        }
    }
}

/// Which options a format has a use for, beside the venue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fits {
    pub(super) symbol: bool,
    pub(super) units: bool,
}

fn delimiter_invalid() -> ImportError {
    ImportError::Option {
        field: "options.delimiter",
        problem: "must be one ASCII character other than a quote, a digit, a letter or a line break".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> ImportOptions {
        ImportOptions {
            format: Some(FileFormat::Csv),
            venue: Some(Venue::new("XNAS").unwrap()),
            symbol: Some(Symbol::new("A=B").unwrap()),
            columns: [(Field::Price, "a=b".to_owned()), (Field::EventTime, "Zeit (ms)".to_owned())].into(),
            time_unit: Some(TimeUnit::Text),
            receive_time_unit: Some(TimeUnit::Nanoseconds),
            delimiter: Some(b'\t'),
        }
    }

    #[test]
    fn stored_options_round_trip() {
        let formats = FileFormat::ALL.map(|format| ImportOptions { format: Some(format), ..full() });
        for options in formats.into_iter().chain([ImportOptions::default()]) {
            assert_eq!(ImportOptions::decode(&options.encode()), Some(options));
        }
        assert_eq!(ImportOptions::decode(b"colour=red\n"), None);
        assert_eq!(ImportOptions::decode(b"time_unit=weeks\n"), None);
        assert_eq!(ImportOptions::decode(b"format=xml\n"), None);
    }

    #[test]
    fn identity_follows_everything_that_changes_ticks() {
        let content = [7; 32];
        let run = RunId::new("r1").unwrap();
        let base = full().identity(&content, 1, None);
        let mut seen = std::collections::BTreeSet::from([base]);
        assert_eq!(base, full().identity(&content, 1, None));
        assert!(seen.insert(full().identity(&[8; 32], 1, None)));
        assert!(seen.insert(full().identity(&content, 2, None)));
        assert!(seen.insert(full().identity(&content, 1, Some(&run))));
        let changes: &[fn(&mut ImportOptions)] = &[
            |options| options.format = Some(FileFormat::Cotahist),
            |options| options.venue = None,
            |options| options.symbol = None,
            |options| options.columns.clear(),
            |options| options.time_unit = Some(TimeUnit::Seconds),
            |options| options.receive_time_unit = None,
            |options| options.delimiter = Some(b','),
        ];
        for change in changes {
            let mut options = full();
            change(&mut options);
            assert!(seen.insert(options.identity(&content, 1, None)));
        }
    }

    #[test]
    fn delimiters_are_one_harmless_character() {
        for (text, expected) in [
            ("", Some(None)),
            (";", Some(Some(b';'))),
            ("\t", Some(Some(b'\t'))),
            ("|", Some(Some(b'|'))),
            ("a", None),
            ("1", None),
            ("\"", None),
            ("\n", None),
            (",,", None),
            ("\u{e9}", None),
        ] {
            assert_eq!(ImportOptions::check_delimiter(text).ok(), expected, "{text:?}");
        }
    }
}
