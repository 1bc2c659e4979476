//! GetPriceStatistics: count, first, last, highest and lowest price, and exact sums of a range.

use std::sync::Arc;

use crate::domain::statistics::{PricePoint, Totals};
use crate::domain::{Cursor, Instrument, InstrumentId, UnixNanos};
use crate::store::StoreError;

use super::cache::ChunkError;
use super::keys::Bounds;
use super::totals::{Reach, totals};
use super::{InstrumentUnknown, Query, Span, Subject, View, ViewError};

/// What to look at.
#[derive(Clone, Debug)]
pub struct StatisticsRequest {
    /// One instrument or one symbol.
    pub subject: Subject,
    /// When.
    pub span: Span,
    /// The answer includes this cursor.
    pub min_cursor: Option<Cursor>,
}

/// The statistics of the ticks in a range.
#[derive(Clone, Debug)]
pub struct PriceStatistics {
    /// Count, sums and extremes over all instruments of the subject.
    pub totals: Totals,
    /// Whose tick each of the four points of `totals` is; `None` together with its point.
    pub owners: PointOwners,
    /// What the span looked back from.
    pub now: UnixNanos,
    /// The position of the answer.
    pub as_of: Cursor,
}

/// The instruments of the four points.
#[derive(Clone, Debug, Default)]
pub struct PointOwners {
    /// Of the first tick.
    pub first: Option<Arc<Instrument>>,
    /// Of the last tick.
    pub last: Option<Arc<Instrument>>,
    /// Of the lowest price.
    pub low: Option<Arc<Instrument>>,
    /// Of the highest price.
    pub high: Option<Arc<Instrument>>,
}

/// Why statistics could not be given.
#[derive(Debug, thiserror::Error)]
pub enum StatisticsError {
    /// No view can answer.
    #[error(transparent)]
    View(#[from] ViewError),
    /// No such instrument.
    #[error(transparent)]
    InstrumentUnknown(#[from] InstrumentUnknown),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Query {
    /// Adds up the ticks of a range.
    #[tracing::instrument(level = "debug", name = "query statistics", skip_all)]
    pub async fn price_statistics(&self, request: &StatisticsRequest) -> Result<PriceStatistics, StatisticsError> {
        let mut view = self.view(request.min_cursor).await?;
        let instruments: Vec<InstrumentId> = self.instruments::<StatisticsError>(&request.subject).await?;
        let now = self.clock.now();
        let range = request.span.at(now);
        let mut replans = 0;
        loop {
            let position = view.position();
            match self.totals(&view, &instruments, Reach { range, position }).await {
                Ok(parts) => {
                    return Ok(PriceStatistics {
                        owners: self.owners(&instruments, &parts),
                        totals: sum(&parts),
                        now,
                        as_of: view.cursor(),
                    });
                }
                Err(error) => view = self.replan(&view, error, &mut replans).await?,
            }
        }
    }

    /// The totals of each instrument, in the order asked.
    pub(super) async fn totals(
        &self,
        view: &View,
        instruments: &[InstrumentId],
        reach: Reach,
    ) -> Result<Vec<Totals>, ChunkError> {
        let view = self.corrected_inside(Bounds::of(reach.range), view, instruments, reach.position).await?;
        totals(&self.chunks, &view, instruments, reach).await
    }

    fn owners(&self, instruments: &[InstrumentId], parts: &[Totals]) -> PointOwners {
        let whole = sum(parts);
        let owner = |point: fn(&Totals) -> &Option<PricePoint>| {
            // Positions are unique, so the point's position tells whose it is.
            let wanted = point(&whole).as_ref()?.log_seq;
            let index = parts.iter().position(|part| point(part).is_some_and(|point| point.log_seq == wanted))?;
            self.registry.get(instruments[index])
        };
        PointOwners {
            first: owner(|totals| &totals.first),
            last: owner(|totals| &totals.last),
            low: owner(|totals| &totals.low),
            high: owner(|totals| &totals.high),
        }
    }
}

/// The totals of parts together.
pub(super) fn sum(parts: &[Totals]) -> Totals {
    let mut whole = Totals::default();
    for part in parts {
        whole.merge(part);
    }
    whole
}
