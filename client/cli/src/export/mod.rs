//! `tapefeed export`: a range of ticks as a file.

mod csv;
mod parquet;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use clap::{Args as ClapArgs, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tapefeed_client::{Client, Cursor, InstrumentQuery, Tick};
use tempfile::NamedTempFile;
use tokio_stream::StreamExt as _;

use self::parquet::Parquet;
use crate::failure::Failure;
use crate::lines::TickLine;
use crate::output::{Output, count, notice};
use crate::range::RangeArgs;
use crate::time::short_duration;

/// How often progress is told where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// What the bar shows.
const EXPORTING: &str = "{msg} [{bar:30}] {pos}/{len} ticks {per_sec}, {eta} left";

/// Write all ticks of a range to a file, the oldest first
///
/// Prices, quantities and nanoseconds stay exact in every format: decimals as text in CSV and JSON lines, DECIMAL(38) in
/// Parquet. `tapefeed import` takes CSV and JSON lines again and stores the same ticks.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    range: RangeArgs,

    /// The format of the file
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,

    /// The file, which appears when it is complete; standard output without it
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A header and a line for each tick
    Csv,
    /// A JSON object on each line, as `history --json` prints them
    Jsonl,
    /// Columns, for DuckDB, pandas, polars and others
    Parquet,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let Args { range, format, output: path } = args;
    let Some(path) = path else {
        if format == Format::Parquet && io::stdout().is_terminal() {
            return Err(Failure::message("Parquet is not for a terminal: give a file with --output"));
        }
        export(client, &range, format, BufWriter::new(io::stdout()), "export").await?;
        return Ok(());
    };
    let name = path.display().to_string();
    // Beside its place, so that the last step is a rename.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder)?;
    let done = export(client, &range, format, BufWriter::new(file.as_file_mut()), &name).await?;
    file.as_file().sync_all()?;
    allow_others_to_read(file.as_file())?;
    file.persist(&path).map_err(|error| error.error)?;
    report(&name, &done, output)
}

/// A temporary file is its owner's alone; what is exported is a file like any other.
fn allow_others_to_read(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

/// What was written.
struct Done {
    ticks: u64,
    as_of: Option<Cursor>,
    took: Duration,
}

#[derive(Debug, Serialize)]
struct DoneLine<'a> {
    file: &'a str,
    tick_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<String>,
}

fn report(file: &str, done: &Done, output: &mut Output) -> Result<(), Failure> {
    let Done { ticks, as_of, took } = done;
    if output.is_json() {
        let as_of = as_of.as_ref().map(Cursor::to_string);
        output.object(&DoneLine { file, tick_count: *ticks, as_of })?;
        return Ok(());
    }
    let rate = u128::from(*ticks) * 1_000_000 / took.as_micros().max(1);
    let took = short_duration(i64::try_from(took.as_nanos()).unwrap_or(i64::MAX));
    output.line(&format!("{file}: {} in {took} ({rate} ticks/s)", count(*ticks, "tick", "ticks")))?;
    Ok(())
}

async fn export(
    client: &Client,
    range: &RangeArgs,
    format: Format,
    out: impl Write + Send,
    name: &str,
) -> Result<Done, Failure> {
    // The count is for the bar alone: ticks that come until the range is read are read too.
    let expected = client.statistics(&range.query(), None).await?.tick_count;
    let mut progress = Progress::new(name, expected);
    let mut batches = pin!(client.read_ticks(range.query()));
    let mut first = batches.next().await;
    let mut file = match format {
        Format::Csv => Sink::Csv(csv::Csv::new(out)?),
        Format::Jsonl => Sink::JsonLines(out),
        Format::Parquet => {
            // Asked after the range was begun, so that no tick of it is finer than what is told here.
            let (price, quantity) = decimals(client, range).await?;
            Sink::Parquet(Box::new(Parquet::new(out, price, quantity)?))
        }
    };
    let mut as_of = None;
    while let Some(batch) = first.take() {
        let batch = batch?;
        file.write(&batch.ticks)?;
        progress.add(batch.ticks.len() as u64);
        as_of = batch.as_of;
        first = batches.next().await;
    }
    file.end()?;
    progress.clear();
    Ok(Done { ticks: progress.ticks, as_of, took: progress.begun.elapsed() })
}

/// The most decimals of any price and any quantity of the instruments in question.
async fn decimals(client: &Client, range: &RangeArgs) -> Result<(u32, u32), Failure> {
    let query = InstrumentQuery::all().symbol(range.symbol()).venue(range.venue());
    let mut pages = pin!(client.instrument_pages(query));
    let (mut price, mut quantity) = (0, 0);
    while let Some(page) = pages.next().await {
        for instrument in page?.items {
            price = price.max(instrument.price_decimals);
            quantity = quantity.max(instrument.quantity_decimals);
        }
    }
    Ok((price, quantity))
}

/// A file in the making.
enum Sink<W: Write + Send> {
    Csv(csv::Csv<W>),
    JsonLines(W),
    Parquet(Box<Parquet<W>>),
}

impl<W: Write + Send> Sink<W> {
    fn write(&mut self, ticks: &[Tick]) -> io::Result<()> {
        match self {
            Sink::Csv(csv) => csv.write(ticks),
            Sink::JsonLines(out) => ticks.iter().try_for_each(|tick| {
                serde_json::to_writer(&mut *out, &TickLine::new(tick, None))?;
                out.write_all(b"\n")
            }),
            Sink::Parquet(parquet) => parquet.write(ticks),
        }
    }

    fn end(self) -> io::Result<()> {
        match self {
            Sink::Csv(csv) => csv.end(),
            Sink::JsonLines(mut out) => out.flush(),
            Sink::Parquet(parquet) => parquet.end(),
        }
    }
}

/// Progress on standard error: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    name: String,
    bar: Option<ProgressBar>,
    ticks: u64,
    expected: u64,
    begun: Instant,
    told: Instant,
}

impl Progress {
    fn new(name: &str, expected: u64) -> Progress {
        let now = Instant::now();
        let bar = io::stderr().is_terminal().then(|| bar(name, expected));
        Progress { name: name.to_owned(), bar, ticks: 0, expected, begun: now, told: now }
    }

    fn add(&mut self, ticks: u64) {
        self.ticks += ticks;
        match &self.bar {
            Some(bar) => bar.set_position(self.ticks),
            None if self.told.elapsed() >= LINE_INTERVAL => {
                self.told = Instant::now();
                let Progress { name, ticks, expected, .. } = self;
                // Progress that nobody can read is not worth an error.
                drop(notice(&format!("{name}: {ticks} of {} written", count(*expected, "tick", "ticks"))));
            }
            None => {}
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(name: &str, expected: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(EXPORTING).expect("the template is a constant that a test draws");
    ProgressBar::new(expected).with_message(name.to_owned()).with_style(style.progress_chars("=> "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_drawn() {
        assert_eq!(bar("a file", 9).length(), Some(9));
    }
}
