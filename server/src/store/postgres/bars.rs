//! The table of bars, which other programs read.

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::failure::Failure;
use super::rows::{damaged, from_sql, to_sql, to_sql_at_most};
use super::terms::Terms;
use crate::domain::Epoch;
use crate::store::{BarKey, BarRow, BarsChange, BarsMark, StoreError};

#[derive(sqlx::FromRow)]
struct MarkRow {
    version: i64,
    epoch: Option<i64>,
    position: Option<i64>,
}

/// Where the table stands.
pub(super) async fn mark(connection: &mut PgConnection) -> Result<BarsMark, Failure> {
    let row: MarkRow = sqlx::query_as("SELECT version, epoch, position FROM bars_mark WHERE partition = 0")
        .fetch_one(connection)
        .await?;
    Ok(BarsMark {
        version: from_sql(row.version),
        epoch: row.epoch.map(|epoch| Epoch(from_sql(epoch))),
        position: row.position.map(from_sql),
    })
}

const RECORD: &str = "
    SELECT outcome, log_epoch
    FROM record_bars($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// Changes the table; false if another version was expected.
pub(super) async fn record(connection: &mut PgConnection, change: BarsChange, terms: Terms) -> Result<bool, Failure> {
    let BarsChange { epoch, version, position, forget_above, gone, rows } = change;
    let ids: Vec<i64> = gone.iter().map(|key| i64::from(key.instrument.0)).collect();
    let intervals: Vec<i64> = gone.iter().map(|key| key.interval.seconds()).collect();
    let starts: Vec<i64> = gone.iter().map(BarKey::start_seconds).collect();
    let (outcome, log_epoch): (i32, i64) = sqlx::query_as(RECORD)
        .bind(terms.check_identity) // $1 whether the database's identity is checked
        .bind(terms.new_epoch) // $2 name of an epoch that would begin
        .bind(terms.now) // $3 the time, or NULL
        .bind(to_sql(epoch.0)) // $4 the log that the bars are of
        .bind(to_sql_at_most(version)) // $5 the version that is expected
        .bind(position.map(to_sql_at_most)) // $6 position of the mark, or NULL
        .bind(forget_above.map(to_sql_at_most)) // $7 rows of a greater revision go; NULL for none
        .bind(ids) // $8 instrument_id of rows that go
        .bind(intervals) // $9 interval_seconds of each
        .bind(starts) // $10 start of each
        .bind(to_json(&rows)) // $11 rows that come
        .fetch_one(connection)
        .await?;
    match outcome {
        0 => Ok(true),
        1 => Ok(false),
        2 => Err(StoreError::EpochChanged(Epoch(from_sql(log_epoch))).into()),
        _ => Err(damaged("bars", "all", "record_bars answers what this program does not know")),
    }
}

/// Rows for `record_bars`. Decimals are strings, which the database reads exactly.
fn to_json(rows: &[BarRow]) -> String {
    let row = |row: &BarRow| {
        let BarRow { key, open, high, low, close, volume, notional, trade_count, revision, has_gap } = row;
        json!({
            "instrument_id": key.instrument.0,
            "interval_seconds": key.interval.seconds(),
            "start": key.start_seconds(),
            "open": open.to_string(),
            "high": high.to_string(),
            "low": low.to_string(),
            "close": close.to_string(),
            "volume": volume,
            "notional": notional,
            "trade_count": to_sql(*trade_count),
            "revision": to_sql(*revision),
            "has_gap": has_gap,
        })
    };
    Value::Array(rows.iter().map(row).collect()).to_string()
}
