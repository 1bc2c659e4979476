//! `tapefeed import`: files into the log.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args as ClapArgs, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tapefeed_client::{Client, Import, ImportFormat, ImportOptions, ImportProgress, RunState, TickField, TimeUnit};

use crate::failure::Failure;
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

    /// The venue of all ticks, if the file has none
    #[arg(long)]
    venue: Option<String>,

    /// The symbol of all ticks, if the file has none
    #[arg(long)]
    symbol: Option<String>,

    /// Which column holds which field, such as time=ts,price=px. Fields: time, receive_time, venue, symbol, price,
    /// quantity, side, trade_id
    #[arg(long, value_delimiter = ',', value_parser = parse_mapping, value_name = "FIELD=COLUMN")]
    map: Vec<(TickField, String)>,

    /// The unit of times that are numbers; without it, it must be evident from the column's name
    #[arg(long, value_enum, value_name = "UNIT")]
    time_unit: Option<UnitArg>,

    /// The same for receive times
    #[arg(long, value_enum, value_name = "UNIT")]
    receive_time_unit: Option<UnitArg>,

    /// The format; without it, recognised by the content
    #[arg(long, value_enum)]
    format: Option<FormatArg>,

    /// The character between two columns, or `tab`
    #[arg(long, value_parser = parse_delimiter, value_name = "CHARACTER")]
    delimiter: Option<char>,

    /// How many lines may be rejected before the import fails [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    max_rejects: Option<u32>,

    /// Import the same bytes again with other options
    #[arg(long)]
    again: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UnitArg {
    S,
    Ms,
    Us,
    Ns,
    /// RFC 3339
    Text,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    /// Trades in columns, with a header
    Csv,
    /// A capture of Binance's WebSocket
    Binance,
    /// One tick a line as JSON
    JsonLines,
    /// Trades of B3 (NEGOCIOSAVISTA)
    B3,
    /// Daily quotes of B3 (COTAHIST)
    Cotahist,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let options = options(&args);
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

fn options(args: &Args) -> ImportOptions {
    let mut options = ImportOptions::new().again(args.again);
    if let Some(venue) = &args.venue {
        options = options.venue(venue);
    }
    if let Some(symbol) = &args.symbol {
        options = options.symbol(symbol);
    }
    for (field, column) in &args.map {
        options = options.map(*field, column);
    }
    if let Some(unit) = args.time_unit {
        options = options.time_unit(unit.into());
    }
    if let Some(unit) = args.receive_time_unit {
        options = options.receive_time_unit(unit.into());
    }
    if let Some(format) = args.format {
        options = options.format(match format {
            FormatArg::Csv => ImportFormat::Csv,
            FormatArg::Binance => ImportFormat::BinanceCapture,
            FormatArg::JsonLines => ImportFormat::JsonLines,
            FormatArg::B3 => ImportFormat::B3Trades,
            FormatArg::Cotahist => ImportFormat::Cotahist,
        });
    }
    if let Some(delimiter) = args.delimiter {
        options = options.delimiter(delimiter);
    }
    if let Some(max_rejects) = args.max_rejects {
        options = options.max_rejects(max_rejects);
    }
    options
}

impl From<UnitArg> for TimeUnit {
    fn from(unit: UnitArg) -> TimeUnit {
        match unit {
            UnitArg::S => TimeUnit::Seconds,
            UnitArg::Ms => TimeUnit::Milliseconds,
            UnitArg::Us => TimeUnit::Microseconds,
            UnitArg::Ns => TimeUnit::Nanoseconds,
            UnitArg::Text => TimeUnit::Text,
        }
    }
}

fn parse_mapping(text: &str) -> Result<(TickField, String), String> {
    let (field, column) = text.split_once('=').ok_or("write FIELD=COLUMN, such as time=ts")?;
    let field = match field {
        "time" | "event_time" => TickField::EventTime,
        "receive_time" => TickField::ReceiveTime,
        "venue" => TickField::Venue,
        "symbol" => TickField::Symbol,
        "price" => TickField::Price,
        "quantity" => TickField::Quantity,
        "side" => TickField::Side,
        "trade_id" => TickField::TradeId,
        other => return Err(format!("{other} is no field of a tick")),
    };
    if column.is_empty() {
        return Err("the column's name is missing".to_owned());
    }
    Ok((field, column.to_owned()))
}

fn parse_delimiter(text: &str) -> Result<char, String> {
    if matches!(text, "tab" | "\\t") {
        return Ok('\t');
    }
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(one), None) => Ok(one),
        _ => Err("one character, or tab".to_owned()),
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
    fn mappings_name_a_field_and_a_column() {
        assert_eq!(parse_mapping("time=ts"), Ok((TickField::EventTime, "ts".to_owned())));
        assert_eq!(parse_mapping("price=Px (USD)"), Ok((TickField::Price, "Px (USD)".to_owned())));
        for text in ["time", "time=", "=ts", "colour=red"] {
            assert!(parse_mapping(text).is_err(), "{text}");
        }
    }

    #[test]
    fn delimiters_are_one_character() {
        assert_eq!(parse_delimiter(";"), Ok(';'));
        assert_eq!(parse_delimiter("tab"), Ok('\t'));
        assert_eq!(parse_delimiter("\\t"), Ok('\t'));
        for text in ["", ";;"] {
            assert!(parse_delimiter(text).is_err(), "{text:?}");
        }
    }

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
