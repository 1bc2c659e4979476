//! Files of other formats: raw captures give the ticks of their twins in columns, B3's trades are exact, its daily quotes
//! are published as their bytes say, and what is not whole is refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use tapefeed_proto::v1 as proto;
use tapefeed_tests::exact::{of_decimal, units};
use tapefeed_tests::import::{gzip, start, zip};
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::stubs::Stubs;
use tapefeed_tests::{Options, Server, import, process};

/// Imports a file with all defaults, and expects it to be stored.
async fn stored(stubs: &Stubs, name: &str, file: Vec<u8>) -> proto::IngestionRun {
    let run = import::bytes(stubs, start(name), file).await.expect("stored").run.expect("a run");
    assert_eq!((run.state(), run.reject_count), (proto::IngestionRunState::Succeeded, 0), "{run:?}");
    run
}

/// Imports a file, and expects it to be refused as a whole: nothing of it is stored.
async fn refused(stubs: &Stubs, name: &str, file: Vec<u8>) -> Refusal {
    let refusal = Refusal::of(&import::bytes(stubs, start(name), file).await.expect_err("refused"));
    refusal.assert(tonic::Code::InvalidArgument, "FILE_MALFORMED", &["run_id"]);
    let instruments = stubs.instruments.clone().list_instruments(proto::ListInstrumentsRequest::default()).await;
    assert!(instruments.expect("an answer").into_inner().instruments.is_empty(), "{name}: nothing is stored");
    refusal
}

/// All ticks of an instrument, without their positions.
async fn ticks(stubs: &Stubs, venue: &str, symbol: &str) -> Vec<proto::Tick> {
    let mut request = proto::ListTicksRequest {
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        page_size: 10_000,
        ..proto::ListTicksRequest::default()
    };
    let mut ticks = Vec::new();
    loop {
        let page = stubs.history.clone().list_ticks(request.clone()).await.expect("known").into_inner();
        ticks.extend(page.ticks.into_iter().map(|tick| proto::Tick { log_seq: 0, ..tick }));
        if page.next_page_token.is_empty() {
            return ticks;
        }
        request.page_token = page.next_page_token;
    }
}

/// All published bars of an instrument of B3.
async fn bars(stubs: &Stubs, symbol: &str) -> Vec<proto::PublishedBar> {
    let request = proto::ListPublishedBarsRequest {
        venue: "B3".to_owned(),
        symbol: symbol.to_owned(),
        ..proto::ListPublishedBarsRequest::default()
    };
    stubs.history.clone().list_published_bars(request).await.expect("known").into_inner().published_bars
}

async fn details(stubs: &Stubs, symbol: &str) -> proto::InstrumentDetails {
    let request =
        proto::GetInstrumentRequest { venue: "B3".to_owned(), symbol: symbol.to_owned(), ..Default::default() };
    let answer = stubs.instruments.clone().get_instrument(request).await.expect("known").into_inner();
    answer.instrument.expect("an instrument").details.expect("details")
}

fn ignored(run: &proto::IngestionRun) -> BTreeMap<String, u64> {
    run.ignored_lines.iter().map(|lines| (lines.kind.clone(), lines.count)).collect()
}

/// Both files into servers of their own, and the same ticks out of them.
async fn check_twins(raw: Vec<u8>, columns: Vec<u8>, symbol: &str) -> proto::IngestionRun {
    let (first, second) = (Server::start(Options::serve()).await, Server::start(Options::serve()).await);
    let (left, right) = (first.stubs().await, second.stubs().await);
    let run = stored(&left, "raw", raw).await;
    let twin = stored(&right, "columns", columns).await;
    assert_eq!(run.tick_count, twin.tick_count);
    let all = ticks(&left, "BINANCE", symbol).await;
    assert_eq!(all.len() as u64, run.tick_count);
    assert!(all == ticks(&right, "BINANCE", symbol).await, "the ticks differ");
    run
}

/// A capture of our own making, and its trades in columns.
fn capture(trades: u64) -> (String, String) {
    let mut raw = String::from("{\"result\":null,\"id\":1}\n");
    let mut columns =
        String::from("venue,symbol,trade_id,event_time_ms,receive_time_ns,price,quantity,buyer_is_maker\n");
    for trade in 0..trades {
        let (time, maker) = (1_723_161_255_342 + trade * 13, trade % 3 == 0);
        let received = time * 1_000_000 - 1_300_000_000 + trade;
        let price = format!("{}.{:08}", 61_000 + trade % 700, trade * 7_919 % 100_000_000);
        let quantity = format!("0.{:08}", trade + 1);
        writeln!(
            raw,
            "{received} {{\"stream\":\"test@trade\",\"data\":{{\"e\":\"trade\",\"E\":{time},\"s\":\"TESTUSDT\",\
             \"t\":{trade},\"p\":\"{price}\",\"q\":\"{quantity}\",\"T\":{time},\"m\":{maker},\"M\":true}}}}\n\
             {received} {{\"stream\":\"test@bookTicker\",\"data\":{{\"u\":{trade},\"s\":\"TESTUSDT\",\"b\":\"1\",\
             \"B\":\"2\",\"a\":\"3\",\"A\":\"4\"}}}}"
        )
        .expect("memory takes everything");
        writeln!(columns, "BINANCE,TESTUSDT,{trade},{time},{received},{price},{quantity},{maker}")
            .expect("memory takes everything");
    }
    (raw, columns)
}

#[tokio::test]
async fn a_capture_gives_the_ticks_of_its_columns() {
    let (raw, columns) = capture(12_000);
    let run = check_twins(gzip(raw.as_bytes()), columns.into_bytes(), "TESTUSDT").await;
    assert_eq!((run.tick_count, run.line_count, run.total_line_count), (12_000, 24_001, Some(24_001)));
    assert_eq!(ignored(&run), [("bookTicker".to_owned(), 12_000), ("other".to_owned(), 1)].into());
    assert_eq!(run.options.expect("options").format(), proto::ImportFormat::BinanceCapture);
}

/// Counts the messages of a real capture by plain text alone: by their stream, or as the snapshot of the book that the
/// recording program has put between them.
fn counted(raw: &[u8]) -> BTreeMap<&'static str, u64> {
    let mut text = String::new();
    GzDecoder::new(raw).read_to_string(&mut text).expect("a capture in gzip");
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let kind = if line.contains("@trade\",") {
            "trade"
        } else if line.contains("@bookTicker\",") {
            "bookTicker"
        } else if line.contains("@depth@100ms\",") {
            "depthUpdate"
        } else {
            assert!(line.contains(" {\"lastUpdateId\":"), "{:.80}", line);
            "depthSnapshot"
        };
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn real_captures_give_the_ticks_of_their_columns() {
    let Some(folder) = process::sample_data() else { return };
    for (name, symbol) in [("spot_btcusdt", "BTCUSDT"), ("spot_ethusdt", "ETHUSDT")] {
        let read = |end: &str| real(&folder, &format!("binance/{name}_2024-08-08{end}"));
        let raw = read(".jsonl.gz");
        let mut expected = counted(&raw);
        if symbol == "BTCUSDT" {
            let facts = [("bookTicker", 28_040), ("depthUpdate", 3_451), ("trade", 9_757), ("depthSnapshot", 1)];
            assert_eq!(expected, facts.into());
        }
        let run = check_twins(raw, read("_trades.csv.gz"), symbol).await;
        assert_eq!(Some(run.tick_count), expected.remove("trade"));
        let expected: BTreeMap<String, u64> =
            expected.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect();
        assert_eq!(ignored(&run), expected, "{name}");
    }
}

fn real(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).expect("the sample data are complete")
}

#[tokio::test]
async fn what_history_prints_is_imported_as_it_was() {
    let (_, columns) = capture(50);
    let first = Server::start(Options::serve()).await;
    let stubs = first.stubs().await;
    stored(&stubs, "columns", columns.into_bytes()).await;
    let printed = tapefeed_tests::Cli::new(&first, ["history", "TESTUSDT", "--all", "--json"]).ok().await;
    let second = Server::start(Options::serve()).await;
    let others = second.stubs().await;
    let run = stored(&others, "lines", printed.stdout.into_bytes()).await;
    assert_eq!(run.options.expect("options").format(), proto::ImportFormat::JsonLines);
    let (before, after) = (ticks(&stubs, "BINANCE", "TESTUSDT").await, ticks(&others, "BINANCE", "TESTUSDT").await);
    assert_eq!(before.len(), 50);
    assert_eq!(before, after);
}

const B3_HEADER: &str = "DataReferencia;CodigoInstrumento;AcaoAtualizacao;PrecoNegocio;QuantidadeNegociada;\
                         HoraFechamento;CodigoIdentificadorNegocio;TipoSessaoPregao;DataNegocio;\
                         CodigoParticipanteComprador;CodigoParticipanteVendedor\n";

/// The one tick of an instrument of B3: its time, price, quantity and trade id.
async fn only_trade(stubs: &Stubs, symbol: &str) -> (i64, i128, Option<i128>, String) {
    let ticks = ticks(stubs, "B3", symbol).await;
    let [tick] = &ticks[..] else { panic!("{ticks:?}") };
    assert_eq!(tick.side(), proto::Side::Unspecified);
    let time = tick.event_time.as_ref().map_or(0, tapefeed_tests::values::unix_nano);
    let price = tick.price.as_ref().map(of_decimal).expect("a price");
    (time, price, tick.quantity.as_ref().map(of_decimal), tick.trade_id.clone())
}

#[tokio::test]
async fn trades_of_b3_are_exact_and_changed_and_cancelled_as_the_file_says() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let file = format!(
        "{B3_HEADER}2025-04-29;TEST4;0;5,970;118;024810098;10;1;2025-04-28;127;127\n\
         2025-04-29;TEST3;0;5,900;82;24810098;10;1;2025-04-28;;\n\
         2025-04-29;TEST3;1;6,000;83;24810098;10;1;2025-04-28;;\n\
         2025-04-29;TEST3;0;6,100;82;24810099;12;1;2025-04-28;;\n\
         2025-04-29;TEST3;2;6,100;82;24810099;12;1;2025-04-28;;\n\
         2025-04-29;TEST3;0;6.000;82;24810098;11;1;2025-04-28;;"
    );
    let file = zip(&[("trades.txt", file.as_bytes())]);
    let run = import::bytes(&stubs, start("b3"), file).await.expect("stored").run.expect("a run");
    assert_eq!((run.tick_count, run.reject_count, run.line_count), (5, 1, 6));
    let codes: Vec<_> = run.first_rejects.iter().map(|line| (line.line_number, line.reason())).collect();
    assert_eq!(codes, [(7, proto::ErrorReason::FieldInvalid)]);
    // 02:48:10.098 in Sao Paulo.
    const TIME: i64 = 1_745_819_290_098_000_000;
    let expected = |price, quantity| (TIME, units(price), Some(units(quantity)), "10".to_owned());
    assert_eq!(only_trade(&stubs, "TEST4").await, expected("5.97", "118"));
    assert_eq!(only_trade(&stubs, "TEST3").await, expected("6", "83"));
}

#[tokio::test]
async fn real_files_of_b3_are_read_or_refused() {
    let Some(folder) = process::sample_data() else { return };
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let columns = refused(&stubs, "two-columns", real(&folder, "b3/invalid_NEGOCIOSAVISTA.txt.zip")).await;
    assert!(columns.message.contains("AcaoAtualizacao, PrecoNegocio, QuantidadeNegociada"), "{columns:?}");
    let cut = refused(&stubs, "truncated", real(&folder, "b3/COTAHIST_D04012016_truncated.TXT")).await;
    assert!(cut.message.contains("1,745") && cut.message.contains("506"), "{cut:?}");
    assert_eq!(cut.metadata["line"], "506");

    let trades = stored(&stubs, "trades", real(&folder, "b3/29-04-2025_NEGOCIOSAVISTA.txt.zip")).await;
    assert_eq!(trades.tick_count, 2);
    const TIME: i64 = 1_745_819_290_098_000_000;
    let expected = |price, quantity| (TIME, units(price), Some(units(quantity)), "10".to_owned());
    assert_eq!(only_trade(&stubs, "DDIN25").await, expected("5.97", "118"));
    assert_eq!(only_trade(&stubs, "DDIQ25").await, expected("5.9", "82"));

    let bytes = real(&folder, "b3/COTAHIST_D12022003.TXT");
    let run = stored(&stubs, "quotes", bytes.clone()).await;
    assert_eq!((run.published_count, run.tick_count, run.line_count), (551, 0, 551));
    let records: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"01")).collect();
    assert_eq!(records.len(), 551);
    assert_eq!(records.iter().filter(|record| at(record, 211, 217) == "0001000").count(), 378);
    // Ten of them, from the first to the last.
    for record in records.iter().step_by(61) {
        check_record(&stubs, record).await;
    }
}

/// The text of a field, by its positions from 1.
fn at(record: &[u8], first: usize, last: usize) -> &str {
    std::str::from_utf8(&record[first - 1..last]).expect("the file is ASCII")
}

/// Compares what is served with the bytes of a record.
async fn check_record(stubs: &Stubs, record: &[u8]) {
    let symbol = at(record, 13, 24).trim_end();
    let number = |first, last| at(record, first, last).parse::<i128>().expect("digits");
    let (market, term) = (number(25, 27), at(record, 50, 52).trim().parse::<u32>().unwrap_or(0));
    let bars = bars(stubs, symbol).await;
    let same = |bar: &&proto::PublishedBar| i128::from(bar.market) == market && bar.term_days.unwrap_or(0) == term;
    let bar = bars.iter().find(same).unwrap_or_else(|| panic!("{symbol} is missing: {bars:?}"));
    assert_eq!(bar.date, "2003-02-12");
    let factor = number(211, 217);
    assert_eq!(i128::from(bar.quote_factor), factor);
    for (price, first) in [
        (&bar.open_price, 57),
        (&bar.high_price, 70),
        (&bar.low_price, 83),
        (&bar.average_price, 96),
        (&bar.close_price, 109),
    ] {
        let price = of_decimal(price.as_ref().expect("a price"));
        assert_eq!(price * factor * 100, number(first, first + 12) * units("1"), "{symbol} at {first}");
    }
    assert_eq!(i128::from(bar.trade_count), number(148, 152));
    assert_eq!(bar.quantity.as_ref().map(of_decimal), Some(number(153, 170) * units("1")));
    assert_eq!(bar.value.as_ref().map(|value| of_decimal(value) * 100), Some(number(171, 188) * units("1")));
    assert_eq!((bar.board.as_str(), bar.distribution.as_str()), (at(record, 11, 12), at(record, 243, 245)));
    let details = details(stubs, symbol).await;
    assert_eq!((details.issuer.as_str(), details.isin.as_str()), (at(record, 28, 39).trim_end(), at(record, 231, 242)));
    assert_eq!(details.share_class, at(record, 40, 49).trim_end());
}

/// A record of our own making: text at positions from 1. Characters beyond ASCII become Latin-1.
fn record(fields: &[(usize, &str)]) -> Vec<u8> {
    let mut record = vec![b' '; 245];
    for (position, text) in fields {
        for (index, character) in text.chars().enumerate() {
            record[position - 1 + index] = u8::try_from(character).expect("a character of Latin-1");
        }
    }
    record
}

/// A file of one session: one share, with or without other text in its record.
fn session(changes: &[(usize, &str)], counted: &str) -> Vec<u8> {
    let share = [
        (1, "0120030212"),
        (11, "02TEST4       010A\u{c7}\u{da}CAR"),
        (40, "PN  EJ N1"),
        (53, "R$"),
        (57, "0000000001001000000000102000000000009980000000001005000000000101000000000010090000000001011"),
        (148, "12345000000000000678900000000000682300050"),
        (189, "00000000000000"),
        (203, "9999123100010000000000000000BRTESTACNPR1107"),
    ];
    let share: Vec<_> = share.iter().chain(changes).copied().collect();
    let records = [
        record(&[(1, "00COTAHIST.2003BOVESPA 20030213")]),
        record(&share),
        record(&[(1, "99COTAHIST.2003BOVESPA 20030213"), (32, counted)]),
    ];
    records.iter().flat_map(|record| [&record[..], b"\r\n"].concat()).collect()
}

#[tokio::test]
async fn daily_quotes_are_published_with_their_names_or_refused_as_a_whole() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let cut = refused(&stubs, "cut", session(&[], "00000001745")).await;
    assert!(cut.message.contains("1,745") && cut.message.contains("the file has 3"), "{cut:?}");
    assert_eq!(cut.metadata["line"], "3");
    let unended = session(&[], "00000000003");
    let unended = refused(&stubs, "unended", unended[..2 * 247].to_vec()).await;
    assert!(unended.message.contains("the trailer is missing"), "{unended:?}");

    let run = stored(&stubs, "session", session(&[], "00000000003")).await;
    assert_eq!((run.published_count, run.tick_count, run.total_line_count), (1, 0, Some(1)));
    let published = bars(&stubs, "TEST4").await;
    let [bar] = &published[..] else { panic!("{published:?}") };
    // Prices are for a thousand.
    assert_eq!((bar.quote_factor, bar.close_price.as_ref().map(of_decimal)), (1_000, Some(units("0.0101"))));
    assert_eq!(details(&stubs, "TEST4").await.issuer, "A\u{c7}\u{da}CAR");

    let bad = import::bytes(&stubs, start("bad"), session(&[(109, "x")], "00000000001")).await.expect("stored");
    let bad = bad.run.expect("a run");
    assert_eq!((bad.published_count, bad.reject_count), (0, 1));
    assert!(bad.first_rejects[0].message.starts_with("PREULT (positions 109 to 121)"), "{bad:?}");
    assert_eq!(bad.first_rejects[0].line_number, 2);
}
