//! `tapefeed average`: the mean, VWAP or TWAP of a range.

use clap::{Args as ClapArgs, ValueEnum};
use serde::Serialize;
use tapefeed_client::{Averaging, Client, Method};

use crate::failure::Failure;
use crate::output::Output;
use crate::range::RangeArgs;
use crate::time::{short, short_duration};

/// Show the average price of a range
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    range: RangeArgs,

    /// How to average
    #[arg(long, value_enum, default_value_t = MethodArg::Mean)]
    method: MethodArg,

    /// To how many decimals the average is rounded, half-even
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(0..=36))]
    decimals: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MethodArg {
    /// Each tick with the same weight
    Mean,
    /// Weighted by quantity
    Vwap,
    /// Weighted by time, on one venue
    Twap,
}

#[derive(Serialize)]
struct Line<'a> {
    symbol: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    venue: &'a str,
    method: &'static str,
    average_price: &'a str,
    tick_count: u64,
    price_sum: &'a str,
    volume: &'a str,
    notional: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_event_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_weight_nanos: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_weighted_sum: Option<&'a str>,
    now: String,
    cursor: Option<String>,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let averaging = Averaging::by(match args.method {
        MethodArg::Mean => Method::Mean,
        MethodArg::Vwap => Method::Vwap,
        MethodArg::Twap => Method::Twap,
    });
    let averaging = averaging.decimals(args.decimals);
    let average = client.average(&args.range.query(), averaging).await?;
    let time_weight_nanos = average.time_weight.map(|weight| u64::try_from(weight.as_nanos()).unwrap_or(u64::MAX));
    if output.is_json() {
        output.object(&Line {
            symbol: args.range.symbol(),
            venue: args.range.venue(),
            method: average.method.as_str(),
            average_price: average.price.as_str(),
            tick_count: average.tick_count,
            price_sum: average.price_sum.as_str(),
            volume: average.volume.as_str(),
            notional: average.notional.as_str(),
            first_event_time: average.first_event_time.map(|time| time.to_string()),
            last_event_time: average.last_event_time.map(|time| time.to_string()),
            time_weight_nanos,
            time_weighted_sum: average.time_weighted_sum.as_ref().map(|sum| sum.as_str()),
            now: average.now.to_string(),
            cursor: average.as_of.map(|cursor| cursor.to_string()),
        })?;
        return Ok(());
    }
    let mut pairs = vec![
        (average.method.as_str(), average.price.to_string()),
        ("ticks", average.tick_count.to_string()),
        ("volume", average.volume.to_string()),
        ("notional", average.notional.to_string()),
    ];
    if let (Some(first), Some(last)) = (average.first_event_time, average.last_event_time) {
        pairs.push(("first", short(first)));
        pairs.push(("last", short(last)));
    }
    if let Some(weight) = time_weight_nanos {
        let weight = i64::try_from(weight).unwrap_or(i64::MAX);
        pairs.push(("over", short_duration(weight)));
    }
    output.pairs(&pairs)?;
    Ok(())
}
