//! What only a database does: it stops, crashes, comes back, and is replaced by its standby.

use std::time::Duration;

use tapefeed_proto::v1 as proto;
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Database, Options, Publisher, Server, eventually, values};
use tonic::{Code, Status};

use crate::kills;

/// How soon a server serves again once its database takes connections: 3 s, and a little for a busy machine.
const BACK: Duration = Duration::from_secs(5);

/// How soon health has to tell what happened to the database.
const HEALTH: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_twenty_times_loses_tears_and_doubles_nothing() {
    let Some(database) = Database::start() else { return };
    kills::killed(database.options(), kills::kill_server, kills::RESTART).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_crashes_twenty_times_under_the_server_loses_tears_and_doubles_nothing() {
    let Some(database) = Database::start() else { return };
    let crash = async |server: &mut Server| {
        database.crash().await;
        database.again().await;
        eventually("SERVING", BACK, async || server.is_serving().await.then_some(())).await;
    };
    // Most of it is the database's own recovery, which a busy disk makes long.
    kills::killed(database.options(), crash, Duration::from_secs(60)).await;
}

/// One tick, acknowledged.
async fn publish_one(server: &Server, producer: &str) -> Result<proto::PublishAck, Status> {
    let mut publisher = Publisher::claim(&server.stubs().await, producer).await?;
    publisher.rows(vec![values::tick("XTST", "ONE", now_unix_nano(), "1.5")]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_follows_the_database_and_the_server_needs_no_restart() {
    let Some(database) = Database::start() else { return };
    let server = Server::start(database.options()).await;
    publish_one(&server, "before").await.expect("stored");
    database.crash().await;
    eventually("NOT_SERVING", HEALTH, async || (!server.is_serving().await).then_some(())).await;
    // Nobody waits for a database that is not there.
    let refused = tokio::time::timeout(Duration::from_secs(10), publish_one(&server, "meanwhile")).await;
    assert_eq!(refused.expect("an answer").expect_err("nothing can be stored").code(), Code::Unavailable);
    database.again().await;
    eventually("SERVING", HEALTH, async || server.is_serving().await.then_some(())).await;
    publish_one(&server, "after").await.expect("stored");
    assert_eq!(numbers(&database, "SELECT position FROM log_head").await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_serves_the_log_under_a_new_epoch() {
    let Some(primary) = Database::start() else { return };
    let mut server = Server::start(primary.options()).await;
    publish_one(&server, "before").await.expect("stored");
    let epoch = numbers(&primary, EPOCHS).await;
    let standby = primary.standby();
    server.terminate().await;
    let refused = Server::try_start(standby.options()).await.expect_err("a standby takes no writes");
    assert!(refused.output.contains("standby"), "{}", refused.output);
    drop(primary);
    standby.promote().await;
    server.options_mut().database = Some(standby.url().to_owned());
    server.restart().await;
    let now = numbers(&standby, EPOCHS).await;
    assert_eq!((now.len(), &now[1..]), (2, &epoch[..]), "a new epoch over the old one");
    publish_one(&server, "after").await.expect("stored");
    assert_eq!(numbers(&standby, "SELECT first_seq FROM segments ORDER BY 1").await, [1, 2], "the log goes on");
}

/// The epochs of a store, the newest first.
const EPOCHS: &str = "SELECT epoch FROM epochs ORDER BY number DESC";

/// What the database itself says.
async fn numbers(database: &Database, sql: &'static str) -> Vec<i64> {
    let mut connection = database.connect().await;
    sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect("the table is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cannot_be_opened_is_told_without_its_password() {
    let url = "postgres://someone:secret@127.0.0.1:1/tape?sslmode=disable";
    let refused = Server::try_start(Options::serve().database(url)).await.expect_err("nobody is there");
    assert!(refused.output.contains("postgres://someone@127.0.0.1:1/tape cannot be reached"), "{}", refused.output);
    let Some(database) = Database::start() else { return };
    let url = database.url().replace("postgres@", "postgres:secret@");
    let server = Server::start(Options::serve().database(&url)).await;
    let banner = eventually("the banner", HEALTH, async || {
        let output = server.output();
        output.contains("postgres://postgres@127.0.0.1").then_some(output)
    });
    for output in [refused.output, banner.await] {
        assert!(!output.contains("secret"), "{output}");
    }
}
