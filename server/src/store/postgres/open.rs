//! Opening the store: what the database must be like, the migrations, the first rows.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection, PgConnection};

use super::connections::{Connections, Database};
use super::failure::{self, Failure};
use super::rows::to_sql;
use super::terms::TermsSource;
use super::url::{PostgresUrl, PostgresUrlInvalid};
use super::{PostgresStore, log};
use crate::domain::{Clock, Epoch};
use crate::store::StoreError;
use crate::store::faults::Faults;

/// Run inside a transaction that holds a lock of its own ([`LOCK_MIGRATIONS`]).
static MIGRATIONS: Migrator = Migrator { locking: false, ..sqlx::migrate!("../migrations/postgres") };

/// Servers that start together migrate one after another. The lock goes with the transaction, so nothing can leave it
/// behind. Its name is any number.
const LOCK_MIGRATIONS: &str = "SELECT pg_advisory_xact_lock(7088104203)";

/// The oldest version of Postgres whose functions are enough, and that is tested.
const OLDEST_VERSION: i32 = 14;

/// One append is in flight at a time: the writer of the ingest has one, and what gathers meanwhile goes with the next.
const APPENDERS: u32 = 1;

/// Claims, leases, registrations, manifest commits, sweeps: rare, and each short.
const WRITERS: u32 = 3;

/// How many reads run at once: a page of the log or a manifest keeps a core busy.
const READERS: u32 = 4;

/// What is asked whether the database is there must not wait behind reads.
const LOOKERS: u32 = 1;

/// How long a piece of work may take, a little more than the database's own limits.
const WORK_DEADLINE: Duration = Duration::from_secs(8);

/// How long a look at the head may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(3);

/// How long opening may wait for another server that migrates.
const MIGRATION_DEADLINE: Duration = Duration::from_secs(600);

/// What an opening needs beside the URL.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The time of everything that the store stamps; `None` for the database's clock, which all replicas share.
    pub clock: Option<Arc<dyn Clock>>,
    /// The name that a new log gets; random. A database that has a log keeps its own.
    pub epoch: Epoch,
    /// What the names of later epochs, and jitter, are drawn from.
    pub seed: u64,
    /// Where tests make it stumble.
    pub faults: Faults,
}

/// Why a store could not be opened. Each message says what to change, and none holds a password.
#[derive(Debug, thiserror::Error)]
pub enum PostgresOpenError {
    /// The URL names no database.
    #[error(transparent)]
    Url(#[from] PostgresUrlInvalid),
    /// Nobody answers there, or not to us.
    #[error(
        "{database} cannot be reached ({problem}): check that the server runs, that host, port and database are right, \
         and that it lets this user in"
    )]
    Unreachable {
        /// Where.
        database: String,
        /// What the driver or the server says.
        problem: String,
    },
    /// The server is older than what is tested.
    #[error("{database} is served by Postgres {version}: version {OLDEST_VERSION} or newer is needed")]
    TooOld {
        /// Where.
        database: String,
        /// Its version.
        version: i32,
    },
    /// Nothing can be written there.
    #[error("{database} takes no writes ({problem}): give the primary's address with --store")]
    ReadOnly {
        /// Where.
        database: String,
        /// Why.
        problem: &'static str,
    },
    /// It would lose what was acknowledged.
    #[error(
        "{database} has {setting} = off, and would lose ticks that were acknowledged: set {setting} = on in \
         postgresql.conf, or for this database or user, and reload"
    )]
    NotDurable {
        /// Where.
        database: String,
        /// The setting.
        setting: &'static str,
    },
    /// Its text is not Unicode.
    #[error(
        "{database} is encoded in {encoding}: make a database with CREATE DATABASE .. ENCODING 'UTF8' TEMPLATE template0"
    )]
    Encoding {
        /// Where.
        database: String,
        /// Its encoding.
        encoding: String,
    },
    /// The database holds something else.
    #[error("{0} holds tables that are not Tapefeed's: give it a database of its own with --store")]
    NotAStore(String),
    /// A newer server has written the database.
    #[error(
        "{database} was written by a newer tapefeed-server (migration {migration}): install that version, or give \
         another database with --store"
    )]
    Newer {
        /// Where.
        database: String,
        /// The migration that this server does not know.
        migration: i64,
    },
    /// The database is a store, but something in it does not hold.
    #[error("{database} is damaged ({problem}): restore a backup, or give another database with --store")]
    Damaged {
        /// Where.
        database: String,
        /// What does not hold.
        problem: String,
    },
    /// Anything else.
    #[error("{database} could not be opened: {problem}")]
    Failed {
        /// Where.
        database: String,
        /// What the server says.
        problem: String,
    },
}

/// Why the database is not ready.
enum Unready {
    Failure(Failure),
    Migration(MigrateError),
    Refused(PostgresOpenError),
}

impl From<Failure> for Unready {
    fn from(failure: Failure) -> Unready {
        Unready::Failure(failure)
    }
}

impl From<sqlx::Error> for Unready {
    fn from(error: sqlx::Error) -> Unready {
        Unready::Failure(error.into())
    }
}

impl Unready {
    fn explain(self, database: String) -> PostgresOpenError {
        match self {
            Unready::Refused(error) => error,
            Unready::Migration(MigrateError::VersionMissing(migration)) => {
                PostgresOpenError::Newer { database, migration }
            }
            Unready::Migration(error) => PostgresOpenError::Failed { database, problem: error.to_string() },
            Unready::Failure(Failure::Store(error)) => {
                PostgresOpenError::Damaged { database, problem: error.to_string() }
            }
            Unready::Failure(Failure::Silent(limit)) => {
                PostgresOpenError::Unreachable { database, problem: format!("no answer within {limit:?}") }
            }
            Unready::Failure(Failure::Sql(error)) => {
                let code = failure::code(&error);
                let problem = error.to_string();
                // 28: not let in; 3D: no such database; 57P: starting or stopping; 53300: too many connections.
                let unreachable =
                    code.is_none_or(|code| ["28", "3D", "57P", "53300"].iter().any(|class| code.starts_with(class)));
                if unreachable {
                    PostgresOpenError::Unreachable { database, problem }
                } else {
                    PostgresOpenError::Failed { database, problem }
                }
            }
        }
    }
}

impl PostgresStore {
    /// Opens a store and brings its schema up to date.
    ///
    /// The store runs until [`close`](crate::store::Store::close), or until it is dropped. Any number of servers may
    /// have it open.
    pub async fn open(url: &PostgresUrl, options: PostgresOptions) -> Result<Arc<PostgresStore>, PostgresOpenError> {
        let PostgresOptions { clock, epoch, seed, faults } = options;
        let place = url.to_string();
        let database = Database::new(url.connect_options()?, url.pools_transactions(), seed);
        let mut terms = TermsSource::new(clock, seed);
        let prepared = async {
            let mut connection = database.connect_plain().await?;
            // One transaction, so that all of it is on one connection wherever they are handed out by transaction.
            let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
            prepare(&mut transaction, &place, epoch, &mut terms).await?;
            transaction.clear_cached_statements().await?;
            transaction.commit().await?;
            connection.close().await?;
            Ok(())
        };
        let prepared: Result<(), Unready> = match tokio::time::timeout(MIGRATION_DEADLINE, prepared).await {
            Ok(prepared) => prepared,
            Err(_) => Err(Failure::Silent(MIGRATION_DEADLINE).into()),
        };
        if let Err(unready) = prepared {
            return Err(unready.explain(place));
        }
        Ok(Arc::new(PostgresStore {
            place,
            appends: Connections::new(&database, APPENDERS, WORK_DEADLINE),
            writes: Connections::new(&database, WRITERS, WORK_DEADLINE),
            reads: Connections::new(&database, READERS, WORK_DEADLINE),
            looks: Connections::new(&database, LOOKERS, LOOK_DEADLINE),
            terms,
            faults,
            manifest_epoch: AtomicU64::new(0),
        }))
    }
}

/// Checks the database, brings the schema up to date, and checks that the head is the last segment's.
async fn prepare(
    connection: &mut PgConnection,
    place: &str,
    epoch: Epoch,
    terms: &mut TermsSource,
) -> Result<(), Unready> {
    check_server(connection, place).await?;
    check_owner(connection, place).await?;
    sqlx::query(LOCK_MIGRATIONS).execute(&mut *connection).await?;
    MIGRATIONS.run_direct(None, connection, false).await.map_err(Unready::Migration)?;
    terms.check_identity = can_identify(connection).await?;
    sqlx::query("SELECT start_log($1, $2)")
        .bind(to_sql(epoch.0)) // $1 epoch
        .bind(terms.now()) // $2 start_time, or NULL
        .execute(&mut *connection)
        .await?;
    let before = log::head(connection, terms.check_identity).await?;
    let head = log::settle(connection, terms.terms()).await?;
    if before.0.epoch != head.epoch {
        tracing::warn!(epoch = %head.epoch, "the database was promoted or restored: a new epoch has begun");
    }
    check_head(connection).await
}

#[derive(sqlx::FromRow)]
struct ServerState {
    version: i32,
    standby: bool,
    read_only: String,
    encoding: String,
    synchronous_commit: String,
    fsync: String,
    full_page_writes: String,
}

const READ_SERVER: &str = "
    SELECT
        current_setting('server_version_num')::INTEGER / 10000 AS version,
        pg_is_in_recovery() AS standby,
        current_setting('transaction_read_only') AS read_only,
        current_setting('server_encoding') AS encoding,
        current_setting('synchronous_commit') AS synchronous_commit,
        current_setting('fsync') AS fsync,
        current_setting('full_page_writes') AS full_page_writes";

async fn check_server(connection: &mut PgConnection, place: &str) -> Result<(), Unready> {
    let state: ServerState = sqlx::query_as(READ_SERVER).fetch_one(connection).await?;
    let database = place.to_owned();
    let refused = if state.version < OLDEST_VERSION {
        PostgresOpenError::TooOld { database, version: state.version }
    } else if state.standby {
        PostgresOpenError::ReadOnly { database, problem: "it is a standby" }
    } else if state.read_only == "on" {
        PostgresOpenError::ReadOnly { database, problem: "its transactions are read-only by default" }
    } else if state.encoding != "UTF8" {
        PostgresOpenError::Encoding { database, encoding: state.encoding }
    } else {
        // `local` and `remote_write` do sync here: what they leave out is the standby.
        let settings = [
            ("synchronous_commit", state.synchronous_commit),
            ("fsync", state.fsync),
            ("full_page_writes", state.full_page_writes),
        ];
        match settings.into_iter().find(|(_, value)| value == "off") {
            None => return Ok(()),
            Some((setting, _)) => PostgresOpenError::NotDurable { database, setting },
        }
    };
    Err(Unready::Refused(refused))
}

const COUNT_TABLES: &str = "
    SELECT to_regclass('log_head') IS NOT NULL, count(*)
    FROM pg_tables
    WHERE schemaname = current_schema() AND tablename <> '_sqlx_migrations'";

/// Before anything is written: whose database is it?
async fn check_owner(connection: &mut PgConnection, place: &str) -> Result<(), Unready> {
    let (ours, tables): (bool, i64) = sqlx::query_as(COUNT_TABLES).fetch_one(connection).await?;
    if ours || tables == 0 { Ok(()) } else { Err(Unready::Refused(PostgresOpenError::NotAStore(place.to_owned()))) }
}

/// Whether this user may know which database this is, and on which timeline.
async fn can_identify(connection: &mut PgConnection) -> Result<bool, Unready> {
    // A transaction inside the one that opens the store, which a refusal must not end.
    let mut attempt = connection.begin().await?;
    let identified = sqlx::query("SELECT * FROM log_identity()").execute(&mut *attempt).await;
    attempt.rollback().await?;
    match identified {
        Ok(_) => Ok(true),
        Err(error) if failure::code(&error).is_some() => {
            tracing::warn!(
                %error,
                "this database does not tell its identity and timeline: a failover that loses ticks is noticed only by \
                 replicas that have seen them. GRANT EXECUTE ON FUNCTION pg_control_system() to the store's user if \
                 you can, and run `tapefeed-server epoch renew` after a restore"
            );
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

const CHECK_HEAD: &str = "
    SELECT CASE
        WHEN last.first_seq IS NULL THEN oldest = position + 1 AND log_bytes = 0
        ELSE last.first_seq + last.entry_count - 1 = position AND last.chain = log_head.chain
    END
    FROM log_head
    LEFT JOIN LATERAL (
        SELECT first_seq, entry_count, chain
        FROM segments
        ORDER BY first_seq DESC
        LIMIT 1
    ) AS last ON true
    WHERE partition = 0";

/// The head row must be what the last segment says: both are written by one transaction.
async fn check_head(connection: &mut PgConnection) -> Result<(), Unready> {
    let sound: Option<bool> = sqlx::query_scalar(CHECK_HEAD).fetch_optional(connection).await?;
    if sound == Some(true) {
        return Ok(());
    }
    let problem = "the head is not the last segment's".to_owned();
    let row = "partition 0".to_owned();
    Err(Unready::Failure(StoreError::Corrupt { table: "log_head", row, problem }.into()))
}
