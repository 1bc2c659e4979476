//! `tapefeed watch`: live ticks as they come, over cuts and restarts of the server.

use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use tapefeed_client::{Client, Cursor, IfUnavailable, Subscription, UnixNanos};

use crate::failure::Failure;
use crate::follow::Follow;
use crate::lines::tick_table;
use crate::output::Output;
use crate::time::{parse_interval, parse_time};

/// From so many symbols on, columns are less work than rows: few symbols have few ticks, and rows are simpler to look at
/// on the wire.
const COLUMNS_FROM: usize = 8;

/// Follow live ticks; notices go to standard error
///
/// Goes on by itself after a cut or a restart of the server, without losing or repeating a tick. Ctrl-C prints the cursor
/// to go on from.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The symbols, exactly; all without any
    symbols: Vec<String>,

    /// Only this venue
    #[arg(long)]
    venue: Option<String>,

    /// Start after this cursor, as --json and Ctrl-C print it
    #[arg(long, value_name = "BASE64")]
    from_cursor: Option<Cursor>,

    /// Start with what was stored at or after this time, by the server's clock
    #[arg(long, value_parser = parse_time, value_name = "TIME", conflicts_with = "from_cursor")]
    start_time: Option<UnixNanos>,

    /// Start with the latest tick of each symbol
    #[arg(long, conflicts_with_all = ["from_cursor", "start_time"])]
    snapshot: bool,

    /// What to do if the start is older than what the server can replay
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    if_expired: IfExpired,

    /// Only the newest tick of each symbol, in rounds at least this far apart: 250ms, 1s, or 0 for as fast as they are
    /// shown
    #[arg(long, value_parser = parse_interval, value_name = "INTERVAL")]
    conflate: Option<Duration>,

    /// Also show ticks that are imported or filled in
    #[arg(long)]
    backfill: bool,

    /// Stop after this many ticks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// What happens to a start that is too old.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum IfExpired {
    /// End with an error
    Fail,
    /// Start with the oldest tick that is kept
    Oldest,
    /// Start with the latest tick of each symbol
    Snapshot,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let mut subscription = Subscription::new().venue(args.venue.clone().unwrap_or_default());
    for symbol in &args.symbols {
        subscription = subscription.symbol(symbol);
    }
    if let Some(cursor) = args.from_cursor.clone() {
        subscription = subscription.after(cursor);
    }
    if let Some(time) = args.start_time {
        subscription = subscription.from_time(time);
    }
    if args.snapshot {
        subscription = subscription.snapshot();
    }
    if args.symbols.is_empty() || args.symbols.len() >= COLUMNS_FROM {
        subscription = subscription.columns();
    }
    if let Some(interval) = args.conflate {
        subscription = subscription.conflated(interval);
    }
    if args.backfill {
        subscription = subscription.include_backfill();
    }
    subscription = subscription.if_unavailable(match args.if_expired {
        IfExpired::Fail => IfUnavailable::Fail,
        IfExpired::Oldest => IfUnavailable::FromOldest,
        IfExpired::Snapshot => IfUnavailable::Snapshot,
    });
    let stream = client.subscribe(subscription);
    let follow = Follow::new(stream, output, tick_table());
    follow.limited(args.limit.unwrap_or(u64::MAX)).telling_where().run().await
}
