//! `tapefeed history`: stored ticks.

use clap::Args as ClapArgs;
use tapefeed_client::{Client, Cursor, Tick, TickQuery};
use tokio_stream::StreamExt as _;

use crate::failure::Failure;
use crate::lines::{TickLine, tick_row, tick_table};
use crate::output::Output;
use crate::range::RangeArgs;
use crate::table::Table;

/// How many ticks a page holds: the server's most, for the fewest calls.
const PAGE_SIZE: u32 = 10_000;

/// The most ticks of `--limit`: they are held in memory to turn them around.
const MAX_LIMIT: u64 = 1_000_000;

/// Show stored ticks, the oldest first: the last 100 of the range, unless told otherwise
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    range: RangeArgs,

    /// The last N ticks of the range
    #[arg(long, default_value_t = 100, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT))]
    limit: u64,

    /// All ticks of the range
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let query = TickQuery::from(args.range.query());
    let mut printer = Printer { output, table: tick_table(), headed: false };
    if args.all {
        return all(client, query.page_size(PAGE_SIZE), &mut printer).await;
    }
    let limit = args.limit as usize;
    let page_size = u32::try_from(limit).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
    let query = query.newest_first().page_size(page_size);
    let mut pages = std::pin::pin!(client.tick_pages(query));
    let mut ticks: Vec<Tick> = Vec::new();
    let mut as_of = None;
    while let Some(page) = pages.next().await {
        let page = page?;
        as_of = as_of.or(page.as_of);
        ticks.extend(page.items);
        if ticks.len() >= limit {
            break;
        }
    }
    ticks.truncate(limit);
    ticks.reverse();
    printer.print(&ticks, as_of.as_ref())?;
    printer.end()
}

async fn all(client: &Client, query: TickQuery, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let mut pages = std::pin::pin!(client.tick_pages(query));
    // The cursor belongs on the very last tick, so a page is printed when the next one has come.
    let mut held: Vec<Tick> = Vec::new();
    let mut as_of = None;
    while let Some(page) = pages.next().await {
        let page = page?;
        as_of = page.as_of;
        if !page.items.is_empty() {
            printer.print(&held, None)?;
            held = page.items;
        }
    }
    printer.print(&held, as_of.as_ref())?;
    printer.end()
}

struct Printer<'a> {
    output: &'a mut Output,
    table: Table,
    headed: bool,
}

impl Printer<'_> {
    /// Prints ticks; `as_of`, the position of the answer, goes with the last of them.
    fn print(&mut self, ticks: &[Tick], as_of: Option<&Cursor>) -> Result<(), Failure> {
        if self.output.is_json() {
            for (index, tick) in ticks.iter().enumerate() {
                let cursor = as_of.filter(|_| index + 1 == ticks.len());
                self.output.object(&TickLine::new(tick, cursor))?;
            }
            return Ok(());
        }
        for tick in ticks {
            self.table.row(tick_row(tick));
        }
        if !self.headed && !self.table.is_empty() {
            self.headed = true;
            self.output.line(&self.table.header())?;
        }
        self.output.rows(&mut self.table)?;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        if !self.output.is_json() && !self.headed {
            crate::output::notice("no ticks in this range")?;
        }
        Ok(())
    }
}
