//! Whatever the bytes, every format reads them or refuses them.

use proptest::prelude::*;

use super::*;
use crate::ingest::import::{FileReader, LineContent};

/// A file of each format that is read to its end.
fn good(format: FileFormat) -> Vec<u8> {
    match format {
        FileFormat::Csv => trades(3),
        FileFormat::BinanceCapture => {
            let trade = r#"{"e":"trade","s":"BTCUSDT","t":37,"p":"61837.63","q":"0.02","T":1723161255342,"m":true}"#;
            format!("1723161254087896568 {{\"stream\":\"b@trade\",\"data\":{trade}}}\n{trade}\n").into_bytes()
        }
        FileFormat::JsonLines => {
            let tick = r#"{"venue":"V","symbol":"S","event_time":"2024-08-08T23:54:15Z","price":"1.5","trade_id":7}"#;
            format!("{tick}\n{tick}\n").into_bytes()
        }
        FileFormat::B3Trades => b"DataReferencia;CodigoInstrumento;AcaoAtualizacao;PrecoNegocio;QuantidadeNegociada;\
            HoraFechamento;CodigoIdentificadorNegocio;DataNegocio\n2025-04-29;T;0;5,970;118;024810098;10;2025-04-28\n"
            .to_vec(),
        FileFormat::Cotahist => cotahist::file(&[cotahist::header(), cotahist::detail(), cotahist::trailer(3)], "\r\n"),
    }
}

/// Reads a file to its end, and counts its ticks and what else is published.
fn read(format: Option<FileFormat>, bytes: &[u8], folder: &std::path::Path) -> Result<(u64, u64), ImportError> {
    let given = ImportOptions { format, ..ImportOptions::default() };
    let reader = FileReader::read(bytes, given, folder.to_owned())?;
    let (count, header) = (reader.line_count(), reader.options().clone());
    assert!(header.format.is_some() && (format.is_none() || header.format == format));
    let (mut lines, mut ticks, mut published) = (0, 0, 0);
    for line in reader {
        lines += 1;
        match line?.content {
            LineContent::Tick { tick, .. } => {
                assert!(tick.quantity.is_none_or(|quantity| !quantity.is_negative()));
                ticks += 1;
            }
            LineContent::Published(content) => {
                assert!(!content.is_empty());
                published += 1;
            }
            LineContent::Ignored(kind) => assert!(!kind.is_empty()),
            LineContent::Rejected { reason, .. } => assert!(!reason.is_empty()),
        }
    }
    assert_eq!(lines, count, "every line of data has an outcome");
    Ok((ticks, published))
}

#[test]
fn every_format_is_recognised_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    for (format, expected) in FileFormat::ALL.into_iter().zip([(3, 0), (2, 0), (2, 0), (1, 0), (0, 1)]) {
        assert_eq!(read(None, &good(format), folder.path()).unwrap(), expected, "{format:?}");
        assert_eq!(read(Some(format), &good(format), folder.path()).unwrap(), expected, "{format:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        format in proptest::sample::select(FileFormat::ALL.to_vec()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let _ = read(Some(format), &bytes, folder.path());
        let _ = read(None, &bytes, folder.path());
    }

    #[test]
    fn files_with_changed_bytes_are_read_or_refused(
        format in proptest::sample::select(FileFormat::ALL.to_vec()),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = good(format);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = read(Some(format), &bytes, folder.path());
        let _ = read(None, &bytes, folder.path());
    }
}
