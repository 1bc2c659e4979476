//! `tapefeed latest`: the newest tick of each instrument.

use clap::Args as ClapArgs;
use serde::Serialize;
use tapefeed_client::{Client, Selector};

use crate::failure::Failure;
use crate::lines::TickLine;
use crate::output::{Output, notice};
use crate::table::{Align, Table};
use crate::time::{short, short_duration};

/// Show the newest tick of each instrument
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The symbols, exactly, or `*` for all
    #[arg(required = true)]
    symbols: Vec<String>,

    /// Only this venue
    #[arg(long)]
    venue: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    tick: TickLine<'a>,
    /// The server's now less the event time, in nanoseconds.
    age_nanos: i64,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let venue = args.venue.unwrap_or_default();
    let selectors: Vec<Selector> =
        args.symbols.into_iter().map(|symbol| Selector::symbol(symbol).on(venue.clone())).collect();
    let latest = client.latest(&selectors).await?;
    if output.is_json() {
        let count = latest.ticks.len();
        for (index, latest_tick) in latest.ticks.iter().enumerate() {
            let cursor = latest.as_of.as_ref().filter(|_| index + 1 == count);
            output
                .object(&Line { tick: TickLine::new(&latest_tick.tick, cursor), age_nanos: latest_tick.age_nanos })?;
        }
        return Ok(());
    }
    let mut table = Table::new(&[
        ("VENUE", Align::Left),
        ("SYMBOL", Align::Left),
        ("PRICE", Align::Right),
        ("QUANTITY", Align::Right),
        ("SIDE", Align::Left),
        ("TIME", Align::Left),
        ("AGE", Align::Right),
    ]);
    for latest_tick in &latest.ticks {
        let tick = &latest_tick.tick;
        table.row(vec![
            tick.venue.to_string(),
            tick.symbol.to_string(),
            tick.price.to_string(),
            tick.quantity.map(|quantity| quantity.to_string()).unwrap_or_default(),
            tick.side.map(|side| side.to_string()).unwrap_or_default(),
            short(tick.event_time),
            short_duration(latest_tick.age_nanos),
        ]);
    }
    output.table(table, "no ticks")?;
    for selector in &latest.without_data {
        notice(&format!("{} has no ticks", selector.symbol_name()))?;
    }
    Ok(())
}
