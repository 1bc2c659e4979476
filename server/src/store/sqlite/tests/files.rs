//! Which files are opened, by whom, and which are refused.

use sqlx::Connection as _;

use super::*;
use crate::store::{Lease, NewRun, RunClaim, RunId, RunOwner, RunRequest, StoreError};

#[tokio::test]
async fn second_server_is_refused_and_told_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let first = open(&path).await.unwrap();
    let refused = open(&path).await.unwrap_err();
    assert!(matches!(refused, OpenError::Locked(_)));
    let message = refused.to_string();
    assert!(message.contains("stop that one") && message.contains("--store"), "{message}");
    first.append(group(1, "still works")).await.unwrap();
    first.close().await;
    let second = open(&path).await.unwrap();
    assert_eq!(second.head().await.unwrap().position, 1);
}

#[cfg(unix)]
#[tokio::test]
async fn second_server_is_refused_by_another_name_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let _first = open(&path).await.unwrap();
    let alias = directory.path().join("alias.db");
    std::os::unix::fs::symlink(&path, &alias).unwrap();
    assert!(matches!(open(&alias).await, Err(OpenError::Locked(_))));
    let roundabout = directory.path().join(".").join("store.db");
    assert!(matches!(open(&roundabout).await, Err(OpenError::Locked(_))));
}

#[tokio::test]
async fn missing_directories_are_made_and_an_empty_file_is_filled() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("a/b/store.db");
    let store = open(&deep).await.unwrap();
    assert_eq!(store.path(), deep.canonicalize().unwrap());
    store.append(group(1, vec![1; 100_000])).await.unwrap();
    assert!(store.size_on_disk().await.unwrap() > 100_000);
    let empty = directory.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    assert_eq!(open(&empty).await.unwrap().head().await.unwrap().epoch, EPOCH);
}

#[tokio::test]
async fn closed_store_is_one_file_and_its_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = open(&path).await.unwrap();
    store.append(group(1, "bytes")).await.unwrap();
    store.manifest(0).await.unwrap();
    store.close().await;
    let mut names: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["store.db", "store.db.lock"]);
}

#[tokio::test]
async fn store_dropped_without_close_opens_again_with_everything() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    for round in 0..5 {
        let store = open_soon(&path).await;
        assert_eq!(store.head().await.unwrap().position, 2 * round);
        store.append(group(2, "bytes")).await.unwrap();
        drop(store);
    }
}

#[tokio::test]
async fn leases_end_with_the_server_that_gave_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let begin = |owner| {
        let now = Still.now();
        let run = NewRun {
            id: RunId::new("r").unwrap(),
            identity: [1; 32],
            content: [2; 32],
            parser_version: 1,
            options: Vec::new(),
            file_name: "trades.csv".to_owned(),
            size_bytes: 1,
            total_lines: 1,
            trace_id: String::new(),
            again: false,
        };
        let lease = Lease { owner: RunOwner(owner), now, until: now.saturating_add(Duration::from_secs(15)) };
        RunRequest { run, lease }
    };
    let store = open(&path).await.unwrap();
    assert!(matches!(store.begin_run(begin(1)).await.unwrap(), RunClaim::Yours(_)));
    assert!(matches!(store.begin_run(begin(2)).await.unwrap(), RunClaim::Leased(_)));
    drop(store);
    // As after a kill: nobody ended the run, and its lease has time left.
    let store = open_soon(&path).await;
    let RunClaim::Yours(run) = store.begin_run(begin(3)).await.unwrap() else { panic!("it is still leased") };
    assert_eq!(run.owner, RunOwner(3));
    let lost = begin(1).lease;
    assert!(!store.renew_lease(&run.run.id, lost).await.unwrap(), "the owner before is fenced");
}

#[tokio::test]
async fn file_that_is_no_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text.db");
    let letter = "Dear Sir or Madam, this is a letter and no database. ".repeat(200);
    std::fs::write(&text, &letter).unwrap();
    assert!(matches!(open(&text).await, Err(OpenError::NotAStore(_))));
    assert_eq!(std::fs::read_to_string(&text).unwrap(), letter);

    let foreign = directory.path().join("foreign.db");
    let mut connection =
        SqliteConnectOptions::new().filename(&foreign).create_if_missing(true).connect().await.unwrap();
    sqlx::query("CREATE TABLE recipes (name TEXT)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let before = std::fs::read(&foreign).unwrap();
    let refused = open(&foreign).await.unwrap_err();
    assert!(matches!(refused, OpenError::NotAStore(_)));
    assert!(refused.to_string().contains("--store"));
    assert_eq!(std::fs::read(&foreign).unwrap(), before);

    assert!(matches!(open(directory.path()).await, Err(OpenError::NotWritable { .. })));
    assert!(matches!(open(&text.join("below.db")).await, Err(OpenError::NotWritable { .. })));
}

#[tokio::test]
async fn store_of_a_newer_server_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    open(&path).await.unwrap().close().await;
    let mut connection = outside(&path, false).await;
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (9999, 'later', 0, true, x'00', 0)")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let refused = open(&path).await.unwrap_err();
    assert!(matches!(refused, OpenError::Newer { migration: 9999, .. }), "{refused}");
}

#[tokio::test]
async fn opening_that_was_cut_short_is_finished_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    open(&path).await.unwrap().close().await;
    // After the migrations, before the first rows.
    let mut connection = outside(&path, false).await;
    sqlx::query("DELETE FROM log_head; DELETE FROM epochs").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let store = open(&path).await.unwrap();
    assert_eq!((store.head().await.unwrap().epoch, store.epochs().await.unwrap().len()), (EPOCH, 1));
    store.close().await;
    // After the migrations' own table, before the migrations.
    let path = directory.path().join("early.db");
    let mut connection = SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await.unwrap();
    let table = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
        installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL,
        execution_time BIGINT NOT NULL)";
    sqlx::query(table).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    assert_eq!(open(&path).await.unwrap().head().await.unwrap().position, 0);
}

#[tokio::test]
async fn head_that_is_not_the_last_segments_is_refused() {
    for damage in [
        "UPDATE log_head SET position = position - 1",
        "UPDATE log_head SET chain = zeroblob(16)",
        "DELETE FROM segments WHERE first_seq = 3",
        "DELETE FROM segments",
        "DELETE FROM log_head",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let store = open(&path).await.unwrap();
        store.append(group(2, "bytes")).await.unwrap();
        store.append(group(2, "bytes")).await.unwrap();
        store.close().await;
        let mut connection = outside(&path, false).await;
        sqlx::query(damage).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        assert!(matches!(open(&path).await, Err(OpenError::Damaged { .. })), "{damage}");
    }
}

#[tokio::test]
async fn damaged_rows_are_named_and_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = open(&path).await.unwrap();
    for _ in 0..3 {
        store.append(group(2, "bytes")).await.unwrap();
    }
    let mut connection = outside(&path, false).await;
    for (damage, table) in [
        ("UPDATE segments SET bytes = x'00' WHERE first_seq = 3", "segments"),
        ("UPDATE segments SET bytes = x'6279746573', entry_count = 1 WHERE first_seq = 3", "segments"),
        ("DELETE FROM segments WHERE first_seq = 3", "segments"),
        ("UPDATE log_head SET epoch = 1; DELETE FROM log_head", "log_head"),
    ] {
        sqlx::query(damage).execute(&mut connection).await.unwrap();
        match store.segments(0, usize::MAX).await {
            Err(StoreError::Corrupt { table: named, .. }) => assert_eq!(named, table, "{damage}"),
            other => panic!("{damage}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn other_programs_read_while_the_server_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = open(&path).await.unwrap();
    let mut connection = outside(&path, true).await;
    for number in 1..=20_i64 {
        store.append(group(1, "bytes")).await.unwrap();
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM segments").fetch_one(&mut connection).await.unwrap();
        assert_eq!(rows, number);
    }
    // Even a reader that stays in its transaction does not hold up writes, nor the end.
    sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM segments").fetch_one(&mut connection).await.unwrap();
    store.append(group(1, "bytes")).await.unwrap();
    let again: i64 = sqlx::query_scalar("SELECT count(*) FROM segments").fetch_one(&mut connection).await.unwrap();
    assert_eq!((rows, again), (20, 20));
    store.close().await;
    let checked: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
    assert_eq!(checked, "ok");
    assert_eq!(open(&path).await.unwrap().head().await.unwrap().position, 21);
}

#[tokio::test]
async fn writes_are_synced_before_they_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store.db")).await.unwrap();
    let settings = store
        .write(|writer| {
            Box::pin(async move {
                let connection = writer.connection().await.unwrap();
                let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap();
                let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(connection).await.unwrap();
                Ok((mode, synchronous))
            })
        })
        .await
        .unwrap();
    assert_eq!(settings, ("wal".to_owned(), 2));
}
