//! The command line `tapefeed` as a child process.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use crate::guard::Guard;
use crate::process;
use crate::server::Server;
use crate::wait::within;

/// How long one command may take, on a busy machine.
const COMMAND: Duration = Duration::from_secs(120);

/// One call of `tapefeed`.
#[derive(Debug)]
pub struct Cli {
    arguments: Vec<String>,
    server: Option<String>,
    stdin: Vec<u8>,
    limit: Duration,
    cut_after: Option<Duration>,
}

/// What a call printed, and how it ended.
#[derive(Debug)]
pub struct Printed {
    /// The exit code. `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Cli {
    /// `tapefeed` with these arguments, against a server.
    pub fn new<I, A>(server: &Server, arguments: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: Into<String>,
    {
        Self { server: Some(server.url()), ..Self::bare(arguments) }
    }

    /// `tapefeed` with these arguments alone.
    pub fn bare<I, A>(arguments: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: Into<String>,
    {
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            server: None,
            stdin: Vec::new(),
            limit: COMMAND,
            cut_after: None,
        }
    }

    /// Gives it this to read.
    pub fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Fails the test after this long instead.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Ends a command that runs for ever, such as `watch`, after this long.
    pub fn cut_after(mut self, time: Duration) -> Self {
        self.cut_after = Some(time);
        self
    }

    /// Runs it to its end.
    pub async fn run(self) -> Printed {
        let program = process::binary("tapefeed");
        let mut command = process::command(&program, Path::new("/"));
        command.args(&self.arguments).stdin(Stdio::piped());
        if let Some(server) = &self.server {
            command.env("TAPEFEED_SERVER", server);
        }
        let mut child = command.spawn().expect("the command line can be started");
        let pid = child.id().expect("it was not waited for yet");
        let _guard = Guard::over(pid);
        let mut stdin = child.stdin.take().expect("its input is a pipe");
        let text = self.stdin;
        let feed = tokio::spawn(async move {
            // A command that does not read its input closes it.
            let _ = stdin.write_all(&text).await;
        });
        let cut = tokio::spawn(async move {
            if let Some(time) = self.cut_after {
                tokio::time::sleep(time).await;
                process::signal(pid, "INT").await;
            }
        });
        let what = format!("tapefeed {}", self.arguments.join(" "));
        let output = within(&what, self.limit, child.wait_with_output()).await;
        feed.abort();
        cut.abort();
        let output = output.expect("a child can be waited for");
        Printed {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it, and expects success.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn ok(self) -> Printed {
        let what = self.arguments.join(" ");
        let printed = self.run().await;
        assert_eq!(printed.code, Some(0), "tapefeed {what}: {printed:?}");
        printed
    }

    /// Runs it, and expects exit code 1 with a message.
    ///
    /// # Panics
    ///
    /// If it succeeds, or says nothing.
    pub async fn refused(self) -> Printed {
        let what = self.arguments.join(" ");
        let printed = self.run().await;
        assert_eq!(printed.code, Some(1), "tapefeed {what}: {printed:?}");
        assert!(!printed.stderr.trim().is_empty(), "tapefeed {what} says why");
        printed
    }
}

impl Printed {
    /// The lines of `--json`.
    ///
    /// # Panics
    ///
    /// If a line is no JSON object.
    pub fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| {
            let value: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in the line {line:?}"));
            assert!(value.is_object(), "one object a line: {line:?}");
            value
        };
        self.stdout.lines().map(parse).collect()
    }
}
