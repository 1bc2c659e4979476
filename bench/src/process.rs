//! The server as a process of its own, so that its CPU time can be told apart.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

/// Clock ticks a second in `/proc`, on every Linux that matters.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens, as a URL.
    pub url: String,
}

impl Server {
    /// Starts a server on a free port over a store file, and waits until it answers.
    pub async fn start(binary: &Path, store: &Path) -> Result<Server, Box<dyn std::error::Error>> {
        Server::start_with(binary, store, &[]).await
    }

    /// The same, with variables in its environment.
    pub async fn start_with(
        binary: &Path,
        store: &Path,
        variables: &[(&str, &str)],
    ) -> Result<Server, Box<dyn std::error::Error>> {
        Server::start_on(binary, &["--store", &format!("sqlite://{}", store.display())], variables).await
    }

    /// Starts a server with options of any kind.
    pub async fn start_on(
        binary: &Path,
        options: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Server, Box<dyn std::error::Error>> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        drop(listener);
        let mut child = Command::new(binary)
            .args(["serve", "--listen", &address.to_string()])
            .args(options)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let url = format!("http://{address}");
        for _ in 0..600 {
            if tonic::transport::Endpoint::from_shared(url.clone())?.connect().await.is_ok() {
                return Ok(Server { child, url });
            }
            if let Some(status) = child.try_wait()? {
                return Err(format!("the server ended at its start: {status}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("the server did not start within 30 s".into())
    }

    /// Kills it, and waits until it has let go of its store.
    pub async fn kill(mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// CPU time that it has used, user and system, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.child.id().map_or(0.0, |id| cpu_seconds(&id.to_string()))
    }

    /// The most memory that it has had resident, in MiB.
    pub fn peak_memory_mib(&self) -> f64 {
        self.memory_mib("VmHWM:")
    }

    /// The memory that it has resident now, in MiB.
    pub fn resident_memory_mib(&self) -> f64 {
        self.memory_mib("VmRSS:")
    }

    fn memory_mib(&self, name: &str) -> f64 {
        let status = self.child.id().and_then(|id| std::fs::read_to_string(format!("/proc/{id}/status")).ok());
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map_or(0.0, |kib| kib / 1_024.0)
    }
}

/// CPU time of a process by its id, or of `self`, in seconds.
pub fn cpu_seconds(id: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // Fields are counted after the name, which may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (field(11) + field(12)) / TICKS_PER_SECOND
}
