//! The typed Rust client of Tapefeed: exact decimals, streams that resume, a publisher that never doubles.
//!
//! A [`Client`] speaks to one server, or to several over one store. Its methods are the calls:
//!
//! - **history**: [`Client::list_ticks`] and [`Client::tick_pages`], [`Client::read_ticks`], [`Client::latest`], [`Client::average`],
//!   [`Client::statistics`], [`Client::bar_pages`], [`Client::moving_average_pages`], [`Client::published_bar_pages`], [`Client::instrument`] and [`Client::instrument_pages`];
//! - **live**: [`Client::subscribe`], and [`Client::subscribe_bars`] for bars, gives a [`SubscriptionStream`], which reconnects and resumes by itself;
//! - **publishing**: [`Client::publisher`] gives a [`Publisher`] with batches, credit and idempotent resend;
//! - **importing**: [`Client::import_file`], [`Client::watch_run`], [`Client::run_pages`], [`Client::reject_pages`],
//!   [`Client::cancel_run`].
//!
//! One [`Cursor`] joins them: a query says at which position it was answered, and a subscription goes on exactly there.
//!
//! ```no_run
//! use tapefeed_client::{Client, Event, Query, Subscription};
//!
//! # async fn example() -> Result<(), tapefeed_client::Error> {
//! let client = Client::connect("http://127.0.0.1:50051").await?;
//! let page = client.list_ticks(Query::symbol("AAPL").venue("NASDAQ")).await?;
//! let mut subscription = Subscription::new().venue("NASDAQ").symbol("AAPL");
//! if let Some(cursor) = page.as_of {
//!     subscription = subscription.after(cursor);
//! }
//! let mut stream = client.subscribe(subscription);
//! while let Some(event) = stream.next().await {
//!     if let Event::Ticks { ticks, .. } = event? {
//!         println!("{} {}", ticks[0].event_time, ticks[0].price);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Times are UTC nanoseconds ([`UnixNanos`]), prices and quantities are exact ([`Decimal`]), and every refusal of the
//! server is an [`Error`] with a typed [`ErrorReason`]. The client needs a tokio runtime and starts no thread of its own.
//!
//! With the feature `otel`, a call that is made inside a trace of OpenTelemetry gets a span `rpc.client`, and tells the
//! server by W3C Trace Context. A call outside a trace begins none; nor do the streams of a [`Publisher`] or a
//! subscription, which live for days: there each batch is a trace of its own on the server.

#![warn(missing_docs)]

mod backoff;
mod client;
mod columns;
mod connector;
mod cursor;
mod decimal;
mod error;
mod health;
mod history;
mod import;
mod instrument;
mod live;
mod page;
mod publish;
mod source_event;
#[cfg(test)]
mod testing;
mod tick;
mod time;
mod transport;

pub use tapefeed_proto::v1::ErrorReason;
pub use tonic::Code;

pub use client::{Client, ClientBuilder};
pub use connector::Connector;
pub use cursor::{Cursor, CursorInvalid};
pub use decimal::{Decimal, DecimalInvalid, MAX_DECIMALS, WideDecimal};
pub use error::{Error, Refusal, Violation};
pub use health::Health;
pub use history::{
    Average, Averaging, Bar, BarFill, BarPrices, BarQuery, BarTimes, Latest, LatestTick, Method, MovingAverage,
    MovingAverageQuery, MovingMethod, PricePoint, PublishedBar, PublishedBarQuery, Query, ReadBatch, ReadQuery,
    Statistics, TickQuery,
};
pub use import::{
    IgnoredLines, Import, ImportFailure, ImportFormat, ImportOptions, ImportProgress, RejectPage, RejectQuery,
    RejectedLine, Run, RunQuery, RunState, TickField, TimeUnit,
};
pub use instrument::{Instrument, InstrumentDetails, InstrumentQuery, Selector};
pub use live::{
    BarSubscription, Delivery, Event, IfUnavailable, ReplayEdge, ReplayWindow, SelectorResult, SelectorStatus,
    StreamGapCause, Subscription, SubscriptionAck, SubscriptionStream,
};
pub use page::Page;
pub use publish::{Publisher, PublisherBuilder, PublisherStatus, Receipt, RefusedBatch, RefusedBatches, TickViolation};
pub use source_event::{SourceEvent, SourceGap, SourceGapCause, SourceGapFilled, SourceStatus, Watermark};
pub use tick::{Action, NameUnknown, NewTick, Origin, Side, Tick};
pub use time::{TimeOutOfRange, UnixNanos};
