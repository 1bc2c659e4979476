//! A Redis of the test's own: a private port, a folder of its own, killed by its id.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::process::installed;

/// A running `redis-server`. Killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    program: PathBuf,
    port: u16,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

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
        let mut server = RedisServer { program, port, folder, child: None };
        server.run().await;
        Some(server)
    }

    /// Starts it again after a kill, empty.
    pub async fn run(&mut self) {
        let child = Command::new(&self.program)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--requirepass", PASSWORD])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server starts");
        self.child = Some(child);
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
        format!("redis://:{PASSWORD}@127.0.0.1:{}", self.port)
    }

    /// A connection for the test's own commands.
    pub async fn connect(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        redis::Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    /// Kills it as the kernel would.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("it can be killed");
        }
    }

    /// Freezes it, or lets it go on.
    pub async fn freeze(&self, frozen: bool) {
        let id = self.child.as_ref().and_then(Child::id).expect("it runs");
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let done = Command::new("kill").args([signal, &id.to_string()]).status().await;
        assert!(done.is_ok_and(|status| status.success()));
    }
}

/// What nobody may see in a log.
pub const PASSWORD: &str = "s3cret-of-the-bus";
