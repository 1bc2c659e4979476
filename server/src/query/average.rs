//! GetAveragePrice: the mean, volume-weighted or time-weighted price of a range.

use crate::domain::statistics::{PricePoint, Sums, Totals};
use crate::domain::{Cursor, I256, InstrumentId, TimeRange, UnixNanos, ratio};
use crate::store::StoreError;
use crate::tape::View;

use super::cache::ChunkError;
use super::integral::{Integral, Ticks};
use super::keys::Bounds;
use super::statistics::sum;
use super::totals::{Reach, Summed, sums, totals};
use super::{InstrumentUnknown, Query, Span, Subject, ViewError};

/// How prices are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AverageMethod {
    /// Each tick with the same weight.
    Mean,
    /// Each tick by its quantity.
    VolumeWeighted,
    /// Each price by the time that it held.
    TimeWeighted,
}

/// What to average.
#[derive(Clone, Debug)]
pub struct AverageRequest {
    /// One instrument or one symbol.
    pub subject: Subject,
    /// When.
    pub span: Span,
    /// How.
    pub method: AverageMethod,
    /// Decimals of the average, 0 to 36.
    pub decimals: u8,
    /// The answer includes this cursor.
    pub min_cursor: Option<Cursor>,
}

/// An average, and the exact sums that it comes from.
#[derive(Clone, Debug)]
pub struct Average {
    /// Rounded half-even to the decimals of the request.
    pub price: String,
    /// Count and sums of the ticks in the range.
    pub sums: Sums,
    /// When the first of them happened.
    pub first_event_time: Option<UnixNanos>,
    /// When the last of them happened.
    pub last_event_time: Option<UnixNanos>,
    /// For [`AverageMethod::TimeWeighted`].
    pub time_weighted: Option<TimeWeighted>,
    /// What the span looked back from, and the end of time-weighting.
    pub now: UnixNanos,
    /// The position of the answer.
    pub as_of: Cursor,
}

/// What a time-weighted average comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeWeighted {
    /// The time averaged over, in nanoseconds.
    pub weight: u64,
    /// Price times nanoseconds, in units of 10^-18 * 1 ns.
    pub sum: I256,
}

/// Why no average could be given.
#[derive(Debug, thiserror::Error)]
pub enum AverageError {
    /// No view can answer.
    #[error(transparent)]
    View(#[from] ViewError),
    /// No such instrument.
    #[error(transparent)]
    InstrumentUnknown(#[from] InstrumentUnknown),
    /// Prices of different venues do not follow each other.
    #[error("a time-weighted average is over one instrument, and {0} venues have the symbol: name one")]
    SeveralVenues(usize),
    /// Nothing in the range can be averaged by the method.
    #[error("{subject} has nothing to average: {}", .method.lacks())]
    NoData {
        /// What was asked for.
        subject: Subject,
        /// How it was to be averaged.
        method: AverageMethod,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AverageMethod {
    fn lacks(self) -> &'static str {
        match self {
            AverageMethod::Mean | AverageMethod::TimeWeighted => "no tick lies in the range",
            AverageMethod::VolumeWeighted => "no tick in the range has a quantity above zero",
        }
    }
}

impl Query {
    /// Averages the prices of a range.
    #[tracing::instrument(level = "debug", name = "query average", skip_all)]
    pub async fn average(&self, request: &AverageRequest) -> Result<Average, AverageError> {
        let mut view = self.view(request.min_cursor).await?;
        let instruments = self.instruments::<AverageError>(&request.subject).await?;
        if request.method == AverageMethod::TimeWeighted && instruments.len() > 1 {
            return Err(AverageError::SeveralVenues(instruments.len()));
        }
        let now = self.clock.now();
        let range = request.span.at(now);
        let mut replans = 0;
        let (summed, time) = loop {
            match self.sums(&view, &instruments, request.method, range, now).await {
                Ok(sums) => break sums,
                Err(error) => view = self.replan(&view, error, &mut replans).await?,
            }
        };
        let Summed { sums, first, last } = summed;
        let price = match (request.method, &time) {
            (AverageMethod::TimeWeighted, None) => None,
            (AverageMethod::TimeWeighted, Some(time)) => {
                let (sum, weight) = (time.weighted.sum, time.weighted.weight);
                let price = I256::from_i128(time.last.price.units_e18());
                ratio::twap(sum, weight, request.decimals).or_else(|| ratio::mean(price, 1, request.decimals))
            }
            (AverageMethod::Mean, _) => ratio::mean(sums.price_sum, sums.count, request.decimals),
            (AverageMethod::VolumeWeighted, _) => ratio::vwap(sums.notional, sums.volume, request.decimals),
        };
        let no_data = || AverageError::NoData { subject: request.subject.clone(), method: request.method };
        Ok(Average {
            price: price.ok_or_else(no_data)?,
            sums,
            first_event_time: first,
            last_event_time: last,
            time_weighted: time.map(|time| time.weighted),
            now,
            as_of: view.cursor(),
        })
    }

    /// The sums of one view; for a time-weighted average also those over time, `None` when no tick lies in the range.
    async fn sums(
        &self,
        view: &View,
        instruments: &[InstrumentId],
        method: AverageMethod,
        range: TimeRange,
        now: UnixNanos,
    ) -> Result<(Summed, Option<Weighted>), ChunkError> {
        let view = &*self.corrected(view, instruments, view.position()).await?;
        let (AverageMethod::TimeWeighted, [instrument]) = (method, instruments) else {
            return Ok((sums(&self.chunks, view, instruments, range).await?, None));
        };
        // The last tick itself is needed, and with it the extremes.
        let position = view.position();
        let totals = sum(&totals(&self.chunks, view, instruments, Reach { range, position }).await?);
        let Some(holding) = view.holding(*instrument) else {
            return Ok((Summed::from(&totals), None));
        };
        let ticks = Ticks { chunks: &self.chunks, instrument: *instrument, holding, position, current: true };
        let weighted = weigh(ticks, &totals, range, now).await?;
        Ok((Summed::from(&totals), weighted))
    }
}

/// A sum over time, and the price that stands for it where no time has weight.
pub(super) struct Weighted {
    pub(super) weighted: TimeWeighted,
    pub(super) last: PricePoint,
}

/// Adds prices up over `[start, min(end, now))`, where the last price before the range holds from its start, and a
/// range without an end ends with its last tick. A range without ticks of its own has no average.
pub(super) async fn weigh(
    ticks: Ticks<'_>,
    totals: &Totals,
    range: TimeRange,
    now: UnixNanos,
) -> Result<Option<Weighted>, ChunkError> {
    let Some(last) = totals.last else {
        return Ok(None);
    };
    let carried = match range.start() {
        Some(start) => ticks.last_before(start).await?,
        None => None,
    };
    let end = range.end().unwrap_or(last.event_time).min(now);
    let mut bounds = Bounds::of(range);
    bounds.high = bounds.high.min((end, 0));
    let Integral { first, sum, .. } = {
        let mut integral = ticks.integral(bounds).await?;
        integral.hold(end);
        integral
    };
    let mut weighted = TimeWeighted::default();
    let mut add = |from: UnixNanos, to: UnixNanos, sum: I256| {
        weighted.weight += to.nanos().abs_diff(from.nanos());
        weighted.sum += sum;
    };
    if let Some(first) = first {
        add(first.event_time, end, sum);
    }
    if let (Some(start), Some(carried)) = (range.start(), carried) {
        let until = first.map_or(end, |first| first.event_time).max(start);
        let from_start = PricePoint { event_time: start, ..carried };
        add(start, until, from_start.weight_until(until));
    }
    Ok(Some(Weighted { weighted, last }))
}
