//! ReadTicks: all ticks of a range, stretch after stretch, at one position.
//!
//! A [`Reading`] holds one window of its scan and what was read ahead, whatever the range. A reader that pauses lets go
//! of both and of the view: what is kept is a key and a position, as in a page token.

use std::sync::Arc;

use crate::domain::{Cursor, InstrumentId, UnixNanos};

use super::cache::ChunkError;
use super::page::{Arguments, Kind, PageToken};
use super::scan::{Extent, Order, Scan, Stretch};
use super::{Key, PageTokenInvalid, Query, Span, Subject, TicksError, View};

/// Ticks of a stretch at most: what is encoded before anything is sent.
const MOST_STRETCH: usize = 4_096;

/// Which ticks.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// One instrument or one symbol.
    pub subject: Subject,
    /// When.
    pub span: Span,
    /// Where an earlier reading was left.
    pub page_token: Option<String>,
    /// The answer includes this cursor.
    pub min_cursor: Option<Cursor>,
}

/// Reads the ticks of a range, the oldest first.
#[derive(Debug)]
pub struct Reading {
    query: Arc<Query>,
    instruments: Vec<InstrumentId>,
    /// What is left to read.
    extent: Extent,
    /// The view that is read, and how far; `None` before the start and in a pause.
    open: Option<(Arc<View>, Scan)>,
    pinned: Cursor,
    digest: u64,
    now: UnixNanos,
}

/// Makes page tokens of one reading.
#[derive(Clone, Copy, Debug)]
pub struct Bookmark {
    /// The position of the whole reading.
    pub as_of: Cursor,
    /// What its span looked back from.
    pub now: UnixNanos,
    digest: u64,
    issued: UnixNanos,
}

impl Bookmark {
    /// The token to go on with after a tick, or from the start.
    pub fn page_token(&self, after: Option<Key>) -> String {
        // Positions begin at 1: the key of no tick stands before all.
        let (time, log_seq) = after.unwrap_or((UnixNanos::MIN, 0));
        let token = PageToken {
            kind: Kind::Reading,
            pinned: self.as_of,
            last: (time.nanos() as u64, log_seq),
            digest: self.digest,
            now: self.now,
            issued: self.issued,
            carried: None,
        };
        token.encode()
    }
}

impl Query {
    /// Begins to read a range, or goes on where a token says.
    #[tracing::instrument(level = "debug", name = "query bulk", skip_all)]
    pub async fn read(self: &Arc<Query>, request: &ReadRequest) -> Result<Reading, TicksError> {
        let ReadRequest { subject, span, page_token, min_cursor } = request;
        let digest = Arguments::new(Kind::Reading).subject(subject).span(*span).digest();
        let token = match page_token {
            Some(text) => Some(PageToken::open(text, Kind::Reading, digest, self.clock.now())?),
            None => None,
        };
        let mut view = self.view(*min_cursor).await?;
        if let Some(token) = &token {
            view = self.pinned_view::<TicksError>(token).await?;
        }
        let instruments = self.instruments::<TicksError>(subject).await?;
        let (pinned, now) = token.map_or((view.cursor(), self.clock.now()), |token| (token.pinned, token.now));
        let after = token.map(|token| token.key()).transpose()?;
        let extent = Extent { range: span.at(now), position: pinned.position, order: Order::Ascending, after };
        Ok(Reading { query: self.clone(), instruments, extent, open: None, pinned, digest, now })
    }
}

impl Reading {
    /// The next ticks by (event_time, log_seq); `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Stretch<'_>>, TicksError> {
        let mut replans = 0;
        let (mut view, mut scan) = match self.open.take() {
            Some((view, scan)) => (view, Some(scan)),
            None => (self.query.view(Some(self.pinned)).await?, None),
        };
        let scan = loop {
            match self.fill(&view, scan).await? {
                Ok(scan) => break scan,
                Err(error) => (view, scan) = (self.query.replan(&view, error, &mut replans).await?, None),
            }
        };
        let (_, scan) = self.open.insert((view, scan));
        let stretch = scan.take(MOST_STRETCH);
        Ok(stretch)
    }

    /// Brings the next ticks to hand, in a scan that is open or in a new one.
    async fn fill(&mut self, view: &View, open: Option<Scan>) -> Result<Result<Scan, ChunkError>, TicksError> {
        let mut scan = match open {
            Some(scan) => scan,
            None if view.settled() > self.pinned.position => return Err(PageTokenInvalid::Expired.into()),
            None => match self.query.scan(view, &self.instruments, self.extent).await {
                Ok(scan) => scan.in_bulk(),
                Err(error) => return Ok(Err(error)),
            },
        };
        let filled = scan.fill(&self.query.chunks).await;
        self.extent = scan.extent();
        Ok(filled.map(|()| scan))
    }

    /// Lets go of everything but the place. The next stretch is read from the view of that moment.
    pub fn pause(&mut self) {
        if let Some((_, scan)) = self.open.take() {
            self.extent = scan.extent();
        }
    }

    /// Makes the tokens of now.
    pub fn bookmark(&self) -> Bookmark {
        Bookmark { as_of: self.pinned, now: self.now, digest: self.digest, issued: self.query.clock.now() }
    }

    /// The last tick that a token said was read.
    pub fn after(&self) -> Option<Key> {
        self.extent.after
    }
}
