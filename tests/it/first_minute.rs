//! The first minute of a user: the demo serves at once, over every protocol of its one port, and the command line
//! shows what it has.

use std::time::{Duration, Instant};

use tapefeed_proto::v1 as proto;
use tapefeed_tests::{Cli, Options, Server, eventually, http, values};

/// The symbols of the demo, by venue.
const SYMBOLS: [(&str, &str); 6] =
    [("NASDAQ", "AAPL"), ("NASDAQ", "AMZN"), ("NASDAQ", "MSFT"), ("NYSE", "DIS"), ("NYSE", "NFLX"), ("NYSE", "TSLA")];

/// A demo in which every symbol has ticks.
async fn demo() -> Server {
    let server = Server::start(Options::demo()).await;
    let mut stubs = server.stubs().await;
    eventually("ticks of all six symbols", Duration::from_secs(20), || {
        let mut history = stubs.history.clone();
        async move {
            let request =
                proto::ListLatestTicksRequest { selectors: vec![values::selector("*")], ..Default::default() };
            let answer = history.list_latest_ticks(request).await.ok()?;
            (answer.get_ref().latest_ticks.len() == SYMBOLS.len()).then_some(())
        }
    })
    .await;
    // A second of ticks more, so that a page or a period has something in it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answer = stubs.instruments.list_instruments(proto::ListInstrumentsRequest::default()).await.expect("a list");
    let instruments = answer.into_inner().instruments;
    let names: Vec<(&str, &str)> =
        instruments.iter().map(|instrument| (instrument.venue.as_str(), instrument.symbol.as_str())).collect();
    assert_eq!(names, SYMBOLS);
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_serves_the_latest_ticks_within_two_seconds_of_its_start() {
    let begin = Instant::now();
    let server = Server::start(Options::demo()).await;
    let serving = begin.elapsed();
    let stubs = server.stubs().await;
    eventually("a latest tick", Duration::from_secs(2), || {
        let mut history = stubs.history.clone();
        async move {
            let request =
                proto::ListLatestTicksRequest { selectors: vec![values::selector("*")], ..Default::default() };
            let answer = history.list_latest_ticks(request).await.ok()?;
            (!answer.get_ref().latest_ticks.is_empty()).then_some(())
        }
    })
    .await;
    let elapsed = begin.elapsed();
    println!("serving after {serving:?}, a latest tick after {elapsed:?}");
    assert!(elapsed <= Duration::from_secs(2), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_port_serves_health_the_page_and_grpc_web_over_http_1() {
    let server = Server::start(Options::demo()).await;
    let address = server.address();
    for path in ["/healthz", "/readyz"] {
        let answer = http::get(address, path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    let page = http::get(address, "/").await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.head.contains("text/html"), "{}", page.head);
    assert!(page.text().contains("tapefeed"), "{}", page.text());
    assert_eq!(http::get(address, "/nothing-here").await.status, 404);

    let path = "/tapefeed.v1.InstrumentService/ListInstruments";
    let answer = http::grpc_web(address, path, b"").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("application/grpc-web+proto"), "{}", answer.head);
    assert!(answer.text().contains("grpc-status:0"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn banner_says_what_listens_where_and_what_to_paste() {
    let server = demo().await;
    let banner = server.output();
    for word in [&server.address().to_string(), "tapefeed-demo.db", "buf curl", " latest AAPL"] {
        assert!(banner.contains(word), "{word} is missing in\n{banner}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_names_the_fix() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound");
    let refused = Server::try_start(Options::serve().listen(address)).await.expect_err("two listeners on one port");
    assert_eq!(refused.status.code(), Some(1), "{}", refused.output);
    assert!(refused.output.contains("--listen"), "{}", refused.output);
    assert!(refused.output.contains(&address.port().to_string()), "{}", refused.output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_answers_in_tables_and_in_json() {
    let server = demo().await;
    let calls: &[(&[&str], usize)] = &[
        (&["instruments"], SYMBOLS.len()),
        (&["latest", "AAPL", "TSLA"], 2),
        (&["latest", "*"], SYMBOLS.len()),
        (&["history", "AAPL", "--limit", "5"], 5),
        (&["average", "AAPL"], 1),
        (&["average", "AAPL", "--venue", "NASDAQ", "--method", "vwap"], 1),
        (&["average", "AAPL", "--venue", "NASDAQ", "--method", "twap", "--period", "5m"], 1),
        (&["average", "AAPL", "--start", "2020-01-01T00:00:00Z", "--method", "mean"], 1),
        (&["statistics", "AAPL"], 1),
        (&["bars", "AAPL", "--interval", "1s", "--last", "2", "--forming"], 1),
        (&["moving-average", "AAPL", "--window", "2"], 1),
        (&["health"], 1),
    ];
    for (arguments, lines) in calls {
        let table = Cli::new(&server, arguments.iter().copied()).ok().await;
        assert!(!table.stdout.trim().is_empty(), "{arguments:?} prints a table");
        let json = arguments.iter().copied().chain(["--json"]);
        let json = Cli::new(&server, json).ok().await.json();
        assert!(json.len() >= *lines, "{arguments:?}: {json:?}");
    }

    // No file has been imported: an empty list, and no error.
    Cli::new(&server, ["runs"]).ok().await;
    assert!(Cli::new(&server, ["runs", "--json"]).ok().await.json().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_prints_ticks_as_they_happen_and_goes_on_from_a_cursor() {
    let server = demo().await;
    let watch = Cli::new(&server, ["watch", "AAPL", "--json"]).cut_after(Duration::from_secs(4));
    let ticks = ticks_of(&watch.run().await);
    assert!(ticks.iter().all(|tick| tick["symbol"] == "AAPL"), "{ticks:?}");
    // The message's cursor stands on its last tick.
    let whole = ticks.iter().rev().find(|tick| tick["cursor"].is_string());
    let whole = whole.expect("the demo goes on");
    let last = log_seq(whole);

    let cursor = whole["cursor"].as_str().expect("found so");
    let arguments = ["watch", "AAPL", "--json", "--from-cursor", cursor];
    let watch = Cli::new(&server, arguments).cut_after(Duration::from_secs(4));
    let resumed = ticks_of(&watch.run().await);
    assert!(!resumed.is_empty(), "ticks were published meanwhile");
    assert!(log_seq(&resumed[0]) > last, "nothing comes twice");

    // All of AAPL between the two is there: history is the witness.
    let history = Cli::new(&server, ["history", "AAPL", "--all", "--json"]).ok().await.json();
    let upto = log_seq(resumed.last().expect("not empty"));
    let expected: Vec<u64> = history.iter().map(log_seq).filter(|seq| *seq > last && *seq <= upto).collect();
    let mut seen: Vec<u64> = resumed.iter().map(log_seq).collect();
    seen.sort_unstable();
    let mut expected = expected;
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bars_that_are_followed_are_those_of_the_list() {
    let server = demo().await;
    let arguments = ["bars", "AAPL", "--venue", "NASDAQ", "--interval", "1s", "--last", "1", "--follow", "--json"];
    let follow = Cli::new(&server, arguments).cut_after(Duration::from_secs(7));
    let lines = follow.run().await.json();
    let bars: Vec<_> = lines.iter().filter(|line| line.get("event").is_none()).collect();
    assert!(bars.len() > 2, "bars end while the demo goes on: {lines:?}");
    assert!(bars.iter().all(|bar| bar["state"] == "final" && bar["venue"] == "NASDAQ"), "{bars:?}");
    let marks = lines.iter().filter(|line| line["event"] == "interval_complete").count();
    assert!(marks > 0, "{lines:?}");

    let list = ["bars", "AAPL", "--venue", "NASDAQ", "--interval", "1s", "--all", "--json"];
    let listed = Cli::new(&server, list).ok().await.json();
    for followed in bars {
        let same = listed.iter().find(|bar| bar["start_time"] == followed["start_time"]);
        let same = same.unwrap_or_else(|| panic!("{followed} is not listed"));
        // The demo sends nothing late, and only the last of a message has the cursor.
        for field in
            ["open_price", "high_price", "low_price", "close_price", "volume", "vwap", "tick_count", "revision"]
        {
            assert_eq!(same[field], followed[field], "{field} of {followed}");
        }
    }
}

/// The lines of `watch --json` that are ticks: others are events.
fn ticks_of(printed: &tapefeed_tests::cli::Printed) -> Vec<serde_json::Value> {
    let mut lines = printed.json();
    lines.retain(|line| line.get("event").is_none());
    lines
}

/// The position of a tick in `--json`, a number or its text.
fn log_seq(tick: &serde_json::Value) -> u64 {
    let value = &tick["log_seq"];
    value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
        .unwrap_or_else(|| panic!("no log_seq in {tick}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_without_a_server_says_so_and_fails() {
    let nobody = tapefeed_tests::server::free_address();
    let arguments = ["--server", &format!("http://{nobody}"), "instruments"];
    let printed = Cli::bare(arguments).limit(Duration::from_secs(60)).refused().await;
    assert!(printed.stderr.contains(&nobody.to_string()), "{}", printed.stderr);
    let version = Cli::bare(["--version"]).ok().await;
    assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{}", version.stdout);
}
