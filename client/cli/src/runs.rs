//! `tapefeed runs`: the imports that the server knows.

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde::Serialize;
use tapefeed_client::{Client, RejectQuery, RejectedLine, Run, RunQuery, RunState};
use tokio_stream::StreamExt as _;

use crate::failure::Failure;
use crate::output::{Output, notice};
use crate::table::{Align, Table};
use crate::time::short;

/// List the imports of the server, the newest first
#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Only runs in this state
    #[arg(long, value_enum)]
    state: Option<StateArg>,

    /// At most this many runs
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show one run
    Show {
        /// The name of the run
        run_id: String,
    },
    /// Show all rejected lines of a run that the server keeps
    Rejects {
        /// The name of the run
        run_id: String,
    },
    /// Cancel a run; what is stored stays
    Cancel {
        /// The name of the run
        run_id: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArg {
    Uploading,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// A run as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    run_id: &'a str,
    state: &'static str,
    file_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    uploaded_bytes: u64,
    line_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_line_count: Option<u64>,
    tick_count: u64,
    reject_count: u64,
    ignored_count: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ignored_lines: Vec<Ignored<'a>>,
    published_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RunError<'a>>,
    create_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_time: Option<String>,
    digest: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    first_rejects: Vec<Reject<'a>>,
}

#[derive(Serialize)]
struct RunError<'a> {
    reason: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct Ignored<'a> {
    kind: &'a str,
    count: u64,
}

#[derive(Serialize)]
struct Reject<'a> {
    line_number: u64,
    reason: &'static str,
    message: &'a str,
    text: &'a str,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    match args.command {
        Some(Command::Show { run_id }) => print_one(&client.run(&run_id).await?, output),
        Some(Command::Rejects { run_id }) => rejects(client, run_id, output).await,
        Some(Command::Cancel { run_id }) => print_one(&client.cancel_run(&run_id).await?, output),
        None => list(client, args.state, args.limit, output).await,
    }
}

async fn list(client: &Client, state: Option<StateArg>, limit: u64, output: &mut Output) -> Result<(), Failure> {
    let mut query = RunQuery::all().page_size(u32::try_from(limit).unwrap_or(u32::MAX));
    if let Some(state) = state {
        query = query.state(match state {
            StateArg::Uploading => RunState::Uploading,
            StateArg::Running => RunState::Running,
            StateArg::Succeeded => RunState::Succeeded,
            StateArg::Failed => RunState::Failed,
            StateArg::Cancelled => RunState::Cancelled,
        });
    }
    let mut table = Table::new(&[
        ("RUN", Align::Left),
        ("STATE", Align::Left),
        ("FILE", Align::Left),
        ("TICKS", Align::Right),
        ("REJECTS", Align::Right),
        ("BEGUN", Align::Left),
    ]);
    let mut left = limit;
    let mut pages = std::pin::pin!(client.run_pages(query));
    while left > 0
        && let Some(page) = pages.next().await
    {
        for run in page?.items.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            left -= 1;
            if output.is_json() {
                output.object(&line(run))?;
                continue;
            }
            table.row(vec![
                run.run_id.clone(),
                run.state.as_str().to_owned(),
                run.file_name.clone(),
                run.tick_count.to_string(),
                run.reject_count.to_string(),
                run.create_time.map(short).unwrap_or_default(),
            ]);
        }
    }
    if !output.is_json() {
        output.table(table, "no runs: `tapefeed import FILE` makes one")?;
    }
    Ok(())
}

/// Prints every rejected line, page by page.
async fn rejects(client: &Client, run_id: String, output: &mut Output) -> Result<(), Failure> {
    let mut table =
        Table::new(&[("LINE", Align::Right), ("REASON", Align::Left), ("MESSAGE", Align::Left), ("TEXT", Align::Left)]);
    let mut headed = false;
    let mut counts = (0, 0);
    let mut pages = std::pin::pin!(client.reject_pages(RejectQuery::of(run_id)));
    while let Some(page) = pages.next().await {
        let page = page?;
        counts = (page.reject_count, page.kept_count);
        for reject in &page.lines {
            if output.is_json() {
                output.object(&Reject::new(reject))?;
                continue;
            }
            table.row(vec![
                reject.line_number.to_string(),
                reason_name(reject.reason).to_owned(),
                reject.message.clone(),
                reject.text.clone(),
            ]);
        }
        if !headed && !table.is_empty() {
            headed = true;
            output.line(&table.header())?;
        }
        output.rows(&mut table)?;
    }
    let (rejected, kept) = counts;
    if rejected == 0 {
        notice("no line was rejected")?;
    } else if kept < rejected {
        notice(&format!("{rejected} lines were rejected; the server keeps the first {kept} of them"))?;
    }
    Ok(())
}

/// Prints a run: as JSON, or its values below each other and its first rejected lines.
pub(crate) fn print_one(run: &Run, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        output.object(&line(run))?;
        return Ok(());
    }
    let mut pairs =
        vec![("run", run.run_id.clone()), ("state", run.state.as_str().to_owned()), ("file", run.file_name.clone())];
    if let Some(size) = run.size_bytes {
        pairs.push(("size", format!("{size} bytes")));
    }
    pairs.push(("lines", run.line_count.to_string()));
    pairs.push(("ticks", run.tick_count.to_string()));
    pairs.push(("rejected", run.reject_count.to_string()));
    if run.published_count > 0 {
        pairs.push(("published", run.published_count.to_string()));
    }
    pairs.push(("ignored", ignored(run)));
    for (name, time) in [("begun", run.create_time), ("ended", run.finish_time)] {
        if let Some(time) = time {
            pairs.push((name, short(time)));
        }
    }
    if !run.digest.is_empty() {
        pairs.push(("sha-256", run.digest.clone()));
    }
    if let Some(failure) = &run.failure {
        pairs.push(("error", failure.message.clone()));
    }
    output.pairs(&pairs)?;
    for reject in &run.first_rejects {
        output.line(&format!("line {}: {}", reject.line_number, reject.message))?;
        output.line(&format!("    {}", reject.text))?;
    }
    if run.reject_count > run.first_rejects.len() as u64 {
        output.line(&format!("all: tapefeed runs rejects {}", run.run_id))?;
    }
    Ok(())
}

/// How many lines were passed over, and what they are.
fn ignored(run: &Run) -> String {
    let kinds: Vec<String> = run.ignored_lines.iter().map(|of| format!("{} {}", of.count, of.kind)).collect();
    match kinds.len() {
        0 => run.ignored_count.to_string(),
        _ => format!("{} ({})", run.ignored_count, kinds.join(", ")),
    }
}

fn line(run: &Run) -> Line<'_> {
    let time = |time: Option<tapefeed_client::UnixNanos>| time.map(|time| time.to_string());
    Line {
        run_id: &run.run_id,
        state: run.state.as_str(),
        file_name: &run.file_name,
        size_bytes: run.size_bytes,
        uploaded_bytes: run.uploaded_bytes,
        line_count: run.line_count,
        total_line_count: run.total_line_count,
        tick_count: run.tick_count,
        reject_count: run.reject_count,
        ignored_count: run.ignored_count,
        ignored_lines: run.ignored_lines.iter().map(|of| Ignored { kind: &of.kind, count: of.count }).collect(),
        published_count: run.published_count,
        error: run
            .failure
            .as_ref()
            .map(|failure| RunError { reason: reason_name(failure.reason), message: &failure.message }),
        create_time: time(run.create_time),
        start_time: time(run.start_time),
        finish_time: time(run.finish_time),
        digest: &run.digest,
        trace_id: &run.trace_id,
        cursor: run.cursor.as_ref().map(|cursor| cursor.to_string()),
        first_rejects: run.first_rejects.iter().map(Reject::new).collect(),
    }
}

impl<'a> Reject<'a> {
    fn new(reject: &'a RejectedLine) -> Reject<'a> {
        Reject {
            line_number: reject.line_number,
            reason: reason_name(reject.reason),
            message: &reject.message,
            text: &reject.text,
        }
    }
}

/// The reason's name as ErrorInfo has it.
fn reason_name(reason: tapefeed_client::ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}
