//! `tapefeed bars`: bars computed from ticks, or published by venues.

use std::cmp::Ordering;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use serde::Serialize;
use tapefeed_client::{Bar, BarFill, BarQuery, BarSubscription, Client, Cursor, WideDecimal};
use tokio_stream::StreamExt as _;

use crate::failure::Failure;
use crate::follow::Follow;
use crate::output::{Output, notice};
use crate::published;
use crate::range::RangeArgs;
use crate::table::{Align, Table};
use crate::time::{parse_period, short};

/// How many bars a page holds: the server's most, for the fewest calls.
const PAGE_SIZE: u32 = 8_000;

/// Show bars of open, high, low, close and volume, the oldest first: the last 100 of the range, unless told otherwise
///
/// They are computed from ticks, and begin at whole multiples of the interval since 1970 in UTC. With --published they
/// are daily bars as the venue published them: imported, not adjusted, and not computed.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    range: RangeArgs,

    /// The length of a bar: whole seconds up to a day, or days, such as 1s, 5m, 1h or 1d
    #[arg(long, value_parser = parse_period, default_value = "1m", value_name = "LENGTH")]
    interval: Duration,

    /// The last N bars of the range
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    last: u32,

    /// All bars of the range
    #[arg(long, conflicts_with = "last")]
    all: bool,

    /// Of all bars of the range the N with the largest volume, the largest first
    #[arg(long, value_name = "N", conflicts_with_all = ["last", "follow"], value_parser = clap::value_parser!(u32).range(1..))]
    largest: Option<u32>,

    /// Also bars that still grow
    #[arg(long)]
    forming: bool,

    /// Go on with bars as they end, and with --forming as they grow, until Ctrl-C
    #[arg(long, conflicts_with_all = ["end", "period"])]
    follow: bool,

    /// What stands for an interval without ticks; not for those that come later
    #[arg(long, value_enum, default_value_t = FillArg::Skip)]
    fill: FillArg,

    /// To how many decimals volume-weighted means are rounded, half-even
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(0..=36))]
    decimals: u32,

    /// The daily bars that the venue published; --start and --end are days
    #[arg(long, requires = "venue",
        conflicts_with_all = ["interval", "last", "all", "largest", "forming", "follow", "fill", "decimals", "period"])]
    published: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FillArg {
    /// Nothing
    Skip,
    /// A bar without prices
    Null,
    /// A bar with the close before it
    Previous,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    if args.published {
        return published::run(client, &args.range, output).await;
    }
    let fill = match args.fill {
        FillArg::Skip => BarFill::Skip,
        FillArg::Null => BarFill::Null,
        FillArg::Previous => BarFill::Previous,
    };
    let mut list = BarQuery::new(args.range.query(), args.interval).fill(fill).decimals(args.decimals);
    if args.forming {
        list = list.include_forming();
    }
    if !args.all && args.largest.is_none() {
        list = list.last(args.last);
    }
    let mut printer = Printer { output, table: bar_table(), headed: false };
    let mut pages = std::pin::pin!(client.bar_pages(list.page_size(PAGE_SIZE)));
    let mut as_of = None;
    let mut largest = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page?;
        let last = page.next_page_token.is_empty();
        match args.largest {
            Some(most) => keep_largest(&mut largest, page.items, most as usize),
            None => printer.print(&page.items, page.as_of.as_ref().filter(|_| last))?,
        }
        as_of = page.as_of;
    }
    printer.print(&largest, as_of.as_ref())?;
    let Printer { output, table, headed } = printer;
    if !args.follow {
        if !output.is_json() && !headed {
            notice("no bars in this range")?;
        }
        return Ok(());
    }
    output.flush()?;
    let mut live = BarSubscription::new(args.interval).decimals(args.decimals);
    live = live.venue(args.range.venue()).symbol(args.range.symbol());
    if let Some(cursor) = as_of {
        live = live.after(cursor);
    }
    if args.forming {
        live = live.include_forming();
    }
    Follow::new(client.subscribe_bars(live), output, table).headed(headed).run().await
}

/// Adds bars to those of the largest volume so far, of which so many are kept. Among equals the earlier comes first.
fn keep_largest(largest: &mut Vec<Bar>, bars: Vec<Bar>, most: usize) {
    largest.extend(bars);
    largest.sort_by(|one, other| by_size(&other.volume, &one.volume));
    largest.truncate(most);
}

/// The order of two volumes, which are exact and never negative: by the digits before the point, then by those behind.
fn by_size(one: &WideDecimal, other: &WideDecimal) -> Ordering {
    let parts = |number: &WideDecimal| {
        let (whole, fraction) = number.as_str().split_once('.').unwrap_or((number.as_str(), ""));
        let whole = whole.trim_start_matches('0');
        (whole.len(), whole.to_owned(), fraction.trim_end_matches('0').to_owned())
    };
    parts(one).cmp(&parts(other))
}

/// Prints bars under one header.
struct Printer<'a> {
    output: &'a mut Output,
    table: Table,
    headed: bool,
}

impl Printer<'_> {
    /// Prints bars; `cursor` goes with the last of them.
    fn print(&mut self, bars: &[Bar], cursor: Option<&Cursor>) -> Result<(), Failure> {
        if self.output.is_json() {
            for (index, bar) in bars.iter().enumerate() {
                let cursor = cursor.filter(|_| index + 1 == bars.len());
                self.output.object(&BarLine::new(bar, cursor))?;
            }
            return Ok(());
        }
        for bar in bars {
            self.table.row(bar_row(bar));
        }
        if !self.headed && !self.table.is_empty() {
            self.headed = true;
            self.output.line(&self.table.header())?;
        }
        self.output.rows(&mut self.table)?;
        Ok(())
    }
}

fn bar_table() -> Table {
    Table::new(&[
        ("START", Align::Left),
        ("OPEN", Align::Right),
        ("HIGH", Align::Right),
        ("LOW", Align::Right),
        ("CLOSE", Align::Right),
        ("VOLUME", Align::Right),
        ("VWAP", Align::Right),
        ("TICKS", Align::Right),
        ("STATE", Align::Left),
    ])
}

pub(crate) fn bar_row(bar: &Bar) -> Vec<String> {
    let [open, high, low, close] = match bar.prices {
        Some(prices) => [prices.open, prices.high, prices.low, prices.close].map(|price| price.to_string()),
        None => Default::default(),
    };
    let state = if bar.is_final { "final" } else { "forming" };
    let gap = if bar.has_source_gap { " gap" } else { "" };
    vec![
        short(bar.start),
        open,
        high,
        low,
        close,
        bar.volume.to_string(),
        bar.vwap.as_ref().map(ToString::to_string).unwrap_or_default(),
        bar.tick_count.to_string(),
        format!("{state}{gap}"),
    ]
}

/// A bar as a line of JSON.
#[derive(Serialize)]
pub(crate) struct BarLine<'a> {
    symbol: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    venue: &'a str,
    start_time: String,
    end_time: String,
    #[serde(flatten)]
    prices: Option<PricesLine>,
    #[serde(flatten)]
    times: Option<TimesLine>,
    volume: &'a str,
    notional: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vwap: Option<&'a str>,
    tick_count: u64,
    state: &'static str,
    revision: u64,
    has_source_gap: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize)]
struct PricesLine {
    open_price: String,
    high_price: String,
    low_price: String,
    close_price: String,
}

#[derive(Serialize)]
struct TimesLine {
    open_time: String,
    high_time: String,
    low_time: String,
    close_time: String,
}

impl<'a> BarLine<'a> {
    pub(crate) fn new(bar: &'a Bar, cursor: Option<&Cursor>) -> BarLine<'a> {
        BarLine {
            symbol: &bar.symbol,
            venue: &bar.venue,
            start_time: bar.start.to_string(),
            end_time: bar.end.to_string(),
            prices: bar.prices.map(|prices| PricesLine {
                open_price: prices.open.to_string(),
                high_price: prices.high.to_string(),
                low_price: prices.low.to_string(),
                close_price: prices.close.to_string(),
            }),
            times: bar.times.map(|times| TimesLine {
                open_time: times.open.to_string(),
                high_time: times.high.to_string(),
                low_time: times.low.to_string(),
                close_time: times.close.to_string(),
            }),
            volume: bar.volume.as_str(),
            notional: bar.notional.as_str(),
            vwap: bar.vwap.as_ref().map(|vwap| vwap.as_str()),
            tick_count: bar.tick_count,
            state: if bar.is_final { "final" } else { "forming" },
            revision: bar.revision,
            has_source_gap: bar.has_source_gap,
            cursor: cursor.map(ToString::to_string),
        }
    }
}
