//! ListPublishedBars, and the details of instruments: what venues publish, as it is stored now.
//!
//! It has no place in the log, so no view and no position: the store is asked.

use std::collections::HashMap;
use std::ops::Range;

use crate::domain::{InstrumentDetails, InstrumentId, PublishedBar, PublishedBarKey, Symbol, Venue};
use crate::store::StoreError;

use super::page::{Arguments, Kind, PageToken};
use super::{InstrumentUnknown, PageTokenInvalid, Query, Subject};

/// Which page of which bars.
#[derive(Clone, Debug)]
pub struct PublishedBarsRequest {
    /// The venue.
    pub venue: Venue,
    /// The symbol.
    pub symbol: Symbol,
    /// The days, half-open, in days since 1970.
    pub days: Range<u32>,
    /// How many bars at most, at least 1.
    pub page_size: usize,
    /// The token of the page before.
    pub page_token: Option<String>,
}

/// A page of bars.
#[derive(Clone, Debug)]
pub struct PublishedBarPage {
    /// The bars, by key.
    pub bars: Vec<PublishedBar>,
    /// The token of the next page; `None` at the end.
    pub next_page_token: Option<String>,
}

/// Why a page of bars could not be given.
#[derive(Debug, thiserror::Error)]
pub enum PublishedBarsError {
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
    /// A page of published bars. What is imported between two pages is on the second if it lies behind the first.
    pub async fn published_bars(&self, request: &PublishedBarsRequest) -> Result<PublishedBarPage, PublishedBarsError> {
        let PublishedBarsRequest { venue, symbol, days, page_size, page_token } = request;
        let subject = Subject { venue: Some(venue.clone()), symbol: symbol.clone() };
        let digest = Arguments::new(Kind::PublishedBars).subject(&subject).days(days).digest();
        let now = self.clock.now();
        let token = match page_token {
            Some(text) => Some(PageToken::open(text, Kind::PublishedBars, digest, now)?),
            None => None,
        };
        let after = token.map(|token| key_of(token.last)).transpose()?;
        let instruments = self.instruments::<PublishedBarsError>(&subject).await?;
        let instrument = *instruments.first().ok_or(InstrumentUnknown(subject))?;
        // One more than asked tells whether another page exists.
        let mut bars = self.store.published_bars(instrument, days.clone(), after, page_size + 1).await?;
        let more = bars.len() > *page_size;
        bars.truncate(*page_size);
        let next = bars.last().filter(|_| more).map(|last| PageToken {
            kind: Kind::PublishedBars,
            // Bars have no position; this one is not looked at again.
            pinned: self.views.borrow().cursor(),
            last: number_of(last.key),
            digest,
            now: token.map_or(now, |token| token.now),
            issued: now,
            carried: None,
        });
        Ok(PublishedBarPage { bars, next_page_token: next.map(|token| token.encode()) })
    }

    /// What venues say about instruments, by one read of the store. Those about which nothing is known are left out.
    pub(super) async fn details(
        &self,
        instruments: &[InstrumentId],
    ) -> Result<HashMap<InstrumentId, InstrumentDetails>, StoreError> {
        Ok(self.store.instrument_details(instruments).await?.into_iter().collect())
    }
}

/// A key as a token holds it.
fn number_of(PublishedBarKey { day, market, term }: PublishedBarKey) -> (u64, u64) {
    (day.into(), u64::from(market) << 16 | u64::from(term))
}

fn key_of((day, code): (u64, u64)) -> Result<PublishedBarKey, PageTokenInvalid> {
    let day = u32::try_from(day).map_err(|_| PageTokenInvalid::Malformed)?;
    let market = u16::try_from(code >> 16).map_err(|_| PageTokenInvalid::Malformed)?;
    Ok(PublishedBarKey { day, market, term: code as u16 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_tokens_round_trip() {
        for (day, market, term) in [(0, 0, 0), (19_944, 70, 30), (u32::MAX, u16::MAX, u16::MAX)] {
            let key = PublishedBarKey { day, market, term };
            assert_eq!(key_of(number_of(key)), Ok(key));
        }
        assert_eq!(key_of((1 << 32, 0)), Err(PageTokenInvalid::Malformed));
        assert_eq!(key_of((0, 1 << 32)), Err(PageTokenInvalid::Malformed));
    }
}
