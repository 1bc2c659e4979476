//! Databases that stall, end connections, or hold locks.

use std::time::{Duration, Instant};

use super::*;
use crate::store::faults::{self, Fault, FaultAction};
use crate::store::{Appended, Store, StoreError, Verdict};

/// Ends the sessions of the database's other users.
pub(super) const END_OTHERS: &str = "
    SELECT pg_terminate_backend(pid)
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()";

/// Sends a batch until it is stored, as a writer does. Returns how often the outcome was unknown.
async fn insist(store: &PostgresStore, fence: u64, batch_seq: u64) -> u32 {
    let mut unknown = 0;
    loop {
        match store.append(batch(fence, batch_seq)).await {
            Ok(Appended::Committed { .. }) => return unknown,
            Ok(Appended::Refused(verdicts)) => {
                assert_eq!(verdicts, [Verdict::Duplicate { last_seq: 3 * batch_seq }]);
                return unknown;
            }
            Err(StoreError::Unavailable(_)) => {
                unknown += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_connections_are_made_again_and_nothing_acknowledged_is_lost() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let store = open(&server.url_of(&database, "")).await.unwrap();
    let mut fence = store.claim_producer(&producer()).await.unwrap().fence;
    let mut other = server.connect(Some(&database)).await;
    let ending = tokio::spawn(async move {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            execute(&mut other, END_OTHERS).await;
        }
    });
    let (mut acknowledged, mut unknown) = (0, 0);
    while !ending.is_finished() || acknowledged < 50 {
        unknown += insist(&store, fence, acknowledged + 1).await;
        acknowledged += 1;
    }
    assert!(unknown > 0, "nothing was in flight when connections were ended");
    ending.await.unwrap();
    fence = loop {
        match store.claim_producer(&producer()).await {
            Ok(claim) => break claim.fence,
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    };
    insist(&store, fence, acknowledged + 1).await;
    assert_eq!(store.head().await.unwrap().position, 3 * (acknowledged + 1));
    server.drop_databases().await;
}

#[tokio::test]
async fn a_locked_head_is_told_soon_and_reads_go_on() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let store = open(&server.url_of(&database, "")).await.unwrap();
    store.append(group(1, "before")).await.unwrap();
    let mut other = server.connect(Some(&database)).await;
    execute(&mut other, "BEGIN").await;
    execute(&mut other, "SELECT * FROM log_head FOR UPDATE").await;
    let begin = Instant::now();
    assert!(matches!(store.append(group(1, "held up")).await, Err(StoreError::Unavailable(_))));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(store.head().await.unwrap().position, 1);
    assert_eq!(store.segments(0, 1000).await.unwrap().segments.len(), 1);
    execute(&mut other, "ROLLBACK").await;
    store.append(group(1, "after")).await.unwrap();
    assert_eq!(store.head().await.unwrap().position, 2);
    server.drop_databases().await;
}

/// Holds every append up inside its transaction.
#[derive(Debug)]
struct Slow(Duration);

#[async_trait::async_trait]
impl Fault for Slow {
    async fn hit(&self, point: &'static str) -> FaultAction {
        if point == faults::APPEND_INSIDE { FaultAction::Delay(self.0) } else { FaultAction::Continue }
    }
}

#[tokio::test]
async fn an_append_that_takes_too_long_is_ended_by_the_database_and_stores_nothing() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let url = server.url_of(&database, "");
    let slow = PostgresOptions { faults: Faults::new(Arc::new(Slow(Duration::from_secs(60)))), ..options() };
    let slow = PostgresStore::open(&url, slow).await.unwrap();
    let store = open(&url).await.unwrap();
    let begin = Instant::now();
    assert!(matches!(slow.append(group(1, "slow")).await, Err(StoreError::Unavailable(_))));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    store.append(group(1, "quick")).await.unwrap();
    assert_eq!(store.head().await.unwrap().position, 1);
    server.drop_databases().await;
}

#[tokio::test]
async fn sessions_have_limits_of_their_own_and_show_no_password() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let store = open(&server.url_of(&database, "password=secret")).await.unwrap();
    let settings = "
        SELECT current_setting('statement_timeout') || ' ' || current_setting('lock_timeout') || ' '
            || current_setting('idle_in_transaction_session_timeout') || ' ' || current_setting('application_name')";
    let settings: String = store
        .appends
        .run(move |connection| Box::pin(async move { Ok(sqlx::query_scalar(settings).fetch_one(connection).await?) }))
        .await
        .unwrap();
    assert_eq!(settings, "5s 2s 10s tapefeed-server");
    let taken = store.size_on_disk().await.unwrap();
    assert!(taken.bytes > 1_000_000 && taken.wal_bytes.is_some_and(|wal| wal >= 16 << 20), "{taken:?}");
    assert!(!format!("{store:?}").contains("secret"));
    server.drop_databases().await;
}

/// The last positions and the first bytes of the digests of a producer's window.
async fn window(connection: &mut PgConnection, producer: &str) -> (i64, Vec<i64>, Vec<u8>) {
    let window: (i64, Vec<i64>, Vec<Vec<u8>>) = sqlx::query_as("SELECT last_batch_seq, window_last_seqs, window_digests FROM producers WHERE id = $1")
            .bind(producer) // $1 its id
            .fetch_one(connection)
            .await
            .unwrap();
    (window.0, window.1, window.2.iter().map(|digest| digest[0]).collect())
}

#[tokio::test]
async fn batches_that_are_next_are_stored_without_judging_each() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let store = open(&server.url_of(&database, "")).await.unwrap();
    let (one, other) = (producer(), ProducerId::new("q").unwrap());
    let fences = [store.claim_producer(&one).await.unwrap().fence, store.claim_producer(&other).await.unwrap().fence];
    let mark = |which: usize, batch_seq: u64| {
        let mut digest = [0; 16];
        digest[0] = batch_seq as u8;
        let producer = [&one, &other][which].clone();
        Mark::Producer { producer, fence: fences[which], batch_seq, digest, entry_count: 2 }
    };
    let of = |marks: Vec<Mark>| Group { marks: marks.clone(), ..group(2 * marks.len() as u32, "bytes") };
    // What would judge them is gone.
    let mut connection = server.connect(Some(&database)).await;
    execute(&mut connection, "ALTER FUNCTION append_group RENAME TO append_group_away").await;
    let first = vec![mark(0, 1), mark(1, 1), mark(0, 2), mark(1, 2), mark(1, 3)];
    assert!(matches!(store.append(of(first)).await, Ok(Appended::Committed { first_seq: 1, .. })));
    assert_eq!(window(&mut connection, "p").await, (2, vec![2, 6], vec![1, 2]));
    assert_eq!(window(&mut connection, "q").await, (3, vec![4, 8, 10], vec![1, 2, 3]));
    // More than a window holds, in one group and on top of what is there.
    let more = (3..=12).map(|batch| mark(0, batch)).chain((4..=9).map(|batch| mark(1, batch))).collect();
    assert!(matches!(store.append(of(more)).await, Ok(Appended::Committed { first_seq: 11, .. })));
    assert_eq!(window(&mut connection, "p").await, (12, (8..=15).map(|n| 2 * n).collect(), (5..=12).collect()));
    let last = [8, 10].into_iter().chain((16..=21).map(|n| 2 * n)).collect();
    assert_eq!(window(&mut connection, "q").await, (9, last, (2..=9).collect()));
    // What is not next asks for the judge.
    for marks in [vec![mark(0, 12)], vec![mark(0, 14)], vec![mark(0, 13), mark(0, 15)], vec![mark(0, 13), mark(1, 9)]] {
        assert!(store.append(of(marks)).await.is_err());
    }
    execute(&mut connection, "ALTER FUNCTION append_group_away RENAME TO append_group").await;
    let verdicts = store.append(of(vec![mark(0, 13), mark(1, 9)])).await.unwrap();
    assert_eq!(verdicts, Appended::Refused(vec![Verdict::New, Verdict::Duplicate { last_seq: 42 }]));
    assert_eq!(window(&mut connection, "p").await.0, 12, "and nothing of it is stored");
    server.drop_databases().await;
}
