//! `tapefeed import`: what files say is what queries answer, to the last digit, whatever the server does to its store
//! meanwhile.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_proto::v1 as proto;
use tapefeed_tests::exact::{Sums, row_of, text_at, units};
use tapefeed_tests::file::{Compaction, StoreFile};
use tapefeed_tests::import::{gzip, start, zip};
use tapefeed_tests::{Cli, Options, Server, eventually, import, process};

/// 8 August 2024, 23:00 UTC: the files run past midnight.
const EVENING: i64 = 1_723_158_000_000;
/// How long compaction may take, on a busy machine.
const COMPACTION: Duration = Duration::from_secs(120);

/// A row of the reference: count, mean, VWAP, low, high, volume.
type Row = [String; 6];

/// What the server must answer, by venue and symbol.
type Reference = BTreeMap<(String, String), Row>;

/// The header of the files that a capture of Binance is turned into.
const HEADER: &str = "venue,symbol,trade_id,event_time_ms,receive_time_ns,price,quantity,buyer_is_maker\n";

/// A file of random trades, and its sums.
#[derive(Debug, Default)]
struct Trades {
    lines: String,
    sums: BTreeMap<(String, String), Sums>,
}

impl Trades {
    /// Random trades of two instruments over two hours. `phase` of several files makes their times interleave.
    fn random(seed: u64, count: i64, phase: i64) -> Trades {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut trades = Trades { lines: HEADER.to_owned(), ..Trades::default() };
        for number in 0..count {
            let (venue, symbol, decimals) = match random.random_range(0..3) {
                0 => ("BINANCE", "BTCUSDT", 8),
                1 => ("BINANCE", "ETHUSDT", 2),
                _ => ("BINANCE-USDM", "BTCUSDT", 1),
            };
            let price = random.random_range(1..9_999_999) * 10i128.pow(decimals) / 100;
            let price = text_at(price, decimals);
            let quantity = text_at(random.random_range(0..5_000_000), 5);
            let time = EVENING + (number * 7_200_000 / count) / 50 * 50 + phase * 25;
            let received = time * 1_000_000 - 1_300_000_000;
            let id = seed as i64 * 1_000_000 + number;
            let maker = random.random_bool(0.5);
            writeln!(trades.lines, "{venue},{symbol},{id},{time},{received},{price},{quantity},{maker}")
                .expect("memory takes everything");
            let sums = trades.sums.entry((venue.to_owned(), symbol.to_owned())).or_default();
            sums.add(units(&price), Some(units(&quantity)));
        }
        trades
    }
}

/// The reference of sums.
fn reference(sums: &BTreeMap<(String, String), Sums>) -> Reference {
    sums.iter().map(|(name, sums)| (name.clone(), sums.row())).collect()
}

/// Asks the server for what the reference has.
async fn answers(server: &Server, reference: &Reference) -> Reference {
    let mut history = server.stubs().await.history;
    let mut answers = Reference::new();
    for (venue, symbol) in reference.keys() {
        let request = proto::GetPriceStatisticsRequest {
            venue: venue.clone(),
            symbol: symbol.clone(),
            ..proto::GetPriceStatisticsRequest::default()
        };
        let answer = history.get_price_statistics(request).await.expect("known").into_inner();
        answers.insert((venue.clone(), symbol.clone()), row_of(&answer));
    }
    answers
}

async fn check(server: &Server, reference: &Reference, when: &str) {
    assert_eq!(answers(server, reference).await, *reference, "{when}");
}

/// Waits until compaction is as far as it should be.
async fn compacted(server: &Server, what: &str, far_enough: impl Fn(Compaction) -> bool) -> Compaction {
    eventually(what, COMPACTION, || async {
        let mut file = StoreFile::of(server).await.ok()?;
        let compaction = file.compaction().await.ok()?;
        far_enough(compaction).then_some(compaction)
    })
    .await
}

/// Imports files by the command line, and expects each to be stored as a whole or known already.
async fn import_files(server: &Server, files: &[PathBuf], known: bool) {
    let arguments = files.iter().map(|file| file.display().to_string());
    let printed = Cli::new(server, std::iter::once("import".to_owned()).chain(arguments)).ok().await;
    let lines: Vec<_> = printed.stdout.lines().collect();
    assert_eq!(lines.len(), files.len(), "{printed:?}");
    for line in lines {
        assert_eq!(line.contains("imported before"), known, "{line}");
        assert!(!line.contains("rejected"), "{line}");
    }
}

/// A server that compacts whatever it has, and merges past days at once.
fn quick() -> [String; 2] {
    ["--compact-age=100ms".to_owned(), "--merge-delay=100ms".to_owned()]
}

/// The same files again, a restart with everything compacted, and the files once more: the answers stay.
async fn check_through(server: &mut Server, files: &[PathBuf], reference: &Reference) {
    check(server, reference, "after the import").await;
    import_files(server, files, true).await;
    check(server, reference, "after importing again").await;
    assert!(server.terminate().await.success());
    server.options_mut().arguments.extend(quick());
    server.restart().await;
    check(server, reference, "after a restart").await;
    let done = compacted(server, "everything is in chunks", |now| now.is_complete() && now.late == 0).await;
    check(server, reference, "after compaction and merge").await;
    println!("{} ticks in {} chunks, {} chunks merged away", done.head, done.live, done.dropped);
    server.kill9().await;
    server.restart().await;
    check(server, reference, "after compaction, merge and a kill").await;
    import_files(server, files, true).await;
    check(server, reference, "after importing once more").await;
    let head = compacted(server, "nothing was added", Compaction::is_complete).await.head;
    assert_eq!(head, done.head, "the log has not grown");
}

/// The table of facts about the real captures, computed with exact decimal arithmetic.
const FACTS: [(&str, &str, &str, [&str; 6]); 4] = [
    (
        "spot_btcusdt",
        "BINANCE",
        "BTCUSDT",
        ["9757", "61717.768308906", "61707.681616712", "61583.22", "61860.8", "212.03315"],
    ),
    (
        "spot_ethusdt",
        "BINANCE",
        "ETHUSDT",
        ["6106", "2682.575165411", "2682.723788792", "2679", "2685.37", "2261.3149"],
    ),
    (
        "usdm_btcusdt",
        "BINANCE-USDM",
        "BTCUSDT",
        ["21313", "61693.610594473", "61680.982153286", "61590.3", "61839.9", "2429.366"],
    ),
    (
        "usdm_ethusdt",
        "BINANCE-USDM",
        "ETHUSDT",
        ["14076", "2681.330291986", "2681.396175319", "2677.9", "2684.82", "9164.948"],
    ),
];

#[tokio::test]
async fn real_captures_give_the_table_to_the_last_digit() {
    let Some(folder) = process::sample_data() else { return };
    let file = |name: &str| folder.join(format!("binance/{name}_2024-08-08_trades.csv.gz"));
    let files: Vec<PathBuf> = FACTS.iter().map(|(name, ..)| file(name)).collect();
    let row = |(_, venue, symbol, row): &(&str, &str, &str, [&str; 6])| {
        (((*venue).to_owned(), (*symbol).to_owned()), row.map(str::to_owned))
    };
    let reference: Reference = FACTS.iter().map(row).collect();
    let mut server = Server::start(Options::serve()).await;
    import_files(&server, &files, false).await;
    check_through(&mut server, &files, &reference).await;
    // The command line shows the same.
    let printed = Cli::new(&server, ["statistics", "BTCUSDT", "--venue", "BINANCE", "--json"]).ok().await;
    let shown = printed.json().remove(0).to_string();
    for value in FACTS[0].3 {
        assert!(shown.contains(value), "{value} is missing in {shown}");
    }
}

/// Files of the same hours, through restarts, compaction and merging.
pub(crate) async fn interleaved_files(options: Options) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::start(options.variable("TAPEFEED_COMPACT_AGE", "100ms")).await;
    let mut sums: BTreeMap<(String, String), Sums> = BTreeMap::new();
    let mut files = Vec::new();
    for phase in 0..2 {
        let trades = Trades::random(phase + 1, 25_000, phase as i64);
        let path = folder.path().join(format!("trades-{phase}.csv.gz"));
        std::fs::write(&path, gzip(trades.lines.as_bytes())).expect("the folder takes files");
        for (name, part) in trades.sums {
            let whole = sums.entry(name).or_default();
            *whole = add(*whole, part);
        }
        import_files(&server, std::slice::from_ref(&path), false).await;
        check(&server, &reference(&sums), "right after an import").await;
        files.push(path);
        compacted(&server, "everything is in chunks", Compaction::is_complete).await;
        check(&server, &reference(&sums), "compacted, not merged").await;
    }
    let before = compacted(&server, "late ticks are kept apart", |now| now.late > 0).await;
    println!("before the merge: {before:?}");
    check_through(&mut server, &files, &reference(&sums)).await;
    let after = compacted(&server, "late ticks found their place", |now| now.late == 0).await;
    assert!(after.dropped > 0, "{after:?}");
}

/// The sums of two files together.
fn add(a: Sums, b: Sums) -> Sums {
    Sums {
        count: a.count + b.count,
        price: a.price + b.price,
        volume: a.volume + b.volume,
        notional: a.notional + b.notional,
        low: a.low.into_iter().chain(b.low).min(),
        high: a.high.into_iter().chain(b.high).max(),
    }
}

/// A file of another shape: its name, its content, and what the command line has to be told.
struct Shape {
    name: &'static str,
    content: Vec<u8>,
    arguments: &'static [&'static str],
    /// Where its trades end up.
    names: (&'static str, &'static str),
    /// The times of its three trades, as nanoseconds since 1970.
    times: [i64; 3],
}

/// Three trades at second 1,723,161,255 and some milliseconds, in every shape that is served.
fn shapes() -> Vec<Shape> {
    const SECOND: i64 = 1_723_161_255_000_000_000;
    let millis = [342, 617, 999].map(|ms| SECOND + ms * 1_000_000);
    let micros = [342_001, 617_002, 999_003].map(|us| SECOND + us * 1_000);
    vec![
        Shape {
            name: "plain.csv",
            content: b"ts,px,vol\n1723161255342,1.10,3\n1723161255617,2.20,\n1723161255999,3.30,4.5\n".to_vec(),
            arguments: &["--map", "time=ts,price=px", "--time-unit", "ms", "--venue", "XPLN", "--symbol", "PLAIN"],
            names: ("XPLN", "PLAIN"),
            times: millis,
        },
        Shape {
            name: "semicolons.csv",
            content: b"when;Symbol;Price;Quantity\r\n1723161255342001;SEMI;1.1;3\r\n1723161255617002;SEMI;2.2;\r\n1723161255999003;SEMI;3.3;4.5\r\n"
                .to_vec(),
            arguments: &["--map", "time=when", "--time-unit", "us", "--venue", "XSEM", "--delimiter", ";"],
            names: ("XSEM", "SEMI"),
            times: micros,
        },
        Shape {
            name: "seconds.csv",
            content: b"exchange,ticker,time,price,size\nXSEC,SECS,1723161255.342,1.1,3\nXSEC,SECS,1723161255.617,2.2,\nXSEC,SECS,1723161255.999,3.3,4.5\n"
                .to_vec(),
            arguments: &["--time-unit", "s"],
            names: ("XSEC", "SECS"),
            times: millis,
        },
        Shape {
            name: "nanoseconds.csv.gz",
            content: gzip(
                b"venue,symbol,event_time_ns,price,quantity\nXNAN,NANO,1723161255342001000,1.1,3\nXNAN,NANO,1723161255617002000,2.2,\nXNAN,NANO,1723161255999003000,3.3,4.5\n",
            ),
            arguments: &[],
            names: ("XNAN", "NANO"),
            times: micros,
        },
        Shape {
            name: "text.zip",
            content: zip(&[
                ("__MACOSX/._trades.csv", b"\x00\x05\x16\x07resource fork"),
                (
                    "trades.csv",
                    b"venue,symbol,time,price,quantity\nXTXT,TEXT,2024-08-08T23:54:15.342Z,1.1,3\nXTXT,TEXT,2024-08-09T01:54:15.617+02:00,2.2,\nXTXT,TEXT,2024-08-08T23:54:15.999Z,3.3,4.5\n",
                ),
            ]),
            arguments: &["--time-unit", "text"],
            names: ("XTXT", "TEXT"),
            times: millis,
        },
    ]
}

#[tokio::test]
async fn files_of_other_shapes_are_read_as_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(Options::serve()).await;
    let mut history = server.stubs().await.history;
    for shape in shapes() {
        let path = folder.path().join(shape.name);
        std::fs::write(&path, &shape.content).expect("the folder takes files");
        let line = ["import", &path.display().to_string()].map(str::to_owned);
        let arguments = shape.arguments.iter().map(|&argument| argument.to_owned());
        Cli::new(&server, line.into_iter().chain(arguments)).ok().await;
        let request = proto::ListTicksRequest {
            venue: shape.names.0.to_owned(),
            symbol: shape.names.1.to_owned(),
            ..proto::ListTicksRequest::default()
        };
        let ticks = history.list_ticks(request).await.expect("known").into_inner().ticks;
        let facts: Vec<_> = ticks.iter().map(facts).collect();
        let [first, second, third] = shape.times;
        let expected = [(first, "1.1", Some("3")), (second, "2.2", None), (third, "3.3", Some("4.5"))];
        let expected = expected.map(|(time, price, quantity)| (time, units(price), quantity.map(units)));
        assert_eq!(facts, expected, "{}", shape.name);
        assert!(ticks.iter().all(|tick| tick.origin() == proto::Origin::Backfill));
    }
}

fn facts(tick: &proto::Tick) -> (i64, i128, Option<i128>) {
    use tapefeed_tests::exact::of_decimal;
    let time = tick.event_time.as_ref().map_or(0, tapefeed_tests::values::unix_nano);
    let price = tick.price.as_ref().map(of_decimal).expect("a price");
    (time, price, tick.quantity.as_ref().map(of_decimal))
}

#[tokio::test]
async fn times_without_an_evident_unit_are_refused_and_not_guessed() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(Options::serve()).await;
    let path = folder.path().join("trades.csv");
    let write = |content: &str| std::fs::write(&path, content).expect("the folder takes files");
    write("venue,symbol,time,price\nX,S,1723161255342,1\n");
    let refused = Cli::new(&server, import_line(&path)).refused().await;
    assert!(refused.stderr.contains("unit"), "{}", refused.stderr);
    // Nothing of it is stored, so the same file with the unit is no conflict.
    let line = import_line(&path).into_iter().chain(["--time-unit".to_owned(), "ms".to_owned()]);
    Cli::new(&server, line).ok().await;
}

fn import_line(path: &Path) -> [String; 2] {
    ["import".to_owned(), path.display().to_string()]
}

/// The same bytes again, as they were and otherwise.
pub(crate) async fn same_file(options: Options) {
    let server = Server::start(options).await;
    let stubs = server.stubs().await;
    let file = b"symbol,event_time_ms,price\nS,1723161255342,1\nS,1723161255617,2\n".to_vec();
    let started = |run: &str, venue: &str, again| proto::ImportStart {
        options: Some(proto::ImportOptions { venue: venue.to_owned(), again, ..Default::default() }),
        ..start(run)
    };
    let first = import::bytes(&stubs, started("one", "XA", false), file.clone()).await.expect("stored");
    let run = first.run.expect("a run");
    assert_eq!((first.duplicate, run.tick_count, run.state()), (false, 2, proto::IngestionRunState::Succeeded));
    let same = import::bytes(&stubs, started("two", "XA", false), gzip(&file)).await.expect("known");
    let earlier = same.run.expect("a run");
    // The bytes inside count, not how they are packed.
    assert_eq!((same.duplicate, earlier.run_id.as_str(), earlier.tick_count), (true, "one", 2));
    let refused = import::bytes(&stubs, started("three", "XB", false), file.clone()).await;
    let refusal = tapefeed_tests::refusal::Refusal::of(&refused.expect_err("other options"));
    refusal.assert(tonic::Code::AlreadyExists, "IMPORT_CONFLICT", &["run_id"]);
    assert_eq!(refusal.metadata["run_id"], "one");
    let again = import::bytes(&stubs, started("four", "XB", true), file).await.expect("it is meant");
    assert_eq!((again.duplicate, again.run.map(|run| run.tick_count)), (false, Some(2)));
    let request = proto::GetPriceStatisticsRequest { symbol: "S".to_owned(), ..Default::default() };
    let both = stubs.history.clone().get_price_statistics(request).await.expect("known").into_inner();
    assert_eq!(both.tick_count, 4);
}
