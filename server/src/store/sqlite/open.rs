//! Opening the file: the lock, the migrations, the first rows.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::mpsc;

use super::failure::{self, Failure};
use super::readers::Readers;
use super::rows::{self, to_sql};
use super::writer::Writer;
use super::{JOBS_WAITING, SqliteStore};
use crate::domain::{Clock, Epoch, UnixNanos};
use crate::store::RunState;
use crate::store::faults::Faults;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// 'TAPE': what the first migration writes into the file's header.
const APPLICATION_ID: i64 = 0x5441_5045;

/// How long a statement waits for a lock that another program holds. Programs that only read never hold one for long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// To what size the write-ahead log is cut back after a reader made it grow: 64 MiB.
const WAL_BYTES_KEPT: &str = "67108864";

/// What an opening needs beside the path.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The time of everything that the store stamps.
    pub clock: Arc<dyn Clock>,
    /// The name that a new log gets; random. A file that has a log keeps its own.
    pub epoch: Epoch,
    /// Where tests make it stumble.
    pub faults: Faults,
}

/// Why a store could not be opened. Each message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server has the file.
    #[error("{} is open in another tapefeed-server: stop that one, or give this one another file with --store", .0.display())]
    Locked(PathBuf),
    /// The file is something else.
    #[error("{} is not a Tapefeed store: give another file with --store", .0.display())]
    NotAStore(PathBuf),
    /// A newer server has written the file.
    #[error(
        "{} was written by a newer tapefeed-server (migration {migration}): install that version, or give another file \
         with --store",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The migration that this server does not know.
        migration: i64,
    },
    /// The file or its directory cannot be written.
    #[error(
        "{} cannot be opened for writing ({problem}): check that the directory exists or can be made, its permissions \
         and free space, or give another file with --store",
        path.display()
    )]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// The file lies on a file system of another machine.
    #[error(
        "{} lies on a network file system ({kind}), where SQLite loses data: give a file on a local disk with --store",
        path.display()
    )]
    NetworkFileSystem {
        /// The file.
        path: PathBuf,
        /// The file system's type.
        kind: String,
    },
    /// The file is a store, but something in it does not hold.
    #[error("{} is damaged ({problem}): restore a backup, or give another file with --store", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        problem: String,
    },
    /// Anything else.
    #[error("{} could not be opened: {problem}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
}

impl SqliteStore {
    /// Opens a store and brings its schema up to date. Creates the file, and its directory, if there is none.
    ///
    /// The store runs until [`close`](crate::store::Store::close), or until it is dropped.
    pub async fn open(path: &Path, options: SqliteOptions) -> Result<Arc<SqliteStore>, OpenError> {
        let path = locate(path)?;
        if let Some(kind) = network_file_system(&path) {
            return Err(OpenError::NetworkFileSystem { path, kind });
        }
        let lock = lock(&path)?;
        let file = SqliteConnectOptions::new()
            .filename(&path)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(false)
            .disable_statement_logging();
        let writing = file
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", WAL_BYTES_KEPT);
        let connection = match prepare(&path, &writing, &options).await {
            Ok(connection) => connection,
            Err(unprepared) => return Err(unprepared.explain(path)),
        };
        let (jobs, waiting) = mpsc::channel(JOBS_WAITING);
        // Jitter needs no secret: the log's name is random enough.
        let seed = options.epoch.0;
        let writer = Writer::new(writing, connection, lock, options.clock, options.faults, seed);
        tokio::spawn(writer.run(waiting));
        let readers = Readers::new(file.read_only(true));
        Ok(Arc::new(SqliteStore { path, jobs, readers }))
    }
}

/// A file's companion, such as `store.db-wal`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The file's one true path, so that two ways to write it meet the same lock. Makes the directory.
fn locate(path: &Path) -> Result<PathBuf, OpenError> {
    let not_writable = |error: std::io::Error| OpenError::NotWritable { path: path.into(), problem: error.to_string() };
    if path.is_dir() {
        return Err(OpenError::NotWritable { path: path.into(), problem: "it is a directory".to_owned() });
    }
    if path.exists() {
        return path.canonicalize().map_err(not_writable);
    }
    let Some(name) = path.file_name() else {
        return Err(OpenError::NotWritable { path: path.into(), problem: "it names no file".to_owned() });
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(not_writable)?;
    Ok(directory.canonicalize().map_err(not_writable)?.join(name))
}

/// The lock of the one server. The lock's file stays behind: removing it could remove a successor's.
fn lock(path: &Path) -> Result<File, OpenError> {
    let opened = File::options().create(true).truncate(false).write(true).open(beside(path, ".lock"));
    let file = opened.map_err(|error| OpenError::NotWritable { path: path.into(), problem: error.to_string() })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path.into())),
        Err(TryLockError::Error(error)) => {
            Err(OpenError::Failed { path: path.into(), problem: format!("its lock cannot be taken: {error}") })
        }
    }
}

/// The type of the file system that holds a path, if it is one of another machine's. Known on Linux only.
fn network_file_system(path: &Path) -> Option<String> {
    const KINDS: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "fuse.sshfs"];
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut nearest: Option<(&Path, &str)> = None;
    for mount in mounts.lines() {
        let mut fields = mount.split(' ').skip(1);
        let (Some(place), Some(kind)) = (fields.next(), fields.next()) else {
            continue;
        };
        let place = Path::new(place);
        // Later mounts cover earlier ones at the same place.
        let nearer = nearest.is_none_or(|(known, _)| place.components().count() >= known.components().count());
        if path.starts_with(place) && nearer {
            nearest = Some((place, kind));
        }
    }
    nearest.map(|(_, kind)| kind).filter(|kind| KINDS.contains(kind)).map(str::to_owned)
}

/// Why the file could not be made ready.
enum Unprepared {
    NotAStore,
    NoWriteAheadLog,
    Newer(i64),
    Damaged(String),
    Sql(sqlx::Error),
    Migration(MigrateError),
}

impl From<sqlx::Error> for Unprepared {
    fn from(error: sqlx::Error) -> Unprepared {
        Unprepared::Sql(error)
    }
}

impl From<Failure> for Unprepared {
    fn from(failure: Failure) -> Unprepared {
        match failure {
            Failure::Sql(error) => Unprepared::Sql(error),
            Failure::Store(error) => Unprepared::Damaged(error.to_string()),
        }
    }
}

impl Unprepared {
    fn explain(self, path: PathBuf) -> OpenError {
        match self {
            Unprepared::NotAStore => OpenError::NotAStore(path),
            Unprepared::NoWriteAheadLog => {
                let problem = "its file system has no write-ahead log for SQLite".to_owned();
                OpenError::NotWritable { path, problem }
            }
            Unprepared::Newer(migration) => OpenError::Newer { path, migration },
            Unprepared::Damaged(problem) => OpenError::Damaged { path, problem },
            Unprepared::Sql(error) if failure::is_no_database(&error) => OpenError::NotAStore(path),
            Unprepared::Sql(error) if failure::is_not_writable(&error) => {
                OpenError::NotWritable { path, problem: error.to_string() }
            }
            Unprepared::Sql(error) => OpenError::Failed { path, problem: error.to_string() },
            Unprepared::Migration(error) => OpenError::Failed { path, problem: error.to_string() },
        }
    }
}

/// Opens the writing connection, brings the schema up to date and checks that the head is the last segment's.
async fn prepare(
    path: &Path,
    writing: &SqliteConnectOptions,
    options: &SqliteOptions,
) -> Result<SqliteConnection, Unprepared> {
    let fresh = !path.exists();
    if !fresh {
        // Before anything is written: whose file is it?
        let mut looking = SqliteConnectOptions::new().filename(path).disable_statement_logging().connect().await?;
        check_owner(&mut looking).await?;
        looking.close().await?;
    }
    let mut connection = writing.clone().create_if_missing(fresh).connect().await?;
    match MIGRATIONS.run_direct(None, &mut connection, false).await {
        Ok(()) => (),
        Err(MigrateError::VersionMissing(migration)) => return Err(Unprepared::Newer(migration)),
        Err(error) => return Err(Unprepared::Migration(error)),
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await?;
    if mode != "wal" {
        return Err(Unprepared::NoWriteAheadLog);
    }
    start_log(&mut connection, options.epoch, options.clock.now()).await?;
    check_head(&mut connection).await?;
    end_leases(&mut connection).await?;
    Ok(connection)
}

async fn check_owner(connection: &mut SqliteConnection) -> Result<(), Unprepared> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE tbl_name <> '_sqlx_migrations'")
        .fetch_one(&mut *connection)
        .await?;
    // An opening that was cut short leaves an empty file, or one with the migrations' table alone.
    if application == APPLICATION_ID || (application == 0 && tables == 0) { Ok(()) } else { Err(Unprepared::NotAStore) }
}

const START_LOG: &str = "
    BEGIN IMMEDIATE;
    INSERT INTO log_head (
            partition, epoch, position, chain, append_time, oldest, hot_floor,
            log_bytes, manifest_version, manifest_floor, fence
        )
        SELECT 0, $1, 0, zeroblob(16), 0, 1, 1, 0, 0, 0, 0
        WHERE NOT EXISTS (SELECT 1 FROM epochs);
    INSERT INTO epochs (number, epoch, parent, fork, start_time)
        SELECT 1, $1, NULL, 0, $2
        WHERE NOT EXISTS (SELECT 1 FROM epochs);
    COMMIT";

/// Gives a new file its head and its first epoch. A file that has an epoch keeps both, or lacks its head and is damaged.
async fn start_log(connection: &mut SqliteConnection, epoch: Epoch, now: UnixNanos) -> Result<(), Unprepared> {
    let start = sqlx::query(START_LOG)
        .bind(to_sql(epoch.0)) // $1 epoch
        .bind(now.nanos()); // $2 start_time
    start.execute(connection).await?;
    Ok(())
}

/// Ends the leases of earlier servers: the lock on the file says that all of them are gone, so whoever uploads a file
/// again need not wait until its lease has run out.
async fn end_leases(connection: &mut SqliteConnection) -> Result<(), Unprepared> {
    sqlx::query("UPDATE runs SET lease_until = 0 WHERE state = $1 AND lease_until > 0")
        .bind(RunState::Running as i64) // $1 state
        .execute(connection)
        .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct LastSegment {
    last_seq: i64,
    chain: Vec<u8>,
}

/// The head row must be what the last segment says: both are written by one transaction.
async fn check_head(connection: &mut SqliteConnection) -> Result<(), Unprepared> {
    let head = rows::read_head(connection).await?.log;
    let last: Option<LastSegment> = sqlx::query_as(
        "SELECT first_seq + entry_count - 1 AS last_seq, chain FROM segments ORDER BY first_seq DESC LIMIT 1",
    )
    .fetch_optional(connection)
    .await?;
    let sound = match last {
        None => head.oldest == head.position + 1 && head.log_bytes == 0,
        Some(last) => last.last_seq == to_sql(head.position) && last.chain == head.chain,
    };
    if sound { Ok(()) } else { Err(Unprepared::Damaged("the head is not the last segment's".to_owned())) }
}
