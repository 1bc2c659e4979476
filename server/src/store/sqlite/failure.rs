//! What went wrong in a statement, and what it means for the connection and for the caller.

use crate::store::StoreError;

/// Why a piece of work ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// SQLite or its driver says so.
    Sql(sqlx::Error),
    /// We say so.
    Store(StoreError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Failure {
        Failure::Sql(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

// SQLite's primary result codes: https://www.sqlite.org/rescode.html
const ERROR: i32 = 1;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const CONSTRAINT: i32 = 19;
const NOTADB: i32 = 26;

/// SQLite's primary result code, if SQLite itself refused.
fn code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Whether the file is something other than a database.
pub(super) fn is_no_database(error: &sqlx::Error) -> bool {
    code(error) == Some(NOTADB)
}

/// Whether the file or its directory refuses to be opened or written.
pub(super) fn is_not_writable(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(READONLY | CANTOPEN)) || matches!(error, sqlx::Error::Io(_))
}

/// Whether the rollback was refused only because nothing was left to roll back.
pub(super) fn was_rolled_back(error: &sqlx::Error) -> bool {
    code(error) == Some(ERROR)
}

impl Failure {
    /// Whether the connection can be used again after a rollback.
    pub(super) fn spares_connection(&self) -> bool {
        match self {
            Failure::Store(_) => true,
            Failure::Sql(error) => matches!(code(error), Some(FULL | BUSY | LOCKED | CONSTRAINT)),
        }
    }

    /// The caller's error. What SQLite said goes to the log, not to clients.
    pub(super) fn into_error(self) -> StoreError {
        let error = match self {
            Failure::Store(error) => return error,
            Failure::Sql(error) => error,
        };
        tracing::error!(%error, code = code(&error), "the embedded store failed");
        let sentence = match code(&error) {
            Some(FULL) => "the disk is full",
            Some(BUSY | LOCKED) => "another program holds the database",
            Some(READONLY | CANTOPEN) => "the database cannot be opened or written",
            Some(IOERR) => "the disk fails to read or write",
            Some(CORRUPT | NOTADB) => {
                let problem = "SQLite finds it damaged".to_owned();
                return StoreError::Corrupt { table: "database", row: "file".to_owned(), problem };
            }
            _ => "the database failed",
        };
        StoreError::Unavailable(sentence.to_owned())
    }
}
