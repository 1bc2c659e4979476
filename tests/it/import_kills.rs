//! One import of one large file, through kills of the server and of the importer.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_proto::v1 as proto;
use tapefeed_tests::database::{FreshDatabase, quiet};
use tapefeed_tests::exact::{Sums, row_of, text_at, units};
use tapefeed_tests::file::StoreFile;
use tapefeed_tests::guard::Guard;
use tapefeed_tests::{Cli, Options, Server, process, within};
use tokio::process::Child;

/// Trades of the file. A debug build is an order of magnitude slower, and shows the same with fewer.
const TRADES: u64 = if cfg!(debug_assertions) { 500_000 } else { 2_000_000 };
/// How often something is killed.
const KILLS: u64 = 20;
/// The same over Postgres, where a run waits for the lease of a killed server, 15 s, before another goes on with it.
const KILLS_WITH_LEASES: u64 = 4;
/// How long the file may stand still, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The instruments of the file.
const INSTRUMENTS: [(&str, &str); 5] =
    [("XONE", "AAA"), ("XONE", "BBB"), ("XTWO", "AAA"), ("XTWO", "CCC/USD"), ("XTHREE", "DDD")];

/// A file of trades. The trade id of each is its number.
struct Trades {
    path: PathBuf,
    sums: Vec<Sums>,
    /// The number of each trade of an instrument, in the order of the file.
    counts: Vec<u64>,
}

impl Trades {
    fn write(folder: &Path, seed: u64) -> Trades {
        let path = folder.join("trades.csv");
        let file = std::fs::File::create(&path).expect("the folder takes files");
        let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
        out.write_all(b"venue,symbol,trade_id,event_time_ms,price,quantity,side\n").expect("the disk takes it");
        let mut random = SmallRng::seed_from_u64(seed);
        let mut sums = vec![Sums::default(); INSTRUMENTS.len()];
        let mut time: i64 = 1_723_100_000_000;
        let mut line = String::new();
        for number in 0..TRADES {
            // Most share their millisecond with the one before; about two hours in all.
            time += i64::from(random.random_ratio(1, 4)) * random.random_range(1..30);
            let which = random.random_range(0..INSTRUMENTS.len());
            let (venue, symbol) = INSTRUMENTS[which];
            let price = text_at(random.random_range(1_000_000..7_000_000), 2 + which as u32);
            let quantity = text_at(random.random_range(0..5_000_000), 5);
            let side = if random.random_bool(0.5) { "buy" } else { "sell" };
            sums[which].add(units(&price), Some(units(&quantity)));
            line.clear();
            writeln!(line, "{venue},{symbol},{number},{time},{price},{quantity},{side}").expect("memory takes it");
            out.write_all(line.as_bytes()).expect("the disk takes it");
        }
        out.flush().expect("the disk takes it");
        let counts = sums.iter().map(|sums| sums.count).collect();
        Trades { path, sums, counts }
    }
}

/// An importer as a process.
struct Importer {
    child: Child,
    _guard: Guard,
}

impl Importer {
    fn start(server: &Server, file: &Path) -> Importer {
        let mut command = process::command(&process::binary("tapefeed"), Path::new("/"));
        command.arg("import").arg(file).env("TAPEFEED_SERVER", server.url());
        let child = command.spawn().expect("the command line can be started");
        let guard = Guard::over(child.id().expect("it was not waited for yet"));
        Importer { child, _guard: guard }
    }

    async fn kill(mut self) {
        // An error says that it has ended by itself.
        let _ = within("the end of a killed importer", PATIENCE, self.child.kill()).await;
    }
}

/// What the run has stored, by the store's own table; 0 while there is no run.
async fn stored(server: &Server) -> u64 {
    let Ok(mut file) = StoreFile::of(server).await else { return 0 };
    file.newest_run_ticks().await.ok().flatten().unwrap_or(0)
}

/// Waits until so much is stored.
async fn reached(server: &Server, target: u64) {
    let begin = Instant::now();
    loop {
        // Opened once: another opening would cost more than what is waited for.
        let Ok(mut file) = StoreFile::of(server).await else { continue };
        while let Ok(ticks) = file.newest_run_ticks().await {
            if ticks.unwrap_or(0) >= target {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{ticks:?} ticks are stored, and {target} do not come");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_killed_at_twenty_points_ends_in_exactly_the_reference() {
    killed(Options::serve(), KILLS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_into_postgres_killed_at_four_points_ends_in_exactly_the_reference() {
    let Some(database) = FreshDatabase::make().await else { return };
    killed(Options::serve().database(database.url()), KILLS_WITH_LEASES).await;
}

/// Kills the server and the importer in turn, at points that are spread over the file.
async fn killed(options: Options, kills: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let trades = Trades::write(folder.path(), 7);
    let mut server = Server::start(options).await;
    let begin = Instant::now();
    let mut importer = Importer::start(&server, &trades.path);
    let mut table = String::new();
    let mut alone = 0;
    for kill in 0..kills {
        // From 2 % to 96 %: what is left then takes longer than this process may be kept waiting.
        let target = TRADES * (2_000 + 94_000 * kill / (kills - 1)) / 100_000;
        reached(&server, target).await;
        let victim = if kill % 2 == 0 { "server" } else { "importer" };
        if victim == "server" {
            server.kill9().await;
            if let Some(url) = server.database() {
                quiet(url).await;
            }
            let at_kill = stored(&server).await;
            note(&mut table, kill, victim, at_kill, begin);
            // The one that is left has lost its connection: whoever imports again starts anew.
            importer.kill().await;
            server.restart().await;
            assert_eq!(stored(&server).await, at_kill, "what was stored stays, and nothing else comes");
        } else {
            importer.kill().await;
            let at_kill = stored(&server).await;
            note(&mut table, kill, victim, at_kill, begin);
            // The file is with the server: the run goes on without its importer.
            reached(&server, at_kill + 1).await;
            alone += 1;
        }
        importer = Importer::start(&server, &trades.path);
    }
    println!("{table}{alone} times the run went on without its importer");
    let ended = within("the end of the import", PATIENCE, importer.child.wait()).await;
    assert!(ended.expect("it can be waited for").success(), "{}", server.output());
    println!("{TRADES} trades in {} sessions and {:.1} s", kills + 1, begin.elapsed().as_secs_f32());
    check(&server, &trades).await;
    let again = Cli::new(&server, ["import".to_owned(), trades.path.display().to_string()]).ok().await;
    assert!(again.stdout.contains("imported before"), "{again:?}");
    check(&server, &trades).await;
}

/// Notes a kill, and that it came in the middle.
fn note(table: &mut String, kill: u64, victim: &str, at_kill: u64, begin: Instant) {
    let share = at_kill as f64 * 100.0 / TRADES as f64;
    let seconds = begin.elapsed().as_secs_f32();
    writeln!(table, "kill {:>2}  {victim:<8}  {at_kill:>8} stored  {share:>5.1} %  after {seconds:>5.1} s", kill + 1)
        .expect("memory takes it");
    assert!(at_kill > 0 && at_kill < TRADES, "kill {kill} came at {at_kill} of {TRADES}\n{table}");
}

/// The reference of every instrument, and each trade once.
async fn check(server: &Server, trades: &Trades) {
    let stubs = server.stubs().await;
    let mut history = stubs.history.clone();
    let mut seen = vec![false; TRADES as usize];
    let mut positions: HashMap<u64, u64> = HashMap::with_capacity(TRADES as usize);
    for ((venue, symbol), (sums, count)) in INSTRUMENTS.iter().zip(trades.sums.iter().zip(&trades.counts)) {
        let request = proto::GetPriceStatisticsRequest {
            venue: (*venue).to_owned(),
            symbol: (*symbol).to_owned(),
            ..Default::default()
        };
        let answer = history.get_price_statistics(request).await.expect("known").into_inner();
        assert_eq!(row_of(&answer), sums.row(), "{symbol} on {venue}");
        let mut request = proto::ListTicksRequest {
            venue: (*venue).to_owned(),
            symbol: (*symbol).to_owned(),
            page_size: 10_000,
            ..Default::default()
        };
        let mut listed = 0;
        loop {
            let page = history.list_ticks(request.clone()).await.expect("a page").into_inner();
            for tick in page.ticks {
                let number: u64 = tick.trade_id.parse().expect("ids are numbers");
                assert!(!std::mem::replace(&mut seen[number as usize], true), "trade {number} is there twice");
                assert!(positions.insert(tick.log_seq, number).is_none(), "two trades at {}", tick.log_seq);
                listed += 1;
            }
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(listed, *count, "{symbol} on {venue}");
    }
    assert!(seen.into_iter().all(|seen| seen), "no trade is missing");
    // The log holds nothing else, and the file's order.
    assert!((1..=TRADES).all(|log_seq| positions.get(&log_seq) == Some(&(log_seq - 1))));
}
