//! Which format a file has: as told, else by its first line, and never by its name.
//!
//! A first line is certain to be of one format, or the file is refused; columns with a header are what is left when it
//! is neither JSON nor a file of B3.

use super::b3_trades::{self, B3Trades};
use super::binance::{self, BinanceCapture};
use super::cotahist::{self, Cotahist};
use super::csv::CsvTrades;
use super::error::{FileDefect, ImportError};
use super::format::Reader;
use super::json;
use super::json_lines::{self, JsonLines};
use super::options::{FileFormat, ImportOptions};

/// Sets up the reader of a file by its first line, which comes without its line break.
pub(super) fn open_reader(options: &ImportOptions, first_line: &[u8]) -> Result<Box<dyn Reader>, ImportError> {
    let format = match options.format {
        Some(format) => format,
        None => evident(first_line)?,
    };
    Ok(match format {
        FileFormat::Csv => Box::new(CsvTrades::open(options, first_line)?),
        FileFormat::BinanceCapture => Box::new(BinanceCapture::open(options)?),
        FileFormat::JsonLines => Box::new(JsonLines::open(options, first_line)?),
        FileFormat::B3Trades => Box::new(B3Trades::open(options, first_line)?),
        FileFormat::Cotahist => Box::new(Cotahist::open(options)?),
    })
}

/// The format of a first line.
fn evident(first_line: &[u8]) -> Result<FileFormat, FileDefect> {
    let line = json::without_mark(first_line);
    if cotahist::is_record(line) {
        return Ok(FileFormat::Cotahist);
    }
    if b3_trades::is_header(line) {
        return Ok(FileFormat::B3Trades);
    }
    if binance::is_capture(line) {
        return Ok(FileFormat::BinanceCapture);
    }
    if json_lines::is_tick(line) {
        return Ok(FileFormat::JsonLines);
    }
    let looks_like_json = match line.trim_ascii_start() {
        [b'{', ..] => true,
        [b'[', rest @ ..] => matches!(rest.trim_ascii_start(), [b'{' | b'[' | b'"', ..] | []),
        _ => line.windows(2).any(|pair| pair == b"{\""),
    };
    if looks_like_json {
        let problem = "the file looks like lines of JSON, but its first line is neither a tick with event_time and \
                       price nor a message of Binance's socket: write one object a line, or name the format";
        return Err(FileDefect::at_line(1, 0, problem));
    }
    Ok(FileFormat::Csv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_certain_or_refused() {
        use FileFormat::*;
        let detail = format!("012003021202{:233}", "");
        let cases: &[(&str, Option<FileFormat>)] = &[
            ("venue,symbol,time_s,price", Some(Csv)),
            ("", Some(Csv)),
            (r#"1723161254087896568 {"stream":"btcusdt@trade","data":{"e":"trade"}}"#, Some(BinanceCapture)),
            (r#"1723161254087896568 {"a":1}"#, Some(BinanceCapture)),
            (r#"{"stream":"btcusdt@bookTicker","data":{"u":1}}"#, Some(BinanceCapture)),
            (r#"{"e":"trade","E":1}"#, Some(BinanceCapture)),
            (r#"{"u":1,"s":"X","b":"1","B":"1","a":"2","A":"1"}"#, Some(BinanceCapture)),
            (r#"{"result":null,"id":1}"#, Some(BinanceCapture)),
            ("\u{feff}{\"e\":\"trade\",\"E\":1}", Some(BinanceCapture)),
            (r#"{"venue":"V","symbol":"S","event_time":"2024-08-08T23:54:15Z","price":"1"}"#, Some(JsonLines)),
            ("\u{feff}{\"event_time\":1,\"price\":1}", Some(JsonLines)),
            (r#"{"event":"progress","log_seq":7}"#, Some(JsonLines)),
            ("DataReferencia;CodigoInstrumento", Some(B3Trades)),
            ("\u{feff}DataReferencia;CodigoInstrumento;AcaoAtualizacao", Some(B3Trades)),
            ("DataReferencia;time_s;price", Some(Csv)),
            ("00COTAHIST.2003BOVESPA 20040531", Some(Cotahist)),
            (&detail, Some(Cotahist)),
            ("012003,021202", Some(Csv)),
            (r#"{"time":1,"px":2}"#, None),
            (r#"{"event_time":1,"pri"#, None),
            (r#"[{"event_time":1,"price":2}]"#, None),
            ("[", None),
            (r#"x {"e":"trade"}"#, None),
            (r#"{"result":null,"id":1,"more":2}"#, None),
        ];
        for (line, expected) in cases {
            assert_eq!(evident(line.as_bytes()).ok(), *expected, "{line}");
        }
    }
}
