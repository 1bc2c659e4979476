//! The central behaviour over every store and bus: SQLite alone, Postgres with one server, Postgres with Redis.
//!
//! The tests themselves are beside their features; here each runs over all combinations.

use std::time::Duration;

use tapefeed_proto::v1 as proto;
use tapefeed_tests::exact::units;
use tapefeed_tests::file::StoreFile;
use tapefeed_tests::values::{decimal, timestamp};
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Combination, Options, Publisher, Server, eventually};

use crate::failpoints::bulk::Read;
use crate::failpoints::oracle::{Log, Logged};
use crate::failpoints::questions::Answered;
use crate::{corrections, import, live, publish, resume, values as exact};

/// Runs a test over each combination in turn.
async fn everywhere(behaviour: impl AsyncFn(Options)) {
    for combination in Combination::ALL {
        let Some(ground) = combination.prepare().await else { continue };
        println!("over {combination:?}");
        behaviour(ground.options()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_tells_where_to_go_on() {
    everywhere(publish::claims).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_sent_again_is_acknowledged_and_not_stored_twice() {
    everywhere(publish::repeats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_number_with_other_content_or_too_old_is_a_conflict() {
    everywhere(publish::conflicts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_claim_ends_the_older_stream() {
    everywhere(publish::newer_claims).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_your_own_write_with_the_cursor_of_its_acknowledgement() {
    everywhere(exact::own_writes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_start_begins_exactly_where_it_says() {
    everywhere(live::starts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_resumes_after_a_kill_of_the_server() {
    everywhere(live::resumes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_older_than_the_replay_window_has_expired() {
    everywhere(live::expiry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_killed_fifty_times_sees_exactly_the_log() {
    everywhere(resume::killed_subscriber).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trades_that_are_corrected_or_taken_back_are_so_in_every_answer_and_after_a_kill() {
    everywhere(corrections::corrected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_whose_times_interleave_give_their_reference_before_and_after_merging() {
    everywhere(import::interleaved_files).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_file_is_a_no_op_and_other_options_are_refused_unless_meant() {
    everywhere(import::same_file).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_averages_and_statistics_stay_over_restarts_kills_and_compaction() {
    everywhere(history).await;
}

/// Ticks of one instrument: enough for several chunks.
const TICKS: i64 = 10_000;

/// How long compaction may take, on a busy machine.
const COMPACTION: Duration = Duration::from_secs(60);

/// The names of the instrument.
const NAME: (&str, &str) = ("XTST", "HIST");

/// Two days of ticks that ended a day ago, so that they are merged; every tenth comes an hour late.
fn ticks(now: i64) -> (Vec<proto::Tick>, Log) {
    let second = 1_000_000_000;
    let begin = now - 3 * 86_400 * second;
    let (mut sent, mut log) = (Vec::new(), Log::default());
    for number in 0..TICKS {
        let late = if number % 10 == 9 { 3_600 } else { 0 };
        let time = begin + (number * 17 - late) * second;
        let price = format!("{}.{:03}", 90 + number * 7 % 23, number * 13 % 1_000);
        let quantity = format!("{}.5", number % 11);
        sent.push(proto::Tick {
            venue: NAME.0.to_owned(),
            symbol: NAME.1.to_owned(),
            event_time: Some(timestamp(time)),
            price: Some(decimal(&price)),
            quantity: Some(decimal(&quantity)),
            trade_id: number.to_string(),
            ..proto::Tick::default()
        });
        log.push(Logged {
            log_seq: number as u64 + 1,
            name: (NAME.0.to_owned(), NAME.1.to_owned()),
            time,
            price: units(&price),
            quantity: Some(units(&quantity)),
            trade_id: number.to_string(),
        });
    }
    (sent, log)
}

async fn history(options: Options) {
    let mut server = Server::start(options).await;
    let mut publisher = Publisher::claim(&server.stubs().await, "history").await.expect("granted");
    let (sent, log) = ticks(now_unix_nano());
    for batch in sent.chunks(500) {
        publisher.rows(batch.to_vec()).await.expect("stored");
    }
    drop(publisher);
    check(&server, &log, "as it was published").await;
    assert!(server.terminate().await.success());
    server.restart().await;
    check(&server, &log, "after a restart").await;
    server.kill9().await;
    server.options_mut().arguments.extend(["--compact-age=100ms".to_owned(), "--merge-delay=100ms".to_owned()]);
    server.restart().await;
    eventually("everything is in chunks, and late ones are merged", COMPACTION, async || {
        let compaction = StoreFile::of(&server).await.ok()?.compaction().await.ok()?;
        (compaction.is_complete() && compaction.late == 0).then_some(())
    })
    .await;
    check(&server, &log, "after a kill and compaction").await;
    assert!(server.terminate().await.success());
    server.restart().await;
    check(&server, &log, "after a restart over chunks").await;
}

/// Statistics, averages, bars, both directions of the list, and bulk reads.
async fn check(server: &Server, log: &Log, when: &str) {
    println!("{when}");
    let mut history = server.stubs().await.history;
    let (venue, symbol) = (NAME.0.to_owned(), NAME.1.to_owned());
    let request =
        proto::GetPriceStatisticsRequest { venue: venue.clone(), symbol: symbol.clone(), ..Default::default() };
    let statistics = history.get_price_statistics(request.clone()).await.expect("known").into_inner();
    assert_eq!(statistics.tick_count, TICKS as u64, "{when}");
    Answered::Statistics(request, statistics).check(log);
    for method in [proto::AverageMethod::Mean, proto::AverageMethod::Vwap, proto::AverageMethod::Twap] {
        let request =
            proto::GetAveragePriceRequest { symbol: symbol.clone(), method: method.into(), ..Default::default() };
        let average = history.get_average_price(request.clone()).await.expect("there are ticks").into_inner();
        Answered::Average(request, Ok(average)).check(log);
    }
    for seconds in [60, 3_600, 86_400] {
        for venue in ["", NAME.0] {
            let request = proto::ListBarsRequest {
                venue: venue.to_owned(),
                symbol: symbol.clone(),
                interval: Some(prost_types::Duration { seconds, nanos: 0 }),
                include_forming: true,
                page_size: 8_000,
                ..Default::default()
            };
            let bars = history.list_bars(request.clone()).await.expect("known").into_inner();
            assert!(!bars.bars.is_empty(), "{when}");
            Answered::Bars(request, bars).check(log);
        }
    }
    for order in [proto::Order::Ascending, proto::Order::Descending] {
        let mut request = proto::ListTicksRequest {
            symbol: symbol.clone(),
            page_size: 3_000,
            order: order.into(),
            ..Default::default()
        };
        let mut pages: Vec<proto::ListTicksResponse> = Vec::new();
        loop {
            let page = history.list_ticks(request.clone()).await.expect("a page").into_inner();
            request.page_token = page.next_page_token.clone();
            pages.push(page);
            if request.page_token.is_empty() {
                break;
            }
        }
        Answered::Ticks(request, pages).check(log);
    }
    for encoding in [proto::Encoding::Rows, proto::Encoding::Columns] {
        let request =
            proto::ReadTicksRequest { symbol: symbol.clone(), encoding: encoding.into(), ..Default::default() };
        let mut read = Read::begin(request.clone());
        let mut messages = history.read_ticks(request).await.expect("known").into_inner();
        while let Some(message) = messages.message().await.expect("it ends with OK") {
            read.take(message);
        }
        read.check(log);
    }
}
