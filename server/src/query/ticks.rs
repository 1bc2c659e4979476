//! ListTicks: a page of ticks of one instrument, or of one symbol over all venues.

use crate::domain::{Cursor, InstrumentId, Tick, UnixNanos};
use crate::store::StoreError;

use super::cache::ChunkError;
use super::page::{Arguments, Kind, PageToken};
use super::scan::{Extent, Order};
use super::{InstrumentUnknown, PageTokenInvalid, Query, Span, Subject, View, ViewError};

/// Which page of which ticks.
#[derive(Clone, Debug)]
pub struct TicksRequest {
    /// One instrument or one symbol.
    pub subject: Subject,
    /// When.
    pub span: Span,
    /// The direction.
    pub order: Order,
    /// How many ticks at most, at least 1.
    pub page_size: usize,
    /// The token of the page before.
    pub page_token: Option<String>,
    /// The answer includes this cursor.
    pub min_cursor: Option<Cursor>,
}

/// A page of ticks.
#[derive(Clone, Debug)]
pub struct TickPage {
    /// The ticks, in the order of the request.
    pub ticks: Vec<Tick>,
    /// The token of the next page; `None` at the end.
    pub next_page_token: Option<String>,
    /// The position of all pages.
    pub as_of: Cursor,
    /// What the span looked back from, for all pages.
    pub now: UnixNanos,
}

/// Why a page of ticks could not be given.
#[derive(Debug, thiserror::Error)]
pub enum TicksError {
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

impl Query {
    /// A page of ticks. All pages of a walk are answered at the position of the first.
    #[tracing::instrument(level = "debug", name = "query ticks", skip_all)]
    pub async fn ticks(&self, request: &TicksRequest) -> Result<TickPage, TicksError> {
        let digest =
            Arguments::new(Kind::Ticks).subject(&request.subject).span(request.span).order(request.order).digest();
        let token = match &request.page_token {
            Some(text) => {
                let now = self.clock.now();
                Some(PageToken::open(text, Kind::Ticks, digest, now)?)
            }
            None => None,
        };
        let mut view = self.view(request.min_cursor).await?;
        if let Some(token) = &token {
            view = self.pinned_view::<TicksError>(token).await?;
        }
        let instruments = self.instruments::<TicksError>(&request.subject).await?;
        let issued = self.clock.now();
        let (pinned, now) = token.map_or((view.cursor(), issued), |token| (token.pinned, token.now));
        let extent = Extent {
            range: request.span.at(now),
            position: pinned.position,
            order: request.order,
            after: token.map(|token| token.key()).transpose()?,
        };
        // One more than asked tells whether another page exists.
        let most = request.page_size + 1;
        let mut ticks = Vec::new();
        let mut replans = 0;
        let mut extent = extent;
        while let Err(error) = self.read_ticks(&view, &instruments, &mut extent, (most, &mut ticks)).await {
            view = self.replan(&view, error, &mut replans).await?;
        }
        let more = ticks.len() > request.page_size;
        ticks.truncate(request.page_size);
        let next = ticks.last().filter(|_| more).map(|last| PageToken {
            kind: Kind::Ticks,
            pinned,
            last: (last.event_time.nanos() as u64, last.log_seq),
            digest,
            now,
            issued,
            carried: None,
        });
        Ok(TickPage { ticks, next_page_token: next.map(|token| token.encode()), as_of: pinned, now })
    }

    /// Reads on until there are `most` ticks. After an error the rest can be read from another view.
    async fn read_ticks(
        &self,
        view: &View,
        instruments: &[InstrumentId],
        extent: &mut Extent,
        (most, ticks): (usize, &mut Vec<Tick>),
    ) -> Result<(), ChunkError> {
        let mut scan = self.scan(view, instruments, *extent).await?;
        let read = scan.read(&self.chunks, most, ticks).await;
        *extent = scan.extent();
        read
    }
}
