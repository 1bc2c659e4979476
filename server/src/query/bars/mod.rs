//! ListBars: open, high, low, close and volume by interval.
//!
//! A page is made from stretches of intervals that hold a page's bars at most, so that the range may be any. What is
//! final is known from the log at the first page's position alone, and its token carries that on.

pub(super) mod series;

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::bar::{Bar, BarBuilder, Fill, Interval, LATENESS};
use crate::domain::{Cursor, Instrument, InstrumentId, UnixNanos};
use crate::store::StoreError;
use crate::tape::{BarReader, Finish, View};

use super::cache::ChunkError;
use super::page::{Arguments, Kind, PageToken};
use super::{InstrumentUnknown, PageTokenInvalid, Query, Span, Subject, ViewError};
use series::Series;

/// Bars of a page at most, so that it stays below 4 MiB with the longest names and numbers.
pub const MOST_BARS: usize = 8_000;

/// Bars that the end of a range can be asked for.
pub const MOST_LAST: usize = 100_000;

/// Which page of which bars.
#[derive(Clone, Debug)]
pub struct BarsRequest {
    /// One instrument or one symbol.
    pub subject: Subject,
    /// Where bars begin.
    pub span: Span,
    /// The length of a bar.
    pub interval: Interval,
    /// Only so many, at the end of the span.
    pub last_count: Option<usize>,
    /// Whether bars that are not final are wanted.
    pub include_forming: bool,
    /// What stands for an interval without ticks.
    pub fill: Fill,
    /// How many bars at most, at least 1.
    pub page_size: usize,
    /// The token of the page before.
    pub page_token: Option<String>,
    /// The answer includes this cursor.
    pub min_cursor: Option<Cursor>,
}

/// A page of bars.
#[derive(Clone, Debug)]
pub struct BarPage {
    /// The bars, ascending by start.
    pub bars: Vec<Bar>,
    /// Whose bars, if the subject names a venue.
    pub instrument: Option<Arc<Instrument>>,
    /// The token of the next page; `None` at the end.
    pub next_page_token: Option<String>,
    /// The position of all pages.
    pub as_of: Cursor,
    /// What the span looked back from, for all pages.
    pub now: UnixNanos,
}

/// Why a page of bars could not be given.
#[derive(Debug, thiserror::Error)]
pub enum BarsError {
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

/// Where a walk over bars stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    /// The next bar begins here or later.
    pub(super) from: UnixNanos,
    /// Bars begin before this; `None` goes to the end of time.
    pub(super) until: Option<UnixNanos>,
    /// Whether empty intervals are asked for before the first tick.
    pub(super) leading: bool,
}

impl Query {
    /// A page of bars. All pages of a walk are answered at the position of the first.
    #[tracing::instrument(level = "debug", name = "query bars", skip_all)]
    pub async fn bars(&self, request: &BarsRequest) -> Result<BarPage, BarsError> {
        let digest = Arguments::new(Kind::Bars)
            .subject(&request.subject)
            .span(request.span)
            .number(request.interval.nanos() as u64)
            .number(request.last_count.map_or(0, |count| count as u64))
            .number(u64::from(request.include_forming) << 8 | request.fill as u64)
            .digest();
        let token = match &request.page_token {
            Some(text) => Some(PageToken::open(text, Kind::Bars, digest, self.clock.now())?),
            None => None,
        };
        let mut view = self.view(request.min_cursor).await?;
        if let Some(token) = &token {
            view = self.pinned_view::<BarsError>(token).await?;
        }
        let instruments = self.instruments::<BarsError>(&request.subject).await?;
        let issued = self.clock.now();
        let (pinned, now, resumed) = match token {
            Some(token) => (token.pinned, token.now, Some(token.instants()?)),
            None => (view.cursor(), issued, None),
        };
        let facts = view.venues().of(&view, &self.registry, &instruments);
        let reached = facts.iter().map(|facts| facts.final_until()).max().unwrap_or(UnixNanos::MIN);
        let final_until = resumed.map_or(reached, |(_, final_until)| final_until);
        let mut replans = 0;
        let (mut bars, next) = loop {
            let at = (pinned.position, final_until);
            let facts = view.venues().of(&view, &self.registry, &instruments);
            let finish = Finish::new(&facts, request.subject.symbol.clone(), at, request.interval);
            let from = resumed.map(|(from, _)| from);
            match self.page(&view, &instruments, &finish, request, (now, from)).await {
                Ok(page) => break page,
                Err(error) => view = self.replan(&view, error, &mut replans).await?,
            }
        };
        let next = next.map(|next| PageToken {
            kind: Kind::Bars,
            pinned,
            last: (next.nanos() as u64, final_until.nanos() as u64),
            digest,
            now,
            issued,
            carried: None,
        });
        bars.shrink_to_fit();
        let instrument = match (&request.subject.venue, &*instruments) {
            (Some(_), [only]) => self.registry.get(*only),
            _ => None,
        };
        let next_page_token = next.map(|token| token.encode());
        Ok(BarPage { bars, instrument, next_page_token, as_of: pinned, now })
    }

    /// The bars of a page, and where the next one begins if there is one.
    async fn page(
        &self,
        view: &View,
        instruments: &[InstrumentId],
        finish: &Finish,
        request: &BarsRequest,
        (now, resumed): (UnixNanos, Option<UnixNanos>),
    ) -> Result<(Vec<Bar>, Option<UnixNanos>), ChunkError> {
        let position = finish.position();
        let view = &*self.corrected(view, instruments, position).await?;
        let series = Series { chunks: &self.chunks, view, instruments, position, interval: request.interval };
        let Some(mut walk) = self.walk(&series, finish, request, now).await? else {
            return Ok((Vec::new(), None));
        };
        if let Some(from) = resumed {
            walk = Walk { from, leading: true, ..walk };
        }
        let most = request.page_size.min(MOST_BARS);
        // One more than asked tells whether another page exists.
        let mut bars = match request.fill {
            Fill::Skip => skipping(&series, finish, walk, most + 1).await?,
            fill => filling(&series, finish, walk, most + 1, fill).await?,
        };
        let next = bars.get(most).map(|bar| bar.start);
        bars.truncate(most);
        Ok((bars, next))
    }

    /// Where the bars of a request begin and end; `None` if there are none.
    async fn walk(
        &self,
        series: &Series<'_>,
        finish: &Finish,
        request: &BarsRequest,
        now: UnixNanos,
    ) -> Result<Option<Walk>, ChunkError> {
        let interval = request.interval;
        let range = request.span.at(now);
        let Some(from) = interval.next_start(range.start().unwrap_or(UnixNanos::MIN)) else {
            return Ok(None);
        };
        // The last bar that has begun: no tick lies further ahead than this.
        let begun = interval.start_of(finish.final_until().saturating_add(LATENESS));
        let stop = if request.include_forming {
            interval.end_of(begun)
        } else {
            // Ends at or before an instant, and so begins before the bar of that instant.
            Some(interval.start_of(finish.final_until()))
        };
        let asked = range.end().and_then(|end| interval.next_start(end));
        let until = match (stop, asked) {
            (Some(stop), Some(asked)) => Some(stop.min(asked)),
            (stop, asked) => stop.or(asked),
        };
        let mut walk = Walk { from, until, leading: range.start().is_some() };
        if let Some(count) = request.last_count
            && request.page_token.is_none()
        {
            let first = match request.fill {
                Fill::Skip => last_with_ticks(series, walk, count).await?,
                _ => {
                    let until = until.or(interval.end_of(begun)).unwrap_or(begun);
                    interval.earlier(until, count)
                }
            };
            walk.from = first.max(walk.from);
        }
        Ok(Some(walk))
    }
}

#[async_trait]
impl BarReader for Query {
    async fn bars(
        &self,
        (view, position): (&View, u64),
        instruments: &[InstrumentId],
        interval: Interval,
        (from, until): (UnixNanos, Option<UnixNanos>),
    ) -> Result<BarBuilder, StoreError> {
        let view = &*self.corrected(view, instruments, position).await.map_err(unavailable)?;
        let series = Series { chunks: &self.chunks, view, instruments, position, interval };
        series.window(from, until).await.map_err(unavailable)
    }

    fn next_from(
        &self,
        (view, position): (&View, u64),
        instrument: InstrumentId,
        from: UnixNanos,
    ) -> Option<UnixNanos> {
        let (instruments, interval) = (&[instrument][..], Interval::MINUTE);
        Series { chunks: &self.chunks, view, instruments, position, interval }.next_from(from)
    }

    async fn newest(
        &self,
        (view, position): (&View, u64),
        instrument: InstrumentId,
    ) -> Result<Option<UnixNanos>, StoreError> {
        series::newest(&self.chunks, view, instrument, position).await.map_err(unavailable)
    }
}

/// Why a stream has to try again on a newer view.
pub(super) fn unavailable(error: ChunkError) -> StoreError {
    match error {
        ChunkError::Store(error) => error,
        ChunkError::Gone(id) => {
            StoreError::Unavailable(format!("chunk {} went away under an old view: ask again", id.0))
        }
    }
}

/// Bars with ticks, at most so many.
pub(super) async fn skipping(
    series: &Series<'_>,
    finish: &Finish,
    walk: Walk,
    most: usize,
) -> Result<Vec<Bar>, ChunkError> {
    let mut bars = Vec::new();
    let mut from = walk.from;
    while bars.len() < most
        && let Some(next) = series.next_from(from)
    {
        let start = series.interval.start_of(next);
        if walk.until.is_some_and(|until| start >= until) {
            break;
        }
        let end = earliest(series.interval.later(start, most - bars.len()), walk.until);
        let window = series.window(start.max(from), end).await?.with_ticks();
        bars.extend(window.into_bars().into_iter().map(|(start, contents)| finish.bar(start, contents)));
        match end {
            Some(end) => from = end,
            None => break,
        }
    }
    Ok(bars)
}

/// Bars of every interval, at most so many.
async fn filling(
    series: &Series<'_>,
    finish: &Finish,
    walk: Walk,
    most: usize,
    fill: Fill,
) -> Result<Vec<Bar>, ChunkError> {
    let mut bars = Vec::new();
    let mut from = walk.from;
    let mut carried = series.last_before(from).await?.map(|point| point.price);
    // Whether intervals are filled already, or only from the first tick on.
    let mut leading = carried.is_some() || walk.leading && fill == Fill::Null;
    while bars.len() < most && walk.until.is_none_or(|until| from < until) {
        if !leading {
            let Some(next) = series.next_from(from) else { break };
            from = series.interval.start_of(next).max(from);
        }
        let end = earliest(series.interval.later(from, most - bars.len()), walk.until);
        let mut window = series.window(from, end).await?.into_bars();
        let mut start = from;
        while end.is_none_or(|end| start < end) {
            let contents = window.remove(&start).unwrap_or_default();
            match contents.totals.last {
                Some(last) => (carried, leading) = (Some(last.price), true),
                None if end.is_none() && window.is_empty() => break,
                None => (),
            }
            if leading {
                bars.push(filled(finish.bar(start, contents), fill, carried));
            }
            match series.interval.end_of(start) {
                Some(next) => start = next,
                None => return Ok(bars),
            }
        }
        match end {
            Some(end) => from = end,
            None => break,
        }
    }
    Ok(bars)
}

/// A bar with what stands for the prices that it does not have.
fn filled(bar: Bar, fill: Fill, carried: Option<crate::domain::Decimal>) -> Bar {
    let empty = bar.contents.totals.count == 0;
    Bar { carried: carried.filter(|_| empty && fill == Fill::Previous), ..bar }
}

/// The start of the first of the last so many bars with ticks.
pub(super) async fn last_with_ticks(series: &Series<'_>, walk: Walk, count: usize) -> Result<UnixNanos, ChunkError> {
    let mut until = walk.until;
    let mut left = count;
    let mut first = until.unwrap_or(UnixNanos::MAX);
    while left > 0
        && let Some(last) = series.last_before(until.unwrap_or(UnixNanos::MAX)).await?
        && last.event_time >= walk.from
    {
        let end = series.interval.end_of(series.interval.start_of(last.event_time));
        let from = series.interval.earlier(end.unwrap_or(UnixNanos::MAX), left.min(MOST_BARS));
        let from = series.interval.start_of(from).max(walk.from);
        let window = series.window(from, earliest(end, until)).await?.with_ticks();
        let skipped = window.len().saturating_sub(left);
        left -= window.len() - skipped;
        first = window.iter().nth(skipped).map_or(first, |(start, _)| start);
        until = Some(from);
    }
    Ok(first)
}

fn earliest(one: Option<UnixNanos>, other: Option<UnixNanos>) -> Option<UnixNanos> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
