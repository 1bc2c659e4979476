//! What rows hold, as values of the domain. Postgres knows signed 64-bit numbers only: unsigned ones keep their bits.

use sqlx::{Connection as _, PgConnection};

use super::failure::Failure;
use crate::domain::{Epoch, UnixNanos};
use crate::store::{LogHead, StoreError};

pub(super) fn to_sql(number: u64) -> i64 {
    number.cast_signed()
}

/// A bound or a number to compare: what is too large for Postgres is larger than anything it holds.
pub(super) fn to_sql_at_most(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(number: i64) -> u64 {
    number.cast_unsigned()
}

/// Text that clients made. Text in Postgres holds no U+0000.
pub(super) fn text_to_sql(text: &str) -> String {
    text.replace('\\', r"\\").replace('\0', r"\0")
}

/// Reads [`text_to_sql`].
pub(super) fn text_from_sql(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        out.push(match character {
            '\\' => match characters.next() {
                Some('0') => '\0',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    out
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

/// The head row, as far as everybody sees it.
#[derive(sqlx::FromRow)]
pub(super) struct HeadRow {
    epoch: i64,
    position: i64,
    chain: Vec<u8>,
    append_time: i64,
    oldest: i64,
    hot_floor: i64,
    log_bytes: i64,
    manifest_version: i64,
}

impl HeadRow {
    pub(super) fn into_head(self) -> Result<LogHead, Failure> {
        Ok(LogHead {
            epoch: Epoch(from_sql(self.epoch)),
            position: from_sql(self.position),
            chain: array_from_sql(self.chain, "log_head", 0)?,
            append_time: time_from_sql(self.append_time, "log_head", 0)?,
            oldest: from_sql(self.oldest),
            hot_floor: from_sql(self.hot_floor),
            log_bytes: from_sql(self.log_bytes),
            manifest_version: from_sql(self.manifest_version),
        })
    }
}

pub(super) fn head_missing() -> Failure {
    damaged("log_head", "partition 0", "the row is missing")
}

/// Opens a transaction that sees one state of the database, whatever is written meanwhile. Inside the one that begins each
/// piece of work where connections are handed out by transaction, it is that one, of which nothing was asked yet.
pub(super) async fn begin_reading(connection: &mut PgConnection) -> Result<(), Failure> {
    let begin = if connection.is_in_transaction() {
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    } else {
        "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    };
    sqlx::query(begin).execute(connection).await?;
    Ok(())
}

/// Ends what [`begin_reading`] began. After an error the connection is thrown away instead.
pub(super) async fn end_reading(connection: &mut PgConnection) -> Result<(), Failure> {
    if !connection.is_in_transaction() {
        sqlx::query("COMMIT").execute(connection).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_kind_comes_back() {
        for text in ["", "plain", "\0", r"\", r"\0", "a\\\0b\\\\0\0\\", "\u{2603}\\"] {
            let stored = text_to_sql(text);
            assert!(!stored.contains('\0'));
            assert_eq!(text_from_sql(&stored), text);
        }
    }
}
