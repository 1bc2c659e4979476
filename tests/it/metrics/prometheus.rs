//! The files in deploy/, with the real Prometheus over the real server.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tapefeed_proto::v1 as proto;
use tapefeed_tests::guard::Guard;
use tapefeed_tests::process::{self, Output, installed, repository};
use tapefeed_tests::server::free_address;
use tapefeed_tests::{Options, Publisher, Server, eventually, http, within};
use tokio::io::AsyncWriteExt as _;

use super::{Scrape, read, ticks, work};

/// How long Prometheus may take to start, or one of its tools to run.
const START: Duration = Duration::from_secs(60);

/// How long until every expression of the dashboard has a series: rates need a few scrapes.
const SERIES: Duration = Duration::from_secs(90);

fn deploy() -> PathBuf {
    repository().join("deploy")
}

/// Runs promtool in deploy/ with something on its input, and returns how it ended and what it said.
async fn promtool(promtool: &Path, arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = process::command(promtool, &deploy());
    let mut child = command.args(arguments).stdin(Stdio::piped()).spawn().expect("promtool can be started");
    let mut stdin = child.stdin.take().expect("it was asked for");
    stdin.write_all(input.as_bytes()).await.expect("promtool reads");
    drop(stdin);
    let output = within("promtool", START, child.wait_with_output()).await.expect("it can be waited for");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test]
async fn promtool_finds_nothing_to_say() {
    let Some(tool) = installed("promtool") else { return };
    for arguments in [
        &["check", "rules", "alerts.yml"][..],
        &["check", "config", "prometheus.yml"],
        &["test", "rules", "alerts_test.yml"],
    ] {
        let (good, said) = promtool(&tool, arguments, "").await;
        assert!(good, "promtool {arguments:?}: {said}");
    }
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let _stream = work(&server, &stubs).await;
    let scrape = Scrape::of(server.address()).await;
    let (good, said) = promtool(&tool, &["check", "metrics"], &scrape.text).await;
    assert!(good && said.trim().is_empty(), "promtool check metrics: {said}");
}

/// A running Prometheus. Its process is ended with it.
struct Prometheus {
    address: SocketAddr,
    output: Output,
    child: tokio::process::Child,
    _guard: Guard,
}

impl Prometheus {
    async fn start(program: &Path, folder: &Path, target: SocketAddr) -> Prometheus {
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{}]\n\
             scrape_configs: [{{job_name: tapefeed, static_configs: [{{targets: ['{target}']}}]}}]\n",
            deploy().join("alerts.yml").display()
        );
        let file = folder.join("prometheus.yml");
        fs::write(&file, config).expect("a temporary folder takes a file");
        let address = free_address();
        let mut command = process::command(program, folder);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            // It serves one small server: one processor is plenty, and leaves the others to the tests.
            .env("GOMAXPROCS", "1");
        let mut child = command.spawn().expect("prometheus can be started");
        let guard = Guard::over(child.id().expect("it was not waited for yet"));
        let output = Output::default();
        output.follow(&mut child);
        let mut prometheus = Prometheus { address, output, child, _guard: guard };
        let begin = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err()
            || http::get_whole(address, "/-/ready").await.status != 200
        {
            let ended = prometheus.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none() && begin.elapsed() < START, "{ended:?}: {}", prometheus.output.text());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        prometheus
    }

    async fn ask(&self, path: &str) -> Value {
        let answer = http::get_whole(self.address, path).await;
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("no JSON at {path}: {}", answer.text()))
    }

    /// The series of an expression, or what is wrong with it.
    async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let answer = self.ask(&format!("/api/v1/query?query={}", encoded(expression))).await;
        match answer["data"]["result"].as_array() {
            Some(series) if answer["status"] == "success" => Ok(series.clone()),
            _ => Err(answer["error"].to_string()),
        }
    }

    async fn end(mut self) {
        let killed = within("the end of prometheus", START, self.child.kill()).await;
        killed.expect("prometheus still ran");
    }
}

/// A value of a query string.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The panels of the dashboard that are no rows.
fn panels() -> Vec<Value> {
    let text = fs::read_to_string(deploy().join("grafana-dashboard.json")).expect("there is a dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels").clone();
    panels.into_iter().filter(|panel| panel["type"] != "row").collect()
}

/// The expressions of a panel, with the variables filled in as Grafana would.
fn expressions(panel: &Value) -> Vec<String> {
    let targets = panel["targets"].as_array().expect("a panel has targets");
    let expression = |target: &Value| {
        let text = target["expr"].as_str().expect("a target has an expression");
        text.replace("$instance", ".*").replace("$__rate_interval", "5s")
    };
    targets.iter().map(expression).collect()
}

#[test]
fn every_panel_has_what_a_reader_needs() {
    let text = fs::read_to_string(deploy().join("grafana-dashboard.json")).expect("there is a dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
    assert!(dashboard["schemaVersion"].as_u64() >= Some(41));
    let variables = dashboard["templating"]["list"].as_array().expect("it has variables");
    assert!(variables.iter().any(|variable| variable["type"] == "datasource" && variable["name"] == "datasource"));
    let panels = panels();
    assert!(panels.len() > 30);
    let mut ids = BTreeSet::new();
    for panel in &panels {
        let title = panel["title"].as_str().expect("a panel has a title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is taken");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(panel["description"].as_str().is_some_and(|words| words.len() > 20), "{title}: no description");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
        for target in panel["targets"].as_array().expect("a panel has targets") {
            assert!(target["legendFormat"].as_str().is_some_and(|legend| !legend.is_empty()), "{title}: no legend");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_expression_has_an_answer() {
    let Some(program) = installed("prometheus") else { return };
    let server = Server::start(Options::serve().argument("--compact-age=100ms")).await;
    let stubs = server.stubs().await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let prometheus = Prometheus::start(&program, folder.path(), server.address()).await;

    let mut stream = work(&server, &stubs).await;
    let mut publisher = Publisher::claim(&stubs, "steady").await.expect("granted");
    let mut open: BTreeSet<String> = panels().iter().flat_map(expressions).collect();
    let begin = Instant::now();
    while !open.is_empty() {
        publisher.rows(ticks("AAA", 10)).await.expect("stored");
        read(&mut stream, 10).await;
        let request = proto::ListTicksRequest { symbol: "AAA".into(), page_size: 5, ..Default::default() };
        stubs.history.clone().list_ticks(request).await.expect("known");
        let mut without = BTreeSet::new();
        for expression in open {
            let series = prometheus.query(&expression).await;
            let series = series.unwrap_or_else(|problem| panic!("{expression}: {problem}"));
            if series.is_empty() {
                without.insert(expression);
            }
        }
        open = without;
        assert!(begin.elapsed() < SERIES, "no series for {open:#?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    // Prometheus itself has run every rule, and each worked; on a healthy server only what was planted fires.
    let rules = eventually("every rule was evaluated", START, || async {
        let answer = prometheus.ask("/api/v1/rules").await;
        let rules = answer["data"]["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|rule| rule["health"] == "ok").then_some(rules)
    })
    .await;
    assert!(rules.len() > 15);
    for rule in &rules {
        let name = rule["name"].as_str().expect("a rule has a name");
        for word in ["summary", "description", "action"] {
            assert!(rule["annotations"][word].as_str().is_some_and(|words| words.len() > 10), "{name}: no {word}");
        }
        let series = prometheus.query(rule["query"].as_str().expect("a rule has an expression")).await;
        let series = series.unwrap_or_else(|problem| panic!("{name}: {problem}"));
        // The last one is about this machine.
        let may_fire = ["TapefeedBatchesRefused", "TapefeedImportRejects", "TapefeedDiskNearlyFull"];
        assert!(series.is_empty() || may_fire.contains(&name), "{name}: {series:?}");
    }
    prometheus.end().await;
}
