//! The task that owns the writing connection.
//!
//! Every change is one transaction: [`Writer::begin`] (`BEGIN IMMEDIATE`), statements, [`Writer::end`]. Whatever fails
//! on the way rolls back and makes the writer forget what it remembered of the file; a connection that may be broken is
//! thrown away and opened again.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Job;
use super::failure::{self, Failure};
use super::rows::{self, Head};
use crate::domain::Clock;
use crate::store::faults::Faults;
use crate::store::marks::ProducerState;
use crate::store::{ProducerId, StoreError};

/// The first wait before a connection that could not be opened is tried again; doubled each time.
const REOPEN_AFTER: Duration = Duration::from_millis(50);
/// The longest such wait.
const REOPEN_AFTER_AT_MOST: Duration = Duration::from_secs(5);

/// Owner of the writing connection, of the server's lock on the file, and of what it remembers of the file.
pub(super) struct Writer {
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    reopen: Reopen,
    closing: bool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) faults: Faults,
    /// The head as the last commit left it. This task is the only writer, and the append's statements check it again.
    pub(super) head: Option<Head>,
    /// Producers as the last commit left them, at most [`super::producers::REMEMBERED`].
    pub(super) producers: HashMap<ProducerId, ProducerState>,
    /// Keeps other servers off, as long as there is a connection.
    lock: Option<File>,
}

/// When a connection may be opened again.
struct Reopen {
    not_before: Instant,
    failures: u32,
    random: SmallRng,
}

impl Writer {
    pub(super) fn new(
        options: SqliteConnectOptions,
        connection: SqliteConnection,
        lock: File,
        clock: Arc<dyn Clock>,
        faults: Faults,
        seed: u64,
    ) -> Writer {
        let reopen = Reopen { not_before: Instant::now(), failures: 0, random: SmallRng::seed_from_u64(seed) };
        Writer {
            options,
            connection: Some(connection),
            reopen,
            closing: false,
            clock,
            faults,
            head: None,
            producers: HashMap::new(),
            lock: Some(lock),
        }
    }

    /// Does jobs until the store is closed or dropped.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while !self.closing {
            match jobs.recv().await {
                Some(job) => job(&mut self).await,
                None => self.closing = true,
            }
        }
        self.release().await;
    }

    /// Closes the connection, then gives the lock back.
    async fn release(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the writing connection of the embedded store did not close");
        }
        self.lock = None;
    }

    /// The connection, opened again if the last one broke.
    pub(super) async fn connection(&mut self) -> Result<&mut SqliteConnection, Failure> {
        if self.connection.is_none() {
            if Instant::now() < self.reopen.not_before {
                return Err(StoreError::Unavailable("the database is being opened again".to_owned()).into());
            }
            match self.options.connect().await {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.reopen.failures = 0;
                }
                Err(error) => {
                    self.reopen.wait();
                    return Err(error.into());
                }
            }
        }
        Ok(self.connection.as_mut().expect("it was opened above"))
    }

    /// Opens a transaction that may write.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        let begun = match self.connection().await {
            Ok(connection) => sqlx::query("BEGIN IMMEDIATE").execute(connection).await,
            Err(failure) => return Err(failure.into_error()),
        };
        match begun {
            Ok(_) => Ok(()),
            Err(error) => Err(self.undo(error.into()).await),
        }
    }

    /// Commits what succeeded and undoes what did not.
    pub(super) async fn end<T>(&mut self, outcome: Result<T, Failure>) -> Result<T, StoreError> {
        let outcome = match outcome {
            Ok(value) => self.commit().await.map(|()| value),
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(value) => Ok(value),
            Err(failure) => Err(self.undo(failure).await),
        }
    }

    pub(super) async fn commit(&mut self) -> Result<(), Failure> {
        sqlx::query("COMMIT").execute(self.connection().await?).await?;
        Ok(())
    }

    /// After a failure: no transaction is open, nothing is remembered, and the connection is a sound one.
    pub(super) async fn undo(&mut self, failure: Failure) -> StoreError {
        self.head = None;
        self.producers.clear();
        if let Some(mut connection) = self.connection.take() {
            let rolled_back = match sqlx::query("ROLLBACK").execute(&mut connection).await {
                Ok(_) => true,
                Err(error) => failure::was_rolled_back(&error),
            };
            if rolled_back && failure.spares_connection() {
                self.connection = Some(connection);
            } else {
                tracing::warn!("the writing connection of the embedded store is opened again");
            }
        }
        failure.into_error()
    }

    /// The head, remembered or read.
    pub(super) async fn head(&mut self) -> Result<Head, Failure> {
        if let Some(head) = self.head {
            return Ok(head);
        }
        let head = rows::read_head(self.connection().await?).await?;
        self.head = Some(head);
        Ok(head)
    }

    /// Loses the connection.
    #[cfg(test)]
    pub(super) async fn break_connection(&mut self) -> Result<(), StoreError> {
        self.connection = None;
        Ok(())
    }

    /// Moves everything from the write-ahead log into the database, and ends the task.
    pub(super) async fn close(&mut self) -> Result<(), StoreError> {
        self.closing = true;
        if let Some(connection) = &mut self.connection
            && let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(connection).await
        {
            // Nothing is lost: the next opening finds the write-ahead log.
            tracing::warn!(%error, "the checkpoint at the end failed");
        }
        self.release().await;
        Ok(())
    }
}

impl Reopen {
    /// Waits longer after each failure, with jitter.
    fn wait(&mut self) {
        let longest = REOPEN_AFTER.saturating_mul(1 << self.failures.min(16)).min(REOPEN_AFTER_AT_MOST);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + longest.mul_f64(self.random.random_range(0.5..1.0));
    }
}
