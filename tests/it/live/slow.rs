//! Readers that pause, over real connections.

use super::*;

/// A connection with the smallest windows that HTTP/2 begins with: what a paused reader takes is soon over.
async fn narrow(server: &Server) -> Stubs {
    let endpoint = server.endpoint().initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    Stubs::over(endpoint.connect().await.expect("the server is there"))
}

#[tokio::test]
async fn tiny_messages_do_not_end_the_connection_of_a_reader_that_pauses() {
    /// Each a commit, and a message of its own, some 85 bytes long: a window has room for 700.
    const TICKS: usize = 1_200;
    let server = Server::start(Options::serve()).await;
    let stubs = narrow(&server).await;
    let mut paused = Subscription::open(&stubs, request("*", None)).await.expect("granted");
    let mut publisher = Publisher::claim(&server.stubs().await, "feed").await.expect("granted");
    for id in 0..TICKS {
        publisher.rows(trades("A", id..id + 1)).await.expect("stored");
    }
    // Another call on the same connection still goes through.
    let mut instruments = stubs.instruments.clone();
    let listed = instruments.list_instruments(proto::ListInstrumentsRequest::default());
    within("another call", MESSAGE, listed).await.expect("the connection lives");
    assert_eq!(ids(&paused.ticks(TICKS).await), (0..TICKS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_paused_reader_is_told_before_the_log_is_cut_off_under_it() {
    const BATCH: usize = 500;
    let server = Server::start(Options::serve().argument("--log-retention-bytes=16KiB")).await;
    let stubs = narrow(&server).await;
    let mut paused = Subscription::open(&stubs, request("*", None)).await.expect("granted");
    let mut publisher = Publisher::claim(&server.stubs().await, "feed").await.expect("granted");
    let stored = eventually("more log than is kept", 4 * MESSAGE, || async {
        let scrape = tapefeed_tests::scrape::Scrape::of(server.address()).await;
        (scrape.value("tapefeed_log_bytes") > 24.0 * 1_024.0).then_some(())
    });
    let mut sent = 0;
    let publishing = async {
        loop {
            publisher.rows(trades("A", sent..sent + BATCH)).await.expect("stored");
            sent += BATCH;
        }
    };
    tokio::select! {
        () = stored => (),
        () = publishing => (),
    }
    // It is looked at every few seconds what leaves the log soon.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let mut next = 0;
    let notice = loop {
        match paused.event().await {
            Event::Rows(rows) => next += rows.ticks.len(),
            Event::SlowConsumer(notice) if notice.expiring => break notice,
            Event::SlowConsumer(_) | Event::Progress(_) => (),
            other => panic!("nothing is lost yet: {other:?}"),
        }
    };
    assert!(notice.lag_ticks > 0 && next < sent, "{notice:?} after {next} of {sent}");
}
