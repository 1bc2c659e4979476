//! What went wrong in a statement, and what it means for the caller.

use std::time::Duration;

use crate::store::StoreError;

/// Why a piece of work ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// Postgres or its driver says so.
    Sql(sqlx::Error),
    /// We say so.
    Store(StoreError),
    /// The database did not answer within this time.
    Silent(Duration),
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

/// Postgres' code, if Postgres itself refused: https://www.postgresql.org/docs/current/errcodes-appendix.html
pub(super) fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

impl Failure {
    /// Whether the connection, or the server behind it, has gone: the other connections have then gone too.
    pub(super) fn is_loss(&self) -> bool {
        match self {
            Failure::Store(_) => false,
            Failure::Silent(_) => true,
            Failure::Sql(error) => match code(error) {
                None => true,
                // A server that became a standby takes no writes on connections that it still holds.
                Some(code) => code.starts_with("57P") || code.starts_with("08") || code == "25006",
            },
        }
    }

    /// The caller's error. What Postgres said goes to the log, not to clients.
    pub(super) fn into_error(self) -> StoreError {
        let error = match self {
            Failure::Store(error) => return error,
            Failure::Silent(limit) => {
                tracing::error!(?limit, "the database does not answer");
                return StoreError::Unavailable("the database does not answer".to_owned());
            }
            Failure::Sql(error) => error,
        };
        let code = code(&error);
        tracing::error!(%error, code, "the database failed");
        let sentence = match code.as_deref() {
            Some("53100") => "the database's disk is full",
            Some("53300") => "the database takes no more connections",
            Some("53200") => "the database has no memory left",
            Some("57P01" | "57P02" | "57P03" | "57P05") => "the database is stopping or starting",
            Some("57014") => "the database took too long",
            Some("55P03" | "40001" | "40P01") => "another transaction holds what is needed",
            Some("25006") => "the database is read-only: it is a standby, or was made read-only",
            Some("55000") => {
                "the database would lose what it acknowledges: set synchronous_commit, fsync and full_page_writes to on"
            }
            Some("42501") => "the database refuses the user of the store's URL",
            Some(code) if code.starts_with("28") => "the database refuses the user of the store's URL",
            Some(code @ ("XX001" | "XX002")) => {
                let problem = format!("Postgres finds it damaged ({code})");
                return StoreError::Corrupt { table: "database", row: "any".to_owned(), problem };
            }
            Some(_) => "the database failed",
            None => "the connection to the database is lost",
        };
        StoreError::Unavailable(sentence.to_owned())
    }
}
