//! The table of bars: SQL tools and Grafana read there what ListBars answers.

use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use tapefeed_proto::v1 as proto;
use tapefeed_tests::database::{self, FreshDatabase};
use tapefeed_tests::scrape::Scrape;
use tapefeed_tests::values::{decimal, decimal_text, timestamp};
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Options, Publisher, Server, eventually};

use crate::readme;

const MINUTE: i64 = 60_000_000_000;

/// How long the table may take to follow, on a busy machine.
const FOLLOWS: Duration = Duration::from_secs(60);

const SYMBOLS: [&str; 2] = ["AAPL", "MSFT"];

/// The tick of a trade number, or what changes it: every tenth of a minute one, of the two symbols in turn.
fn tick(first: i64, number: i64, action: proto::Action, price: &str) -> proto::Tick {
    proto::Tick {
        venue: "NASDAQ".to_owned(),
        symbol: SYMBOLS[number as usize % 2].to_owned(),
        event_time: Some(timestamp(first + number * MINUTE / 10)),
        price: (action != proto::Action::Cancel).then(|| decimal(price)),
        quantity: (action != proto::Action::Cancel).then(|| decimal("1.25")),
        trade_id: number.to_string(),
        action: action.into(),
        ..proto::Tick::default()
    }
}

fn trades(first: i64, numbers: std::ops::Range<i64>) -> Vec<proto::Tick> {
    let price = |number: i64| format!("{}.0{}", 190 + number * 7 % 11, number % 9);
    numbers.map(|number| tick(first, number, proto::Action::New, &price(number))).collect()
}

/// The final bars of an instrument.
async fn listed(server: &Server, symbol: &str, seconds: i64) -> Vec<proto::Bar> {
    let request = proto::ListBarsRequest {
        venue: "NASDAQ".to_owned(),
        symbol: symbol.to_owned(),
        interval: Some(prost_types::Duration { seconds, nanos: 0 }),
        page_size: 8_000,
        ..Default::default()
    };
    let page = server.stubs().await.history.list_bars(request).await.expect("served").into_inner();
    assert_eq!(page.next_page_token, "");
    page.bars
}

fn price(decimal: Option<proto::Decimal>) -> String {
    decimal_text(decimal.expect("a bar with ticks has prices"))
}

/// Every final bar as ListBars has it, in the form of [`table`].
async fn all_listed(server: &Server) -> Vec<String> {
    let mut rows = Vec::new();
    for symbol in SYMBOLS {
        for seconds in [60, 3_600, 86_400] {
            for bar in listed(server, symbol, seconds).await {
                let start = bar.start_time.expect("every bar has a start").seconds;
                let prices = [bar.open_price, bar.high_price, bar.low_price, bar.close_price].map(price).join("|");
                let proto::Bar { volume, notional, tick_count, revision, has_source_gap, .. } = bar;
                let gap = u8::from(has_source_gap);
                rows.push(format!(
                    "NASDAQ|{symbol}|{seconds}|{start}|{prices}|{volume}|{notional}|{tick_count}|{revision}|{gap}"
                ));
            }
        }
    }
    rows
}

/// The first column of a statement, asked of a server's store as another program does.
async fn ask(server: &Server, sql: String) -> Vec<String> {
    let sql = AssertSqlSafe(sql);
    if let Some(url) = server.database() {
        let mut connection = database::connect(url).await.expect("it takes connections");
        return sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect("the table is there");
    }
    let options = SqliteConnectOptions::new().filename(server.store()).read_only(true);
    let mut connection = options.connect().await.expect("the file is there");
    sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect("the table is there")
}

/// The seconds of a start.
fn seconds(server: &Server, column: &str) -> String {
    if server.database().is_some() { format!("extract(epoch FROM {column})::BIGINT") } else { column.to_owned() }
}

/// The whole table, each row as text.
async fn table(server: &Server) -> Vec<String> {
    let start = seconds(server, "start");
    let sql = format!(
        "SELECT venue || '|' || symbol || '|' || interval_seconds || '|' || {start} || '|' || open || '|' || high
            || '|' || low || '|' || close || '|' || volume || '|' || notional || '|' || trade_count
            || '|' || revision || '|' || CAST(has_gap AS INTEGER)
        FROM named_bars
        ORDER BY venue, symbol, interval_seconds, start"
    );
    ask(server, sql).await
}

/// Waits until the table is what ListBars says, with the bars of so many minutes at least.
async fn agree(server: &Server, when: &str, minutes: usize) -> Vec<String> {
    eventually(when, FOLLOWS, async || {
        let (listed, table) = (all_listed(server).await, table(server).await);
        (table.len() >= minutes && listed == table).then_some(table)
    })
    .await
}

/// A chart by the statement of the README, with what Grafana puts in place of its macros.
async fn chart(server: &Server, from: i64, until: i64) -> Vec<String> {
    let statements = readme::statements("FROM named_bars");
    let sql = match (server.database(), &statements[..]) {
        (Some(_), [sql, _]) => {
            let range = format!("start BETWEEN to_timestamp({from}) AND to_timestamp({until})");
            sql.replace("$__timeFilter(start)", &range)
        }
        (None, [_, sql]) => {
            sql.replace("$__from", &(from * 1000).to_string()).replace("$__to", &(until * 1000).to_string())
        }
        _ => panic!("one statement for each store: {statements:?}"),
    };
    assert!(!sql.contains("$__"), "{sql}");
    let start = seconds(server, "time");
    let columns = format!("{start} || '|' || open || '|' || high || '|' || low || '|' || close || '|' || volume");
    ask(server, format!("SELECT {columns} FROM ({sql}) AS chart")).await
}

async fn is_what_lists_of_bars_say(options: Options) {
    let mut server = Server::start(options.argument("--bars-table")).await;
    // A whole hour that is over, so that bars of every length are final but the day's.
    let first = (now_unix_nano() / (60 * MINUTE) - 3) * 60 * MINUTE;
    let mut publisher = Publisher::claim(&server.stubs().await, "feed").await.expect("granted");
    publisher.rows(trades(first, 0..900)).await.expect("stored");
    let before = agree(&server, "bars as they end", 160).await;

    // A trade is taken back, one is corrected, one comes late, and one minute loses all that it had.
    let mut changes = vec![
        tick(first, 11, proto::Action::Cancel, "0"),
        tick(first, 25, proto::Action::Correct, "777.5"),
        tick(first, 302, proto::Action::New, "0.25"),
    ];
    changes.extend([600, 602, 604, 606, 608].map(|number| tick(first, number, proto::Action::Cancel, "0")));
    publisher.rows(changes).await.expect("stored");
    let after = agree(&server, "bars that were revised", 160).await;
    assert_eq!(after.len(), before.len() - 1, "the bar without trades is gone");
    assert!(after.iter().any(|row| row.contains("|777.5|")) && after.iter().any(|row| row.contains("|0.25|")));

    // What a killed server has not recorded, the next one does.
    publisher.rows(trades(first, 900..1_200)).await.expect("stored");
    server.kill9().await;
    server.restart().await;
    let mut publisher = Publisher::claim(&server.stubs().await, "feed").await.expect("granted");
    publisher.rows(trades(first, 1_200..1_500)).await.expect("stored");
    agree(&server, "bars after a restart", 280).await;
    let scrape = Scrape::of(server.address()).await;
    assert_eq!(scrape.value("tapefeed_bars_table_position"), scrape.value("tapefeed_log_head_position"));

    let (from, until) = (first / 1_000_000_000 + 600, first / 1_000_000_000 + 5_400);
    let bars = listed(&server, "AAPL", 60).await;
    let inside = |bar: &&proto::Bar| (from..=until).contains(&bar.start_time.expect("a start").seconds);
    let expected: Vec<String> = bars
        .iter()
        .filter(inside)
        .map(|bar| {
            let mut numbers = [bar.open_price, bar.high_price, bar.low_price, bar.close_price].map(price).to_vec();
            numbers.push(bar.volume.clone());
            if server.database().is_none() {
                // What a chart shows of exact text: a number with a point.
                let real = |text: &String| format!("{:?}", text.parse::<f64>().expect("a number"));
                numbers = numbers.iter().map(real).collect();
            }
            format!("{}|{}", bar.start_time.expect("a start").seconds, numbers.join("|"))
        })
        .collect();
    assert!(expected.len() > 70, "{expected:?}");
    assert_eq!(chart(&server, from, until).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_in_the_file_is_what_lists_of_bars_say() {
    is_what_lists_of_bars_say(Options::serve()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_in_the_database_is_what_lists_of_bars_say() {
    let Some(database) = FreshDatabase::make().await else { return };
    is_what_lists_of_bars_say(Options::serve().database(database.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_option_there_are_no_bars() {
    let server = Server::start(Options::serve()).await;
    let mut publisher = Publisher::claim(&server.stubs().await, "feed").await.expect("granted");
    publisher.rows(trades(now_unix_nano() - 30 * MINUTE, 0..100)).await.expect("stored");
    assert!(!all_listed(&server).await.is_empty());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(table(&server).await, [""; 0]);
    assert_eq!(Scrape::of(server.address()).await.value("tapefeed_bars_table_position"), 0.0);
}
