//! Postgres for tests: a server of a test's own by `tests/private`, started in a folder of its own, stopped and started
//! again at will, and gone when the test is, however the test ends; or an empty database on one that is left alone.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::private::{self, Hold};
use crate::process::given;
use crate::server::Options;
use crate::wait::eventually;

/// How long the sessions of a killed server may last.
const QUIET: Duration = Duration::from_secs(30);

/// A running Postgres with an empty database.
#[derive(Debug)]
pub struct Database {
    hold: Hold,
}

impl Database {
    /// Starts one. `None` where there are no binaries, which is said loudly and is a failure in CI.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start() -> Option<Self> {
        private::has("postgres").then(|| Self { hold: Hold::start(&["postgres"]) })
    }

    /// Starts one that follows this one.
    pub fn standby(&self) -> Self {
        Self { hold: Hold::start(&["standby", self.hold.folder()]) }
    }

    /// Starts a PgBouncer before this one.
    pub fn bouncer(&self) -> Option<Bouncer> {
        private::has("pgbouncer").then(|| Bouncer { hold: Hold::start(&["pgbouncer", self.hold.folder()]) })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        self.hold.url()
    }

    /// A server over it.
    pub fn options(&self) -> Options {
        Options::serve().database(self.url())
    }

    /// Stops it as a crash would.
    pub async fn crash(&self) {
        self.hold.tell(&["stop", self.hold.folder(), "immediate"]).await;
    }

    /// Starts it again after a crash, on its port.
    pub async fn again(&self) {
        self.hold.tell(&["again", self.hold.folder()]).await;
    }

    /// Cuts a standby off from the one that it follows: what is stored there from now on does not come here.
    pub async fn cut_off(&self) {
        let mut own = self.connect().await;
        let nobody = "ALTER SYSTEM SET primary_conninfo = ''";
        sqlx::query(nobody).execute(&mut own).await.expect("a superuser may");
        sqlx::query("SELECT pg_reload_conf()").execute(&mut own).await.expect("a superuser may");
        let receiving = "SELECT count(*) FROM pg_stat_wal_receiver";
        eventually("the standby is cut off", QUIET, async || {
            let mut own = connect(self.url()).await.ok()?;
            let receiving: i64 = sqlx::query_scalar(receiving).fetch_one(&mut own).await.ok()?;
            (receiving == 0).then_some(())
        })
        .await;
    }

    /// Makes a standby a primary.
    pub async fn promote(&self) {
        self.hold.tell(&["promote", self.hold.folder()]).await;
    }

    /// Lets none of its files grow beyond so many bytes: a disk without room. `None` makes room again.
    pub async fn room(&self, bytes: Option<u64>) {
        let bytes = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        self.hold.tell(&["room", self.hold.folder(), &bytes]).await;
    }

    /// A connection of the test's own.
    pub async fn connect(&self) -> PgConnection {
        connect(self.url()).await.expect("it takes connections")
    }
}

/// Waits until no server works in a database: what a killed one had under way is stored by then, or never will be.
pub async fn quiet(url: &str) {
    let others = "
        SELECT count(*)
        FROM pg_stat_activity
        WHERE application_name = 'tapefeed-server' AND datname = current_database()";
    eventually("the sessions of a killed server end", QUIET, async || {
        let mut connection = connect(url).await.ok()?;
        let others: i64 = sqlx::query_scalar(others).fetch_one(&mut connection).await.ok()?;
        (others == 0).then_some(())
    })
    .await;
}

/// A connection to a database that may not be there.
pub async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let mut connection = options.disable_statement_logging().connect().await?;
    connection.ping().await?;
    Ok(connection)
}

/// An empty database on the server of `TAPEFEED_TEST_POSTGRES_URL`, or on a private one that all tests of this process
/// share. For tests that do nothing to the server itself. Removed when dropped.
#[derive(Debug)]
pub struct FreshDatabase {
    name: String,
    url: String,
}

impl FreshDatabase {
    /// Makes one. `None` where there is neither a URL nor binaries, which is said loudly and is a failure in CI.
    ///
    /// # Panics
    ///
    /// If the server does not let us.
    pub async fn make() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("tapefeed_it_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let server = shared_server()?;
        command(server, format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")).await;
        let (place, query) = server.split_once('?').unwrap_or((server, ""));
        let authority = place.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let url = format!("{authority}/{name}?{query}");
        Some(Self { name, url: url.trim_end_matches('?').to_owned() })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// The URL of the server on which databases are made.
fn shared_server() -> Option<&'static str> {
    static FOUND: OnceLock<Option<(String, Option<Database>)>> = OnceLock::new();
    let found = FOUND.get_or_init(|| match given("TAPEFEED_TEST_POSTGRES_URL") {
        Some(url) => Some((url, None)),
        None => Database::start().map(|own| (own.url().to_owned(), Some(own))),
    });
    found.as_ref().map(|(url, _)| url.as_str())
}

async fn command(server: &str, sql: String) {
    let mut connection = connect(server).await.expect("the server takes connections");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("a superuser may");
    let _ = connection.close().await;
}

impl Drop for FreshDatabase {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let Some(server) = shared_server() else { return };
        // Waited for on a thread without a runtime of its own: this one may be a runtime's.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(command(server, sql));
        });
        let _ = dropped.join();
    }
}

/// A running PgBouncer that hands out connections by transaction.
#[derive(Debug)]
pub struct Bouncer {
    hold: Hold,
}

impl Bouncer {
    /// The URL for a server over what is behind it.
    pub fn url(&self) -> &str {
        self.hold.url()
    }

    /// Points it to another Postgres. Connections to the one before are closed as they become free.
    pub async fn point(&self, database: &Database) {
        self.hold.tell(&["point", self.hold.folder(), database.hold.folder()]).await;
    }
}
