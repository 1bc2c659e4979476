//! The table of bars, which other programs read.

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::failure::Failure;
use super::rows::{from_sql, to_sql};
use super::writer::Writer;
use crate::domain::Epoch;
use crate::store::{BarKey, BarRow, BarsChange, BarsMark, StoreError, faults};

/// Rows of one statement: 12 values each stay below SQLite's bound of 32,766, and full ones share their text.
const ROWS: usize = 500;

#[derive(sqlx::FromRow)]
struct MarkRow {
    version: i64,
    epoch: Option<i64>,
    position: Option<i64>,
}

/// Where the table stands.
pub(super) async fn mark(connection: &mut SqliteConnection) -> Result<BarsMark, Failure> {
    let row: MarkRow = sqlx::query_as("SELECT version, epoch, position FROM bars_mark WHERE partition = 0")
        .fetch_one(connection)
        .await?;
    Ok(BarsMark {
        version: from_sql(row.version),
        epoch: row.epoch.map(|epoch| Epoch(from_sql(epoch))),
        position: row.position.map(from_sql),
    })
}

const MOVE_MARK: &str = "
    UPDATE bars_mark
    SET version = version + 1, epoch = $1, position = $2
    WHERE partition = 0 AND version = $3";

const FORGET: &str = "
    DELETE FROM bars
    WHERE revision > $1";

const REMOVE: &str = "
    DELETE FROM bars
    WHERE instrument_id = $1 AND interval_seconds = $2 AND start = $3";

impl Writer {
    pub(super) async fn record_bars(&mut self, change: BarsChange) -> Result<bool, StoreError> {
        self.faults.hit(faults::BARS_BEFORE).await?;
        self.begin().await?;
        let recorded = self.change_bars(change).await;
        let recorded = self.end(recorded).await?;
        self.faults.hit(faults::BARS_AFTER).await?;
        Ok(recorded)
    }

    async fn change_bars(&mut self, change: BarsChange) -> Result<bool, Failure> {
        let BarsChange { epoch, version, position, forget_above, gone, rows } = change;
        let current = self.head().await?.log.epoch;
        if current != epoch {
            return Err(StoreError::EpochChanged(current).into());
        }
        let connection = self.connection().await?;
        let moved = sqlx::query(MOVE_MARK)
            .bind(to_sql(epoch.0)) // $1 epoch
            .bind(position.map(to_sql)) // $2 position
            .bind(to_sql(version)) // $3 the version that is expected
            .execute(&mut *connection)
            .await?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        if let Some(above) = forget_above {
            sqlx::query(FORGET)
                .bind(i64::try_from(above).unwrap_or(i64::MAX)) // $1 revision
                .execute(&mut *connection)
                .await?;
        }
        for key in &gone {
            sqlx::query(REMOVE)
                .bind(i64::from(key.instrument.0)) // $1 instrument_id
                .bind(key.interval.seconds()) // $2 interval_seconds
                .bind(key.start_seconds()) // $3 start
                .execute(&mut *connection)
                .await?;
        }
        for part in rows.chunks(ROWS) {
            // Only full statements come again: the others are not worth a place in the connection's memory.
            put(part).build().persistent(part.len() == ROWS).execute(&mut *connection).await?;
        }
        Ok(true)
    }
}

const INSERT: &str = "
    INSERT INTO bars (
            instrument_id, interval_seconds, start, open, high, low, close, volume, notional, trade_count,
            revision, has_gap
        ) ";

const REPLACE: &str = "
        ON CONFLICT DO UPDATE SET
            open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
            volume = excluded.volume, notional = excluded.notional, trade_count = excluded.trade_count,
            revision = excluded.revision, has_gap = excluded.has_gap
            WHERE bars.revision <= excluded.revision";

/// The statement of some bars: its text depends on their number alone.
fn put(rows: &[BarRow]) -> QueryBuilder<Sqlite> {
    let mut statement = QueryBuilder::new(INSERT);
    statement.push_values(rows, |mut columns, row| {
        let BarRow { key, open, high, low, close, volume, notional, trade_count, revision, has_gap } = row;
        let BarKey { instrument, interval, .. } = key;
        // In the order of the columns.
        columns.push_bind(i64::from(instrument.0));
        columns.push_bind(interval.seconds());
        columns.push_bind(key.start_seconds());
        for price in [open, high, low, close] {
            columns.push_bind(price.to_string());
        }
        columns.push_bind(volume.clone());
        columns.push_bind(notional.clone());
        columns.push_bind(to_sql(*trade_count));
        columns.push_bind(to_sql(*revision));
        columns.push_bind(*has_gap);
    });
    statement.push(REPLACE);
    statement
}
