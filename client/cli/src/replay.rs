//! `tapefeed replay`: a file played through the server at its own pace.
//!
//! A thread reads the file with the server's own reader, so that what an import would refuse is refused here too; the
//! pace decides when each tick is due, and the publisher sends it.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tapefeed_client::{Action, Client, Decimal, Error, NewTick, Publisher, Side, UnixNanos};
use tapefeed_server::domain;
use tapefeed_server::ingest::import::{FileLine, FileReader, LineContent};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::file::FileArgs;
use crate::output::{Output, count, notice};
use crate::publish::{explain, random_name};
use crate::time::{short, short_duration};
use crate::visible;

/// Lines that are read ahead.
const READ_AHEAD: usize = 4_096;

/// Rejected lines that are shown one by one.
const SHOWN_REJECTS: u64 = 20;

/// How often progress is told: as a bar on a terminal, as a line elsewhere.
const BAR_INTERVAL: Duration = Duration::from_millis(250);
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How late a tick may be sent before the replay counts as behind its pace.
const BEHIND: Duration = Duration::from_secs(1);

const BAR: &str = "{prefix} [{bar:30}] {pos}/{len} lines {msg}";

/// Play a file of ticks through the server at its own pace, as if its day happened again
///
/// Takes every file that `import` takes. Ticks keep their own event times and are published under a new producer id, so
/// that a second replay stores them a second time. They are backfill, which live watchers pass over unless they ask;
/// with --as-live they are what a feed would send.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The file: plain, .gz, or a .zip with one data file
    #[arg(value_name = "FILE")]
    path: PathBuf,

    /// How fast the file's time goes: 1 is its own pace, 60 a minute a second, max does not wait
    #[arg(long, default_value = "1", value_parser = parse_speed, value_name = "N|max")]
    speed: Speed,

    /// Publish live ticks, which every watcher sees, instead of backfill
    #[arg(long)]
    as_live: bool,

    #[command(flatten)]
    file: FileArgs,
}

/// How many seconds of the file pass in one of ours.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Speed {
    Times(f64),
    Max,
}

fn parse_speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    match text.parse::<f64>() {
        Ok(times) if times.is_finite() && times > 0.0 => Ok(Speed::Times(times)),
        _ => Err("write a number above 0, such as 1 or 60, or max".to_owned()),
    }
}

/// When each tick is due.
#[derive(Debug)]
struct Pace {
    speed: Speed,
    begun: Instant,
    /// The event times of the first tick, and the greatest so far: one that comes late is due at once.
    first: Option<i64>,
    latest: i64,
}

impl Pace {
    fn new(speed: Speed) -> Pace {
        Pace { speed, begun: Instant::now(), first: None, latest: 0 }
    }

    /// When a tick is due; `None` is at once.
    fn due(&mut self, event_time: i64) -> Option<Instant> {
        let first = *self.first.get_or_insert_with(|| {
            self.begun = Instant::now();
            self.latest = event_time;
            event_time
        });
        self.latest = self.latest.max(event_time);
        match self.speed {
            Speed::Max => None,
            Speed::Times(times) => {
                let seconds = (self.latest - first) as f64 / 1e9 / times;
                // Too far ahead for a clock is as good as never.
                self.begun.checked_add(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
            }
        }
    }
}

/// What the lines of the file have become.
#[derive(Debug, Default, Serialize)]
struct Counts {
    lines: u64,
    replayed_ticks: u64,
    ignored_lines: u64,
    rejected_lines: u64,
}

#[derive(Serialize)]
struct Summary {
    producer: String,
    #[serde(flatten)]
    counts: Counts,
    acknowledged_ticks: u64,
    refused_batches: u64,
    seconds: f64,
    greatest_delay_seconds: f64,
    cursor: Option<String>,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    // Lives until the file is read.
    let folder = tempfile::tempdir()?;
    let options = args.file.reader_options()?;
    let (path, spool) = (args.path.clone(), folder.path().to_owned());
    let opened = tokio::task::spawn_blocking(move || FileReader::open(&path, options, spool)).await;
    let reader =
        opened.map_err(|error| Failure::message(error.to_string()))?.map_err(|error| named(&args.path, &error))?;

    let producer = random_name("replay");
    let publisher = client.publisher(&producer).backfill(!args.as_live).start().await?;
    let mut replay = Replay {
        publisher: &publisher,
        pace: Pace::new(args.speed),
        max_rejects: u64::from(args.file.max_rejects()),
        counts: Counts::default(),
        delay: Duration::ZERO,
        progress: Progress::new(&args.path, reader.line_count()),
    };
    let played = tokio::select! {
        played = replay.play(lines(reader)) => played,
        _ = tokio::signal::ctrl_c() => Err(Failure::message("interrupted: what was sent before is stored")),
    };
    let Replay { pace, counts, delay, progress, .. } = replay;
    progress.clear();
    let flushed = publisher.flush().await;
    let seconds = pace.begun.elapsed().as_secs_f64();
    let status = publisher.status();
    if let Err(Error::BatchesRefused(refused)) = &flushed {
        explain(refused)?;
    }
    if let Some(cursor) = &status.cursor {
        visible::wait(client, cursor).await?;
    }
    let summary = Summary {
        producer,
        counts,
        acknowledged_ticks: status.acknowledged_ticks,
        refused_batches: status.refused_batches,
        seconds,
        greatest_delay_seconds: delay.as_secs_f64(),
        cursor: status.cursor.map(|cursor| cursor.to_string()),
    };
    if output.is_json() {
        output.object(&summary)?;
    } else {
        output.line(&told(&summary, &args))?;
    }
    output.flush()?;
    played?;
    flushed?;
    Ok(())
}

fn named(path: &Path, problem: &dyn std::fmt::Display) -> Failure {
    Failure::message(format!("{}: {problem}", path.display()))
}

/// One sentence about a replay.
fn told(summary: &Summary, args: &Args) -> String {
    let ticks = count(summary.acknowledged_ticks, "tick", "ticks");
    let took = short_duration((summary.seconds * 1e9) as i64);
    let kind = if args.as_live { "live" } else { "as backfill" };
    let mut text = format!("{}: {ticks} replayed {kind} in {took} by {}", args.path.display(), summary.producer);
    if summary.counts.ignored_lines > 0 {
        text += &format!(", {} without a trade", count(summary.counts.ignored_lines, "line", "lines"));
    }
    if summary.counts.rejected_lines > 0 {
        text += &format!(", {} rejected", count(summary.counts.rejected_lines, "line", "lines"));
    }
    if summary.greatest_delay_seconds > BEHIND.as_secs_f64() {
        text +=
            &format!(", at worst {} behind the pace", short_duration((summary.greatest_delay_seconds * 1e9) as i64));
    }
    text
}

/// The lines of a file, read on a thread of their own.
fn lines(reader: FileReader) -> mpsc::Receiver<Result<FileLine, String>> {
    let (sender, lines) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        for line in reader {
            let line = line.map_err(|error| error.to_string());
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    lines
}

/// A replay in progress.
struct Replay<'a> {
    publisher: &'a Publisher,
    pace: Pace,
    max_rejects: u64,
    counts: Counts,
    /// How late a tick was sent at worst.
    delay: Duration,
    progress: Progress,
}

impl Replay<'_> {
    /// Sends every tick when it is due.
    async fn play(&mut self, mut lines: mpsc::Receiver<Result<FileLine, String>>) -> Result<(), Failure> {
        while let Some(line) = lines.recv().await {
            let FileLine { number, content } = line.map_err(|problem| self.problem(&problem))?;
            self.counts.lines += 1;
            match content {
                LineContent::Tick { venue, symbol, tick } => {
                    let event_time = tick.event_time.nanos();
                    if let Some(due) = self.pace.due(event_time) {
                        self.wait_until(due, event_time).await;
                    }
                    self.publisher.send(published(venue.as_str(), symbol.as_str(), tick)).await?;
                    self.counts.replayed_ticks += 1;
                }
                LineContent::Published(_) => {
                    let problem = "the file holds daily bars of its venue, and no ticks to replay: import it";
                    return Err(self.problem(problem));
                }
                LineContent::Ignored(_) => self.counts.ignored_lines += 1,
                LineContent::Rejected { reason, .. } => self.reject(number, &reason)?,
            }
            self.progress.show(&self.counts, self.pace.latest);
        }
        Ok(())
    }

    async fn wait_until(&mut self, due: Instant, event_time: i64) {
        let now = Instant::now();
        self.delay = self.delay.max(now.saturating_duration_since(due));
        let mut left = due.saturating_duration_since(now);
        // A long silence of the file still moves the bar.
        while left > BAR_INTERVAL {
            tokio::time::sleep(BAR_INTERVAL).await;
            self.progress.show(&self.counts, event_time);
            left = due.saturating_duration_since(Instant::now());
        }
        if !left.is_zero() {
            tokio::time::sleep_until(due).await;
        }
    }

    /// What is wrong with the file, with its name.
    fn problem(&self, problem: &str) -> Failure {
        Failure::message(format!("{}: {problem}", self.progress.name))
    }

    fn reject(&mut self, number: u64, reason: &str) -> Result<(), Failure> {
        self.counts.rejected_lines += 1;
        if self.counts.rejected_lines <= SHOWN_REJECTS {
            self.progress.tell(&format!("line {number}: {reason}"));
        }
        if self.counts.rejected_lines > self.max_rejects {
            let rejected = self.counts.rejected_lines;
            let max = self.max_rejects;
            return Err(self.problem(&format!("{rejected} lines were rejected, and --max-rejects allows {max}")));
        }
        Ok(())
    }
}

/// A tick of a file as the publisher takes it.
fn published(venue: &str, symbol: &str, tick: domain::NewTick) -> NewTick {
    let decimal = |value: domain::Decimal| {
        Decimal::new(value.mantissa(), value.exponent().into()).expect("both sides keep the same rule")
    };
    NewTick {
        venue: Arc::from(venue),
        symbol: Arc::from(symbol),
        event_time: UnixNanos(tick.event_time.nanos()),
        receive_time: tick.receive_time.map(|time| UnixNanos(time.nanos())),
        price: decimal(tick.price),
        quantity: tick.quantity.map(decimal),
        side: match tick.side {
            domain::Side::Buy => Some(Side::Buy),
            domain::Side::Sell => Some(Side::Sell),
            domain::Side::Unspecified => None,
        },
        trade_id: tick.trade_id.to_string(),
        action: match tick.action {
            domain::Action::New => Action::New,
            domain::Action::Correct => Action::Correct,
            domain::Action::Cancel => Action::Cancel,
        },
    }
}

/// Progress on standard error.
struct Progress {
    bar: Option<ProgressBar>,
    name: String,
    told: Instant,
}

impl Progress {
    fn new(path: &Path, lines: u64) -> Progress {
        let name = path.display().to_string();
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(BAR).expect("the template is a constant that a test draws");
            ProgressBar::new(lines).with_style(style.progress_chars("=> ")).with_prefix(name.clone())
        });
        Progress { bar, name, told: Instant::now() }
    }

    fn show(&mut self, counts: &Counts, event_time: i64) {
        let interval = if self.bar.is_some() { BAR_INTERVAL } else { LINE_INTERVAL };
        if self.told.elapsed() < interval {
            return;
        }
        self.told = Instant::now();
        let (ticks, at) = (count(counts.replayed_ticks, "tick", "ticks"), short(UnixNanos(event_time)));
        match &self.bar {
            Some(bar) => {
                bar.set_position(counts.lines);
                bar.set_message(format!("{ticks}, at {at}"));
            }
            None => self.tell(&format!("{ticks} sent, at {at}")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_positive_numbers_or_max() {
        assert_eq!(parse_speed("max"), Ok(Speed::Max));
        assert_eq!(parse_speed("1"), Ok(Speed::Times(1.0)));
        assert_eq!(parse_speed("0.5"), Ok(Speed::Times(0.5)));
        for text in ["0", "-1", "nan", "inf", "fast", ""] {
            assert!(parse_speed(text).is_err(), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ticks_are_due_at_the_pace_of_the_file() {
        let mut pace = Pace::new(Speed::Times(10.0));
        tokio::time::advance(Duration::from_secs(3)).await;
        let begun = Instant::now();
        // (event time in ms, due after ms): the first starts the clock, and one that comes late is due with its
        // predecessor.
        for (event_ms, due_ms) in [(5_000, 0), (6_000, 100), (5_500, 100), (6_000, 100), (15_000, 1_000)] {
            let due = pace.due(event_ms * 1_000_000).unwrap();
            assert_eq!(due.duration_since(begun), Duration::from_millis(due_ms), "{event_ms}");
        }
        assert_eq!(Pace::new(Speed::Max).due(7), None);
    }

    #[test]
    fn the_bar_can_be_drawn() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
