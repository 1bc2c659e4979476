//! Child processes: where the binaries are, and what one printed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

/// What one process may print before the rest is dropped: enough for any log a test reads.
const OUTPUT_BYTES: usize = 4 * 1024 * 1024;

/// The binary of this name, of the same profile as the running test. `tests/run` builds both before the tests.
///
/// # Panics
///
/// If it was not built.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its own file");
    // target/<profile>/deps/it-0123456789abcdef
    let profile = test.ancestors().nth(2).expect("a test binary lies two folders deep");
    let path = profile.join(name);
    assert!(
        path.is_file(),
        "{} is missing: `tests/run` builds it, or `cargo build -p tapefeed-server -p tapefeed-cli` with the \
         profile of this test",
        path.display(),
    );
    path
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// The folder of real captures, if the caller has one.
pub fn sample_data() -> Option<PathBuf> {
    let folder = std::env::var_os("TAPEFEED_SAMPLE_DATA").map(PathBuf::from);
    if folder.is_none() {
        println!("TAPEFEED_SAMPLE_DATA is not set: the real captures are left out");
    }
    folder
}

/// The URL of a server that the caller has given to the tests, by the name of its variable.
pub fn given(variable: &str) -> Option<String> {
    let url = std::env::var_os(variable)?.into_string().ok();
    url.filter(|url| !url.is_empty())
}

/// A program of the system. `None`: it is not installed, which the output says; with `CI=true` that is a failure.
///
/// # Panics
///
/// If it is missing and CI needs it.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{name} is missing: tests/run installs it");
        eprintln!("SKIPPED: {name} is not installed, so what needs it is not tested; tests/run installs it");
    }
    found
}

/// A command that sees nothing of the caller's settings: no `TAPEFEED_*` or `OTEL_*` variable, and its own folder.
pub fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("TAPEFEED_") || name_text.starts_with("OTEL_") {
            command.env_remove(&name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// What a process has printed so far, both streams in the order of arrival.
#[derive(Debug, Clone, Default)]
pub struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Output {
    /// Gathers the two streams of a child until they end.
    pub fn follow(&self, child: &mut Child) {
        if let Some(stdout) = child.stdout.take() {
            self.gather(stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            self.gather(stderr);
        }
    }

    fn gather(&self, mut stream: impl AsyncRead + Unpin + Send + 'static) {
        let bytes = Arc::clone(&self.bytes);
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count) = stream.read(&mut buffer).await {
                if count == 0 {
                    break;
                }
                // The lock guards a buffer that is only appended to: a poisoned one is as good.
                let mut bytes = bytes.lock().unwrap_or_else(|error| error.into_inner());
                if bytes.len() < OUTPUT_BYTES {
                    bytes.extend_from_slice(&buffer[..count]);
                }
            }
        });
    }

    /// The text so far.
    pub fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(|error| error.into_inner());
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Sends a signal to one process by its id.
pub async fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).kill_on_drop(true).status();
    let status = tokio::time::timeout(Duration::from_secs(10), status)
        .await
        .expect("kill answers at once")
        .expect("sh is there");
    assert!(status.success(), "kill -{name} {pid}: {status}");
}
