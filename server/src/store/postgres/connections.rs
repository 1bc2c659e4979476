//! Connections by use, and the tasks that work with them.
//!
//! Whatever is done with a connection is done in a task of its own, so that a caller who goes away interrupts nothing
//! and leaves nothing half open. A connection whose work failed is thrown away. Each piece of work has a deadline here,
//! beside the database's own, because a network that swallows packets tells nobody.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::failure::Failure;
use crate::store::StoreError;

/// How long a connection may take to be there.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// A connection that rested longer than this is asked whether it still works: a restart of the database, or a firewall,
/// may have ended it.
const TRUSTED_REST: Duration = Duration::from_secs(1);

/// How long the answer to that may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// The first wait before a database that refused a connection is tried again; doubled each time.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);

/// The longest such wait: a database that is back is found within it.
const RECONNECT_AFTER_AT_MOST: Duration = Duration::from_secs(1);

/// What each session is set to. The first ends statements that hang on a disk, the second those that wait for a lock,
/// the third frees what a client holds that went away inside a transaction, and the rest finds out that it did.
const SESSION: &str = "
    SET statement_timeout = '5s';
    SET lock_timeout = '2s';
    SET idle_in_transaction_session_timeout = '10s';
    SET default_transaction_isolation = 'read committed';
    SET jit = off;
    SET tcp_keepalives_idle = 15;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3";

/// What begins each piece of work where connections are handed out by transaction: the same settings for it alone. A
/// replica that freezes inside one holds what it has locked until the third ends it, so that comes earlier here.
const TRANSACTION: &str = "
    BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL statement_timeout = '5s';
    SET LOCAL lock_timeout = '2s';
    SET LOCAL idle_in_transaction_session_timeout = '3s';
    SET LOCAL jit = off";

/// How to reach the database, and whether that makes sense now. Shared by all connections of a store.
pub(super) struct Database {
    options: PgConnectOptions,
    /// Whether what stands between hands out connections by transaction.
    pooled: bool,
    /// Raised when a connection is lost: older ones are not used again.
    generation: AtomicU64,
    /// Locked for a look or a change.
    reconnect: Mutex<Reconnect>,
}

/// The driver's options would show the password.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// When the next connection may be tried.
#[derive(Debug)]
struct Reconnect {
    not_before: Instant,
    failures: u32,
    random: SmallRng,
}

impl Database {
    pub(super) fn new(options: PgConnectOptions, pooled: bool, seed: u64) -> Arc<Database> {
        let reconnect = Reconnect { not_before: Instant::now(), failures: 0, random: SmallRng::seed_from_u64(seed) };
        Arc::new(Database {
            options: options.disable_statement_logging(),
            pooled,
            generation: AtomicU64::new(0),
            reconnect: Mutex::new(reconnect),
        })
    }

    /// A new connection without settings of ours.
    pub(super) async fn connect_plain(&self) -> Result<PgConnection, Failure> {
        match tokio::time::timeout(CONNECT_DEADLINE, self.options.connect()).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(Failure::Silent(CONNECT_DEADLINE)),
        }
    }

    async fn connect(&self) -> Result<PgConnection, Failure> {
        if Instant::now() < self.reconnect().not_before {
            return Err(StoreError::Unavailable("the connection to the database is made again".to_owned()).into());
        }
        let connected = async {
            let mut connection = self.connect_plain().await?;
            if self.pooled {
                return Ok(connection);
            }
            let settings = sqlx::raw_sql(SESSION).execute(&mut connection);
            match tokio::time::timeout(CONNECT_DEADLINE, settings).await {
                Ok(set) => set?,
                Err(_) => return Err(Failure::Silent(CONNECT_DEADLINE)),
            };
            Ok(connection)
        };
        match connected.await {
            Ok(connection) => {
                self.reconnect().failures = 0;
                Ok(connection)
            }
            Err(failure) => {
                self.reconnect().wait();
                Err(failure)
            }
        }
    }

    fn reconnect(&self) -> std::sync::MutexGuard<'_, Reconnect> {
        self.reconnect.lock().expect("no code panics while it holds the time of the next try")
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

impl Reconnect {
    /// Waits longer after each failure, with jitter.
    fn wait(&mut self) {
        let longest = RECONNECT_AFTER.saturating_mul(1 << self.failures.min(16)).min(RECONNECT_AFTER_AT_MOST);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + longest.mul_f64(self.random.random_range(0.5..1.0));
    }
}

/// A few connections for one use, opened when they are first needed.
#[derive(Debug)]
pub(super) struct Connections {
    database: Arc<Database>,
    most: u32,
    deadline: Duration,
    permits: Arc<Semaphore>,
    /// Connections that nobody uses, the last used at the end. Locked for a push or a pop.
    idle: Arc<Mutex<Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    generation: u64,
    since: Instant,
}

impl Connections {
    /// At most so many, for work that takes at most so long.
    pub(super) fn new(database: &Arc<Database>, most: u32, deadline: Duration) -> Connections {
        Connections {
            database: database.clone(),
            most,
            deadline,
            permits: Arc::new(Semaphore::new(most as usize)),
            idle: Arc::default(),
        }
    }

    /// Does a piece of work on a connection of its own. Once it has one it is done, waited for or not. Each is one
    /// statement, which commits itself; where connections are handed out by transaction it is one transaction.
    pub(super) async fn run<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Failure>> + Send + 'static,
    {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| closed())?;
        let (database, idle, deadline) = (self.database.clone(), self.idle.clone(), self.deadline);
        let working = async move {
            let generation = database.generation();
            let done = async {
                let mut connection = take(&database, &idle).await?;
                let piece = async {
                    if !database.pooled {
                        return work(&mut connection).await;
                    }
                    let mut transaction = connection.begin_with(TRANSACTION).await?;
                    let answer = work(&mut transaction).await?;
                    // The next transaction may be on a connection that does not know what was prepared on this one, or
                    // that knows another statement by the same name.
                    transaction.clear_cached_statements().await?;
                    transaction.commit().await?;
                    Ok(answer)
                };
                let answer = tokio::time::timeout(deadline, piece).await;
                let answer = answer.map_err(|_| Failure::Silent(deadline))??;
                push(&idle, Idle { connection, generation, since: Instant::now() });
                Ok(answer)
            };
            let done: Result<T, Failure> = done.await;
            if done.as_ref().is_err_and(Failure::is_loss) {
                // Once for all that fail together.
                let _ = database.generation.compare_exchange(
                    generation,
                    generation + 1,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
            }
            drop(permit);
            done
        };
        match tokio::spawn(working.in_current_span()).await {
            Ok(answer) => answer.map_err(Failure::into_error),
            Err(error) => {
                tracing::error!(%error, "work on the database ended early");
                Err(StoreError::Unavailable("the work on the database was cut off".to_owned()))
            }
        }
    }

    /// Waits for the work under way and closes the connections. Later work fails.
    pub(super) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(self.most).await {
            self.permits.close();
            drop(all);
        }
        while let Some(idle) = pop(&self.idle) {
            // The database finds out by itself if the goodbye does not reach it.
            let _ = tokio::time::timeout(PROBE_DEADLINE, idle.connection.close()).await;
        }
    }
}

/// A connection that works, as far as can be known.
async fn take(database: &Database, idle: &Mutex<Vec<Idle>>) -> Result<PgConnection, Failure> {
    while let Some(Idle { mut connection, generation, since }) = pop(idle) {
        if generation != database.generation() {
            continue;
        }
        if since.elapsed() < TRUSTED_REST {
            return Ok(connection);
        }
        if let Ok(Ok(())) = tokio::time::timeout(PROBE_DEADLINE, connection.ping()).await {
            return Ok(connection);
        }
    }
    database.connect().await
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

fn pop(idle: &Mutex<Vec<Idle>>) -> Option<Idle> {
    idle.lock().expect("no code panics while it holds the connections").pop()
}

fn push(idle: &Mutex<Vec<Idle>>, connection: Idle) {
    idle.lock().expect("no code panics while it holds the connections").push(connection);
}
