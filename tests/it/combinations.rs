//! The central behaviour over every store and bus: SQLite alone, Postgres with one server, Postgres with Redis.
//!
//! The tests themselves are beside their features; here each runs over all combinations.

use std::time::Duration;

use tapefeed_proto::v1 as proto;
use tapefeed_tests::exact::{Sums, plain, row_of, units};
use tapefeed_tests::file::StoreFile;
use tapefeed_tests::values::{decimal, timestamp, unix_nano};
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Combination, Options, Publisher, Server, eventually};

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

async fn history(options: Options) {
    let mut server = Server::start(options).await;
    let mut publisher = Publisher::claim(&server.stubs().await, "history").await.expect("granted");
    let first = now_unix_nano() - TICKS;
    let mut sums = Sums::default();
    let mut sent = Vec::new();
    for number in 0..TICKS {
        let price = format!("{}.{:03}", 90 + number * 7 % 23, number * 13 % 1_000);
        let quantity = format!("{}.5", number % 11);
        sums.add(units(&price), Some(units(&quantity)));
        sent.push(proto::Tick {
            venue: "XTST".to_owned(),
            symbol: "HIST".to_owned(),
            event_time: Some(timestamp(first + number)),
            price: Some(decimal(&price)),
            quantity: Some(decimal(&quantity)),
            trade_id: number.to_string(),
            ..proto::Tick::default()
        });
    }
    for batch in sent.chunks(500) {
        publisher.rows(batch.to_vec()).await.expect("stored");
    }
    drop(publisher);
    check(&server, &sums, first, "as it was published").await;
    assert!(server.terminate().await.success());
    server.restart().await;
    check(&server, &sums, first, "after a restart").await;
    server.kill9().await;
    server.options_mut().arguments.extend(["--compact-age=100ms".to_owned(), "--merge-delay=100ms".to_owned()]);
    server.restart().await;
    eventually("everything is in chunks", COMPACTION, async || {
        let compaction = StoreFile::of(&server).await.ok()?.compaction().await.ok()?;
        compaction.is_complete().then_some(())
    })
    .await;
    check(&server, &sums, first, "after a kill and compaction").await;
    assert!(server.terminate().await.success());
    server.restart().await;
    check(&server, &sums, first, "after a restart over chunks").await;
}

/// Statistics, averages and both directions of the list.
async fn check(server: &Server, sums: &Sums, first: i64, when: &str) {
    let mut history = server.stubs().await.history;
    let (venue, symbol) = ("XTST".to_owned(), "HIST".to_owned());
    let request = proto::GetPriceStatisticsRequest { venue, symbol: symbol.clone(), ..Default::default() };
    let statistics = history.get_price_statistics(request).await.expect("known").into_inner();
    let row = sums.row();
    assert_eq!(row_of(&statistics), row, "{when}");
    for (method, price) in [(proto::AverageMethod::Mean, &row[1]), (proto::AverageMethod::Vwap, &row[2])] {
        let request =
            proto::GetAveragePriceRequest { symbol: symbol.clone(), method: method.into(), ..Default::default() };
        let average = history.get_average_price(request).await.expect("there are ticks").into_inner();
        assert_eq!(plain(&average.average_price), *price, "{when}: {method:?}");
    }
    for descending in [false, true] {
        let mut request = proto::ListTicksRequest {
            symbol: symbol.clone(),
            page_size: 3_000,
            order: if descending { proto::Order::Descending } else { proto::Order::Ascending }.into(),
            ..Default::default()
        };
        let mut times = Vec::new();
        loop {
            let page = history.list_ticks(request.clone()).await.expect("a page").into_inner();
            times
                .extend(page.ticks.iter().map(|tick| unix_nano(tick.event_time.as_ref().expect("every tick has one"))));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        if descending {
            times.reverse();
        }
        assert!(times.iter().copied().eq(first..first + TICKS), "{when}: every tick once, in order");
    }
}
