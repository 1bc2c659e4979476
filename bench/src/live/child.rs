//! Peers as processes, told apart by their CPU time.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::process::cpu_seconds;

type Problem = Box<dyn std::error::Error>;

/// A process that sends to its subscribers; killed when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Where it listens.
    pub address: String,
}

impl Peer {
    /// This program as a peer: see [`super::peer::run`].
    pub async fn own(arguments: &[String]) -> Result<Peer, Problem> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("peer")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let mut port = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut port).await?;
        Ok(Peer { child, stdin, address: format!("127.0.0.1:{}", port.trim()) })
    }

    /// A Redis that keeps nothing and never cuts a slow subscriber.
    pub async fn redis() -> Result<Peer, Problem> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
        Peer::server(command, port).await
    }

    /// A NATS server.
    pub async fn nats(binary: &Path) -> Result<Peer, Problem> {
        let port = free_port()?;
        let mut command = Command::new(binary);
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
        Peer::server(command, port).await
    }

    async fn server(mut command: Command, port: u16) -> Result<Peer, Problem> {
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
        let address = format!("127.0.0.1:{port}");
        for _ in 0..100 {
            if tokio::net::TcpStream::connect(&address).await.is_ok() {
                return Ok(Peer { child, stdin: None, address });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("the peer did not start within 5 s".into())
    }

    /// Tells a peer of our own to send so many messages.
    pub async fn send(&mut self, messages: usize) -> Result<(), Problem> {
        let stdin = self.stdin.as_mut().ok_or("only our own peers are told")?;
        stdin.write_all(format!("send {messages}\n").as_bytes()).await?;
        stdin.flush().await?;
        Ok(())
    }

    /// CPU time that it has used, user and system, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.child.id().map_or(0.0, |id| cpu_seconds(&id.to_string()))
    }
}

fn free_port() -> Result<u16, Problem> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
