//! The README's lines to paste work: each is taken from the README itself and run against a demo.
//!
//! `buf curl` comes from where `tests/run` installed it; the grpcurl lines must be those that follow from the `buf curl`
//! lines, and run too where grpcurl is on the PATH.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tapefeed_tests::process::{self, Output};
use tapefeed_tests::{Options, Server, eventually, within};

use crate::readme;

/// How long one line may take, on a busy machine.
const LINE: Duration = Duration::from_secs(60);
/// The address in the README.
const ADDRESS: &str = "127.0.0.1:50051";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_buf_curl_line_of_the_readme_works() {
    let lines = lines_of("buf curl ");
    assert!(lines.len() >= 5, "{lines:?}");
    run_all(lines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_the_readme_with_the_command_line_works() {
    let lines: Vec<String> = readme::commands()
        .into_iter()
        .filter(|line| line.starts_with("tapefeed ") || line.starts_with("printf "))
        .collect();
    assert!(lines.len() >= 10, "{lines:?}");
    run_all(lines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcurl_lines_follow_from_the_buf_curl_lines_and_work_where_grpcurl_is() {
    let lines = lines_of("grpcurl ");
    let expected: Vec<String> = lines_of("buf curl ").iter().map(|line| grpcurl(line)).collect();
    assert_eq!(lines, expected);
    if on_path("grpcurl") {
        run_all(lines).await;
    } else {
        println!("grpcurl is not on the PATH: its lines are compared and not run");
    }
}

#[test]
fn every_command_of_the_readme_is_run_or_known() {
    /// Run by these tests, by `tests/run`, or by the tests of durability and of telemetry.
    const KNOWN: [&str; 12] = [
        "tapefeed ",
        "printf ",
        "buf curl ",
        "grpcurl ",
        "cargo run --release -p tapefeed-server -- demo",
        "cargo ",
        "tapefeed-server ",
        "OTEL_EXPORTER_OTLP_ENDPOINT=",
        "tests/run",
        "tests/history/run",
        "tests/simulation/sins",
        "bench/run",
    ];
    for line in readme::commands() {
        let known = KNOWN.iter().any(|known| line.starts_with(known)) || line.starts_with("sqlite3 ");
        assert!(known, "nothing runs this line of the README: {line}");
    }
}

/// The grpcurl line that does the same as a `buf curl` line.
fn grpcurl(line: &str) -> String {
    let arguments = line
        .strip_prefix("buf curl --protocol grpc --http2-prior-knowledge ")
        .unwrap_or_else(|| panic!("another beginning: {line}"));
    let (options, url) = arguments.split_once("http://").expect("a URL");
    if options == "--list-methods " {
        return format!("grpcurl -plaintext {url} list tapefeed.v1.HistoryService");
    }
    let (address, method) = url.split_once('/').expect("a method");
    format!("grpcurl -plaintext {options}{address} {method}")
}

fn lines_of(command: &str) -> Vec<String> {
    let mut lines = readme::commands();
    lines.retain(|line| line.starts_with(command));
    lines
}

/// Runs the lines one after the other, in one folder.
async fn run_all(lines: Vec<String>) {
    let server = Server::start(Options::demo()).await;
    wait_for_ticks(&server).await;
    for line in lines {
        run(&server, &line).await;
    }
}

async fn wait_for_ticks(server: &Server) {
    eventually("ticks of the demo", Duration::from_secs(10), || async {
        let printed = tapefeed_tests::Cli::new(server, ["latest", "*", "--json"]).run().await;
        (printed.stdout.lines().count() == 6).then_some(())
    })
    .await;
}

async fn run(server: &Server, line: &str) {
    let begin = std::time::Instant::now();
    let line = line.replace(ADDRESS, &server.address().to_string());
    // A line that streams for ever is run until it has printed something.
    let endless = line.contains("/Subscribe") || line.starts_with("tapefeed watch") || line.contains(" --follow");
    let shell = if endless { format!("exec {line}") } else { line.clone() };
    let mut command = process::command(Path::new("/bin/bash"), server.folder());
    let mut child = command
        .args(["-euo", "pipefail", "-c", &shell])
        .env("PATH", path())
        .env("TAPEFEED_SERVER", server.url())
        .stdin(Stdio::null())
        .spawn()
        .expect("bash is there");
    let pid = child.id().expect("it was not waited for yet");
    let _guard = tapefeed_tests::guard::Guard::over(pid);
    let output = Output::default();
    output.follow(&mut child);
    if endless {
        eventually(&line, LINE, || async { output.text().contains("AAPL").then_some(()) }).await;
        child.kill().await.expect("it still ran");
    } else {
        let status = within(&line, LINE, child.wait()).await.expect("a child can be waited for");
        assert!(status.success(), "{line}: {status}\n{}", output.text());
        // The pipes may hold a last line.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let silent = line.contains(" > ");
        assert!(silent || !output.text().trim().is_empty(), "{line} prints something");
    }
    println!("{:>6} ms  {line}", begin.elapsed().as_millis());
}

/// The PATH of a reader who has installed everything: our binaries and buf before the caller's.
fn path() -> String {
    let own = process::binary("tapefeed");
    let own = own.parent().expect("a binary lies in a folder").display().to_string();
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    format!("{own}:{}:{}", buf_folder().display(), inherited.to_string_lossy())
}

/// Where buf is: on the PATH, or where `tests/run` installed it.
fn buf_folder() -> PathBuf {
    let installed = process::repository().join("target/tools/bin");
    assert!(on_path("buf") || installed.join("buf").exists(), "buf is missing: `tests/run` installs it");
    installed
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
