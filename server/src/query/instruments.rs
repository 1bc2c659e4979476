//! GetInstrument and ListInstruments: names, and what is kept of each.

use std::sync::Arc;

use crate::domain::statistics::Totals;
use crate::domain::{Cursor, Instrument, InstrumentDetails, InstrumentId, Symbol, Tick, TimeRange, TradeId, Venue};
use crate::store::StoreError;
use crate::tape::View;

use super::cache::ChunkError;
use super::fetch::Fetch;
use super::page::{Arguments, Kind, PageToken};
use super::subject::Selector;
use super::totals::{Reach, totals};
use super::{InstrumentUnknown, PageTokenInvalid, Query, Subject, ViewError};

/// Bytes that a page of instruments stays about below, so that one with long names and trade ids fits a message.
const PAGE_BYTES: usize = 3 << 20;

/// An instrument and what is kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstrumentFacts {
    /// Which.
    pub instrument: Arc<Instrument>,
    /// The first tick by (event_time, log_seq).
    pub first: Option<Tick>,
    /// The last tick.
    pub last: Option<Tick>,
    /// How many ticks.
    pub tick_count: u64,
    /// The most decimals of a price.
    pub price_decimals: u8,
    /// The most decimals of a quantity.
    pub quantity_decimals: u8,
    /// What the venue says about it, as it is stored now: it has no position.
    pub details: Option<InstrumentDetails>,
    /// Corrections that are about no trade, as the newest view knows: it has no position.
    pub unmatched_corrections: u64,
}

/// Which page of which instruments.
#[derive(Clone, Debug)]
pub struct InstrumentsRequest {
    /// Which instruments.
    pub selector: Selector,
    /// How many at most, at least 1.
    pub page_size: usize,
    /// The token of the page before.
    pub page_token: Option<String>,
    /// The answer includes this cursor.
    pub min_cursor: Option<Cursor>,
}

/// A page of instruments.
#[derive(Clone, Debug)]
pub struct InstrumentPage {
    /// The instruments, by venue and symbol.
    pub instruments: Vec<InstrumentFacts>,
    /// The token of the next page; `None` at the end.
    pub next_page_token: Option<String>,
    /// The position of all pages.
    pub as_of: Cursor,
}

/// Why an instrument could not be given.
#[derive(Debug, thiserror::Error)]
pub enum InstrumentError {
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

/// Why a page of instruments could not be given.
#[derive(Debug, thiserror::Error)]
pub enum InstrumentsError {
    /// No view can answer.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The page token does not continue this request.
    #[error(transparent)]
    PageToken(#[from] PageTokenInvalid),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Query {
    /// One instrument.
    #[tracing::instrument(level = "debug", name = "query instrument", skip_all)]
    pub async fn instrument(
        &self,
        venue: Venue,
        symbol: Symbol,
        min_cursor: Option<Cursor>,
    ) -> Result<(InstrumentFacts, Cursor), InstrumentError> {
        let mut view = self.view(min_cursor).await?;
        let subject = Subject { venue: Some(venue), symbol };
        let ids = self.instruments::<InstrumentError>(&subject).await?;
        let named: Vec<_> = ids.iter().filter_map(|&id| self.registry.get(id)).collect();
        let mut replans = 0;
        loop {
            match self.facts(&view, view.position(), &named).await {
                Ok(mut facts) => {
                    let facts = facts.pop().ok_or(InstrumentUnknown(subject))?;
                    return Ok((facts, view.cursor()));
                }
                Err(error) => view = self.replan(&view, error, &mut replans).await?,
            }
        }
    }

    /// A page of instruments. All pages of a walk show the instruments and ticks of the first page's moment.
    #[tracing::instrument(level = "debug", name = "query instruments", skip_all)]
    pub async fn list_instruments(&self, request: &InstrumentsRequest) -> Result<InstrumentPage, InstrumentsError> {
        let digest = Arguments::new(Kind::Instruments).selector(&request.selector).digest();
        let token = match &request.page_token {
            Some(text) => {
                let now = self.clock.now();
                Some(PageToken::open(text, Kind::Instruments, digest, now)?)
            }
            None => None,
        };
        let mut view = self.view(request.min_cursor).await?;
        if let Some(token) = &token {
            view = self.pinned_view::<InstrumentsError>(token).await?;
        }
        let issued = self.clock.now();
        let pinned = token.map_or(view.cursor(), |token| token.pinned);
        // A token's key is the last instrument given and the number of instruments on the first page.
        let known = token.map_or(self.registry.len() as u64, |token| token.last.1);
        let after = token.map(|token| self.named(token.last.0)).transpose()?;
        let mut page = self.select(&request.selector, after.as_deref(), known, request.page_size);
        let mut more = page.len() > request.page_size;
        page.truncate(request.page_size);
        let mut replans = 0;
        let mut facts = loop {
            match self.facts(&view, pinned.position, &page).await {
                Ok(facts) => break facts,
                Err(error) => view = self.replan(&view, error, &mut replans).await?,
            }
        };
        let fitting = fitting(&facts);
        more |= fitting < facts.len();
        facts.truncate(fitting);
        let next = facts.last().filter(|_| more).map(|last| PageToken {
            kind: Kind::Instruments,
            pinned,
            last: (u64::from(last.instrument.id.0), known),
            digest,
            now: token.map_or(issued, |token| token.now),
            issued,
            carried: None,
        });
        Ok(InstrumentPage { instruments: facts, next_page_token: next.map(|token| token.encode()), as_of: pinned })
    }

    /// The instrument of a token.
    fn named(&self, id: u64) -> Result<Arc<Instrument>, PageTokenInvalid> {
        let id = u32::try_from(id).map_err(|_| PageTokenInvalid::Malformed)?;
        let instrument = self.registry.get(InstrumentId(id));
        instrument.ok_or(PageTokenInvalid::OtherLog)
    }

    /// The next matching instruments by venue and symbol among the first `known`, one more than a page if there are.
    fn select(
        &self,
        selector: &Selector,
        after: Option<&Instrument>,
        known: u64,
        page_size: usize,
    ) -> Vec<Arc<Instrument>> {
        fn name(instrument: &Instrument) -> (&Venue, &Symbol) {
            (&instrument.venue, &instrument.symbol)
        }
        let mut matching = self.registry.after(InstrumentId(0));
        matching.truncate(known as usize);
        matching.retain(|instrument| {
            selector.matches(instrument) && after.is_none_or(|after| name(instrument) > name(after))
        });
        let most = page_size + 1;
        if matching.len() > most {
            matching.select_nth_unstable_by(most, |a, b| name(a).cmp(&name(b)));
            matching.truncate(most);
        }
        matching.sort_unstable_by(|a, b| name(a).cmp(&name(b)));
        matching
    }

    /// What is kept of instruments at a position.
    async fn facts(
        &self,
        view: &View,
        position: u64,
        instruments: &[Arc<Instrument>],
    ) -> Result<Vec<InstrumentFacts>, ChunkError> {
        let ids: Vec<InstrumentId> = instruments.iter().map(|named| named.id).collect();
        let reach = Reach { range: TimeRange::ALL, position };
        let view = &*self.corrected(view, &ids, position).await?;
        let parts = totals(&self.chunks, view, &ids, reach).await?;
        let mut fetch = Fetch::default();
        for (&id, part) in ids.iter().zip(&parts) {
            let Some(holding) = view.holding(id) else {
                continue;
            };
            for point in [part.first, part.last].into_iter().flatten() {
                fetch.ask(id, holding, (point.event_time, point.log_seq));
            }
        }
        let mut ticks = fetch.read(&self.chunks).await?.into_iter();
        let mut details = self.details(&ids).await?;
        let unmatched = |instrument: InstrumentId| {
            view.holding(instrument).map_or(0, |holding| holding.correction_counts().unmatched as u64)
        };
        let facts = instruments.iter().zip(parts).map(|(instrument, part)| {
            // Two ticks were asked for where the totals know a first and a last one, none otherwise.
            let mut tick = |known: bool| if known { ticks.next().flatten() } else { None };
            let Totals { count, first, last, price_decimals, quantity_decimals, .. } = part;
            InstrumentFacts {
                instrument: instrument.clone(),
                first: tick(first.is_some()),
                last: tick(last.is_some()),
                tick_count: count,
                price_decimals,
                quantity_decimals,
                details: details.remove(&instrument.id),
                unmatched_corrections: unmatched(instrument.id),
            }
        });
        Ok(facts.collect())
    }
}

/// How many instruments from the first stay below the page's bytes, at least one.
fn fitting(facts: &[InstrumentFacts]) -> usize {
    let mut bytes = 0;
    for (index, fact) in facts.iter().enumerate() {
        bytes += message_bytes(fact);
        if bytes > PAGE_BYTES {
            return index.max(1);
        }
    }
    facts.len()
}

/// About how long an instrument's message is: the names stand in it and in both ticks; details are short texts.
fn message_bytes(facts: &InstrumentFacts) -> usize {
    let names = facts.instrument.venue.as_str().len() + facts.instrument.symbol.as_str().len();
    let tick = |tick: &Option<Tick>| match tick {
        Some(Tick { trade_id: TradeId::Text(text), .. }) => 110 + names + text.len(),
        Some(_) => 130 + names,
        None => 0,
    };
    let details = facts.details.as_ref().map_or(0, |details| {
        let InstrumentDetails { day: _, isin, issuer, share_class, currency } = details;
        24 + isin.len() + issuer.len() + share_class.len() + currency.len()
    });
    20 + names + tick(&facts.first) + tick(&facts.last) + details
}
