//! What is published, as a file has it: files of older servers, other programs that read, damage.

use std::borrow::Cow;
use std::ops::Range;

use sqlx::Connection as _;
use sqlx::migrate::Migrator;

use super::*;
use crate::domain::date::LAST_DAY;
use crate::domain::{InstrumentDetails, InstrumentId, Published, PublishedBar, PublishedBarKey};
use crate::store::sqlite::open::MIGRATIONS;
use crate::store::{Ignored, Reject, RunId, StoreError};

const DAYS: Range<u32> = 0..LAST_DAY + 1;

fn bar() -> PublishedBar {
    let decimal = |text: &str| text.parse().unwrap();
    PublishedBar {
        key: PublishedBarKey { day: 19_944, market: 10, term: 0 },
        open: decimal("36.50"),
        high: decimal("37.4"),
        low: decimal("36.2"),
        average: decimal("36.87"),
        close: decimal("37"),
        bid: decimal("37"),
        ask: decimal("37.06"),
        trade_count: 41_234,
        quantity: decimal("36512300"),
        value: decimal("1346208501.23"),
        strike: decimal("0"),
        strike_points: decimal("0"),
        expiry_day: LAST_DAY,
        quote_factor: 1,
        board: "02".into(),
        strike_correction: "".into(),
        distribution: "114".into(),
    }
}

/// Writes past the run's mark, which the conformance suite is about.
async fn publish(store: &SqliteStore) {
    let details = InstrumentDetails {
        day: 19_944,
        isin: "BRPETRACNPR6".into(),
        issuer: "PETROBRAS".into(),
        share_class: "PN".into(),
        currency: "R$".into(),
    };
    let published = Published { bars: vec![(InstrumentId(1), bar())], details: vec![(InstrumentId(1), details)] };
    let stored = store.write(move |writer| {
        Box::pin(async move {
            writer.begin().await?;
            let connection = writer.connection().await.unwrap();
            let stored = crate::store::sqlite::published::store(connection, &published).await;
            writer.end(stored).await
        })
    });
    stored.await.unwrap();
}

#[tokio::test]
async fn file_of_the_first_servers_is_brought_up_to_date_with_its_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let first = Migrator { migrations: Cow::Owned(vec![MIGRATIONS.migrations[0].clone()]), ..Migrator::DEFAULT };
    let mut connection = SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await.unwrap();
    first.run_direct(None, &mut connection, false).await.unwrap();
    let rows = "
        INSERT INTO runs VALUES (1, 'r', zeroblob(32), zeroblob(32), 1, x'', 'a.csv', 9, 9, '', 0, 2, 7, 0,
            1, 9, 5, 3, 1, 5, NULL, NULL, 0, 1);
        INSERT INTO run_rejects VALUES (1, 4, 'price: not a number', 'V,S,1,NaN')";
    sqlx::query(rows).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let store = open(&path).await.unwrap();
    let run = store.run(&RunId::new("r").unwrap()).await.unwrap().unwrap();
    assert_eq!((run.progress.lines, run.progress.published, run.progress.ignored), (9, 0, Ignored::default()));
    let reject = Reject {
        line: 4,
        code: "FIELD_INVALID".into(),
        reason: "price: not a number".to_owned(),
        text: "V,S,1,NaN".to_owned(),
    };
    assert_eq!(store.rejects(&run.run.id, 0, 10).await.unwrap(), [reject]);
    publish(&store).await;
    assert_eq!(store.published_bars(InstrumentId(1), DAYS, None, 10).await.unwrap(), [bar()]);
}

#[tokio::test]
async fn other_programs_read_days_and_prices_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    publish(&open(&path).await.unwrap()).await;
    let mut connection = outside(&path, true).await;
    let read =
        "SELECT date(day * 86400, 'unixepoch'), open, value, CAST(close AS REAL), date(expiry_day * 86400, 'unixepoch')
        FROM published_bars";
    let found: (String, String, String, f64, String) = sqlx::query_as(read).fetch_one(&mut connection).await.unwrap();
    let expected = ("2024-08-09".into(), "36.5".into(), "1346208501.23".into(), 37.0, "9999-12-31".into());
    assert_eq!(found, expected);
}

#[tokio::test]
async fn damaged_rows_are_named_and_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = open(&path).await.unwrap();
    let mut connection = outside(&path, false).await;
    for damage in
        ["close = 'high'", "close = ''", "market = 65536", "term = 65536", "day = 4294967296", "quote_factor = 1 << 40"]
    {
        publish(&store).await;
        sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE published_bars SET {damage}")))
            .execute(&mut connection)
            .await
            .unwrap();
        match store.published_bars(InstrumentId(1), 0..u32::MAX, None, 10).await {
            Err(StoreError::Corrupt { table: "published_bars", row, .. }) => assert!(row.starts_with("1/"), "{row}"),
            // A day past all others lies in no range.
            Ok(bars) => assert!(bars.is_empty() && damage.starts_with("day"), "{damage}"),
            Err(other) => panic!("{damage}: {other:?}"),
        }
        sqlx::query("DELETE FROM published_bars").execute(&mut connection).await.unwrap();
    }
    sqlx::query("UPDATE instrument_details SET day = 1 << 40").execute(&mut connection).await.unwrap();
    let told = store.instrument_details(&[InstrumentId(1)]).await;
    assert!(matches!(told, Err(StoreError::Corrupt { table: "instrument_details", .. })), "{told:?}");
}
