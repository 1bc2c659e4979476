//! `tapefeed bars --published`: daily bars as venues publish them.

use serde::Serialize;
use tapefeed_client::{Client, Decimal, PublishedBar, PublishedBarQuery};
use tokio_stream::StreamExt as _;

use crate::failure::Failure;
use crate::output::{Output, notice};
use crate::range::RangeArgs;
use crate::table::{Align, Table};

/// How many bars a page holds: the server's most, for the fewest calls.
const PAGE_SIZE: u32 = 10_000;

pub(crate) async fn run(client: &Client, range: &RangeArgs, output: &mut Output) -> Result<(), Failure> {
    let mut query = PublishedBarQuery::of(range.venue(), range.symbol()).page_size(PAGE_SIZE);
    let (start, end) = range.dates().map_err(Failure::message)?;
    if let Some(start) = start {
        query = query.start_date(start);
    }
    if let Some(end) = end {
        query = query.end_date(end);
    }
    let mut table = table();
    let mut found = false;
    let mut pages = std::pin::pin!(client.published_bar_pages(query));
    while let Some(page) = pages.next().await {
        for bar in &page?.items {
            if output.is_json() {
                output.object(&Line::new(bar))?;
            } else {
                table.row(row(bar));
            }
        }
        if !found && !table.is_empty() {
            found = true;
            output.line(&table.header())?;
        }
        output.rows(&mut table)?;
    }
    if !output.is_json() && !found {
        notice("no published bars in this range")?;
    }
    Ok(())
}

fn table() -> Table {
    Table::new(&[
        ("DATE", Align::Left),
        ("MARKET", Align::Left),
        ("OPEN", Align::Right),
        ("HIGH", Align::Right),
        ("LOW", Align::Right),
        ("CLOSE", Align::Right),
        ("TRADES", Align::Right),
        ("QUANTITY", Align::Right),
        ("VALUE", Align::Right),
    ])
}

fn row(bar: &PublishedBar) -> Vec<String> {
    let market = match bar.term_days {
        Some(days) => format!("{} ({days}d)", bar.market),
        None => bar.market.to_string(),
    };
    vec![
        bar.date.clone(),
        market,
        bar.open.to_string(),
        bar.high.to_string(),
        bar.low.to_string(),
        bar.close.to_string(),
        bar.trade_count.to_string(),
        bar.quantity.to_string(),
        bar.value.to_string(),
    ]
}

/// A bar as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    date: &'a str,
    market: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    term_days: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    board: &'a str,
    open_price: String,
    high_price: String,
    low_price: String,
    average_price: String,
    close_price: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bid_price: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ask_price: Option<String>,
    trade_count: u64,
    quantity: String,
    value: String,
    quote_factor: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    strike_price: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strike_points: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry_date: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    strike_correction: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    distribution: &'a str,
}

impl<'a> Line<'a> {
    fn new(bar: &'a PublishedBar) -> Line<'a> {
        let optional = |number: Option<Decimal>| number.map(|number| number.to_string());
        Line {
            date: &bar.date,
            market: bar.market,
            term_days: bar.term_days,
            board: &bar.board,
            open_price: bar.open.to_string(),
            high_price: bar.high.to_string(),
            low_price: bar.low.to_string(),
            average_price: bar.average.to_string(),
            close_price: bar.close.to_string(),
            bid_price: optional(bar.bid),
            ask_price: optional(bar.ask),
            trade_count: bar.trade_count,
            quantity: bar.quantity.to_string(),
            value: bar.value.to_string(),
            quote_factor: bar.quote_factor,
            strike_price: optional(bar.strike),
            strike_points: optional(bar.strike_points),
            expiry_date: bar.expiry_date.as_deref(),
            strike_correction: &bar.strike_correction,
            distribution: &bar.distribution,
        }
    }
}
