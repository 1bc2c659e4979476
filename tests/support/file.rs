//! A store file, looked at from outside while the server may run: the tables of `migrations/sqlite`, read-only.

use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _, SqliteConnection};

/// A read-only connection to a store file.
#[derive(Debug)]
pub struct StoreFile {
    connection: SqliteConnection,
}

/// What is in chunks and what is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The position of the last entry of the log.
    pub head: u64,
    /// The smallest position that is not in chunks.
    pub hot_floor: u64,
    /// Chunks that count.
    pub live: u64,
    /// Those of them that hold late ticks.
    pub late: u64,
    /// Chunks that others have replaced.
    pub dropped: u64,
}

impl Compaction {
    /// Whether every tick is in a chunk.
    pub fn is_complete(self) -> bool {
        self.hot_floor == self.head + 1
    }
}

impl StoreFile {
    /// Opens a file that has a store.
    pub async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        let connection =
            SqliteConnectOptions::new().filename(path).read_only(true).disable_statement_logging().connect().await?;
        Ok(Self { connection })
    }

    /// How far compaction is.
    pub async fn compaction(&mut self) -> Result<Compaction, sqlx::Error> {
        let row = sqlx::query(
            "SELECT position, hot_floor,
                (SELECT count(*) FROM chunks WHERE dropped_version IS NULL),
                (SELECT count(*) FROM chunks WHERE dropped_version IS NULL AND late = 1),
                (SELECT count(*) FROM chunks WHERE dropped_version IS NOT NULL)
            FROM log_head",
        )
        .fetch_one(&mut self.connection)
        .await?;
        let number = |index: usize| row.get::<i64, _>(index) as u64;
        Ok(Compaction { head: number(0), hot_floor: number(1), live: number(2), late: number(3), dropped: number(4) })
    }

    /// How many ticks the newest run has stored; `None` without a run.
    pub async fn newest_run_ticks(&mut self) -> Result<Option<u64>, sqlx::Error> {
        let ticks = sqlx::query_scalar::<_, i64>("SELECT ticks FROM runs ORDER BY number DESC LIMIT 1")
            .fetch_optional(&mut self.connection)
            .await?;
        Ok(ticks.map(|ticks| ticks as u64))
    }
}
