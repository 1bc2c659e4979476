//! The README tells the truth: its options are those of `--help`, and its table of calls is what the server serves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tapefeed_tests::process::{self, repository};
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::{Options, Server, within};
use tonic::{Request, Status};

use crate::raw::RawCodec;

fn text() -> String {
    fs::read_to_string(repository().join("README.md")).expect("there is a README")
}

/// The lines of all shell blocks, without comments; a line that ends in a backslash goes on in the next.
pub(crate) fn commands() -> Vec<String> {
    let text = text();
    let mut commands = Vec::new();
    let mut in_block = false;
    let mut open = String::new();
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            in_block = language == "sh";
            continue;
        }
        // A comment begins after two blanks, which no command here has.
        let command = line.split_once("  #").map_or(line, |(command, _)| command).trim();
        if !in_block || command.is_empty() || command.starts_with('#') {
            continue;
        }
        match command.strip_suffix('\\') {
            Some(begin) => open.push_str(begin),
            None => commands.push(std::mem::take(&mut open) + command),
        }
    }
    commands
}

/// The blocks of SQL that have something in them.
pub(crate) fn statements(with: &str) -> Vec<String> {
    let text = text();
    let blocks = text.split("```sql\n").skip(1).filter_map(|rest| rest.split_once("```"));
    blocks.map(|(block, _)| block.to_owned()).filter(|block| block.contains(with)).collect()
}

/// The rows of all tables, cell by cell, without back-ticks.
fn rows() -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for line in text().lines() {
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            continue;
        };
        rows.push(cells.split(" | ").map(|cell| cell.trim().replace('`', "")).collect());
    }
    rows
}

/// What `--help` says of one option.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
struct OptionRow {
    flag: String,
    variable: String,
    default: String,
}

/// Every option of `tapefeed-server`, by its flag.
async fn options_of_help() -> BTreeSet<OptionRow> {
    let mut options = BTreeSet::new();
    for arguments in [&["demo", "--help"][..], &["serve", "--help"], &["epoch", "renew", "--help"]] {
        let server = process::binary("tapefeed-server");
        let output = process::command(&server, Path::new("/")).args(arguments).output();
        let output = within("the help", Duration::from_secs(10), output).await;
        let output = output.expect("the binary can be started");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let help = String::from_utf8(output.stdout).expect("help is text");
        for part in entries(&help) {
            let at = part.find("--").expect("every option has a long flag");
            let flag: String = part[at..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            if flag == "--help" || flag == "--version" {
                continue;
            }
            let inside = |begin: &str| {
                part.split_once(begin)
                    .and_then(|(_, rest)| rest.split_once(']'))
                    .map_or(String::new(), |(inside, _)| inside.trim_end_matches('=').to_owned())
            };
            options.insert(OptionRow { flag, variable: inside("[env: "), default: inside("[default: ") });
        }
    }
    options
}

/// The options of a help text, each with its lines joined.
fn entries(help: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    let mut open = false;
    for line in help.lines().map(str::trim) {
        if line.starts_with('-') {
            entries.push(line.to_owned());
            open = true;
        } else if let Some(entry) = entries.last_mut().filter(|_| open && !line.is_empty()) {
            entry.push(' ');
            entry.push_str(line);
        } else if !line.is_empty() {
            open = false;
        }
    }
    entries
}

#[tokio::test]
async fn option_table_is_that_of_the_help() {
    let mut told: BTreeMap<String, (String, String)> = BTreeMap::new();
    for row in rows() {
        if let [flag, variable, default, _] = row.as_slice()
            && flag.starts_with("--")
        {
            told.insert(flag.clone(), (variable.clone(), default.clone()));
        }
    }
    let options = options_of_help().await;
    let flags: BTreeSet<&String> = options.iter().map(|option| &option.flag).collect();
    assert_eq!(told.keys().collect::<BTreeSet<_>>(), flags);
    for OptionRow { flag, variable, default } in &options {
        let (told_variable, told_default) = &told[flag];
        // The demo's store has no variable; the one of `serve` has.
        assert!(
            variable.is_empty() || told_variable == variable,
            "{flag}: {variable:?}, and the README says {told_variable:?}"
        );
        assert!(told_default.contains(default.as_str()), "{flag}: {default:?}, and the README says {told_default:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_of_calls_is_what_the_server_serves() {
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    for row in rows() {
        if let [service, method, _, served] = row.as_slice()
            && service.ends_with("Service")
        {
            told.insert(format!("/tapefeed.v1.{service}/{method}"), served.clone());
        }
    }
    let methods = methods();
    assert_eq!(told.keys().collect::<Vec<_>>(), methods.iter().collect::<Vec<_>>());

    let server = Server::start(Options::serve()).await;
    for method in methods {
        let served = is_served(&server, &method).await;
        let word = if served { "yes" } else { "NOT_SERVED" };
        assert_eq!(told[&method], word, "{method}");
    }
}

/// The paths of all methods of the contract, sorted.
fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(tapefeed_proto::FILE_DESCRIPTOR_SET).expect("a descriptor");
    let mut methods = Vec::new();
    for file in &set.file {
        for service in file.service.iter().filter(|_| file.package() == "tapefeed.v1") {
            for method in &service.method {
                methods.push(format!("/tapefeed.v1.{}/{}", service.name(), method.name()));
            }
        }
    }
    methods.sort();
    methods
}

/// Whether a call with an empty message is anything but NOT_SERVED.
async fn is_served(server: &Server, method: &str) -> bool {
    match first_answer(server, method).await {
        Ok(()) => true,
        Err(status) => Refusal::of(&status).reason != "NOT_SERVED",
    }
}

async fn first_answer(server: &Server, method: &str) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    grpc.ready().await.expect("the connection is open");
    let path = method.parse().expect("a path");
    let request = Request::new(tokio_stream::once(Bytes::new()));
    let answer = async {
        let mut answers = grpc.streaming(request, path, RawCodec).await?.into_inner();
        answers.message().await.map(|_| ())
    };
    within(method, Duration::from_secs(20), answer).await
}
