//! A database's URL, which may hold a password: nothing here prints it.

use std::fmt;
use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;

/// What connections of ours are called in `pg_stat_activity`.
const APPLICATION_NAME: &str = "tapefeed-server";

/// Our own parameter, which the driver is not shown: what stands between us and the database hands out its connections by
/// transaction.
const POOLING: &str = "pooling";

/// What a URL may ask for beside host, user and database.
const PARAMETERS: [&str; 13] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    POOLING,
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// `postgres://user:password@host:port/database`. What it leaves out comes from the usual `PG*` variables and the
/// password file, as for psql. Shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(String);

/// A URL that names no database. Says what is wrong without repeating what might be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the postgres URL is not right ({0}): write postgres://user@host:port/database")]
pub struct PostgresUrlInvalid(String);

impl PostgresUrl {
    /// Takes a text that begins like the URL of a Postgres database. The rest is looked at when it is opened, because
    /// the command line and the option file repeat whatever is refused while they are read, passwords too.
    pub fn new(text: &str) -> Option<PostgresUrl> {
        text.starts_with("postgres").then(|| PostgresUrl(text.to_owned()))
    }

    /// Whether connections are a transaction's, and not a session's.
    pub(super) fn pools_transactions(&self) -> bool {
        let query = self.0.split_once('?').map_or("", |(_, query)| query);
        query.split('&').any(|pair| pair == "pooling=transaction")
    }

    /// How to connect.
    pub(super) fn connect_options(&self) -> Result<PgConnectOptions, PostgresUrlInvalid> {
        let (place, query) = self.0.split_once('?').unwrap_or((&self.0, ""));
        if !place.starts_with("postgres://") && !place.starts_with("postgresql://") {
            return Err(PostgresUrlInvalid("its scheme is another".to_owned()));
        }
        let mut passed_on = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name == POOLING {
                if !matches!(value, "session" | "transaction") {
                    return Err(PostgresUrlInvalid("pooling is neither session nor transaction".to_owned()));
                }
                continue;
            }
            // An unknown one would be ignored, and the driver would log its value.
            if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
                return Err(PostgresUrlInvalid("it has a parameter that is not known".to_owned()));
            }
            passed_on.push(pair);
        }
        let query = passed_on.join("&");
        let text = if query.is_empty() { place.to_owned() } else { format!("{place}?{query}") };
        let options = PgConnectOptions::from_str(&text)
            .map_err(|_| PostgresUrlInvalid("it cannot be read as a URL".to_owned()))?;
        // PgBouncer refuses connections that ask for the digits of floats, and we keep none.
        Ok(options.application_name(APPLICATION_NAME).extra_float_digits(None))
    }
}

/// Without the password.
impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.connect_options() {
            Err(_) => f.write_str("postgres://"),
            Ok(options) => {
                let (user, port) = (options.get_username(), options.get_port());
                // Without a name of its own a database is called like the user.
                let database = options.get_database().unwrap_or(user);
                match options.get_socket() {
                    Some(socket) => write!(f, "postgres://{user}@/{database}?host={}&port={port}", socket.display()),
                    None => write!(f, "postgres://{user}@{}:{port}/{database}", options.get_host()),
                }
            }
        }
    }
}

/// Without the password.
impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (text, shown) in [
            ("postgres://me:secret@db.example:5433/tape", "postgres://me@db.example:5433/tape"),
            ("postgresql://me:secret@localhost:5432/tape", "postgres://me@localhost:5432/tape"),
            ("postgres://me@localhost:1/tape?password=secret", "postgres://me@localhost:1/tape"),
            ("postgres://me:secret@localhost:1/tape?pooling=session&sslmode=disable", "postgres://me@localhost:1/tape"),
            ("postgres://me:secret@localhost:1/tape?pooling=transaction", "postgres://me@localhost:1/tape"),
            (
                "postgres://me:secret@%2Frun%2Fpostgresql:5432/tape",
                "postgres://me@/tape?host=/run/postgresql&port=5432",
            ),
            ("postgres://me:secret@host:port/tape", "postgres://"),
            ("postgres://me:pass@host:1/tape?secret=1", "postgres://"),
            ("postgresq://me:secret@host:1/tape", "postgres://"),
        ] {
            let url = PostgresUrl::new(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("PostgresUrl({shown})"));
        }
        assert_eq!(PostgresUrl::new("mysql://me@host/tape"), None);
    }

    #[test]
    fn what_is_wrong_with_a_url_is_told_without_its_password() {
        for text in [
            "postgres://me:secret@host:port/tape",
            "postgres://me:p@host:1/tape?sslmod=secret",
            "postgres://me:p@host:1/tape?pooling=secret",
            "postgres:/me:secret@host",
        ] {
            let error = PostgresUrl::new(text).unwrap().connect_options().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }
}
