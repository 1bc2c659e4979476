//! ListMovingAverages: a mean of the last N prices, for each tick or each final bar of a range.
//!
//! Simple: the arithmetic mean of the last N. Exponential: `e + (p - e) * 2 / (N + 1)`, the recursion of NIST/SEMATECH's
//! e-Handbook of Statistical Methods, 6.3.2.4, whose weight makes the mean age of a price that of the simple mean. It
//! begins as the simple mean of the N prices up to the first point, so that no more than N - 1 prices before the range
//! are read, however long the history is.

use std::collections::VecDeque;

use crate::domain::bar::{Contents, Interval};
use crate::domain::statistics::PricePoint;
use crate::domain::{Cursor, Decimal, I256, InstrumentId, TimeRange, UnixNanos, ratio};
use crate::store::StoreError;
use crate::tape::{Finish, View};

use super::bars::series::Series;
use super::bars::{Walk, last_with_ticks, skipping};
use super::cache::ChunkError;
use super::page::{Arguments, Kind, PageToken};
use super::scan::{Extent, Order, Scan};
use super::{InstrumentUnknown, Key, PageTokenInvalid, Query, Span, Subject, ViewError};

/// Most prices of a window.
pub const MOST_WINDOW: usize = 10_000;

/// How prices are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MovingMethod {
    /// Each of the last N with the same weight.
    Simple,
    /// The newest with the weight 2 / (N + 1), what was before with the rest.
    Exponential,
}

/// Which page of which averages.
#[derive(Clone, Debug)]
pub struct MovingRequest {
    /// One instrument or one symbol.
    pub subject: Subject,
    /// Which ticks have a point, or where bars begin that have one.
    pub span: Span,
    /// How.
    pub method: MovingMethod,
    /// Over how many prices, 1 to [`MOST_WINDOW`].
    pub window: usize,
    /// Over closes of final bars of this length; `None` is over the prices of ticks.
    pub bars: Option<Interval>,
    /// Decimals of the averages, 0 to 36.
    pub decimals: u8,
    /// How many points at most, at least 1.
    pub page_size: usize,
    /// The token of the page before.
    pub page_token: Option<String>,
    /// The answer includes this cursor.
    pub min_cursor: Option<Cursor>,
}

/// An average up to a tick or bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovingPoint {
    /// The tick's event time, or the bar's end.
    pub end: UnixNanos,
    /// The tick's position, or the bar's revision.
    pub log_seq: u64,
    /// Rounded half-even to the decimals of the request.
    pub average: String,
    /// The tick's price, or the bar's close.
    pub price: Decimal,
}

/// A page of averages.
#[derive(Clone, Debug)]
pub struct MovingPage {
    /// The points, ascending by time and position.
    pub points: Vec<MovingPoint>,
    /// The token of the next page; `None` at the end.
    pub next_page_token: Option<String>,
    /// The position of all pages.
    pub as_of: Cursor,
    /// What the span looked back from, for all pages.
    pub now: UnixNanos,
}

/// Why a page of averages could not be given.
#[derive(Debug, thiserror::Error)]
pub enum MovingError {
    /// No view can answer.
    #[error(transparent)]
    View(#[from] ViewError),
    /// No such instrument.
    #[error(transparent)]
    InstrumentUnknown(#[from] InstrumentUnknown),
    /// The page token does not continue this request.
    #[error(transparent)]
    PageToken(#[from] PageTokenInvalid),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A price that has a point, or comes before the first of them.
#[derive(Clone, Copy, Debug)]
struct Priced {
    /// Tells where the next page begins: the tick's key, or the start of its bar.
    at: UnixNanos,
    end: UnixNanos,
    log_seq: u64,
    price: Decimal,
}

/// Averages prices one after the other.
struct Averager {
    method: MovingMethod,
    window: usize,
    /// The last prices, at most as many as the window.
    prices: VecDeque<Decimal>,
    /// Their sum, in units of 10^-18.
    sum: I256,
    /// The exponential average, in units of 10^-36, once it has begun.
    exponential: Option<I256>,
}

impl Averager {
    /// Takes the next price in.
    fn push(&mut self, price: Decimal) {
        self.prices.push_back(price);
        self.sum += price.units_e18();
        if self.prices.len() > self.window
            && let Some(oldest) = self.prices.pop_front()
        {
            self.sum += -oldest.units_e18();
        }
    }

    /// The average up to the price that was pushed last; `None` before there are enough.
    fn average(&mut self, decimals: u8) -> Option<String> {
        let full = self.prices.len() == self.window;
        match (self.method, self.exponential) {
            (MovingMethod::Simple, _) if full => ratio::mean(self.sum, self.window as u64, decimals),
            (MovingMethod::Exponential, Some(before)) => {
                let price = self.prices.back()?.units_e18();
                self.exponential = Some(ratio::exponential(before, price, self.window as u64));
                ratio::fine(self.exponential?, decimals)
            }
            (MovingMethod::Exponential, None) if full => {
                self.exponential = Some(ratio::fine_mean(self.sum, self.window as u64));
                ratio::mean(self.sum, self.window as u64, decimals)
            }
            _ => None,
        }
    }
}

impl Query {
    /// A page of moving averages. All pages of a walk are answered at the position of the first.
    #[tracing::instrument(level = "debug", name = "query moving averages", skip_all)]
    pub async fn moving_averages(&self, request: &MovingRequest) -> Result<MovingPage, MovingError> {
        let digest = Arguments::new(Kind::MovingAverages)
            .subject(&request.subject)
            .span(request.span)
            .number(request.method as u64)
            .number(request.window as u64)
            .number(request.bars.map_or(0, |interval| interval.nanos() as u64))
            .number(u64::from(request.decimals))
            .digest();
        let token = match &request.page_token {
            Some(text) => Some(PageToken::open(text, Kind::MovingAverages, digest, self.clock.now())?),
            None => None,
        };
        let mut view = self.view(request.min_cursor).await?;
        if let Some(token) = &token {
            view = self.pinned_view::<MovingError>(token).await?;
        }
        let instruments = self.instruments::<MovingError>(&request.subject).await?;
        let issued = self.clock.now();
        let (pinned, now) = token.map_or((view.cursor(), issued), |token| (token.pinned, token.now));
        let facts = view.venues().of(&view, &self.registry, &instruments);
        let reached = facts.iter().map(|facts| facts.final_until()).max().unwrap_or(UnixNanos::MIN);
        // Over bars a token has the next start and what is final, over ticks the key of the last one.
        let (resumed, final_until) = match (token, request.bars) {
            (None, _) => (None, reached),
            (Some(token), Some(_)) => {
                let (next, final_until) = token.instants()?;
                (Some((next, 0)), final_until)
            }
            (Some(token), None) => (Some(token.key()?), reached),
        };
        let range = request.span.at(now);
        let most = request.page_size + 1;
        let mut replans = 0;
        let (before, mut found) = loop {
            let at = (pinned.position, final_until);
            let read = match request.bars {
                Some(interval) => {
                    let finish = Finish::new(&[], request.subject.symbol.clone(), at, interval);
                    self.closes(&view, &instruments, &finish, (range, resumed), (request.window - 1, most)).await
                }
                None => {
                    let wanted = (request.window - 1, most);
                    self.prices(&view, &instruments, pinned.position, (range, resumed), wanted).await
                }
            };
            match read {
                Ok(read) => break read,
                Err(error) => view = self.replan(&view, error, &mut replans).await?,
            }
        };
        let next = found.get(request.page_size).copied();
        found.truncate(request.page_size);
        let mut averager = Averager {
            method: request.method,
            window: request.window,
            prices: VecDeque::with_capacity(request.window + 1),
            sum: I256::ZERO,
            exponential: token.and_then(|token| token.carried),
        };
        before.iter().for_each(|price| averager.push(*price));
        let mut points = Vec::with_capacity(found.len());
        for Priced { end, log_seq, price, .. } in &found {
            averager.push(*price);
            if let Some(average) = averager.average(request.decimals) {
                points.push(MovingPoint { end: *end, log_seq: *log_seq, average, price: *price });
            }
        }
        let last = next.zip(found.last()).map(|(next, last)| match request.bars {
            Some(_) => (next.at.nanos() as u64, final_until.nanos() as u64),
            None => (last.at.nanos() as u64, last.log_seq),
        });
        let carried = averager.exponential;
        let kind = Kind::MovingAverages;
        let next = last.map(|last| PageToken { kind, pinned, last, digest, now, issued, carried });
        Ok(MovingPage { points, next_page_token: next.map(|token| token.encode()), as_of: pinned, now })
    }

    /// Prices of ticks: those before the first point, at most so many, and those of points.
    async fn prices(
        &self,
        view: &View,
        instruments: &[InstrumentId],
        position: u64,
        (range, resumed): (TimeRange, Option<Key>),
        (before, most): (usize, usize),
    ) -> Result<(Vec<Decimal>, Vec<Priced>), ChunkError> {
        let view = &*self.corrected(view, instruments, position).await?;
        let mut earlier = Vec::new();
        if resumed.is_some() || range.start().is_some() {
            let until = if resumed.is_some() { None } else { range.start() };
            let range = TimeRange::new(None, until).expect("a range without a start is not inverted");
            let after = resumed.map(super::keys::successor);
            let extent = Extent { range, position, order: Order::Descending, after };
            Scan::new(view, instruments, extent).read(&self.chunks, before, &mut earlier).await?;
            earlier.reverse();
        }
        let mut ticks = Vec::new();
        let extent = Extent { range, position, order: Order::Ascending, after: resumed };
        Scan::new(view, instruments, extent).read(&self.chunks, most, &mut ticks).await?;
        let priced = ticks.iter().map(|tick| Priced {
            at: tick.event_time,
            end: tick.event_time,
            log_seq: tick.log_seq,
            price: tick.price,
        });
        Ok((earlier.iter().map(|tick| tick.price).collect(), priced.collect()))
    }

    /// Closes of final bars: those before the first point, at most so many, and those of points.
    async fn closes(
        &self,
        view: &View,
        instruments: &[InstrumentId],
        finish: &Finish,
        (range, resumed): (TimeRange, Option<Key>),
        (before, most): (usize, usize),
    ) -> Result<(Vec<Decimal>, Vec<Priced>), ChunkError> {
        let (interval, position) = (finish.interval(), finish.position());
        let view = &*self.corrected(view, instruments, position).await?;
        let series = Series { chunks: &self.chunks, view, instruments, position, interval };
        let Some(from) = interval.next_start(range.start().unwrap_or(UnixNanos::MIN)) else {
            return Ok((Vec::new(), Vec::new()));
        };
        let from = resumed.map_or(from, |(next, _)| next);
        let stop = interval.start_of(finish.final_until());
        let until = range.end().and_then(|end| interval.next_start(end)).map_or(stop, |end| end.min(stop));
        let close = |contents: &Contents| contents.totals.last.map_or(Decimal::ZERO, |last: PricePoint| last.price);
        let mut earlier = Vec::new();
        if before > 0 && from > UnixNanos::MIN {
            let ahead = Walk { from: UnixNanos::MIN, until: Some(from.min(stop)), leading: false };
            let first = last_with_ticks(&series, ahead, before).await?;
            let bars = skipping(&series, finish, Walk { from: first, ..ahead }, before).await?;
            earlier.extend(bars.iter().map(|bar| close(&bar.contents)));
        }
        let walk = Walk { from, until: Some(until), leading: false };
        let bars = skipping(&series, finish, walk, most).await?;
        let priced = bars.iter().map(|bar| Priced {
            at: bar.start,
            end: bar.end,
            log_seq: bar.contents.revision,
            price: close(&bar.contents),
        });
        Ok((earlier, priced.collect()))
    }
}
