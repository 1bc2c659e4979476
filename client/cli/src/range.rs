//! The arguments of a question about history: which instrument, over which time.

use std::time::Duration;

use clap::Args;
use tapefeed_client::{Query, UnixNanos};

use crate::time::{date_of, parse_period, parse_time};

#[derive(Debug, Args)]
pub(crate) struct RangeArgs {
    /// The symbol, exactly
    symbol: String,

    /// Only this venue; all venues together without it
    #[arg(long)]
    venue: Option<String>,

    /// From this time on, inclusive
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    start: Option<UnixNanos>,

    /// Up to this time, exclusive
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    end: Option<UnixNanos>,

    /// The last part of time instead, such as 90s, 5m, 1h30m or 2d
    #[arg(long, value_parser = parse_period, conflicts_with_all = ["start", "end"])]
    period: Option<Duration>,
}

impl RangeArgs {
    pub(crate) fn query(&self) -> Query {
        let mut query = Query::symbol(&self.symbol);
        if let Some(venue) = &self.venue {
            query = query.venue(venue);
        }
        if let Some(start) = self.start {
            query = query.start(start);
        }
        if let Some(end) = self.end {
            query = query.end(end);
        }
        if let Some(period) = self.period {
            query = query.period(period);
        }
        query
    }

    pub(crate) fn symbol(&self) -> &str {
        &self.symbol
    }

    /// The range as days of the calendar, `YYYY-MM-DD`. Times of a day, and a period, are no days.
    pub(crate) fn dates(&self) -> Result<(Option<String>, Option<String>), String> {
        if self.period.is_some() {
            return Err("published bars are of days: give --start and --end instead of --period".to_owned());
        }
        Ok((self.start.map(date_of).transpose()?, self.end.map(date_of).transpose()?))
    }

    /// The venue, or the empty text for all.
    pub(crate) fn venue(&self) -> &str {
        self.venue.as_deref().unwrap_or_default()
    }
}
