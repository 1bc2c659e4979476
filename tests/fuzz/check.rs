//! What every reader of files must hold, whatever the bytes: it reads them to their end or refuses them with a reason,
//! and does the same the next time.

use std::path::PathBuf;

use tapefeed_server::ingest::import::{FileFormat, FileLine, FileReader, ImportError, ImportOptions, LineContent};

/// Longest reason of a refusal: one that repeats its input without a bound would fill logs.
const MAX_REASON_BYTES: usize = 4 << 10;

/// Reads bytes as a file of the format, as one of a format that is not told, and as lines of data in a good file: there
/// a change of a byte changes a field, and breaks no header.
pub fn check(format: FileFormat, bytes: &[u8]) {
    let told = read(Some(format), bytes);
    let recognised = read(None, bytes);
    if let Ok(recognised) = &recognised
        && recognised.format == Some(format)
    {
        assert_eq!(Ok(recognised), told.as_ref(), "the same bytes, read again, are something else");
    }
    if let Some(framed) = framed(format, bytes) {
        // Whatever its lines are, nothing is wrong with the file.
        let whole = read(Some(format), &framed);
        assert!(whole.is_ok() || format == FileFormat::Cotahist || bytes.len() > MAX_LINE_BYTES, "{whole:?}");
    }
}

/// Longest line that is read.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Lines inside a good file; `None` for formats that have nothing around their lines.
fn framed(format: FileFormat, lines: &[u8]) -> Option<Vec<u8>> {
    let (header, trailer) = match format {
        FileFormat::BinanceCapture | FileFormat::JsonLines => return None,
        FileFormat::Csv => {
            ("venue,symbol,trade_id,event_time_ms,receive_time_ns,price,quantity,side\n".to_owned(), String::new())
        }
        FileFormat::B3Trades => (
            "DataReferencia;CodigoInstrumento;AcaoAtualizacao;PrecoNegocio;QuantidadeNegociada;HoraFechamento;\
             CodigoIdentificadorNegocio;DataNegocio\n"
                .to_owned(),
            String::new(),
        ),
        FileFormat::Cotahist => {
            let records = lines.split(|byte| *byte == b'\n').count();
            let trailer = format!("99COTAHIST.2003BOVESPA 20030213{records:011}");
            (format!("{:245}\n", "00COTAHIST.2003BOVESPA 20030213"), format!("\n{trailer:245}"))
        }
    };
    Some([header.as_bytes(), lines, trailer.as_bytes()].concat())
}

/// A file that was read to its end.
#[derive(Debug, PartialEq, Eq)]
struct Whole {
    format: Option<FileFormat>,
    lines: Vec<FileLine>,
}

/// The file, or why it is refused.
fn read(format: Option<FileFormat>, bytes: &[u8]) -> Result<Whole, String> {
    let options = ImportOptions { format, ..ImportOptions::default() };
    let reader = match FileReader::read(bytes, options, spool_folder()) {
        Ok(reader) => reader,
        Err(error) => return Err(refused(&error)),
    };
    let resolved = reader.options().clone();
    assert!(resolved.format.is_some() && (format.is_none() || resolved.format == format));
    assert_eq!(ImportOptions::decode(&resolved.encode()), Some(resolved.clone()), "stored options are read again");
    let count = reader.line_count();
    let lines: Vec<FileLine> = reader.map(|line| line.expect("a temporary file can be read")).collect();
    assert_eq!(lines.len() as u64, count, "every line of data has one outcome");
    for pair in lines.windows(2) {
        assert_eq!(pair[0].number + 1, pair[1].number, "no line is left out");
    }
    for line in &lines {
        check_line(line);
    }
    Ok(Whole { format: resolved.format, lines })
}

fn refused(error: &ImportError) -> String {
    let reason = error.to_string();
    assert!(matches!(error.reason(), "FILE_MALFORMED" | "FIELD_INVALID" | "LIMIT_EXCEEDED"), "{error:?}");
    assert!(!reason.is_empty() && reason.len() <= MAX_REASON_BYTES, "{reason}");
    reason
}

fn check_line(line: &FileLine) {
    match &line.content {
        LineContent::Tick { tick, .. } => {
            // Names, times and decimals are valid by construction; this is left to the readers.
            assert!(tick.quantity.is_none_or(|quantity| !quantity.is_negative()), "{tick:?}");
            assert!(tick.event_time.nanos() >= 0 && tick.price.to_string().parse() == Ok(tick.price), "{tick:?}");
        }
        LineContent::Published(published) => {
            assert!(!published.is_empty());
            for (_, bar) in &published.bars {
                assert!(bar.quote_factor > 0 && bar.board.len() <= 8 && bar.distribution.len() <= 8, "{bar:?}");
                assert!(bar.strike_correction.len() <= 8, "{bar:?}");
                let prices = [bar.open, bar.high, bar.low, bar.average, bar.close, bar.bid, bar.ask, bar.strike];
                assert!(prices.into_iter().all(|price| !price.is_negative()), "{bar:?}");
            }
            for (_, details) in &published.details {
                assert!(details.isin.len() <= 16 && details.issuer.len() <= 64, "{details:?}");
                assert!(details.share_class.len() <= 32 && details.currency.len() <= 16, "{details:?}");
            }
        }
        LineContent::Ignored(kind) => assert!(!kind.is_empty()),
        LineContent::Rejected { code, reason } => {
            assert!(!code.name().is_empty() && !reason.is_empty() && reason.len() <= MAX_REASON_BYTES, "{reason}");
        }
    }
}

/// Memory where the machine has a disk of it: a file is written for every input.
fn spool_folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_of_the_fuzzers_holds() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for (name, format) in [
            ("csv", FileFormat::Csv),
            ("binance_capture", FileFormat::BinanceCapture),
            ("json_lines", FileFormat::JsonLines),
            ("b3_trades", FileFormat::B3Trades),
            ("cotahist", FileFormat::Cotahist),
        ] {
            let mut count = 0;
            for seed in std::fs::read_dir(folder.join(name)).expect("seeds of the format") {
                let bytes = std::fs::read(seed.expect("an entry").path()).expect("a seed");
                check(format, &bytes);
                count += 1;
            }
            assert!(count >= 3, "{name} has {count} seeds");
        }
    }
}
