//! The names that the log has had.

use sqlx::SqliteConnection;

use super::failure::Failure;
use super::rows::{self, from_sql, to_sql};
use super::writer::Writer;
use crate::domain::{Cursor, Epoch};
use crate::store::{EpochStart, LogHead, StoreError};

const RENEW: &str = "
    INSERT INTO epochs (number, epoch, parent, fork, start_time)
        SELECT max(number) + 1, $1, $2, $3, $4
        FROM epochs;
    UPDATE log_head
    SET epoch = $1, fence = fence + 1
    WHERE partition = 0;
    UPDATE producers
    SET fence = (SELECT fence FROM log_head WHERE partition = 0)";

impl Writer {
    pub(super) async fn renew_epoch(&mut self, epoch: Epoch) -> Result<LogHead, StoreError> {
        self.begin_epoch(epoch, None).await
    }

    pub(super) async fn fork_epoch(&mut self, epoch: Epoch, common: Cursor) -> Result<LogHead, StoreError> {
        self.begin_epoch(epoch, Some(common)).await
    }

    async fn begin_epoch(&mut self, epoch: Epoch, common: Option<Cursor>) -> Result<LogHead, StoreError> {
        self.begin().await?;
        let renewed = self.write_epoch(epoch, common).await;
        self.end(renewed).await?;
        self.producers.clear();
        self.head = None;
        match self.head().await {
            Ok(head) => Ok(head.log),
            Err(failure) => Err(self.undo(failure).await),
        }
    }

    async fn write_epoch(&mut self, epoch: Epoch, common: Option<Cursor>) -> Result<(), Failure> {
        let now = self.clock.now();
        let connection = self.connection().await?;
        let head = rows::read_head(connection).await?.log;
        if head.epoch == epoch || common.is_some_and(|common| common.epoch != head.epoch) {
            return Ok(());
        }
        let fork = common.map_or(head.position, |common| common.position.min(head.position));
        sqlx::query(RENEW)
            .bind(to_sql(epoch.0)) // $1 epoch
            .bind(to_sql(head.epoch.0)) // $2 parent
            .bind(to_sql(fork)) // $3 fork
            .bind(now.nanos()) // $4 start_time
            .execute(connection)
            .await?;
        Ok(())
    }
}

#[derive(sqlx::FromRow)]
struct EpochRow {
    number: i64,
    epoch: i64,
    parent: Option<i64>,
    fork: i64,
    start_time: i64,
}

/// All of them, the newest first.
pub(super) async fn list(connection: &mut SqliteConnection) -> Result<Vec<EpochStart>, Failure> {
    let rows: Vec<EpochRow> =
        sqlx::query_as("SELECT number, epoch, parent, fork, start_time FROM epochs ORDER BY number DESC")
            .fetch_all(connection)
            .await?;
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
