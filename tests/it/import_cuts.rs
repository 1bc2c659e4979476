//! Files that are no CSV: a run that is cut by kills of the server, and continued, ends in exactly what an undisturbed one
//! gives.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tapefeed_proto::v1 as proto;
use tapefeed_tests::file::StoreFile;
use tapefeed_tests::stubs::Stubs;
use tapefeed_tests::{Options, Server, import};

/// Lines of a file, a multiple of a batch. A debug build is an order of magnitude slower, and shows the same with fewer.
const LINES: u64 = if cfg!(debug_assertions) { 120_000 } else { 480_000 };
/// Lines of one batch of a run.
const BATCH: u64 = 10_000;
/// How long the file may stand still, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// When a trade of number 0 happened, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_723_161_255_342;

/// Everything that an import leaves behind, but for what the clock says.
#[derive(PartialEq)]
struct Outcome {
    run: proto::IngestionRun,
    rejects: Vec<proto::RejectedLine>,
    instruments: Vec<proto::Instrument>,
    ticks: Vec<proto::Tick>,
    bars: Vec<(u32, proto::PublishedBar)>,
}

impl Outcome {
    /// Of a run that has succeeded. Where the file has no times of receipt, the server's are left out.
    async fn of(stubs: &Stubs, run: proto::IngestionRun, has_receive_times: bool) -> Outcome {
        let bare = |tick: proto::Tick| match has_receive_times {
            true => tick,
            false => proto::Tick { receive_time: None, ..tick },
        };
        let request =
            proto::ListInstrumentsRequest { page_size: 10_000, min_cursor: run.cursor.clone(), ..Default::default() };
        let listed = stubs.instruments.clone().list_instruments(request).await.expect("an answer").into_inner();
        assert!(listed.next_page_token.is_empty());
        let mut outcome =
            Outcome { run, rejects: Vec::new(), instruments: Vec::new(), ticks: Vec::new(), bars: Vec::new() };
        for instrument in listed.instruments {
            let (id, venue, symbol) = (instrument.instrument_id, instrument.venue.clone(), instrument.symbol.clone());
            outcome.ticks.extend(ticks(stubs, &venue, &symbol, &outcome.run.cursor).await.into_iter().map(bare));
            outcome.bars.extend(bars(stubs, &venue, &symbol).await.into_iter().map(|bar| (id, bar)));
            outcome.instruments.push(proto::Instrument {
                first_tick: instrument.first_tick.map(bare),
                last_tick: instrument.last_tick.map(bare),
                ..instrument
            });
        }
        let request = proto::ListRejectedLinesRequest {
            run_id: outcome.run.run_id.clone(),
            page_size: 4_000,
            ..Default::default()
        };
        let page = stubs.ingest.clone().list_rejected_lines(request).await.expect("a page").into_inner();
        assert_eq!((page.reject_count, page.kept_count), (outcome.run.reject_count, page.rejected_lines.len() as u64));
        outcome.rejects = page.rejected_lines;
        let run = &mut outcome.run;
        (run.create_time, run.start_time, run.finish_time) = (None, None, None);
        // It names the epoch, which is another's in every store.
        run.cursor.clear();
        outcome
    }
}

async fn ticks(stubs: &Stubs, venue: &str, symbol: &str, min_cursor: &[u8]) -> Vec<proto::Tick> {
    let mut request = proto::ListTicksRequest {
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        page_size: 10_000,
        min_cursor: min_cursor.to_vec().into(),
        ..Default::default()
    };
    let mut ticks = Vec::new();
    loop {
        let page = stubs.history.clone().list_ticks(request.clone()).await.expect("a page").into_inner();
        ticks.extend(page.ticks);
        if page.next_page_token.is_empty() {
            return ticks;
        }
        request.page_token = page.next_page_token;
    }
}

async fn bars(stubs: &Stubs, venue: &str, symbol: &str) -> Vec<proto::PublishedBar> {
    let mut request = proto::ListPublishedBarsRequest {
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        page_size: 10_000,
        ..Default::default()
    };
    let mut bars = Vec::new();
    loop {
        let page = stubs.history.clone().list_published_bars(request.clone()).await.expect("a page").into_inner();
        bars.extend(page.published_bars);
        if page.next_page_token.is_empty() {
            return bars;
        }
        request.page_token = page.next_page_token;
    }
}

/// The last batch that is stored, by the store's own table; 0 while there is no run.
async fn last_batch(server: &Server) -> u64 {
    let Ok(mut file) = StoreFile::of(server).await else { return 0 };
    file.newest_run_batch().await.ok().flatten().unwrap_or(0)
}

/// Waits until a batch is stored.
async fn reached(server: &Server, batch: u64) {
    let begin = Instant::now();
    loop {
        // Opened once: another opening would cost more than what is waited for.
        let Ok(mut file) = StoreFile::of(server).await else { continue };
        while let Ok(stored) = file.newest_run_batch().await {
            if stored.unwrap_or(0) >= batch {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "batch {stored:?} is stored, and {batch} does not come");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }
}

/// Imports a file undisturbed and, into another store, through kills of the server. What both leave behind, and that
/// it is the same.
async fn check(file: Vec<u8>, has_receive_times: bool) -> Outcome {
    let undisturbed = Server::start(Options::serve()).await;
    let stubs = undisturbed.stubs().await;
    let done = import::bytes(&stubs, import::start("run"), file.clone()).await.expect("stored");
    let expected = Outcome::of(&stubs, done.run.expect("a run"), has_receive_times).await;
    drop(undisturbed);

    let total = LINES / BATCH;
    assert_eq!(expected.run.last_batch_seq, total);
    let mut server = Server::start(Options::serve()).await;
    for target in [2, total / 2, total - 3] {
        let stubs = server.stubs().await;
        let upload = file.clone();
        let importer = tokio::spawn(async move { import::bytes(&stubs, import::start("run"), upload).await });
        reached(&server, target).await;
        server.kill9().await;
        let at_kill = last_batch(&server).await;
        println!("killed when batch {at_kill} of {total} was stored");
        assert!(at_kill > 0 && at_kill < total, "the kill came at {at_kill} of {total}");
        importer.await.expect("it does not panic").expect_err("its server is gone");
        server.restart().await;
        assert_eq!(last_batch(&server).await, at_kill, "what was stored stays, and nothing else comes");
    }
    let stubs = server.stubs().await;
    let done = import::bytes(&stubs, import::start("run"), file.clone()).await.expect("stored");
    assert!(!done.duplicate);
    let outcome = Outcome::of(&stubs, done.run.expect("a run"), has_receive_times).await;
    assert_eq!(outcome.run, expected.run);
    assert_eq!(outcome.rejects, expected.rejects);
    assert_eq!(outcome.instruments, expected.instruments);
    assert!(outcome.bars == expected.bars, "other bars are published");
    assert!(outcome.ticks == expected.ticks, "other ticks are stored");
    let again = import::bytes(&stubs, import::start("run"), file).await.expect("known");
    assert!(again.duplicate);
    let again = Outcome::of(&stubs, again.run.expect("a run"), has_receive_times).await;
    assert!(again == outcome, "the file again changes something");
    outcome
}

/// The counts of a run: ticks, published, rejected, and ignored lines by kind.
fn counts(run: &proto::IngestionRun) -> (u64, u64, u64, Vec<(&str, u64)>) {
    let ignored = run.ignored_lines.iter().map(|of| (of.kind.as_str(), of.count)).collect();
    (run.tick_count, run.published_count, run.reject_count, ignored)
}

/// Every so many lines one is bad: the store keeps all of them.
const BAD_EVERY: u64 = 600;
/// How many that are.
const BAD: u64 = LINES / BAD_EVERY;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_that_was_cut_three_times_gives_what_an_uncut_one_gives() {
    let mut file = String::new();
    let mut trade = 0;
    for line in 0..LINES {
        let time = BEGIN_MS + line * 3;
        let price = format!("{}.{:08}", 61_000 + line % 700, line * 7_919 % 100_000_000);
        let event = match line % 10 {
            5 => format!(
                r#""aggTrade","s":"TESTUSDT","a":{line},"p":"{price}","q":"3","f":{},"l":{trade},"T":{time},"m":true"#,
                trade - 1
            ),
            6 => {
                format!(r#""aggTrade","s":"SUMUSDT","a":{line},"p":"{price}","q":"2","f":1,"l":1,"T":{time},"m":true"#)
            }
            7 => format!(r#""trade","s":"TESTUSDT","t":{line},"p":"0","q":"0","X":"NA","T":{time},"m":true"#),
            8 => r#""depthUpdate","s":"TESTUSDT","b":[["1","2"]],"a":[]"#.to_owned(),
            _ => {
                trade += 1;
                let price = if line % BAD_EVERY == 0 { "?" } else { &price };
                format!(r#""trade","s":"TESTUSDT","t":{trade},"p":"{price}","q":"0.{trade}","T":{time},"m":false"#)
            }
        };
        writeln!(file, r#"{} {{"stream":"test","data":{{"e":{event}}}}}"#, time * 1_000_000 + line)
            .expect("memory takes everything");
    }
    let outcome = check(file.into_bytes(), true).await;
    let tenth = LINES / 10;
    // The ids of events without a trade are those of lines: some stand among the ids of trades.
    let ignored = vec![("aggTrade", tenth), ("depthUpdate", tenth), ("trade:NA", tenth)];
    assert_eq!(counts(&outcome.run), (7 * tenth - BAD, 0, BAD, ignored));
    assert_eq!(outcome.instruments.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_in_json_that_were_cut_three_times_give_what_uncut_ones_give() {
    let mut file = String::new();
    for line in 0..LINES {
        let (time, symbol) = (BEGIN_MS + line * 3, ["AAA", "BBB", "CCC/USD"][line as usize % 3]);
        let written = match (line % BAD_EVERY, line % 50) {
            (1, _) => writeln!(file, r#"{{"venue":"X","symbol":"{symbol}","event_time":"soon","price":"1"}}"#),
            (_, 7) => writeln!(file, r#"{{"event":"progress","log_seq":{line}}}"#),
            _ => writeln!(
                file,
                r#"{{"venue":"X","symbol":"{symbol}","event_time":"{}","receive_time":"{}","price":"{}.{line:06}","trade_id":"{line}"}}"#,
                text(time, 0),
                text(time + 1, line),
                line % 97
            ),
        };
        written.expect("memory takes everything");
    }
    let outcome = check(file.into_bytes(), true).await;
    let events = LINES / 50;
    assert_eq!(counts(&outcome.run), (LINES - BAD - events, 0, BAD, vec![("event", events)]));
    assert_eq!(outcome.instruments.len(), 3);
}

/// A time of the 8th and 9th of August 2024 as RFC 3339, with nanoseconds.
fn text(milliseconds: u64, nanoseconds: u64) -> String {
    // The 8th began at this second.
    let since = milliseconds - 1_723_075_200_000;
    let (day, rest) = (8 + since / 86_400_000, since % 86_400_000);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60);
    format!("2024-08-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}{nanoseconds:06}Z", rest % 1_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trades_of_b3_that_were_cut_three_times_give_what_uncut_ones_give() {
    let mut file = String::from(
        "DataReferencia;CodigoInstrumento;AcaoAtualizacao;PrecoNegocio;QuantidadeNegociada;HoraFechamento;\
         CodigoIdentificadorNegocio;TipoSessaoPregao;DataNegocio;CodigoParticipanteComprador;\
         CodigoParticipanteVendedor\r\n",
    );
    // Some lines change or cancel the trade of an earlier one, or of a later one that is in another batch.
    let bad = |line: u64| line % BAD_EVERY == 3;
    let meant = |line: u64| match line % 100 {
        _ if bad(line) => (3, line),
        40 => (1, line - 35),
        60 if line + 30_001 < LINES => (1, line + 30_001),
        80 => (2, line - 77),
        _ => (0, line),
    };
    for line in 0..LINES {
        let (action, about) = meant(line);
        let since = 36_000_000 + about * 50;
        let (hour, minute, second) = (since / 3_600_000, since / 60_000 % 60, since / 1_000 % 60);
        write!(
            file,
            "2025-04-29;TEST{};{action};{},{:03};{};{hour:02}{minute:02}{second:02}{:03};{};1;2025-04-29;3;\r\n",
            about % 7,
            line % 41,
            line % 1_000,
            line % 9 + 1,
            since % 1_000,
            about / 7
        )
        .expect("memory takes everything");
    }
    let outcome = check(file.into_bytes(), false).await;
    assert_eq!(counts(&outcome.run), (LINES - BAD, 0, BAD, Vec::new()));
    assert_eq!(outcome.instruments.len(), 7);
    let of = |wanted: u64| (0..LINES).filter(move |&line| meant(line).0 == wanted);
    let cancelled = of(2).filter(|&line| meant(meant(line).1).0 == 0).count();
    assert_eq!(outcome.ticks.len(), of(0).count() - cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daily_quotes_that_were_cut_three_times_give_what_uncut_ones_give() {
    /// Days of the file, from the first of January 1990 on, without the last three of a month.
    const DAYS: u64 = LINES / (2 * TICKERS);
    const TICKERS: u64 = 100;

    let mut file = Vec::new();
    let mut push = |line: String| {
        file.extend(line.chars().map(|character| u8::try_from(character).expect("a character of Latin-1")));
        file.extend(b"\r\n");
    };
    push(format!("{:245}", "00COTAHIST.2003BOVESPA 20030213"));
    for line in 0..LINES {
        // Each day of a ticker is there twice, far apart: the later one stands.
        let (day, ticker) = (line / TICKERS % DAYS, line % TICKERS);
        let date = format!("{}{:02}{:02}", 1990 + day / (12 * 28), day / 28 % 12 + 1, day % 28 + 1);
        let price = match line % BAD_EVERY {
            5 => format!("{:13}", "x"),
            _ => format!("{:013}", 1_000 + line),
        };
        let prices = price.repeat(7);
        push(format!(
            "01{date}02TEST{ticker:<8}010A\u{c7}\u{da}CAR {:<5}PN        {:3}R$  {prices}{:05}{:018}{:018}{:013}09999123100000010000000000000BRTEST{ticker:06}107",
            line % 1_000,
            "",
            line % 100_000,
            line * 3,
            line * 5,
            0
        ));
    }
    push(format!("{:245}", format!("99COTAHIST.2003BOVESPA 20030213{:011}", LINES + 2)));
    let outcome = check(file, false).await;
    assert_eq!(counts(&outcome.run), (0, LINES - BAD, BAD, Vec::new()));
    let published = outcome.bars.len() as u64;
    assert!((DAYS * TICKERS - BAD..=DAYS * TICKERS).contains(&published), "{published} bars");
    assert!(outcome.instruments.iter().all(|instrument| instrument.details.is_some()));
    assert_eq!((outcome.instruments.len() as u64, outcome.ticks.len()), (TICKERS, 0));
}
