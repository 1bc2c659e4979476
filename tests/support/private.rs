//! Private servers by `tests/private`: each in a folder of its own, gone when the test is, however the test ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::process::repository;

fn script() -> PathBuf {
    repository().join("tests/private")
}

/// Whether there are binaries of this kind. Where there are none, that is said loudly and is a failure in CI.
pub(crate) fn has(kind: &str) -> bool {
    let there = Command::new(script()).args(["has", kind]).status();
    if there.is_ok_and(|status| status.success()) {
        return true;
    }
    let notice = format!("\nSKIPPED: no binaries of {kind}: what needs it is not tested; tests/run installs it\n");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{notice}");
    // Not by eprintln: the harness keeps that to itself while a test passes.
    let _ = std::io::stderr().write_all(notice.as_bytes());
    false
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Hold {
    folder: String,
    url: String,
    /// Ends, and removes everything, when its input does.
    child: Child,
}

impl Hold {
    /// Starts one.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub(crate) fn start(what: &[&str]) -> Self {
        let mut command = Command::new(script());
        let mut child = command
            .arg("hold")
            .args(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/private can be started");
        let mut line = String::new();
        let output = child.stdout.take().expect("it was piped");
        BufReader::new(output).read_line(&mut line).expect("it prints a line");
        let (folder, url) = line.trim().split_once(' ').expect("it prints a folder and a URL");
        Self { folder: folder.to_owned(), url: url.to_owned(), child }
    }

    /// Its folder, by which `tests/private` knows it.
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// Its URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Has something done to it.
    pub(crate) async fn tell(&self, arguments: &[&str]) {
        let told = tokio::process::Command::new(script()).args(arguments).status().await;
        let told = told.expect("tests/private can be started");
        assert!(told.success(), "tests/private {arguments:?}: {told}");
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
