//! Records of our own making, in B3's layout.

use super::*;
use crate::ingest::import::format::RejectCode;
use crate::ingest::import::tests::cotahist::{detail, file, header, trailer, with};

fn read(record: &[u8]) -> (Line, Option<PublishedBar>, Option<InstrumentDetails>, Option<String>) {
    let mut parser = Cotahist::open(&ImportOptions::default()).unwrap();
    let mut builder = BatchBuilder::default();
    let outcome = parser.line(record, &mut builder);
    let (batch, mut published) = builder.take();
    assert!(batch.ticks.is_empty(), "a day is no tick");
    let symbol = batch.instruments.first().map(|(venue, symbol)| format!("{venue}/{symbol}"));
    let bar = published.bars.pop().map(|(_, bar)| bar);
    (outcome, bar, published.details.pop().map(|(_, details)| details), symbol)
}

/// Judges a whole file.
fn judge(bytes: &[u8]) -> Result<u64, String> {
    let folder = tempfile::tempdir().unwrap();
    let given = ImportOptions { format: Some(FileFormat::Cotahist), ..ImportOptions::default() };
    crate::ingest::import::FileReader::read(bytes, given, folder.path().to_owned())
        .map(|reader| reader.line_count())
        .map_err(|error| error.to_string())
}

fn value(text: &str) -> Decimal {
    text.parse().unwrap()
}

#[test]
fn a_detail_becomes_a_bar_and_facts() {
    let (outcome, bar, details, symbol) = read(&detail());
    assert_eq!((outcome, symbol.as_deref()), (Line::Published, Some("B3/TEST4")));
    assert_eq!(
        bar.unwrap(),
        PublishedBar {
            key: PublishedBarKey { day: 12_095, market: 10, term: 0 },
            open: value("10.01"),
            high: value("10.2"),
            low: value("9.98"),
            average: value("10.05"),
            close: value("10.1"),
            bid: value("10.09"),
            ask: value("10.11"),
            trade_count: 12_345,
            quantity: value("678900"),
            value: value("6823000.5"),
            strike: Decimal::ZERO,
            strike_points: Decimal::ZERO,
            expiry_day: 2_932_896,
            quote_factor: 1,
            board: "02".into(),
            strike_correction: "0".into(),
            distribution: "107".into(),
        }
    );
    assert_eq!(
        details.unwrap(),
        InstrumentDetails {
            day: 12_095,
            isin: "BRTESTACNPR1".into(),
            issuer: "TESTE".into(),
            share_class: "PN  EJ N1".into(),
            currency: "R$".into(),
        }
    );
}

#[test]
fn prices_are_for_one_unit_exactly() {
    for (factor, price, expected) in [
        ("0000001", "0000000001001", "10.01"),
        ("0000010", "0000000001001", "1.001"),
        ("0001000", "0000000001001", "0.01001"),
        ("0001000", "9999999999999", "99999999.99999"),
        ("0000008", "0000000000001", "0.00125"),
        ("1000000", "0000000000001", "0.00000001"),
        ("0000003", "0000000000300", "1"),
    ] {
        let record = with(with(detail(), 211, factor), 109, price);
        // The other prices of the record are no multiples of 3.
        let record =
            if factor == "0000003" { (57..=135).step_by(13).fold(record, |r, at| with(r, at, price)) } else { record };
        let (outcome, bar, ..) = read(&record);
        assert_eq!(outcome, Line::Published, "{factor} {price}");
        assert_eq!(bar.unwrap().close, value(expected), "{factor} {price}");
    }
}

#[test]
fn options_and_forwards_have_their_own_fields() {
    let record = with(with(with(detail(), 25, "070"), 189, "0000000002600"), 218, "0000016523484");
    let record = with(with(with(record, 211, "0001000"), 203, "20030217"), 202, "8");
    let bar = read(&record).1.unwrap();
    assert_eq!((bar.key.market, bar.strike, bar.strike_points), (70, value("0.026"), value("16.523484")));
    assert_eq!((bar.expiry_day, &*bar.strike_correction), (12_100, "8"));
    let forward = read(&with(with(detail(), 25, "030"), 50, "090")).1.unwrap();
    assert_eq!(forward.key, PublishedBarKey { day: 12_095, market: 30, term: 90 });
}

#[test]
fn names_are_latin_1() {
    let mut record = with(detail(), 28, "            ");
    record[27..34].copy_from_slice(b"A\xC7UCAR\xAA");
    record[44] = 0xE3;
    let details = read(&record).2.unwrap();
    assert_eq!((&*details.issuer, details.share_class.contains('ã')), ("AÇUCARª", true));
}

#[test]
fn bad_details_are_rejected_with_field_and_positions() {
    for (position, text, expected) in [
        (3, "20031301", "DATPRE (positions 3 to 10): must be a day"),
        (13, "            ", "CODNEG (positions 13 to 24): symbol: must not be empty"),
        (13, "TE ST4", "CODNEG (positions 13 to 24): symbol: byte 2"),
        (25, "   ", "TPMERC (positions 25 to 27): must be digits"),
        (28, "A\u{7}", "NOMRES (positions 28 to 39): holds a control character"),
        (50, "  7", "PRAZOT (positions 50 to 52): must be digits"),
        (57, "             ", "PREABE (positions 57 to 69): must be digits"),
        (70, "-000000001001", "PREMAX (positions 70 to 82): must be digits"),
        (83, "00000000010,1", "PREMIN (positions 83 to 95)"),
        (96, "x", "PREMED (positions 96 to 108)"),
        (109, "x", "PREULT (positions 109 to 121)"),
        (122, "x", "PREOFC (positions 122 to 134)"),
        (135, "x", "PREOFV (positions 135 to 147)"),
        (148, "x", "TOTNEG (positions 148 to 152)"),
        (153, "999999999999999999", "QUATOT (positions 153 to 170): absolute value"),
        (171, "999999999999999999", "VOLTOT (positions 171 to 188): absolute value"),
        (189, "x", "PREEXE (positions 189 to 201)"),
        (203, "00000000", "DATVEN (positions 203 to 210): must be a day"),
        (211, "0000000", "FATCOT (positions 211 to 217): must not be 0"),
        (211, "0000003", "PREABE (positions 57 to 69): cannot be divided by 3"),
        (218, "x", "PTOEXE (positions 218 to 230)"),
        (231, "\u{e9}", "CODISI (positions 231 to 242)"),
    ] {
        let (outcome, bar, details, symbol) = read(&with(detail(), position, text));
        let Line::Rejected { code: RejectCode::FieldInvalid, reason } = outcome else { panic!("{text}: {outcome:?}") };
        assert!(reason.starts_with(expected), "{reason}");
        assert_eq!((bar, details, symbol), (None, None, None), "{expected}");
    }
}

#[test]
fn a_whole_file_is_taken_however_its_trailer_counts() {
    for end in ["\r\n", "\n"] {
        for counted in [5, 3] {
            let records = [header(), detail(), detail(), detail(), trailer(counted)];
            assert_eq!(judge(&file(&records, end)), Ok(3), "{counted}");
        }
    }
    let unended = file(&[header(), detail(), trailer(3)], "\n");
    assert_eq!(judge(&unended[..unended.len() - 1]), Ok(1));
    assert_eq!(judge(&file(&[header(), trailer(2)], "\r\n")), Ok(0));
}

#[test]
fn defects_of_the_file_are_told_with_line_and_figures() {
    let short = |record: Vec<u8>| record[..240].to_vec();
    let long = |record: Vec<u8>| [record, b" ".to_vec()].concat();
    let other = with(detail(), 1, "02");
    let cases: Vec<(Vec<Vec<u8>>, &str)> = vec![
        (
            vec![detail(), trailer(2)],
            "the header is missing: COTAHIST begins with a record of the type 00 (line 1, byte 0)",
        ),
        (vec![header()], "the trailer is missing after 1 records"),
        (vec![header(), detail(), detail()], "the trailer is missing after 3 records"),
        (vec![header(), detail(), trailer(4)], "the trailer counts 4 records (00000000004), and the file has 3: "),
        (vec![header(), detail(), trailer(1_745)], "counts 1,745 records (00000001745), and the file has 3: "),
        (vec![header(), detail(), trailer(2)], "(line 3, byte 492)"),
        (vec![header(), short(detail()), trailer(3)], "the record has 240 bytes instead of 245 (line 2, byte 246)"),
        (vec![header(), long(detail()), trailer(3)], "the record has 246 bytes instead of 245 (line 2"),
        (vec![short(header()), detail(), trailer(3)], "the record has 240 bytes instead of 245 (line 1"),
        (vec![header(), header(), trailer(3)], "a second header"),
        (vec![header(), trailer(2), detail()], "a record follows the trailer in line 2 (line 3"),
        (vec![header(), other, trailer(3)], "records of the type \"02\" are not known"),
        (vec![header(), detail(), Vec::new(), trailer(4)], "the record has 0 bytes instead of 245 (line 3"),
        (
            vec![header(), with(trailer(2), 32, "x")],
            "the trailer: the count of records (positions 32 to 42): must be digits",
        ),
    ];
    for (records, expected) in cases {
        let error = judge(&file(&records, "\n")).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn thousands_are_grouped() {
    for (number, text) in [(0, "0"), (506, "506"), (1_745, "1,745"), (1_234_567, "1,234,567")] {
        assert_eq!(grouped(number), text);
    }
}
