//! `tapefeed publish`: ticks from standard input, one JSON object a line.

use clap::Args as ClapArgs;
use serde::Serialize;
use tapefeed_client::{Client, Error, Publisher, RefusedBatches};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::failure::Failure;
use crate::lines::read_tick;
use crate::output::{Output, count, notice};
use crate::visible;

/// Publish ticks from standard input, in the form that `history --json` prints
///
/// A line needs venue, symbol, event_time and price (decimals as text); receive_time, quantity, side (buy, sell),
/// trade_id and action are optional, and all else is passed over. A line that is no tick ends the input: what stands
/// before it is stored.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The producer id; without it a random one. Two publishers cannot use the same id at once
    #[arg(long, value_name = "ID")]
    producer: Option<String>,

    /// The ticks fill in history: of any age, and passed over by watchers that do not ask
    #[arg(long)]
    backfill: bool,
}

#[derive(Serialize)]
struct Summary {
    published_ticks: u64,
    refused_batches: u64,
    passed_over_lines: u64,
    duplicate_batches: u64,
    cursor: Option<String>,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let producer = args.producer.unwrap_or_else(|| random_name("cli"));
    let publisher = client.publisher(producer).backfill(args.backfill).start().await?;
    let mut passed_over = 0;
    let input = read(&publisher, &mut passed_over).await;
    let flushed = publisher.flush().await;
    let status = publisher.status();
    if let Err(Error::BatchesRefused(refused)) = &flushed {
        explain(refused)?;
    }
    if let Some(cursor) = &status.cursor {
        visible::wait(client, cursor).await?;
    }
    let cursor = status.cursor.map(|cursor| cursor.to_string());
    if output.is_json() {
        output.object(&Summary {
            published_ticks: status.acknowledged_ticks,
            refused_batches: status.refused_batches,
            passed_over_lines: passed_over,
            duplicate_batches: status.duplicate_batches,
            cursor,
        })?;
    } else {
        let ticks = count(status.acknowledged_ticks, "tick", "ticks");
        output.line(&format!("{ticks} on disk"))?;
        if passed_over > 0 {
            let lines = count(passed_over, "line", "lines");
            notice(&format!("{lines} passed over: events, not ticks"))?;
        }
    }
    output.flush()?;
    input?;
    flushed?;
    Ok(())
}

/// A name that no other publisher has.
pub(crate) fn random_name(kind: &str) -> String {
    // The standard library seeds each hasher from the system's randomness.
    use std::hash::{BuildHasher as _, RandomState};
    format!("{kind}-{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Sends standard input, up to its end or the first line that is no tick.
async fn read(publisher: &Publisher, passed_over: &mut u64) -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut number = 0u64;
    while let Some(line) = lines.next_line().await? {
        number += 1;
        if line.trim().is_empty() {
            continue;
        }
        match read_tick(&line) {
            Ok(Some(tick)) => publisher.send(tick).await?,
            Ok(None) => *passed_over += 1,
            Err(why) => {
                return Err(Failure::message(format!(
                    "line {number}: {why}\n  nothing from this line on was published"
                )));
            }
        }
    }
    Ok(())
}

/// Names the ticks that were refused.
pub(crate) fn explain(refused: &RefusedBatches) -> Result<(), Failure> {
    for batch in &refused.batches {
        for violation in &batch.violations {
            let tick = violation.index.and_then(|index| batch.ticks.get(index));
            let what = match tick {
                Some(tick) => format!("{} {} at {} for {}", tick.venue, tick.symbol, tick.event_time, tick.price),
                None => violation.field.clone(),
            };
            notice(&format!("refused: {what}: {}", violation.description))?;
        }
        let ticks = count(batch.ticks.len() as u64, "tick", "ticks");
        notice(&format!("the batch of {ticks} around it is not stored"))?;
    }
    Ok(())
}
