//! The real server as a child process, with a folder, a port and a store file of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Child;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::guard::Guard;
use crate::process::{self, Output};
use crate::stubs::Stubs;
use crate::wait::within;

/// How long a server may take from its start until it serves. Far more than it needs, for a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long one look at its health may take.
const HEALTH: Duration = Duration::from_secs(1);
/// How long a server may take from SIGTERM to its end: 20 s by contract, and a little for the machine.
const END: Duration = Duration::from_secs(25);

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// The command: `serve` or `demo`.
    pub command: &'static str,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// The store file. `None`: `tapefeed.db` (or what the command says by itself) in the server's own folder.
    pub store: Option<PathBuf>,
    /// The URL of a Postgres database, in place of a store file.
    pub database: Option<String>,
    /// Where to listen. `None`: a free port.
    pub listen: Option<SocketAddr>,
    /// A program with arguments that starts the server in its own place, such as `strace -D`. Default empty.
    pub under: Vec<String>,
}

impl Options {
    /// `tapefeed-server serve`.
    pub fn serve() -> Self {
        Self {
            command: "serve",
            arguments: Vec::new(),
            environment: Vec::new(),
            store: None,
            database: None,
            listen: None,
            under: Vec::new(),
        }
    }

    /// `tapefeed-server demo`.
    pub fn demo() -> Self {
        Self { command: "demo", ..Self::serve() }
    }

    /// Adds an argument.
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Listens there.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Starts the server by this program, which must become the server.
    pub fn under<A: Into<String>>(mut self, program: impl IntoIterator<Item = A>) -> Self {
        self.under = program.into_iter().map(Into::into).collect();
        self
    }

    /// Keeps its ticks in this Postgres database.
    pub fn database(mut self, url: &str) -> Self {
        self.database = Some(url.to_owned());
        self
    }

    /// Uses this store file.
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.store = Some(path.into());
        self
    }
}

/// A running server. Dropping it kills it and removes its folder; if the test is failing, its output is printed.
#[derive(Debug)]
pub struct Server {
    options: Options,
    folder: TempDir,
    address: SocketAddr,
    running: Option<Running>,
    output: Output,
}

#[derive(Debug)]
struct Running {
    child: Child,
    pid: u32,
    // Behind the child: the mark goes after the process.
    _guard: Guard,
}

/// A server that ended instead of serving.
#[derive(Debug)]
pub struct Refused {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub output: String,
}

impl Server {
    /// Starts a server and waits until it serves.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub async fn start(options: Options) -> Self {
        let mut server = Self::prepare(options);
        server.restart().await;
        server
    }

    /// Starts a server that may refuse to.
    pub async fn try_start(options: Options) -> Result<Self, Refused> {
        let mut server = Self::prepare(options);
        server.try_restart().await?;
        Ok(server)
    }

    fn prepare(options: Options) -> Self {
        Self {
            address: options.listen.unwrap_or_else(free_address),
            options,
            folder: tempfile::Builder::new()
                .prefix("tapefeed-test-")
                .tempdir()
                .expect("a temporary folder can be made"),
            running: None,
            output: Output::default(),
        }
    }

    /// Starts the server again, on the same port and store file.
    ///
    /// # Panics
    ///
    /// If it still runs, or does not serve.
    pub async fn restart(&mut self) {
        if let Err(refused) = self.try_restart().await {
            panic!("the server ended with {} instead of serving:\n{}", refused.status, refused.output);
        }
    }

    /// Starts the server again; it may refuse to.
    pub async fn try_restart(&mut self) -> Result<(), Refused> {
        self.spawn();
        let begin = std::time::Instant::now();
        loop {
            let running = self.running.as_mut().expect("it was just started");
            if let Some(status) = running.child.try_wait().expect("a child can be asked") {
                // The pipes may hold a last line.
                tokio::time::sleep(Duration::from_millis(100)).await;
                self.running = None;
                return Err(Refused { status, output: self.output.text() });
            }
            if self.is_serving().await {
                return Ok(());
            }
            assert!(begin.elapsed() < START, "the server does not serve within {START:?}:\n{}", self.output.text());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts the process, and waits for nothing.
    pub fn spawn(&mut self) {
        assert!(self.running.is_none(), "the server still runs");
        let binary = process::binary("tapefeed-server");
        let program = self.options.under.first().map_or(binary.as_path(), Path::new);
        let mut command = process::command(program, self.folder.path());
        if let Some(arguments) = self.options.under.get(1..) {
            command.args(arguments).arg(&binary);
        }
        command.arg(self.options.command).arg("--listen").arg(self.address.to_string());
        if let Some(store) = &self.options.store {
            command.arg("--store").arg(format!("sqlite://{}", store.display()));
        }
        if let Some(url) = &self.options.database {
            command.arg("--store").arg(url);
        }
        command.args(&self.options.arguments).envs(self.options.environment.iter().cloned());
        let mut child = command.spawn().expect("the server's binary can be started");
        let pid = child.id().expect("it was not waited for yet");
        self.output.follow(&mut child);
        self.running = Some(Running { child, pid, _guard: Guard::over(pid) });
    }

    /// Whether health says so, now. Who takes the connection and says nothing does not serve.
    pub async fn is_serving(&self) -> bool {
        let check = async {
            let channel = self.endpoint().connect().await.ok()?;
            let request = HealthCheckRequest { service: String::new() };
            let answer = HealthClient::new(channel).check(request).await.ok()?;
            (answer.get_ref().status() == ServingStatus::Serving).then_some(())
        };
        matches!(tokio::time::timeout(HEALTH, check).await, Ok(Some(())))
    }

    /// Kills the server as a power cut would, and waits until it is gone. What it had open is closed by the kernel.
    pub async fn kill9(&mut self) {
        let mut running = self.running.take().expect("the server runs");
        // `kill` waits too; an error says that it has ended by itself.
        let killed = within("the end of a killed server", END, running.child.kill()).await;
        killed.expect("the server still ran");
    }

    /// Asks the server to end, and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        process::signal(self.pid(), "TERM").await;
        self.ended().await
    }

    /// Waits until the server has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("the server runs");
        let status = within("the server's end", END, running.child.wait()).await;
        status.expect("a child can be waited for")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("the server runs").pid
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as clients are told.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The folder that it runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its store file.
    pub fn store(&self) -> PathBuf {
        match (&self.options.store, self.options.command) {
            (Some(path), _) => path.clone(),
            (None, "demo") => self.folder.path().join("tapefeed-demo.db"),
            (None, _) => self.folder.path().join("tapefeed.db"),
        }
    }

    /// The URL of its Postgres database, if its store is one.
    pub fn database(&self) -> Option<&str> {
        self.options.database.as_deref()
    }

    /// What it has printed so far, over all its starts.
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// How it was started.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The options, to change them before a restart.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// A new connection to it.
    pub async fn channel(&self) -> Channel {
        self.endpoint().connect().await.expect("a server that serves takes connections")
    }

    /// Bare stubs over a new connection.
    pub async fn stubs(&self) -> Stubs {
        Stubs::over(self.channel().await)
    }

    /// How to connect to it.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(self.url()).expect("an address is a valid URL").connect_timeout(Duration::from_secs(5))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the server printed:\n{}\n---", self.output.text());
        }
        if let Some(mut running) = self.running.take() {
            // Waited for here, so that its id is free before the guard forgets it.
            let _ = running.child.start_kill();
            while let Ok(None) = running.child.try_wait() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// A port that nothing listens on. Below the range from which the kernel gives ports to outgoing connections, so that
/// no client takes it before the server does.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 200).expect("below 200") * 100;
    loop {
        let port = 10_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
