//! The one Postgres that everything in a run is stored in, and what each part of the run costs.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tapefeed_tests::database::{self, Database};

use crate::process::{Server, cpu_seconds};

type Problem = Box<dyn std::error::Error>;

/// What a server of a few cores is given, for whoever writes to it; every promise of durability is kept. Without
/// autovacuum the work of one case is not done during the next.
const SETTINGS: [&str; 5] = [
    "ALTER SYSTEM SET shared_buffers = '1GB'",
    "ALTER SYSTEM SET max_wal_size = '16GB'",
    "ALTER SYSTEM SET checkpoint_timeout = '1h'",
    "ALTER SYSTEM SET wal_buffers = '16MB'",
    "ALTER SYSTEM SET autovacuum = off",
];

/// A private Postgres.
#[derive(Debug)]
pub struct Cluster {
    database: Database,
    control: PgConnection,
    postmaster: String,
}

/// CPU seconds of each side, and bytes of WAL, since they began to count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// The server, or all of them.
    pub server: f64,
    /// The postmaster, all its children, and those that have ended.
    pub postgres: f64,
    /// This process.
    pub loader: f64,
    /// Bytes.
    pub wal: f64,
}

impl Spent {
    /// What came since an earlier look.
    pub fn since(self, earlier: Spent) -> Spent {
        Spent {
            server: self.server - earlier.server,
            postgres: self.postgres - earlier.postgres,
            loader: self.loader - earlier.loader,
            wal: self.wal - earlier.wal,
        }
    }
}

impl Cluster {
    /// Starts it.
    pub async fn start() -> Result<Cluster, Problem> {
        let database = Database::start().ok_or("Postgres is missing: apt-get install postgresql")?;
        let mut control = database.connect().await;
        for setting in SETTINGS {
            sqlx::query(setting).execute(&mut control).await?;
        }
        control.close().await?;
        database.crash().await;
        database.again().await;
        let mut control = database.connect().await;
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut control).await?;
        let postmaster = stat(&backend.to_string()).get(1).cloned().ok_or("the backend is not on this machine")?;
        Ok(Cluster { database, control, postmaster })
    }

    /// Makes an empty database; its URL.
    pub async fn create(&mut self, name: &str) -> Result<String, Problem> {
        let statement = format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0");
        sqlx::query(AssertSqlSafe(statement)).execute(&mut self.control).await?;
        Ok(self.database.url().replace("/postgres?", &format!("/{name}?")))
    }

    /// A connection to one of its databases.
    pub async fn connect(&self, url: &str) -> Result<PgConnection, Problem> {
        Ok(database::connect(url).await?)
    }

    /// Writes everything that is in memory only to the tables' files, so that each case pays for its own pages.
    pub async fn checkpoint(&mut self) -> Result<(), Problem> {
        sqlx::query("CHECKPOINT").execute(&mut self.control).await?;
        Ok(())
    }

    /// Counts what was spent so far.
    pub async fn spent(&mut self, servers: &[&Server]) -> Result<Spent, Problem> {
        let wal = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::DOUBLE PRECISION";
        Ok(Spent {
            server: servers.iter().map(|server| server.cpu_seconds()).sum(),
            wal: sqlx::query_scalar(wal).fetch_one(&mut self.control).await?,
            postgres: self.cpu_seconds()?,
            loader: cpu_seconds("self"),
        })
    }

    fn cpu_seconds(&self) -> Result<f64, Problem> {
        let reaped: f64 =
            stat(&self.postmaster).iter().skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        let mut seconds = reaped / 100.0 + exact_cpu_seconds(&self.postmaster);
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
                continue;
            };
            if stat(id).get(1) == Some(&self.postmaster) {
                seconds += exact_cpu_seconds(id);
            }
        }
        Ok(seconds)
    }
}

/// The fields of `/proc/<id>/stat` behind the name, which may hold spaces: state, parent, ...
fn stat(id: &str) -> Vec<String> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// CPU time of a process of one thread, to the nanosecond.
fn exact_cpu_seconds(id: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|nanos| nanos.parse::<f64>().ok()).map_or(0.0, |nanos| nanos / 1e9)
}
