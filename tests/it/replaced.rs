//! The questions of systems that Tapefeed replaces, asked on the command line: prices of a venue or of all over a look-back
//! period, and the highest price and the largest daily volume since a date.

use std::time::Duration;

use serde_json::Value;
use tapefeed_proto::v1 as proto;
use tapefeed_tests::values::{decimal, timestamp};
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Cli, Options, Publisher, Server, eventually};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

fn tick(venue: &str, symbol: &str, time: i64, price: &str, quantity: &str) -> proto::Tick {
    proto::Tick {
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        event_time: Some(timestamp(time)),
        price: Some(decimal(price)),
        quantity: Some(decimal(quantity)),
        ..proto::Tick::default()
    }
}

/// A server with these ticks, where questions see them.
async fn server_with(ticks: Vec<proto::Tick>) -> Server {
    let server = Server::start(Options::serve()).await;
    let count = ticks.len() as u64;
    let mut publisher = Publisher::claim_as(&server.stubs().await, "replaced", true).await.expect("granted");
    publisher.rows(ticks).await.expect("stored");
    publisher.close().await.expect("closed");
    eventually("questions see the ticks", Duration::from_secs(20), async || {
        let instruments = Cli::new(&server, ["instruments", "--json"]).ok().await.json();
        let told = instruments.iter().filter_map(|instrument| instrument["tick_count"].as_u64()).sum::<u64>();
        (told == count).then_some(())
    })
    .await;
    server
}

/// The only line that a command prints.
async fn line(server: &Server, command: &str) -> Value {
    let lines = Cli::new(server, command.split(' ').chain(["--json"])).ok().await.json();
    let [line] = &lines[..] else { panic!("{command}: {lines:?}") };
    line.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prices_of_a_venue_or_of_all_over_a_period() {
    let now = now_unix_nano();
    let server = server_with(vec![
        // Before every period.
        tick("exchange1", "BTCUSDT", now - 7_200 * SECOND, "99999", "1"),
        tick("exchange1", "BTCUSDT", now - 600 * SECOND, "61000.5", "1"),
        tick("exchange2", "BTCUSDT", now - 500 * SECOND, "61003", "3"),
        tick("exchange1", "BTCUSDT", now - 400 * SECOND, "61002", "1"),
        tick("exchange2", "BTCUSDT", now - 300 * SECOND, "60998", "1"),
        tick("exchange1", "ETHUSDT", now - 300 * SECOND, "2500", "1"),
    ])
    .await;
    // Highest, when and where; lowest; mean; last.
    for (venue, highest, lowest, mean, last) in [
        (" --venue exchange1", ("61002", "exchange1", 400), "61000.5", "61001.25", "61002"),
        (" --venue exchange2", ("61003", "exchange2", 500), "60998", "61000.5", "60998"),
        ("", ("61003", "exchange2", 500), "60998", "61000.875", "60998"),
    ] {
        let statistics = line(&server, &format!("statistics BTCUSDT{venue} --period 1h")).await;
        let (price, at, ago) = highest;
        assert_eq!((&statistics["highest"]["price"], &statistics["highest"]["venue"]), (&price.into(), &at.into()));
        // The time of the highest price itself, and not that of the newest.
        let time = statistics["highest"]["event_time"].as_str().expect("a time");
        let history = Cli::new(&server, ["history", "BTCUSDT", "--venue", at, "--json"]).ok().await.json();
        let known = history.iter().find(|tick| tick["price"] == price).expect("it was published");
        assert_eq!(known["event_time"], time, "{ago} s ago");
        assert_eq!(statistics["lowest"]["price"], lowest);
        assert_eq!(statistics["mean"], mean);
        assert_eq!(statistics["last"]["price"], last);
        let average = line(&server, &format!("average BTCUSDT{venue} --period 1h")).await;
        assert_eq!(average["average_price"], mean, "{average}");
    }
    Cli::new(&server, ["average", "BTCUSDT", "--period", "1s"]).refused().await;
    Cli::new(&server, ["statistics", "DOGEUSDT", "--period", "1h"]).refused().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_highest_price_and_the_largest_daily_volume_since_a_date() {
    // 2025-04-28, 29 and 30.
    let day = |number: i64, hour: i64| 20_206 * DAY + number * DAY + hour * 3_600 * SECOND;
    let server = server_with(vec![
        tick("B3", "DDIN25", day(0, 13), "6.100", "90"),
        tick("B3", "DDIN25", day(0, 14), "5.900", "9.25"),
        tick("B3", "DDIN25", day(1, 13), "5.970", "100"),
        tick("B3", "DDIN25", day(1, 15), "5.975", "0.5"),
        tick("B3", "DDIN25", day(2, 13), "5.965", "100"),
        tick("B3", "DDIN25", day(2, 16), "5.961", "0.25"),
        tick("B3", "DDIQ25", day(2, 16), "7.000", "9999"),
    ])
    .await;
    for (since, price, start, volume) in [
        ("2025-04-01", "6.1", "2025-04-29T00:00:00.000000000Z", "100.5"),
        ("2025-04-29", "5.975", "2025-04-29T00:00:00.000000000Z", "100.5"),
        ("2025-04-30", "5.965", "2025-04-30T00:00:00.000000000Z", "100.25"),
    ] {
        let statistics = line(&server, &format!("statistics DDIN25 --start {since}")).await;
        assert_eq!(statistics["highest"]["price"], price, "{since}");
        let bar = line(&server, &format!("bars DDIN25 --interval 1d --start {since} --forming --largest 1")).await;
        assert_eq!((&bar["start_time"], &bar["volume"]), (&start.into(), &volume.into()), "{since}");
    }
    let all = ["bars", "DDIN25", "--interval", "1d", "--forming", "--largest", "9", "--json"];
    let bars = Cli::new(&server, all).ok().await.json();
    let volumes: Vec<&Value> = bars.iter().map(|bar| &bar["volume"]).collect();
    assert_eq!(volumes, ["100.5", "100.25", "99.25"]);
    // Nothing since then.
    let statistics = line(&server, "statistics DDIN25 --start 2025-05-01").await;
    assert_eq!((statistics["tick_count"].as_u64(), &statistics["highest"]), (Some(0), &Value::Null));
}
