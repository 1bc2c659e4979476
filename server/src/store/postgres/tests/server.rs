//! The server that tests use: the one of `TAPEFEED_TEST_POSTGRES_URL`, or a private one by `tests/private`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use super::PostgresUrl;

/// A server on which databases can be made. What was made goes with [`TestServer::drop_databases`].
#[derive(Debug)]
pub(crate) struct TestServer {
    url: &'static str,
    made: Mutex<Vec<String>>,
}

/// The server's URL. A private server is started once, and removed when this process has ended, however it ends.
fn url() -> Option<&'static str> {
    static FOUND: OnceLock<Option<(String, Option<Child>)>> = OnceLock::new();
    FOUND.get_or_init(find).as_ref().map(|(url, _)| url.as_str())
}

fn find() -> Option<(String, Option<Child>)> {
    if let Some(url) = std::env::var_os("TAPEFEED_TEST_POSTGRES_URL") {
        return Some((url.into_string().unwrap(), None));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/private");
    let there = Command::new(&script).args(["has", "postgres"]).status().is_ok_and(|status| status.success());
    if !there {
        let notice = "\nSKIPPED: neither TAPEFEED_TEST_POSTGRES_URL nor Postgres' binaries: the Postgres store is not \
                      tested\n";
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{notice}");
        // Not by eprintln: the harness keeps that to itself while a test passes.
        std::io::stderr().write_all(notice.as_bytes()).unwrap();
        return None;
    }
    let mut hold = Command::new(&script);
    hold.args(["hold", "postgres"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut hold = hold.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(hold.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (_folder, url) = line.trim().split_once(' ').unwrap();
    Some((url.to_owned(), Some(hold)))
}

impl TestServer {
    /// `None` where there is neither a URL nor binaries, which is said loudly and is a failure in CI.
    pub(crate) fn find() -> Option<TestServer> {
        Some(TestServer { url: url()?, made: Mutex::default() })
    }

    /// A connection of somebody else's to a database, or to the one of the URL.
    pub(crate) async fn connect(&self, database: Option<&str>) -> PgConnection {
        let options = PgConnectOptions::from_str(self.url).unwrap();
        let options = database.into_iter().fold(options, |options, database| options.database(database));
        options.connect().await.unwrap()
    }

    /// A new database without anything in it.
    pub(crate) async fn make_database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("tapefeed_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = self.connect(None).await;
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        self.made.lock().unwrap().push(name.clone());
        name
    }

    /// The URL of a database, with these parameters.
    pub(crate) fn url_of(&self, database: &str, parameters: &str) -> PostgresUrl {
        let (place, query) = self.url.split_once('?').unwrap_or((self.url, ""));
        let authority = place.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let query = [query, parameters].join("&");
        PostgresUrl::new(&format!("{authority}/{database}?{}", query.trim_matches('&'))).unwrap()
    }

    /// Removes what was made.
    pub(crate) async fn drop_databases(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap());
        let mut admin = self.connect(None).await;
        for name in made {
            let sql = format!("DROP DATABASE {name} WITH (FORCE)");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
        }
        admin.close().await.unwrap();
    }
}
