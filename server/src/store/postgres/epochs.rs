//! The names that the log has had, and which replica looks after it.

use std::time::Duration;

use sqlx::PgConnection;

use super::failure::Failure;
use super::rows::{self, HeadRow, from_sql, to_sql, to_sql_at_most};
use super::terms::Terms;
use crate::domain::{Cursor, Epoch};
use crate::store::{EpochStart, LogHead, ReplicaId};

const RENEW: &str = "
    SELECT epoch, position, chain, append_time, oldest, hot_floor, log_bytes, manifest_version
    FROM renew_epoch($1, $2, $3)";

/// Begins the epoch that the terms name.
pub(super) async fn renew(connection: &mut PgConnection, terms: Terms) -> Result<LogHead, Failure> {
    let row: HeadRow = sqlx::query_as(RENEW)
        .bind(terms.check_identity) // $1 whether the database's identity is checked
        .bind(terms.new_epoch) // $2 the epoch
        .bind(terms.now) // $3 the time, or NULL
        .fetch_one(connection)
        .await?;
    row.into_head()
}

const FORK: &str = "
    SELECT epoch, position, chain, append_time, oldest, hot_floor, log_bytes, manifest_version
    FROM fork_epoch($1, $2, $3, $4, $5)";

/// Begins the epoch that the terms name, if that of `common` is still the current one.
pub(super) async fn fork(connection: &mut PgConnection, common: Cursor, terms: Terms) -> Result<LogHead, Failure> {
    let row: HeadRow = sqlx::query_as(FORK)
        .bind(terms.check_identity) // $1 whether the database's identity is checked
        .bind(terms.new_epoch) // $2 the epoch
        .bind(terms.now) // $3 the time, or NULL
        .bind(to_sql(common.epoch.0)) // $4 the epoch of those who saw more
        .bind(to_sql_at_most(common.position)) // $5 up to where they agree
        .fetch_one(connection)
        .await?;
    row.into_head()
}

/// Takes or prolongs the lease of the upkeep.
pub(super) async fn lead(
    connection: &mut PgConnection,
    replica: ReplicaId,
    lease: Duration,
    now: Option<i64>,
) -> Result<bool, Failure> {
    let led = sqlx::query_scalar("SELECT lead_upkeep($1, $2, $3)")
        .bind(now) // $1 the time, or NULL
        .bind(to_sql(replica.0)) // $2 holder
        .bind(i64::try_from(lease.as_nanos()).unwrap_or(i64::MAX / 2)) // $3 nanoseconds
        .fetch_one(connection)
        .await?;
    Ok(led)
}

#[derive(sqlx::FromRow)]
struct EpochRow {
    number: i64,
    epoch: i64,
    parent: Option<i64>,
    fork: i64,
    start_time: i64,
}

const LIST: &str = "
    SELECT number, epoch, parent, fork, start_time
    FROM epochs
    ORDER BY number DESC";

/// All of them, the newest first.
pub(super) async fn list(connection: &mut PgConnection) -> Result<Vec<EpochStart>, Failure> {
    let rows: Vec<EpochRow> = sqlx::query_as(LIST).fetch_all(connection).await?;
    let start = |row: EpochRow| {
        Ok(EpochStart {
            epoch: Epoch(from_sql(row.epoch)),
            parent: row.parent.map(|parent| Epoch(from_sql(parent))),
            fork: from_sql(row.fork),
            start_time: rows::time_from_sql(row.start_time, "epochs", row.number)?,
        })
    };
    rows.into_iter().map(start).collect()
}
