//! `tapefeed instruments`: what the server has.

use clap::Args as ClapArgs;
use serde::Serialize;
use tapefeed_client::{Client, Instrument, InstrumentQuery};
use tokio_stream::StreamExt as _;

use crate::failure::Failure;
use crate::output::Output;
use crate::table::{Align, Table};
use crate::time::short;

/// List the instruments of the server
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Only this symbol, exactly
    symbol: Option<String>,

    /// Only this venue
    #[arg(long)]
    venue: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    venue: &'a str,
    symbol: &'a str,
    instrument_id: u32,
    tick_count: u64,
    price_decimals: u32,
    quantity_decimals: u32,
    #[serde(skip_serializing_if = "is_zero")]
    unmatched_correction_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_event_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_price: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
}

#[derive(Serialize)]
struct Details<'a> {
    isin: &'a str,
    issuer: &'a str,
    share_class: &'a str,
    currency: &'a str,
    as_of_date: &'a str,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let mut query = InstrumentQuery::all();
    if let Some(venue) = args.venue {
        query = query.venue(venue);
    }
    if let Some(symbol) = args.symbol {
        query = query.symbol(symbol);
    }
    let mut rows = Vec::new();
    // Without details, the table stays narrow.
    let mut detailed = false;
    let mut pages = std::pin::pin!(client.instrument_pages(query));
    while let Some(page) = pages.next().await {
        for instrument in page?.items {
            if output.is_json() {
                output.object(&line(&instrument))?;
            } else {
                detailed |= instrument.details.is_some();
                rows.push(row(&instrument));
            }
        }
    }
    if !output.is_json() {
        let columns = if detailed { &COLUMNS[..] } else { &COLUMNS[..OF_TICKS] };
        let mut table = Table::new(columns);
        for mut row in rows {
            row.truncate(columns.len());
            table.row(row);
        }
        output.table(table, "no instruments: publish or import ticks, and they are created")?;
    }
    Ok(())
}

/// The columns, those of details last.
const COLUMNS: [(&str, Align); 8] = [
    ("VENUE", Align::Left),
    ("SYMBOL", Align::Left),
    ("TICKS", Align::Right),
    ("FIRST", Align::Left),
    ("LAST", Align::Left),
    ("LAST PRICE", Align::Right),
    ("ISIN", Align::Left),
    ("ISSUER", Align::Left),
];

/// How many columns are not of details.
const OF_TICKS: usize = 6;

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn line(instrument: &Instrument) -> Line<'_> {
    let (first, last) = (&instrument.first_tick, &instrument.last_tick);
    Line {
        venue: &instrument.venue,
        symbol: &instrument.symbol,
        instrument_id: instrument.instrument_id,
        tick_count: instrument.tick_count,
        price_decimals: instrument.price_decimals,
        quantity_decimals: instrument.quantity_decimals,
        unmatched_correction_count: instrument.unmatched_correction_count,
        first_event_time: first.as_ref().map(|tick| tick.event_time.to_string()),
        last_event_time: last.as_ref().map(|tick| tick.event_time.to_string()),
        last_price: last.as_ref().map(|tick| tick.price.to_string()),
        details: instrument.details.as_ref().map(|details| Details {
            isin: &details.isin,
            issuer: &details.issuer,
            share_class: &details.share_class,
            currency: &details.currency,
            as_of_date: &details.as_of_date,
        }),
    }
}

fn row(instrument: &Instrument) -> Vec<String> {
    let (first, last) = (&instrument.first_tick, &instrument.last_tick);
    let time = |tick: &Option<tapefeed_client::Tick>| {
        let tick = tick.as_ref();
        tick.map(|tick| short(tick.event_time)).unwrap_or_default()
    };
    let details = instrument.details.as_ref();
    vec![
        instrument.venue.clone(),
        instrument.symbol.clone(),
        instrument.tick_count.to_string(),
        time(first),
        time(last),
        last.as_ref().map(|tick| tick.price.to_string()).unwrap_or_default(),
        details.map(|details| details.isin.clone()).unwrap_or_default(),
        details.map(|details| details.issuer.clone()).unwrap_or_default(),
    ]
}
