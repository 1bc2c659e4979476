//! Read-only connections.
//!
//! A read runs in a task of its own, so that a caller who goes away leaves no transaction half open.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::closed;
use super::failure::Failure;
use crate::store::StoreError;

/// How many reads run at once: each is a thread, and a page of the log or a manifest keeps a core busy.
const READERS: usize = 4;

/// A few connections, opened when they are first needed.
#[derive(Debug)]
pub(super) struct Readers {
    options: SqliteConnectOptions,
    permits: Arc<Semaphore>,
    /// Connections that nobody uses. Locked for a push or a pop.
    idle: Arc<Mutex<Vec<SqliteConnection>>>,
}

impl Readers {
    pub(super) fn new(options: SqliteConnectOptions) -> Readers {
        Readers { options, permits: Arc::new(Semaphore::new(READERS)), idle: Arc::default() }
    }

    /// Runs a read on a connection of its own. Work that reads more than one statement opens a transaction and commits
    /// it; a connection whose work failed is thrown away, and its transaction with it.
    pub(super) async fn read<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Failure>> + Send + 'static,
    {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| closed())?;
        let options = self.options.clone();
        let idle = self.idle.clone();
        let reading = async move {
            let waiting = pop(&idle);
            let mut connection = match waiting {
                Some(connection) => connection,
                None => options.connect().await?,
            };
            let answer = work(&mut connection).await?;
            push(&idle, connection);
            drop(permit);
            Ok(answer)
        };
        match tokio::spawn(reading.in_current_span()).await {
            Ok(answer) => answer.map_err(Failure::into_error),
            Err(error) => {
                tracing::error!(%error, "a read of the embedded store ended early");
                Err(StoreError::Unavailable("the read was cut off".to_owned()))
            }
        }
    }

    /// Waits for the reads under way and closes the connections. Later reads fail.
    pub(super) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(READERS as u32).await {
            self.permits.close();
            drop(all);
        }
        while let Some(connection) = pop(&self.idle) {
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "a reading connection of the embedded store did not close");
            }
        }
    }
}

fn pop(idle: &Mutex<Vec<SqliteConnection>>) -> Option<SqliteConnection> {
    idle.lock().expect("no code panics while it holds the connections").pop()
}

fn push(idle: &Mutex<Vec<SqliteConnection>>, connection: SqliteConnection) {
    idle.lock().expect("no code panics while it holds the connections").push(connection);
}
