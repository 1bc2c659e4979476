//! `tapefeed moving-average`: averages over the last N ticks or bars.

use std::time::Duration;

use clap::Args as ClapArgs;
use serde::Serialize;
use tapefeed_client::{Client, MovingAverageQuery};
use tokio_stream::StreamExt as _;

use crate::failure::Failure;
use crate::output::{Output, notice};
use crate::range::RangeArgs;
use crate::table::{Align, Table};
use crate::time::{parse_period, short};

/// How many points a page holds: the server's most, for the fewest calls.
const PAGE_SIZE: u32 = 10_000;

/// Show a mean of the last N prices, for each tick or each final bar of a range
///
/// Prices before the range count, so that its first points are whole.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    range: RangeArgs,

    /// Over how many prices to average
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    window: u32,

    /// Over the closes of final bars of this length, such as 1m, instead of ticks
    #[arg(long, value_parser = parse_period, value_name = "LENGTH")]
    interval: Option<Duration>,

    /// The newest price with the weight 2 / (N + 1), what was before with the rest
    #[arg(long)]
    exponential: bool,

    /// To how many decimals the averages are rounded, half-even
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(0..=36))]
    decimals: u32,
}

#[derive(Serialize)]
struct Line<'a> {
    end_time: String,
    average_price: &'a str,
    price: String,
    log_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let mut list = MovingAverageQuery::new(args.range.query(), args.window).decimals(args.decimals);
    if let Some(interval) = args.interval {
        list = list.over_bars(interval);
    }
    if args.exponential {
        list = list.exponential();
    }
    let mut table = Table::new(&[("TIME", Align::Left), ("AVERAGE", Align::Right), ("PRICE", Align::Right)]);
    let mut found = false;
    let mut pages = std::pin::pin!(client.moving_average_pages(list.page_size(PAGE_SIZE)));
    while let Some(page) = pages.next().await {
        let page = page?;
        for (index, point) in page.items.iter().enumerate() {
            if output.is_json() {
                let last = page.next_page_token.is_empty() && index + 1 == page.items.len();
                output.object(&Line {
                    end_time: point.end_time.to_string(),
                    average_price: point.average.as_str(),
                    price: point.price.to_string(),
                    log_seq: point.log_seq,
                    cursor: page.as_of.as_ref().filter(|_| last).map(ToString::to_string),
                })?;
            } else {
                table.row(vec![short(point.end_time), point.average.to_string(), point.price.to_string()]);
            }
        }
        if !found && !table.is_empty() {
            found = true;
            output.line(&table.header())?;
        }
        output.rows(&mut table)?;
    }
    if !output.is_json() && !found {
        notice("too few prices in and before this range")?;
    }
    Ok(())
}
