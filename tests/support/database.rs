//! A Postgres of a test's own, by `tests/private`: started in a folder of its own, stopped and started again at will,
//! and gone when the test is, however the test ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::process::repository;
use crate::server::Options;

/// A running Postgres with an empty database.
#[derive(Debug)]
pub struct Database {
    folder: String,
    url: String,
    /// Ends, and removes everything, when its input does.
    hold: Child,
}

fn script() -> PathBuf {
    repository().join("tests/private")
}

impl Database {
    /// Starts one. `None` where there are no binaries, which is said loudly and is a failure in CI.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start() -> Option<Self> {
        let there = Command::new(script()).args(["has", "postgres"]).status();
        if there.is_ok_and(|status| status.success()) {
            return Some(Self::hold(&["postgres"]));
        }
        let notice = "\nSKIPPED: no binaries of Postgres: behaviour over Postgres is not tested\n";
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{notice}");
        // Not by eprintln: the harness keeps that to itself while a test passes.
        let _ = std::io::stderr().write_all(notice.as_bytes());
        None
    }

    /// Starts one that follows this one.
    pub fn standby(&self) -> Self {
        Self::hold(&["standby", &self.folder])
    }

    fn hold(what: &[&str]) -> Self {
        let mut command = Command::new(script());
        let mut hold = command
            .arg("hold")
            .args(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/private can be started");
        let mut line = String::new();
        let output = hold.stdout.take().expect("it was piped");
        BufReader::new(output).read_line(&mut line).expect("it prints a line");
        let (folder, url) = line.trim().split_once(' ').expect("it prints a folder and a URL");
        Self { folder: folder.to_owned(), url: url.to_owned(), hold }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A server over it.
    pub fn options(&self) -> Options {
        Options::serve().database(&self.url)
    }

    /// Stops it as a crash would.
    pub async fn crash(&self) {
        self.tell(&["stop", &self.folder, "immediate"]).await;
    }

    /// Starts it again after a crash, on its port.
    pub async fn again(&self) {
        self.tell(&["again", &self.folder]).await;
    }

    /// Makes a standby a primary.
    pub async fn promote(&self) {
        self.tell(&["promote", &self.folder]).await;
    }

    async fn tell(&self, arguments: &[&str]) {
        let told = tokio::process::Command::new(script()).args(arguments).status().await;
        let told = told.expect("tests/private can be started");
        assert!(told.success(), "tests/private {arguments:?}: {told}");
    }

    /// A connection of the test's own.
    pub async fn connect(&self) -> PgConnection {
        connect(&self.url).await.expect("it takes connections")
    }
}

/// A connection to a database that may not be there.
pub async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let mut connection = options.disable_statement_logging().connect().await?;
    connection.ping().await?;
    Ok(connection)
}

impl Drop for Database {
    fn drop(&mut self) {
        drop(self.hold.stdin.take());
        let _ = self.hold.wait();
    }
}
