//! What the README's section "Production" promises of standbys, backups and sizes, and its commands.

use std::path::Path;
use std::time::Duration;

use tapefeed_proto::v1 as proto;
use tapefeed_tests::process::{self, installed};
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::scrape::Scrape;
use tapefeed_tests::{Database, Options, Publisher, Server, Stubs, eventually, within};
use tonic::Code;

use crate::live::{Subscription, after, ids, request, trades};

/// How long something of the database's may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn execute(database: &Database, statements: &[&'static str]) {
    let mut connection = database.connect().await;
    for statement in statements {
        sqlx::query(*statement).execute(&mut connection).await.expect("a superuser may");
    }
}

async fn count(stubs: &Stubs, symbol: &str) -> u64 {
    let request = proto::GetPriceStatisticsRequest { symbol: symbol.to_owned(), ..Default::default() };
    stubs.history.clone().get_price_statistics(request).await.expect("known").into_inner().tick_count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_synchronous_standby_nothing_is_acknowledged_that_its_promotion_would_lose() {
    let Some(primary) = Database::start() else { return };
    let standby = primary.standby();
    let synchronous = [
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
        "ALTER SYSTEM SET synchronous_commit = 'on'",
        "SELECT pg_reload_conf()",
    ];
    execute(&primary, &synchronous).await;
    let mut server = Server::start(primary.options()).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    publisher.rows(trades("BOTH", 0..10)).await.expect("both have it");

    // Without the standby nothing is acknowledged; reads go on.
    standby.crash().await;
    let refused = within("a refusal", PATIENCE, publisher.rows(trades("BOTH", 10..20))).await;
    assert_eq!(refused.expect_err("one disk is not enough").code(), Code::Unavailable);
    assert_eq!(count(&stubs, "BOTH").await, 10);
    standby.again().await;
    let batch = trades("BOTH", 10..20);
    let acknowledged = eventually("an acknowledgement", PATIENCE, async || {
        let mut publisher = Publisher::claim(&stubs, "feed").await.ok()?;
        match publisher.grant.last_batch_seq {
            // What was given up may have been stored all the same: then its number says so.
            2 => Some(None),
            _ => Some(Some(publisher.rows(batch.clone()).await.ok()?)),
        }
    })
    .await;
    let last = acknowledged.map(|ack| ack.cursor);

    primary.crash().await;
    standby.promote().await;
    execute(&standby, &["ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()"]).await;
    server.terminate().await;
    server.options_mut().database = Some(standby.url().to_owned());
    server.restart().await;
    let stubs = server.stubs().await;
    assert_eq!(count(&stubs, "BOTH").await, 20, "all that was acknowledged");
    if let Some(last) = last {
        let resumed = Subscription::open(&stubs, request("*", after(&last))).await;
        assert!(resumed.is_ok(), "a cursor of the old epoch at its end is good: {:?}", resumed.err());
    }
}

/// Runs a program of Postgres, which must succeed.
async fn run(program: &Path, arguments: &[&str]) {
    let output = process::command(program, Path::new("/tmp")).args(arguments).output();
    let output = within("a program of Postgres", PATIENCE, output).await.expect("it can be started");
    assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_dump_serves_its_part_under_a_new_epoch_and_refuses_cursors_of_the_rest() {
    let Some(database) = Database::start() else { return };
    let programs = [installed("pg_dump"), installed("createdb"), installed("pg_restore")];
    let [Some(pg_dump), Some(createdb), Some(pg_restore)] = programs else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let dump = folder.path().join("tapefeed.dump").display().to_string();
    let server = Server::start(database.options().argument("--compact-age=100ms")).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let kept = publisher.rows(trades("DUMP", 0..20)).await.expect("stored");
    run(&pg_dump, &["--format=custom", &format!("--file={dump}"), database.url()]).await;
    let lost = publisher.rows(trades("DUMP", 20..30)).await.expect("stored");

    let maintenance = format!("--maintenance-db={}", database.url());
    run(&createdb, &[&maintenance, "--encoding=UTF8", "--template=template0", "restored"]).await;
    let restored = database.url().replacen("/postgres?", "/restored?", 1);
    run(&pg_restore, &[&format!("--dbname={restored}"), &dump]).await;
    let renew = process::command(&process::binary("tapefeed-server"), folder.path())
        .args(["epoch", "renew", "--store", &restored])
        .output();
    let renewed = within("epoch renew", PATIENCE, renew).await.expect("it can be started");
    assert!(renewed.status.success(), "{renewed:?}");
    assert!(String::from_utf8_lossy(&renewed.stdout).contains("from position 20 on"), "{renewed:?}");

    let copy = Server::start(Options::serve().database(&restored)).await;
    let stubs = copy.stubs().await;
    assert_eq!(count(&stubs, "DUMP").await, 20);
    let refused =
        Subscription::open(&stubs, request("*", after(&lost.cursor))).await.err().expect("it is not in there");
    assert_eq!(Refusal::of(&refused).reason, "EPOCH_CHANGED");
    let mut resumed = Subscription::open(&stubs, request("*", after(&kept.cursor))).await.expect("it is in there");
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    assert_eq!(publisher.grant.last_batch_seq, 1);
    publisher.rows(trades("DUMP", 40..45)).await.expect("stored");
    assert_eq!(ids(&resumed.ticks(5).await), (40..45).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_size_of_a_database_is_measured_and_its_disk_where_the_operator_says_how_large_it_is() {
    let Some(database) = Database::start() else { return };
    let server = Server::start(database.options().argument("--store-space=64GiB")).await;
    let scrape = eventually("the size is known", PATIENCE, async || {
        let scrape = Scrape::of(server.address()).await;
        scrape.series.contains_key("tapefeed_store_size_bytes").then_some(scrape)
    })
    .await;
    let (size, wal) = (scrape.value("tapefeed_store_size_bytes"), scrape.value("tapefeed_store_wal_bytes"));
    assert!(size > 1e6 && wal >= 16e6, "{size} {wal}");
    let space = (64u64 << 30) as f64;
    assert_eq!(scrape.value("tapefeed_store_disk_size_bytes"), space);
    assert_eq!(scrape.value("tapefeed_store_disk_free_bytes"), space - size - wal);
}
