//! `tapefeed import`: files into the log.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use tapefeed_client::{Client, Import, ImportProgress, RunState};

use crate::failure::Failure;
use crate::file::FileArgs;
use crate::output::{Output, count, notice};
use crate::runs::print_one;
use crate::time::short_duration;
use crate::visible;

/// How often progress is told where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// What the bar shows, by phase and by whether the end is known.
const UPLOADING: &str = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
const UPLOADING_PIPE: &str = "{msg} {spinner} {bytes} {bytes_per_sec}";
const STORING: &str = "{msg} [{bar:30}] {pos}/{len} lines {per_sec}, {eta} left";
const STORING_UNKNOWN: &str = "{msg} {spinner} {pos} lines {per_sec}";

/// Import files of trades: plain, .gz, or a .zip with one data file
///
/// The same file again is a no-op; after a failure or a cancel it continues where it was.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    file: FileArgs,

    /// Import the same bytes again with other options
    #[arg(long)]
    again: bool,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let options = args.file.import_options().again(args.again);
    let mut failed = 0u64;
    for file in &args.files {
        let name = file.display().to_string();
        let mut progress = Progress::new(&name);
        let import = client.import_file(file, options.clone(), |now| progress.show(now)).await;
        progress.clear();
        match import {
            Ok(import) => {
                if let Some(cursor) = &import.run.cursor {
                    visible::wait(client, cursor).await?;
                }
                failed += u64::from(import.run.state != RunState::Succeeded);
                report(&name, &import, progress.begun.elapsed(), output)?;
            }
            // With a single file, its error is the command's.
            Err(error) if args.files.len() == 1 => return Err(error.into()),
            Err(error) => {
                failed += 1;
                output.flush()?;
                notice(&format!("{name}: {error}"))?;
            }
        }
    }
    output.flush()?;
    match failed {
        0 => Ok(()),
        failed => {
            let files = count(failed, "file", "files");
            Err(Failure::message(format!("{files} not imported completely")))
        }
    }
}

/// Tells how an import ended.
fn report(name: &str, import: &Import, took: Duration, output: &mut Output) -> Result<(), Failure> {
    let run = &import.run;
    if output.is_json() {
        return print_one(run, output);
    }
    output.line(&format!("{name}: {}", summary(import, took)))?;
    output.flush()?;
    if import.duplicate {
        return Ok(());
    }
    for reject in &run.first_rejects {
        let (number, message) = (reject.line_number, &reject.message);
        notice(&format!("  line {number}: {message}: {}", reject.text))?;
    }
    let shown = run.first_rejects.len() as u64;
    if run.reject_count > shown && shown > 0 {
        let more = run.reject_count - shown;
        notice(&format!("  and {more} more: tapefeed runs rejects {}", run.run_id))?;
    }
    Ok(())
}

fn summary(import: &Import, took: Duration) -> String {
    let run = &import.run;
    let ticks = count(run.tick_count, "tick", "ticks");
    let mut text = match run.state {
        RunState::Succeeded if import.duplicate => {
            return format!("imported before, as run {}: {ticks}", run.run_id);
        }
        RunState::Succeeded => {
            let rate = u128::from(run.tick_count) * 1_000_000 / took.as_micros().max(1);
            let took = i64::try_from(took.as_nanos()).unwrap_or(i64::MAX);
            format!("{ticks} in {} ({rate} ticks/s)", short_duration(took))
        }
        state => format!("{}, with {ticks} stored", state.as_str()),
    };
    if run.published_count > 0 {
        text += &format!(", {} published", count(run.published_count, "line", "lines"));
    }
    if run.reject_count > 0 {
        text += &format!(", {} rejected", count(run.reject_count, "line", "lines"));
    }
    if run.ignored_count > 0 {
        text += &format!(", {} without a trade", count(run.ignored_count, "line", "lines"));
    }
    if let Some(failure) = &run.failure {
        text += &format!(": {}", failure.message);
    }
    text
}

/// Progress on standard error: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    name: String,
    bar: Option<ProgressBar>,
    begun: Instant,
    told: Instant,
    storing: bool,
    attempt: u32,
    last_error: Option<String>,
}

impl Progress {
    fn new(name: &str) -> Progress {
        let now = Instant::now();
        Progress {
            name: name.to_owned(),
            bar: io::stderr().is_terminal().then(ProgressBar::no_length),
            begun: now,
            told: now,
            storing: false,
            attempt: 1,
            last_error: None,
        }
    }

    fn show(&mut self, now: &ImportProgress) {
        let storing = now.run.as_ref().filter(|run| run.start_time.is_some());
        if now.attempt != self.attempt {
            self.attempt = now.attempt;
            let error = now.last_error.as_ref().map(ToString::to_string);
            // The same error once: attempts come every few seconds.
            if error != self.last_error {
                self.tell(&format!(
                    "{}; trying again, the server goes on where it was",
                    error.as_deref().unwrap_or_default()
                ));
                self.last_error = error;
            }
        }
        match &self.bar {
            Some(bar) => {
                bar.set_message(self.name.clone());
                match storing {
                    Some(run) => {
                        if !self.storing {
                            self.storing = true;
                            bar.reset();
                        }
                        let total = run.total_line_count;
                        let template = total.map_or(STORING_UNKNOWN, |_| STORING);
                        draw(bar, run.line_count, total, template);
                    }
                    None => {
                        let total = now.size_bytes;
                        let template = total.map_or(UPLOADING_PIPE, |_| UPLOADING);
                        draw(bar, now.sent_bytes, total, template);
                    }
                }
            }
            None if self.told.elapsed() >= LINE_INTERVAL => {
                self.told = Instant::now();
                let text = match storing {
                    Some(run) => format!("{} stored", count(run.tick_count, "tick", "ticks")),
                    None => format!("{} bytes uploaded", now.sent_bytes),
                };
                self.tell(&text);
            }
            None => {}
        }
    }

    fn tell(&self, text: &str) {
        let line = format!("{}: {text}", self.name);
        match &self.bar {
            Some(bar) => bar.println(line),
            // Progress that nobody can read is not worth an error.
            None => drop(notice(&line)),
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Draws the bar: bytes while uploading, lines while storing.
fn draw(bar: &ProgressBar, done: u64, total: Option<u64>, template: &str) {
    if let Some(total) = total {
        bar.set_length(total);
    }
    let style = ProgressStyle::with_template(template)
        .expect("templates are constants that a test draws")
        .progress_chars("=> ");
    bar.set_style(style);
    bar.set_position(done);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_can_be_drawn() {
        let bar = ProgressBar::hidden();
        for template in [UPLOADING, UPLOADING_PIPE, STORING, STORING_UNKNOWN] {
            draw(&bar, 7, Some(9), template);
            draw(&bar, 8, None, template);
            assert_eq!(bar.position(), 8);
        }
    }
}
