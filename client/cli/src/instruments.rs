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
    #[serde(skip_serializing_if = "Option::is_none")]
    first_event_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_price: Option<String>,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let mut query = InstrumentQuery::all();
    if let Some(venue) = args.venue {
        query = query.venue(venue);
    }
    if let Some(symbol) = args.symbol {
        query = query.symbol(symbol);
    }
    let mut table = Table::new(&[
        ("VENUE", Align::Left),
        ("SYMBOL", Align::Left),
        ("TICKS", Align::Right),
        ("FIRST", Align::Left),
        ("LAST", Align::Left),
        ("LAST PRICE", Align::Right),
    ]);
    let mut pages = std::pin::pin!(client.instrument_pages(query));
    while let Some(page) = pages.next().await {
        for instrument in page?.items {
            if output.is_json() {
                output.object(&line(&instrument))?;
            } else {
                table.row(row(&instrument));
            }
        }
    }
    if !output.is_json() {
        output.table(table, "no instruments: publish or import ticks, and they are created")?;
    }
    Ok(())
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
        first_event_time: first.as_ref().map(|tick| tick.event_time.to_string()),
        last_event_time: last.as_ref().map(|tick| tick.event_time.to_string()),
        last_price: last.as_ref().map(|tick| tick.price.to_string()),
    }
}

fn row(instrument: &Instrument) -> Vec<String> {
    let (first, last) = (&instrument.first_tick, &instrument.last_tick);
    let time = |tick: &Option<tapefeed_client::Tick>| {
        let tick = tick.as_ref();
        tick.map(|tick| short(tick.event_time)).unwrap_or_default()
    };
    vec![
        instrument.venue.clone(),
        instrument.symbol.clone(),
        instrument.tick_count.to_string(),
        time(first),
        time(last),
        last.as_ref().map(|tick| tick.price.to_string()).unwrap_or_default(),
    ]
}
