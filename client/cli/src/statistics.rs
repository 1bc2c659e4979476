//! `tapefeed statistics`: count, first, last, highest, lowest, means and sums of a range.

use clap::Args as ClapArgs;
use serde::Serialize;
use tapefeed_client::{Client, PricePoint};

use crate::failure::Failure;
use crate::output::Output;
use crate::range::RangeArgs;
use crate::time::short;

/// Show statistics of the prices of a range
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    range: RangeArgs,

    /// To how many decimals the means are rounded, half-even
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(0..=36))]
    decimals: u32,
}

#[derive(Serialize)]
struct Line<'a> {
    symbol: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    venue: &'a str,
    tick_count: u64,
    first: Option<Point<'a>>,
    last: Option<Point<'a>>,
    highest: Option<Point<'a>>,
    lowest: Option<Point<'a>>,
    mean: Option<&'a str>,
    vwap: Option<&'a str>,
    price_sum: &'a str,
    volume: &'a str,
    notional: &'a str,
    now: String,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Point<'a> {
    price: String,
    event_time: String,
    log_seq: u64,
    venue: &'a str,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let query = args.range.query();
    let statistics = client.statistics(&query, Some(args.decimals)).await?;
    if output.is_json() {
        output.object(&Line {
            symbol: args.range.symbol(),
            venue: args.range.venue(),
            tick_count: statistics.tick_count,
            first: statistics.first.as_ref().map(point),
            last: statistics.last.as_ref().map(point),
            highest: statistics.highest.as_ref().map(point),
            lowest: statistics.lowest.as_ref().map(point),
            mean: statistics.mean.as_ref().map(|mean| mean.as_str()),
            vwap: statistics.vwap.as_ref().map(|vwap| vwap.as_str()),
            price_sum: statistics.price_sum.as_str(),
            volume: statistics.volume.as_str(),
            notional: statistics.notional.as_str(),
            now: statistics.now.to_string(),
            cursor: statistics.as_of.map(|cursor| cursor.to_string()),
        })?;
        return Ok(());
    }
    let mut pairs = vec![("ticks", statistics.tick_count.to_string())];
    for (name, point) in [
        ("first", &statistics.first),
        ("last", &statistics.last),
        ("highest", &statistics.highest),
        ("lowest", &statistics.lowest),
    ] {
        if let Some(point) = point {
            let (price, time) = (point.price, short(point.event_time));
            pairs.push((name, format!("{price} at {time} on {}", point.venue)));
        }
    }
    if let Some(mean) = &statistics.mean {
        pairs.push(("mean", mean.to_string()));
    }
    if let Some(vwap) = &statistics.vwap {
        pairs.push(("vwap", vwap.to_string()));
    }
    pairs.push(("volume", statistics.volume.to_string()));
    pairs.push(("notional", statistics.notional.to_string()));
    output.pairs(&pairs)?;
    Ok(())
}

fn point(point: &PricePoint) -> Point<'_> {
    Point {
        price: point.price.to_string(),
        event_time: point.event_time.to_string(),
        log_seq: point.log_seq,
        venue: &point.venue,
    }
}
