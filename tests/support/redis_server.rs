//! Redis for tests: one of a test's own, with a private port and a folder, killed by its id; or one that is left alone.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::process::{given, installed};

/// A running `redis-server`. Killed when dropped, if it is the test's own.
#[derive(Debug)]
pub struct RedisServer {
    url: String,
    own: Option<Own>,
}

/// A server that the test has started.
#[derive(Debug)]
struct Own {
    program: PathBuf,
    port: u16,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

/// How many databases a Redis has, unless it was told otherwise.
const DATABASES: u32 = 16;

impl RedisServer {
    /// Starts one; `None`, said loudly, where the machine has none.
    ///
    /// # Panics
    ///
    /// If it does not start, or is missing and CI needs it.
    pub async fn start() -> Option<RedisServer> {
        let program = installed("redis-server")?;
        // Freed at once; nobody else on this machine takes ports at random in that moment.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("redis://:{PASSWORD}@127.0.0.1:{port}");
        let mut server = RedisServer { url, own: Some(Own { program, port, folder, child: None }) };
        server.run().await;
        Some(server)
    }

    /// An emptied database of the server of `TAPEFEED_TEST_REDIS_URL`, or a server of the test's own where that is not
    /// set. For tests that do nothing to the server itself.
    ///
    /// # Panics
    ///
    /// As [`RedisServer::start`], or if the given server does not answer.
    pub async fn given_or_own() -> Option<RedisServer> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(given) = given("TAPEFEED_TEST_REDIS_URL") else { return RedisServer::start().await };
        let database = NEXT.fetch_add(1, Ordering::Relaxed) % DATABASES;
        let server = RedisServer { url: format!("{}/{database}", given.trim_end_matches('/')), own: None };
        let mut connection = server.connect().await.expect("the given Redis takes connections");
        redis::cmd("FLUSHDB").exec_async(&mut connection).await.expect("the given Redis may be emptied");
        Some(server)
    }

    fn own(&mut self) -> &mut Own {
        self.own.as_mut().expect("only what the test has started is killed, frozen and started again")
    }

    /// Starts it again after a kill, empty.
    pub async fn run(&mut self) {
        let own = self.own();
        let child = Command::new(&own.program)
            .args(["--port", &own.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--requirepass", PASSWORD])
            .current_dir(own.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server starts");
        own.child = Some(child);
        for _ in 0..500 {
            if let Ok(mut connection) = self.connect().await
                && redis::cmd("PING").exec_async(&mut connection).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not answer");
    }

    /// Its address, with the password.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// A connection for the test's own commands.
    pub async fn connect(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        redis::Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    /// Kills it as the kernel would.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.own().child.take() {
            child.kill().await.expect("it can be killed");
        }
    }

    /// Freezes it, or lets it go on.
    pub async fn freeze(&mut self, frozen: bool) {
        let id = self.own().child.as_ref().and_then(Child::id).expect("it runs");
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let done = Command::new("kill").args([signal, &id.to_string()]).status().await;
        assert!(done.is_ok_and(|status| status.success()));
    }
}

/// What nobody may see in a log.
pub const PASSWORD: &str = "s3cret-of-the-bus";
