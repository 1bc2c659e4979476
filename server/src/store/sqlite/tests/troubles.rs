//! Full disks, broken connections, programs that meddle.

use sqlx::AssertSqlSafe;

use super::*;
use crate::store::{StoreError, Verdict};

/// Makes the writing connection believe that the disk ends after so many pages.
async fn limit_pages(store: &SqliteStore, pages: u32) {
    let limited = store.write(move |writer| {
        Box::pin(async move {
            let limit = AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
            sqlx::query(limit).execute(writer.connection().await.unwrap()).await.unwrap();
            Ok(())
        })
    });
    limited.await.unwrap();
}

#[tokio::test]
async fn full_disk_refuses_and_the_same_store_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = open(&path).await.unwrap();
    let fence = store.claim_producer(&producer()).await.unwrap().fence;
    assert!(is_committed(&store.append(batch(fence, 1)).await.unwrap()));
    for round in 0..3 {
        limit_pages(&store, 1).await;
        let mut next = batch(fence, 2 + round);
        next.bytes = vec![7; 300_000].into();
        for _ in 0..3 {
            match store.append(next.clone()).await {
                Err(StoreError::Unavailable(sentence)) => assert_eq!(sentence, "the disk is full"),
                other => panic!("{other:?}"),
            }
            assert_eq!(store.head().await.unwrap().position, 3 + 3 * round);
            assert_eq!(store.segments(0, usize::MAX).await.unwrap().segments.len() as u64, 1 + round);
        }
        limit_pages(&store, u32::MAX - 1).await;
        assert!(is_committed(&store.append(next).await.unwrap()));
        let again = store.append(batch(fence, 1)).await.unwrap();
        assert_eq!(again, Appended::Refused(vec![Verdict::Duplicate { last_seq: 3 }]));
    }
    store.close().await;
    assert_eq!(open(&path).await.unwrap().head().await.unwrap().position, 12);
}

#[tokio::test]
async fn broken_connection_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let away = directory.path().join("away.db");
    let store = open(&path).await.unwrap();
    store.append(group(1, "before")).await.unwrap();
    store.write(|writer| Box::pin(writer.break_connection())).await.unwrap();
    store.append(group(1, "opened again")).await.unwrap();

    // While it cannot be opened: refused at once, and never a new empty file in its place.
    store.write(|writer| Box::pin(writer.break_connection())).await.unwrap();
    std::fs::rename(&path, &away).unwrap();
    for _ in 0..20 {
        assert!(matches!(store.append(group(1, "nowhere")).await, Err(StoreError::Unavailable(_))));
    }
    assert!(!path.exists());
    std::fs::rename(&away, &path).unwrap();
    let mut tries = 0;
    while store.append(group(1, "back")).await.is_err() {
        tries += 1;
        assert!(tries < 1000, "not opened again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(store.head().await.unwrap().position, 3);
}

#[tokio::test]
async fn failed_transaction_leaves_none_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = open(&path).await.unwrap();
    store.append(group(1, "before")).await.unwrap();
    let mut connection = outside(&path, false).await;
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON segments BEGIN SELECT RAISE(FAIL, 'no'); END";
    sqlx::query(trigger).execute(&mut connection).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(store.append(group(1, "refused")).await, Err(StoreError::Unavailable(_))));
        // Another program can write: no lock was left behind.
        sqlx::query("PRAGMA user_version = 1").execute(&mut connection).await.unwrap();
    }
    sqlx::query("DROP TRIGGER refuse").execute(&mut connection).await.unwrap();
    assert!(is_committed(&store.append(group(1, "after")).await.unwrap()));
    assert_eq!(store.head().await.unwrap().position, 2);
}

#[tokio::test]
async fn another_programs_writes_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = open(&path).await.unwrap();
    let fence = store.claim_producer(&producer()).await.unwrap().fence;
    store.append(batch(fence, 1)).await.unwrap();
    let mut connection = outside(&path, false).await;

    sqlx::query("UPDATE producers SET fence = fence + 1").execute(&mut connection).await.unwrap();
    assert!(matches!(store.append(batch(fence, 2)).await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.append(batch(fence, 2)).await.unwrap(), Appended::Refused(vec![Verdict::Fenced]));

    sqlx::query("UPDATE log_head SET epoch = 5").execute(&mut connection).await.unwrap();
    assert!(matches!(store.append(batch(fence + 1, 2)).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.append(batch(fence + 1, 2)).await, Err(StoreError::EpochChanged(Epoch(5)))));
    assert_eq!(store.head().await.unwrap().position, 3);

    let next = Group { epoch: Epoch(5), ..group(1, "next") };
    store.append(next.clone()).await.unwrap();
    sqlx::query("UPDATE log_head SET position = position + 7").execute(&mut connection).await.unwrap();
    assert!(matches!(store.append(next).await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.head().await.unwrap().position, 11);
}
