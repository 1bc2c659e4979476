//! A store, looked at from outside while the server may run: the tables of `migrations/`, only read.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection, Row as _, SqliteConnection};

use crate::database;
use crate::server::Server;

/// A connection to a store of either kind.
#[derive(Debug)]
pub enum StoreFile {
    /// Read-only, to a file.
    Sqlite(Box<SqliteConnection>),
    /// To a database.
    Postgres(Box<PgConnection>),
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
    /// Opens a server's store, if there is one.
    pub async fn of(server: &Server) -> Result<Self, sqlx::Error> {
        if let Some(url) = server.database() {
            return Ok(Self::Postgres(Box::new(database::connect(url).await?)));
        }
        let options = SqliteConnectOptions::new().filename(server.store()).read_only(true).disable_statement_logging();
        Ok(Self::Sqlite(Box::new(options.connect().await?)))
    }

    /// The first row, all of whose columns are numbers.
    async fn numbers<const N: usize>(&mut self, sql: &'static str) -> Result<Option<[u64; N]>, sqlx::Error> {
        let mut numbers = [0; N];
        match self {
            Self::Sqlite(connection) => {
                let Some(row) = sqlx::query(sql).fetch_optional(&mut **connection).await? else { return Ok(None) };
                for (index, number) in numbers.iter_mut().enumerate() {
                    *number = row.try_get::<i64, _>(index)? as u64;
                }
            }
            Self::Postgres(connection) => {
                let Some(row) = sqlx::query(sql).fetch_optional(&mut **connection).await? else { return Ok(None) };
                for (index, number) in numbers.iter_mut().enumerate() {
                    *number = row.try_get::<i64, _>(index)? as u64;
                }
            }
        }
        Ok(Some(numbers))
    }

    /// How far compaction is.
    pub async fn compaction(&mut self) -> Result<Compaction, sqlx::Error> {
        let found = self.numbers(
            "SELECT position, hot_floor,
                (SELECT count(*) FROM chunks WHERE dropped_version IS NULL),
                (SELECT count(*) FROM chunks WHERE dropped_version IS NULL AND late),
                (SELECT count(*) FROM chunks WHERE dropped_version IS NOT NULL)
            FROM log_head",
        );
        let [head, hot_floor, live, late, dropped] = found.await?.ok_or(sqlx::Error::RowNotFound)?;
        Ok(Compaction { head, hot_floor, live, late, dropped })
    }

    /// The last batch of lines that the newest run has stored; `None` without a run.
    pub async fn newest_run_batch(&mut self) -> Result<Option<u64>, sqlx::Error> {
        let found = self.numbers("SELECT last_batch FROM runs ORDER BY number DESC LIMIT 1").await?;
        Ok(found.map(|[last_batch]| last_batch))
    }

    /// How many ticks the newest run has stored; `None` without a run.
    pub async fn newest_run_ticks(&mut self) -> Result<Option<u64>, sqlx::Error> {
        let found = self.numbers("SELECT ticks FROM runs ORDER BY number DESC LIMIT 1").await?;
        Ok(found.map(|[ticks]| ticks))
    }
}
