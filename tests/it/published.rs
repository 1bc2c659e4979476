//! What the command line shows of runs beside their ticks: rejected lines, published bars, details of instruments.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tapefeed_server::domain::{
    Clock, Epoch, InstrumentDetails, InstrumentId, Published, PublishedBar, PublishedBarKey, Symbol, UnixNanos, Venue,
};
use tapefeed_server::store::faults::Faults;
use tapefeed_server::store::{
    Group, Ignored, Lease, Mark, NewRun, RunEnd, RunId, RunOwner, RunProgress, RunRequest, SqliteOptions, SqliteStore,
    Store,
};
use tapefeed_tests::{Cli, Options, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_lines_are_shown_to_people_and_programs() {
    let server = Server::start(Options::serve()).await;
    let mut file = "venue,symbol,time_s,price\n".to_owned();
    for number in 0..60 {
        file += if number % 2 == 0 { "V,S,1,2\n" } else { "V,S,1,NaN\n" };
    }
    let path = server.folder().join("trades.csv");
    std::fs::write(&path, file).unwrap();
    let imported = Cli::new(&server, ["import", path.to_str().unwrap()]).ok().await;
    let run = Cli::new(&server, ["runs", "--json"]).ok().await.json()[0]["run_id"].as_str().unwrap().to_owned();
    let hint = format!("and 10 more: tapefeed runs rejects {run}");
    assert!(imported.stderr.contains(&hint), "{imported:?}");

    let lines = Cli::new(&server, ["runs", "rejects", &run, "--json"]).ok().await.json();
    assert_eq!(lines.len(), 30);
    assert_eq!(lines[29]["line_number"], 61);
    assert!(lines.iter().all(|line| line["reason"] == "FIELD_INVALID" && line["text"] == "V,S,1,NaN"), "{lines:?}");
    let table = Cli::new(&server, ["runs", "rejects", &run]).ok().await.stdout;
    assert_eq!(table.lines().count(), 31, "{table}");
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["LINE", "REASON", "MESSAGE", "TEXT"]);
    let shown = Cli::new(&server, ["runs", "show", &run]).ok().await.stdout;
    assert!(shown.contains(&format!("all: tapefeed runs rejects {run}")), "{shown}");

    let unknown = Cli::new(&server, ["runs", "rejects", "none"]).refused().await;
    assert!(unknown.stderr.contains("none"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_bars_and_details_are_shown_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    fill(&path).await;
    let mut server = Server::start(Options::serve().store(&path)).await;
    for _ in 0..2 {
        let bars = Cli::new(&server, ["bars", "PETR4", "--venue", "B3", "--published", "--json"]).ok().await.json();
        let closes: Vec<_> =
            bars.iter().map(|bar| (bar["date"].as_str().unwrap(), bar["close_price"].clone())).collect();
        assert_eq!(closes, [("2024-08-08", "36.99".into()), ("2024-08-09", "37.05".into())]);
        assert_eq!(bars[0].get("strike_price"), None);
        server.terminate().await;
        server.restart().await;
    }
    let bars = ["bars", "PETR4", "--venue", "B3", "--published", "--start", "2024-08-09", "--end", "2024-08-10"];
    let table = Cli::new(&server, bars).ok().await.stdout;
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("2024-08-09") && table.contains("37.05"), "{table}");

    let instruments = Cli::new(&server, ["instruments"]).ok().await.stdout;
    assert!(instruments.contains("ISIN") && instruments.contains("BRPETRACNPR6"), "{instruments}");
    let json = Cli::new(&server, ["instruments", "--json"]).ok().await.json();
    assert_eq!(json[0]["details"]["currency"], "R$");
    assert_eq!(json[1].get("details"), None);

    let run = Cli::new(&server, ["runs", "show", "r"]).ok().await.stdout;
    assert!(run.contains("published  3") && run.contains("ignored    2 (2 trailer)"), "{run}");

    let none = Cli::new(&server, ["bars", "VALE3", "--venue", "B3", "--published"]).ok().await;
    assert_eq!((none.stdout.as_str(), none.stderr.trim()), ("", "no published bars in this range"));
    let unknown = Cli::new(&server, ["bars", "PETR3", "--venue", "B3", "--published"]).refused().await;
    assert!(unknown.stderr.contains("PETR3"), "{unknown:?}");
    let computed = Cli::new(&server, ["bars", "PETR4", "--venue", "B3"]).ok().await;
    assert_eq!((computed.stdout.as_str(), computed.stderr.trim()), ("", "no bars in this range"));
    let noon = ["bars", "PETR4", "--venue", "B3", "--published", "--start", "2024-08-09T12:00:00Z"];
    let refused = Cli::new(&server, noon).refused().await;
    assert!(refused.stderr.contains("write a date as 2024-08-09"), "{refused:?}");
}

/// A clock that stands.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> UnixNanos {
        UnixNanos::new(1_723_200_000_000_000_000).expect("it lies after 1970")
    }
}

/// A store in which a run has published: PETR4 with two bars and details, VALE3 with nothing.
async fn fill(path: &Path) {
    let options = SqliteOptions { clock: Arc::new(Still), epoch: Epoch(7), faults: Faults::default() };
    let store = SqliteStore::open(path, options).await.expect("the store opens");
    let name = |symbol: &str| {
        let venue = Venue::new("B3").expect("a good venue");
        (venue, Symbol::new(symbol).expect("a good symbol"))
    };
    store.register(&[name("PETR4"), name("VALE3")]).await.expect("the store works");
    let id = RunId::new("r").expect("a good name");
    let (owner, now) = (RunOwner(1), Still.now());
    let run = NewRun {
        id: id.clone(),
        identity: [1; 32],
        content: [1; 32],
        parser_version: 1,
        options: Vec::new(),
        file_name: "COTAHIST.TXT".to_owned(),
        size_bytes: 1,
        total_lines: 5,
        trace_id: String::new(),
        again: false,
    };
    store.begin_run(RunRequest { run, lease: Lease { owner, now, until: now } }).await.expect("the store works");
    let published = Published {
        bars: vec![(InstrumentId(1), bar(19_944, "37.05")), (InstrumentId(1), bar(19_943, "36.99"))],
        details: vec![(
            InstrumentId(1),
            InstrumentDetails {
                day: 19_944,
                isin: "BRPETRACNPR6".into(),
                issuer: "PETROBRAS".into(),
                share_class: "PN".into(),
                currency: "R$".into(),
            },
        )],
    };
    let ignored = Ignored([("trailer".into(), 2)].into());
    let progress = RunProgress { lines: 5, published: 3, ignored, ..RunProgress::default() };
    let mark = Mark::Run { run: id.clone(), owner, batch: 1, progress, published, entry_count: 0 };
    let group = Group {
        epoch: Epoch(7),
        bytes: Bytes::new(),
        entry_count: 0,
        tick_count: 0,
        backfill: true,
        run_id: Some(id.clone()),
        marks: vec![mark],
    };
    store.append(group).await.expect("the store works");
    let finished = store.finish_run(&id, &owner, RunEnd::Succeeded).await;
    assert!(finished.expect("the store works"));
    store.close().await;
}

fn bar(day: u32, close: &str) -> PublishedBar {
    let decimal = |text: &str| text.parse().expect("a good decimal");
    PublishedBar {
        key: PublishedBarKey { day, market: 10, term: 0 },
        open: decimal("36.5"),
        high: decimal("37.4"),
        low: decimal("36.2"),
        average: decimal("36.87"),
        close: decimal(close),
        bid: decimal("37"),
        ask: decimal("37.06"),
        trade_count: 41_234,
        quantity: decimal("36512300"),
        value: decimal("1346208501.23"),
        strike: decimal("0"),
        strike_points: decimal("0"),
        expiry_day: 2_932_896,
        quote_factor: 1,
        board: "02".into(),
        strike_correction: "".into(),
        distribution: "114".into(),
    }
}
