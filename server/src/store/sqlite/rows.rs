//! What rows hold, as values of the domain. SQLite knows signed 64-bit numbers only: unsigned ones keep their bits.

use bytes::Bytes;
use sqlx::SqliteConnection;

use super::failure::Failure;
use crate::domain::{Epoch, UnixNanos};
use crate::store::{LogHead, StoreError};

/// The head row: what everybody sees of it, and what only the store needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) log: LogHead,
    /// The greatest version that dropped a chunk whose row is gone.
    pub(super) manifest_floor: u64,
}

pub(super) fn to_sql(number: u64) -> i64 {
    number.cast_signed()
}

pub(super) fn from_sql(number: i64) -> u64 {
    number.cast_unsigned()
}

/// A row holds what no version of this program writes.
pub(super) fn damaged(table: &'static str, row: impl Into<String>, problem: &str) -> Failure {
    StoreError::Corrupt { table, row: row.into(), problem: problem.to_owned() }.into()
}

pub(super) fn time_from_sql(nanos: i64, table: &'static str, row: i64) -> Result<UnixNanos, Failure> {
    UnixNanos::new(nanos).map_err(|_| damaged(table, row.to_string(), "a time lies before 1970"))
}

pub(super) fn count_from_sql(count: i64, table: &'static str, row: i64) -> Result<u32, Failure> {
    u32::try_from(count).map_err(|_| damaged(table, row.to_string(), "a count is negative or too large"))
}

pub(super) fn array_from_sql<const N: usize>(
    bytes: Vec<u8>,
    table: &'static str,
    row: i64,
) -> Result<[u8; N], Failure> {
    bytes.try_into().map_err(|_| damaged(table, row.to_string(), "a digest has another length"))
}

#[derive(sqlx::FromRow)]
struct HeadRow {
    epoch: i64,
    position: i64,
    chain: Vec<u8>,
    append_time: i64,
    oldest: i64,
    hot_floor: i64,
    log_bytes: i64,
    manifest_version: i64,
    manifest_floor: i64,
}

const READ_HEAD: &str = "
    SELECT epoch, position, chain, append_time, oldest, hot_floor, log_bytes, manifest_version, manifest_floor
    FROM log_head
    WHERE partition = 0";

pub(super) async fn read_head(connection: &mut SqliteConnection) -> Result<Head, Failure> {
    let row: Option<HeadRow> = sqlx::query_as(READ_HEAD).fetch_optional(connection).await?;
    let row = row.ok_or_else(|| damaged("log_head", "partition 0", "the row is missing"))?;
    Ok(Head {
        log: LogHead {
            epoch: Epoch(from_sql(row.epoch)),
            position: from_sql(row.position),
            chain: array_from_sql(row.chain, "log_head", 0)?,
            append_time: time_from_sql(row.append_time, "log_head", 0)?,
            oldest: from_sql(row.oldest),
            hot_floor: from_sql(row.hot_floor),
            log_bytes: from_sql(row.log_bytes),
            manifest_version: from_sql(row.manifest_version),
        },
        manifest_floor: from_sql(row.manifest_floor),
    })
}

/// Opens a transaction that sees one state of the file, whatever is written meanwhile.
pub(super) async fn begin_reading(connection: &mut SqliteConnection) -> Result<(), Failure> {
    sqlx::query("BEGIN DEFERRED").execute(connection).await?;
    Ok(())
}

/// Ends what [`begin_reading`] began. After an error the connection is thrown away instead.
pub(super) async fn end_reading(connection: &mut SqliteConnection) -> Result<(), Failure> {
    sqlx::query("COMMIT").execute(connection).await?;
    Ok(())
}

pub(super) async fn ping(connection: &mut SqliteConnection) -> Result<(), Failure> {
    sqlx::query("SELECT position FROM log_head WHERE partition = 0").fetch_one(connection).await?;
    Ok(())
}

/// Bytes for a statement. The driver wants bytes of its own.
pub(super) fn blob(bytes: &Bytes) -> Vec<u8> {
    bytes.to_vec()
}
