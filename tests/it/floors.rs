//! The server's floors: imports go down only, siblings do not import each other, and each floor keeps to its tools.
//!
//! The checker reads source text. It knows comments, strings, groups in braces, `super` chains and inline modules, and
//! no macros: a path made by a macro of our own would pass unseen, so there are none. Files of tests (`tests.rs` and
//! below `tests/`) are left out: they are not part of the server, and a floor may be tested from the floors above it.

use std::fs;
use std::path::{Path, PathBuf};

use tapefeed_tests::process::repository;

/// The floors from the ground up. What is not listed (`main.rs`, `app.rs`, `config.rs`, ...) is the top floor.
const FLOORS: &[(&str, usize)] = &[
    ("domain", 0),
    ("metrics", 0),
    ("store", 1),
    ("bus", 1),
    ("trace", 1),
    ("dormant", 1),
    ("tape", 2),
    ("query", 3),
    ("live", 3),
    ("ingest", 3),
    ("grpc", 4),
    ("http", 4),
];

/// Words that the ground floor must not know: nothing waits there, and nothing speaks to a wire or a disk.
const NOT_ON_THE_GROUND: &[&str] =
    &["async", "await", "tokio", "sqlx", "tonic", "prost", "tapefeed_proto", "SystemTime", "Instant"];

#[test]
fn imports_of_the_server_go_down_only() {
    let root = repository().join("server/src");
    let files = rust_files(&root);
    assert!(files.len() > 20, "only {} files: is this the server?", files.len());
    let mut violations = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).expect("a source file is text");
        let name = file.strip_prefix(&root).expect("it was found there");
        if name.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs"))) {
            continue;
        }
        violations.extend(check(name, &source));
    }
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn every_floor_exists() {
    let root = repository().join("server/src");
    for (floor, _) in FLOORS {
        let folder = root.join(floor);
        assert!(
            folder.is_dir() || folder.with_extension("rs").is_file(),
            "server/src/{floor} is missing: name the floors anew"
        );
    }
}

#[test]
fn a_planted_import_is_found() {
    let planted = [
        ("domain/tick.rs", "use crate::store::Store;", "upward"),
        ("store/mod.rs", "use crate::bus::Bus;", "sideways"),
        ("bus/local.rs", "use crate::{domain, store::Store};", "sideways"),
        ("bus/local.rs", "use crate::{\n  domain::{a, b},\n  tape,\n};", "upward"),
        ("query/plan.rs", "fn f() { crate::live::g(); }", "sideways"),
        ("query/plan/cut.rs", "use super::super::super::grpc::x;", "upward"),
        ("live/mod.rs", "use super::ingest::Writer;", "sideways"),
        ("live/session.rs", "mod tests { use super::super::super::grpc::x; }", "upward"),
        ("tape/hub.rs", "use crate::config::Config;", "upward"),
        ("tape/hub.rs", "use tapefeed_proto::v1 as proto;", "contract"),
        ("ingest/mod.rs", "let a = std::env::var(\"A\");", "environment"),
        ("app.rs", "use std::env;\nlet a = env::args();", "environment"),
        ("domain/clock.rs", "async fn now() {}", "ground floor"),
        ("metrics/ingest.rs", "let begun = std::time::Instant::now();", "ground floor"),
        ("metrics/ingest.rs", "use crate::domain::UnixNanos;", "sideways"),
        ("query/cache.rs", "use prometheus_client::metrics::counter::Counter;", "how metrics are kept"),
    ];
    for (file, source, kind) in planted {
        let found = check(Path::new(file), source);
        assert!(found.iter().any(|violation| violation.contains(kind)), "{file}: {source}: {found:?}");
    }
}

#[test]
fn an_honest_import_passes() {
    let honest = [
        ("domain/tick.rs", "use crate::domain::time::Time;\nuse super::decimal::Decimal;"),
        ("tape/hub.rs", "use crate::{bus::Bus, domain::{a, b}, store};"),
        ("tape/hub.rs", "// crate::grpc says so\nlet a = \"crate::grpc\";\n/* crate::http /* crate::grpc */ */"),
        ("tape/hub.rs", "pub(crate) fn f<'a>(x: &'a str) -> char { '\\'' }"),
        ("tape/hub.rs", "let a = r#\"say \"crate::grpc\" twice\"#;"),
        ("live/session.rs", "mod tests { use super::super::Live; use super::*; }"),
        ("query/cache.rs", "use crate::metrics::ChunkMetrics;"),
        ("metrics/rpc.rs", "use prometheus_client::registry::Registry;\nuse std::time::Duration;"),
        ("grpc/mod.rs", "use crate::query::x;\nuse tapefeed_proto::v1 as proto;"),
        ("config.rs", "let a = std::env::var_os(\"A\");"),
        ("app.rs", "use crate::{grpc, http, store};\nlet v = env!(\"CARGO_PKG_VERSION\");"),
    ];
    for (file, source) in honest {
        let found = check(Path::new(file), source);
        assert!(found.is_empty(), "{file}: {source}: {found:?}");
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The floor of a top module. `None`: the top floor.
fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().find_map(|(name, floor)| (*name == module).then_some(*floor))
}

/// What one file does that it must not. `file` is relative to `server/src`.
fn check(file: &Path, source: &str) -> Vec<String> {
    let modules = module_path(file);
    let top = modules.first().map_or("", String::as_str);
    let tokens = tokens(source);
    let mut violations = Vec::new();
    let mut report = |line: usize, what: String| {
        violations.push(format!("server/src/{}:{line}: {what}", file.display()));
    };

    for (line, target) in root_paths(&tokens, modules.len()) {
        let Some(own) = floor(top) else { continue };
        if target == top {
            continue;
        }
        match floor(&target) {
            Some(other) if other < own => {}
            Some(other) if other == own => {
                report(line, format!("a sideways import: {top} knows {target}"));
            }
            _ => report(line, format!("an upward import: {top} knows {target}")),
        }
    }
    for (index, token) in tokens.iter().enumerate() {
        let word = token.text.as_str();
        let next = |ahead: usize| tokens.get(index + ahead).map_or("", |t| t.text.as_str());
        if word == "tapefeed_proto" && floor(top).is_some() && top != "grpc" {
            report(token.line, format!("{top} knows the contract; only grpc may"));
        }
        let reads = word == "std" && next(1) == "::" && next(2) == "env" || word == "env" && next(1) == "::";
        if reads && file != Path::new("config.rs") {
            report(token.line, "reads the environment; only config.rs may".to_owned());
        }
        if floor(top) == Some(0) && NOT_ON_THE_GROUND.contains(&word) {
            report(token.line, format!("`{word}` on the ground floor"));
        }
        if word == "prometheus_client" && top != "metrics" {
            report(token.line, format!("{top} knows how metrics are kept; only metrics may"));
        }
    }
    violations
}

/// The module that a file is, from the crate's root.
fn module_path(file: &Path) -> Vec<String> {
    let mut modules: Vec<String> =
        file.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if matches!(modules.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        modules.pop();
    }
    modules
}

#[derive(Debug)]
struct Token {
    line: usize,
    text: String,
}

/// The top modules that paths begin with: `crate::x`, `crate::{x, y::z}`, and `super` chains up to the root.
fn root_paths(tokens: &[Token], depth: usize) -> Vec<(usize, String)> {
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    let mut braces = 0_usize;
    // How deep the braces of each inline module are that is open here.
    let mut inline = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        match text(index) {
            "{" => {
                braces += 1;
                if index >= 2 && text(index - 2) == "mod" {
                    inline.push(braces);
                }
            }
            "}" => {
                if inline.last() == Some(&braces) {
                    inline.pop();
                }
                braces = braces.saturating_sub(1);
            }
            "crate" if text(index + 1) == "::" => heads(tokens, index + 2, &mut found),
            "super" if text(index + 1) == "::" => {
                let mut ups = 1;
                while text(index + 2) == "super" && text(index + 3) == "::" {
                    ups += 1;
                    index += 2;
                }
                if ups == depth + inline.len() {
                    heads(tokens, index + 2, &mut found);
                }
            }
            _ => {}
        }
        index += 1;
    }
    found
}

/// The first word of a path, or of each path in a group.
fn heads(tokens: &[Token], begin: usize, found: &mut Vec<(usize, String)>) {
    let Some(first) = tokens.get(begin) else {
        return;
    };
    if first.text != "{" {
        found.push((first.line, first.text.clone()));
        return;
    }
    let mut depth = 0_usize;
    let mut due = false;
    for token in &tokens[begin..] {
        match token.text.as_str() {
            "{" => {
                depth += 1;
                due = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            }
            "," => due = depth == 1,
            word if due => {
                found.push((token.line, word.to_owned()));
                due = false;
            }
            _ => {}
        }
    }
}

/// Words, `::`, and single signs; no comments, strings, characters or lifetimes.
fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if next == '"' {
            quoted(rest)
        } else if next == '\'' {
            character_or_lifetime(rest)
        } else if next.is_alphanumeric() || next == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(Token { line, text: rest[..length].to_owned() });
            length
        } else if rest.starts_with("::") {
            tokens.push(Token { line, text: "::".to_owned() });
            2
        } else {
            if !next.is_whitespace() {
                tokens.push(Token { line, text: next.to_string() });
            }
            next.len_utf8()
        };
        line += rest[..taken].matches('\n').count();
        rest = &rest[taken..];
    }
    tokens
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// `r"..."`, `br#"..."#` and the like.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = rest.len() - after.len() + hashes + 1;
    let length = rest[begin..].find(&end).map_or(rest.len() - begin, |at| at + end.len());
    Some(begin + length)
}

fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn character_or_lifetime(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        // '\'' and '\u{1f600}'
        (Some((_, '\\')), Some((at, escaped))) => {
            let from = at + escaped.len_utf8();
            rest[from..].find('\'').map_or(rest.len(), |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
