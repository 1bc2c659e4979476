//! Subscriptions to bars.

use std::time::Duration;

use tapefeed_proto::v1 as proto;

use super::reader::Request;
use super::{DEFAULT_QUEUE_TICKS, IfUnavailable, SubscriptionStream};
use crate::time::duration_to_wire;
use crate::{Client, Cursor, Selector};

/// Which bars to stream, from where, and how.
///
/// By default: the final bars of everything, from now on, and their revisions by late ticks.
///
/// ```no_run
/// # async fn example(client: tapefeed_client::Client) -> Result<(), tapefeed_client::Error> {
/// use std::time::Duration;
/// use tapefeed_client::{BarSubscription, Event};
///
/// let minute = Duration::from_secs(60);
/// let mut stream = client.subscribe_bars(BarSubscription::new(minute).venue("NASDAQ").symbol("AAPL"));
/// while let Some(event) = stream.next().await {
///     if let Event::Bars { bars, .. } = event? {
///         println!("{} {:?}", bars[0].start, bars[0].prices);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BarSubscription {
    interval: Duration,
    venue: String,
    selectors: Vec<Selector>,
    start: Start,
    include_forming: bool,
    min_interval: Option<Duration>,
    decimals: Option<u32>,
    heartbeat_interval: Option<Duration>,
    if_unavailable: IfUnavailable,
}

#[derive(Clone, Debug)]
enum Start {
    Live,
    Snapshot,
    After(Cursor),
}

impl BarSubscription {
    /// The final bars of everything, from now on. The interval is a whole number of seconds up to a day, or of days up
    /// to 366.
    pub fn new(interval: Duration) -> BarSubscription {
        BarSubscription {
            interval,
            venue: String::new(),
            selectors: Vec::new(),
            start: Start::Live,
            include_forming: false,
            min_interval: None,
            decimals: None,
            heartbeat_interval: None,
            if_unavailable: IfUnavailable::Fail,
        }
    }

    /// Adds a symbol, exactly, or `*` for all. Without any, all symbols are streamed.
    pub fn symbol(mut self, symbol: impl Into<String>) -> BarSubscription {
        self.selectors.push(Selector::symbol(symbol));
        self
    }

    /// Only this venue, for all symbols added by [`BarSubscription::symbol`]. Default: all venues, pooled by symbol.
    pub fn venue(mut self, venue: impl Into<String>) -> BarSubscription {
        self.venue = venue.into();
        self
    }

    /// Adds a selector, which may have a venue of its own. At most 10,000.
    pub fn selector(mut self, selector: Selector) -> BarSubscription {
        self.selectors.push(selector);
        self
    }

    /// Starts after a cursor, exclusive: from a stream, or the `as_of` of [`Client::list_bars`].
    pub fn after(mut self, cursor: Cursor) -> BarSubscription {
        self.start = Start::After(cursor);
        self
    }

    /// Starts with the bars that are growing now.
    pub fn snapshot(mut self) -> BarSubscription {
        self.start = Start::Snapshot;
        self
    }

    /// Also streams bars while they grow.
    pub fn include_forming(mut self) -> BarSubscription {
        self.include_forming = true;
        self
    }

    /// The shortest time between two messages about the same growing bar: at most 60 s, default 1 s.
    pub fn min_interval(mut self, interval: Duration) -> BarSubscription {
        self.min_interval = Some(interval);
        self
    }

    /// Rounds volume-weighted means to this many decimals, 0 to 36, half-even. Default 9.
    pub fn decimals(mut self, decimals: u32) -> BarSubscription {
        self.decimals = Some(decimals);
        self
    }

    /// The longest silence before a progress: 1 to 60 s, default 5 s.
    pub fn heartbeat_interval(mut self, interval: Duration) -> BarSubscription {
        self.heartbeat_interval = Some(interval);
        self
    }

    /// What happens if the start is older than what the server can replay. Default: the stream fails.
    pub fn if_unavailable(mut self, policy: IfUnavailable) -> BarSubscription {
        self.if_unavailable = policy;
        self
    }

    fn to_wire(&self) -> proto::SubscribeBarsRequest {
        use proto::subscribe_bars_request::Start as WireStart;

        let mut selectors: Vec<proto::Selector> = self.selectors.iter().map(Selector::to_wire).collect();
        if selectors.is_empty() {
            selectors.push(Selector::all().to_wire());
        }
        for selector in selectors.iter_mut().filter(|selector| selector.venue.is_empty()) {
            selector.venue.clone_from(&self.venue);
        }
        let start = match &self.start {
            Start::Live => WireStart::Live(proto::StartLive {}),
            Start::Snapshot => WireStart::Snapshot(proto::StartSnapshot {}),
            Start::After(cursor) => WireStart::Cursor(cursor.to_wire()),
        };
        proto::SubscribeBarsRequest {
            selectors,
            start: Some(start),
            interval: Some(duration_to_wire(self.interval)),
            include_forming: self.include_forming,
            min_interval: self.min_interval.map(duration_to_wire),
            heartbeat_interval: self.heartbeat_interval.map(duration_to_wire),
            if_unavailable: self.if_unavailable.to_wire(),
            decimals: self.decimals.map(|decimals| i32::try_from(decimals).unwrap_or(i32::MAX)),
        }
    }
}

impl Client {
    /// Subscribes to bars. The stream connects and resumes as that of [`Client::subscribe`] does; its events are
    /// [`Event::Bars`](crate::Event::Bars) and [`Event::IntervalComplete`](crate::Event::IntervalComplete) instead of
    /// ticks. Must be called inside a tokio runtime.
    pub fn subscribe_bars(&self, subscription: BarSubscription) -> SubscriptionStream {
        self.stream(Request::Bars(subscription.to_wire()), DEFAULT_QUEUE_TICKS)
    }
}
