//! Which databases are opened, and what is said about the others.

use std::time::Duration;

use super::*;
use crate::store::{Store as _, StoreError};

#[tokio::test]
async fn a_server_that_could_lose_what_it_acknowledged_is_refused() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let refused = open(&server.url_of(&database, "options[synchronous_commit]=off")).await.unwrap_err();
    assert!(matches!(refused, PostgresOpenError::NotDurable { setting: "synchronous_commit", .. }), "{refused}");
    assert!(refused.to_string().contains("set synchronous_commit = on"), "{refused}");
    // `local` syncs here, and leaves out standbys only.
    open(&server.url_of(&database, "options[synchronous_commit]=local")).await.unwrap().close().await;
    server.drop_databases().await;
}

#[tokio::test]
async fn durability_that_is_switched_off_later_stops_appends() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let store = open(&server.url_of(&database, "")).await.unwrap();
    store.append(group(1, "durable")).await.unwrap();
    let mut admin = server.connect(Some(&database)).await;
    for (value, stored) in [("off", false), ("on", true)] {
        execute(&mut admin, &format!("ALTER DATABASE {database} SET synchronous_commit = {value}")).await;
        // Sessions that are there keep their setting.
        execute(&mut admin, super::troubles::END_OTHERS).await;
        let appended = loop {
            match store.append(group(1, "durable?")).await {
                Err(StoreError::Unavailable(problem)) if !problem.contains("would lose") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                appended => break appended,
            }
        };
        assert_eq!(appended.is_ok(), stored, "{value}: {appended:?}");
    }
    assert_eq!(store.head().await.unwrap().position, 2);
    server.drop_databases().await;
}

#[tokio::test]
async fn databases_that_are_no_store_are_refused_with_advice() {
    let Some(server) = TestServer::find() else { return };
    let mut admin = server.connect(None).await;

    let database = server.make_database().await;
    execute(&mut server.connect(Some(&database)).await, "CREATE TABLE customers (id INTEGER)").await;
    let refused = open(&server.url_of(&database, "")).await.unwrap_err();
    assert!(matches!(refused, PostgresOpenError::NotAStore(_)), "{refused}");

    let database = server.make_database().await;
    execute(&mut admin, &format!("ALTER DATABASE {database} SET default_transaction_read_only = on")).await;
    let refused = open(&server.url_of(&database, "")).await.unwrap_err();
    assert!(matches!(refused, PostgresOpenError::ReadOnly { .. }), "{refused}");

    let database = server.make_database().await;
    execute(&mut admin, &format!("DROP DATABASE {database}")).await;
    let latin = format!("CREATE DATABASE {database} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    execute(&mut admin, &latin).await;
    let refused = open(&server.url_of(&database, "")).await.unwrap_err();
    assert!(matches!(refused, PostgresOpenError::Encoding { .. }), "{refused}");

    let refused = open(&server.url_of("no_such_database", "password=secret")).await.unwrap_err();
    assert!(matches!(refused, PostgresOpenError::Unreachable { .. }), "{refused}");
    let nobody = PostgresUrl::new("postgres://me:secret@127.0.0.1:1/tape?sslmode=disable").unwrap();
    let unreachable = open(&nobody).await.unwrap_err();
    assert!(matches!(unreachable, PostgresOpenError::Unreachable { .. }), "{unreachable}");
    for error in [refused, unreachable] {
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    }
    server.drop_databases().await;
}

#[tokio::test]
async fn a_store_of_a_newer_server_or_a_torn_one_is_refused() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let url = server.url_of(&database, "");
    let store = open(&url).await.unwrap();
    store.append(group(2, "bytes")).await.unwrap();
    store.close().await;
    let mut other = server.connect(Some(&database)).await;

    execute(&mut other, "UPDATE log_head SET position = position + 1").await;
    let refused = open(&url).await.unwrap_err();
    assert!(matches!(refused, PostgresOpenError::Damaged { .. }), "{refused}");
    execute(&mut other, "UPDATE log_head SET position = position - 1").await;
    open(&url).await.unwrap().close().await;

    let newer = "
        INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
            VALUES (9999, 'of tomorrow', true, '', 0)";
    execute(&mut other, newer).await;
    let refused = open(&url).await.unwrap_err();
    assert!(matches!(refused, PostgresOpenError::Newer { migration: 9999, .. }), "{refused}");
    server.drop_databases().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_together_make_one_store() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let url = server.url_of(&database, "");
    let mut opening = tokio::task::JoinSet::new();
    for number in 1..=4 {
        let url = url.clone();
        opening.spawn(async move {
            let options = PostgresOptions { epoch: Epoch(number), seed: number, ..options() };
            PostgresStore::open(&url, options).await.unwrap()
        });
    }
    let stores = opening.join_all().await;
    let head = stores[0].head().await.unwrap();
    assert!((1..=4).contains(&head.epoch.0));
    for (number, store) in (1..).zip(&stores) {
        let appended = store.append(Group { epoch: head.epoch, ..group(2, "bytes") }).await.unwrap();
        assert!(matches!(appended, crate::store::Appended::Committed { first_seq, .. } if first_seq == 2 * number - 1));
        assert_eq!(store.epochs().await.unwrap().len(), 1);
    }
    server.drop_databases().await;
}
