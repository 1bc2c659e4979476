//! What can happen to a query, as refusals.

use crate::query::latest::MOST_LATEST;
use crate::query::{
    AverageError, BarsError, InstrumentError, InstrumentUnknown, InstrumentsError, LatestError, MovingError,
    PageTokenInvalid, PublishedBarsError, StatisticsError, TicksError, ViewError,
};

use super::{EpochFacts, Refusal};

impl From<ViewError> for Refusal {
    fn from(error: ViewError) -> Refusal {
        match error {
            ViewError::EpochChanged { current, fork } => {
                Refusal::epoch_changed(EpochFacts { epoch: current.epoch, fork, oldest: None, newest: Some(current) })
            }
            ViewError::Stopping => Refusal::shutting_down(None),
        }
    }
}

impl From<InstrumentUnknown> for Refusal {
    fn from(InstrumentUnknown(subject): InstrumentUnknown) -> Refusal {
        let venue = subject.venue.as_ref().map_or("", |venue| venue.as_str());
        Refusal::instrument_unknown(venue, subject.symbol.as_str())
    }
}

impl From<PageTokenInvalid> for Refusal {
    fn from(error: PageTokenInvalid) -> Refusal {
        Refusal::page_token_invalid(error)
    }
}

impl From<TicksError> for Refusal {
    fn from(error: TicksError) -> Refusal {
        match error {
            TicksError::View(error) => error.into(),
            TicksError::InstrumentUnknown(error) => error.into(),
            TicksError::PageToken(error) => error.into(),
            TicksError::Store(error) => error.into(),
        }
    }
}

impl From<BarsError> for Refusal {
    fn from(error: BarsError) -> Refusal {
        match error {
            BarsError::View(error) => error.into(),
            BarsError::InstrumentUnknown(error) => error.into(),
            BarsError::PageToken(error) => error.into(),
            BarsError::Store(error) => error.into(),
        }
    }
}

impl From<MovingError> for Refusal {
    fn from(error: MovingError) -> Refusal {
        match error {
            MovingError::View(error) => error.into(),
            MovingError::InstrumentUnknown(error) => error.into(),
            MovingError::PageToken(error) => error.into(),
            MovingError::Store(error) => error.into(),
        }
    }
}

impl From<PublishedBarsError> for Refusal {
    fn from(error: PublishedBarsError) -> Refusal {
        match error {
            PublishedBarsError::InstrumentUnknown(error) => error.into(),
            PublishedBarsError::PageToken(error) => error.into(),
            PublishedBarsError::Store(error) => error.into(),
        }
    }
}

impl From<LatestError> for Refusal {
    fn from(error: LatestError) -> Refusal {
        match error {
            LatestError::View(error) => error.into(),
            LatestError::InstrumentUnknown(error) => error.into(),
            LatestError::TooManyInstruments => {
                Refusal::limit_exceeded("matching_instruments", MOST_LATEST as u64, None)
            }
            LatestError::Store(error) => error.into(),
        }
    }
}

impl From<AverageError> for Refusal {
    fn from(error: AverageError) -> Refusal {
        match error {
            AverageError::View(error) => error.into(),
            AverageError::InstrumentUnknown(error) => error.into(),
            AverageError::SeveralVenues(_) => Refusal::field("venue", error),
            AverageError::NoData { .. } => Refusal::no_data(error.to_string()),
            AverageError::Store(error) => error.into(),
        }
    }
}

impl From<StatisticsError> for Refusal {
    fn from(error: StatisticsError) -> Refusal {
        match error {
            StatisticsError::View(error) => error.into(),
            StatisticsError::InstrumentUnknown(error) => error.into(),
            StatisticsError::Store(error) => error.into(),
        }
    }
}

impl From<InstrumentError> for Refusal {
    fn from(error: InstrumentError) -> Refusal {
        match error {
            InstrumentError::View(error) => error.into(),
            InstrumentError::InstrumentUnknown(error) => error.into(),
            InstrumentError::Store(error) => error.into(),
        }
    }
}

impl From<InstrumentsError> for Refusal {
    fn from(error: InstrumentsError) -> Refusal {
        match error {
            InstrumentsError::View(error) => error.into(),
            InstrumentsError::PageToken(error) => error.into(),
            InstrumentsError::Store(error) => error.into(),
        }
    }
}
