//! ListLatestTicks: the newest tick of each matching instrument.
//!
//! Headers and the hot set already say which tick is the newest; a chunk is decoded only if the newest tick is in one.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::{Cursor, Instrument, InstrumentId, Tick, UnixNanos};
use crate::store::StoreError;
use crate::tape::{Holding, NewestTicks, View};

use super::bars::unavailable;
use super::cache::ChunkError;
use super::fetch::Fetch;
use super::keys::Key;
use super::{InstrumentUnknown, Query, Selector, Subject, ViewError};

/// Instruments that one call answers for at most.
pub const MOST_LATEST: usize = 10_000;

/// The newest tick of an instrument.
#[derive(Clone, Debug)]
pub struct Latest {
    /// Whose.
    pub instrument: Arc<Instrument>,
    /// The greatest by (event_time, log_seq).
    pub tick: Tick,
}

/// The newest ticks.
#[derive(Clone, Debug)]
pub struct LatestAnswer {
    /// Each instrument once, by the first selector that matches, then by venue and symbol.
    pub latest: Vec<Latest>,
    /// Indices of the selectors with an exact symbol whose instruments have no tick.
    pub without_data: Vec<usize>,
    /// What ages are measured against.
    pub now: UnixNanos,
    /// The position of the answer.
    pub as_of: Cursor,
}

/// Why the newest ticks could not be given.
#[derive(Debug, thiserror::Error)]
pub enum LatestError {
    /// No view can answer.
    #[error(transparent)]
    View(#[from] ViewError),
    /// An exact symbol matches no instrument.
    #[error(transparent)]
    InstrumentUnknown(#[from] InstrumentUnknown),
    /// More instruments match than one call answers for.
    #[error("more than {MOST_LATEST} instruments match: select fewer")]
    TooManyInstruments,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Query {
    /// The newest tick of each instrument that a selector matches.
    #[tracing::instrument(level = "debug", name = "query latest", skip_all)]
    pub async fn latest(
        &self,
        selectors: &[Selector],
        min_cursor: Option<Cursor>,
    ) -> Result<LatestAnswer, LatestError> {
        let mut view = self.view(min_cursor).await?;
        let mut matches = Vec::with_capacity(selectors.len());
        for selector in selectors {
            matches.push(self.matching(&view, selector).await?);
        }
        let now = self.clock.now();
        let mut replans = 0;
        loop {
            match self.newest(&view, selectors, &matches).await? {
                Ok((latest, without_data)) => {
                    return Ok(LatestAnswer { latest, without_data, now, as_of: view.cursor() });
                }
                Err(error) => view = self.replan(&view, error, &mut replans).await?,
            }
        }
    }

    /// The newest tick of each instrument in one view, and the selectors without one.
    async fn newest(
        &self,
        view: &View,
        selectors: &[Selector],
        matches: &[Vec<Arc<Instrument>>],
    ) -> Result<Result<(Vec<Latest>, Vec<usize>), ChunkError>, LatestError> {
        let ids: Vec<InstrumentId> = matches.iter().flatten().map(|instrument| instrument.id).collect();
        let view = match Query::corrected(self, view, &ids, view.position()).await {
            Ok(view) => view,
            Err(error) => return Ok(Err(error)),
        };
        let Picked { instruments, fetch, without_data } = pick(&view, selectors, matches)?;
        let read = fetch.read(&self.chunks).await;
        Ok(read.map(|ticks| {
            let found = instruments.into_iter().zip(ticks);
            let latest = found.filter_map(|(instrument, tick)| Some(Latest { instrument, tick: tick? }));
            (latest.collect(), without_data)
        }))
    }

    /// The instruments of a selector, by venue and symbol. For all symbols only those with ticks: the others have
    /// nothing to tell.
    async fn matching(&self, view: &View, selector: &Selector) -> Result<Vec<Arc<Instrument>>, LatestError> {
        let mut matching: Vec<Arc<Instrument>> = match &selector.symbol {
            Some(symbol) => {
                let subject = Subject { venue: selector.venue.clone(), symbol: symbol.clone() };
                let ids = self.instruments::<LatestError>(&subject).await?;
                ids.into_iter().filter_map(|id| self.registry.get(id)).collect()
            }
            None => {
                let all = view
                    .holdings()
                    .filter_map(|(id, _)| self.registry.get(id))
                    .filter(|instrument| selector.matches(instrument));
                // One more than may be answered is enough to refuse.
                all.take(MOST_LATEST + 1).collect()
            }
        };
        if matching.len() > 1 {
            matching.sort_unstable_by(|a, b| (&a.venue, &a.symbol).cmp(&(&b.venue, &b.symbol)));
        }
        Ok(matching)
    }
}

#[async_trait]
impl NewestTicks for Query {
    async fn corrected<'v>(&self, view: &'v View) -> Result<Cow<'v, View>, StoreError> {
        if view.corrections().all == 0 {
            return Ok(Cow::Borrowed(view));
        }
        let all: Vec<InstrumentId> = view.holdings().map(|(instrument, _)| instrument).collect();
        Query::corrected(self, view, &all, view.position()).await.map_err(unavailable)
    }

    async fn newest_ticks(&self, view: &View, instruments: &[InstrumentId]) -> Result<Vec<Tick>, StoreError> {
        let view = &*Query::corrected(self, view, instruments, view.position()).await.map_err(unavailable)?;
        let mut fetch = Fetch::default();
        for &instrument in instruments {
            let Some(holding) = view.holding(instrument) else { continue };
            match newest(holding) {
                Some(Newest::Hot(tick)) => fetch.have(tick),
                Some(Newest::InChunk(key)) => fetch.ask(instrument, holding, key),
                None => (),
            }
        }
        let ticks = fetch.read(&self.chunks).await.map_err(unavailable)?;
        Ok(ticks.into_iter().flatten().collect())
    }
}

/// Which ticks to answer with.
struct Picked {
    instruments: Vec<Arc<Instrument>>,
    fetch: Fetch,
    without_data: Vec<usize>,
}

fn pick(view: &View, selectors: &[Selector], matches: &[Vec<Arc<Instrument>>]) -> Result<Picked, LatestError> {
    let mut picked = Picked { instruments: Vec::new(), fetch: Fetch::default(), without_data: Vec::new() };
    let mut seen: HashSet<InstrumentId> = HashSet::new();
    for (index, (selector, matching)) in selectors.iter().zip(matches).enumerate() {
        let mut has_data = false;
        for instrument in matching {
            let Some((holding, newest)) = view.holding(instrument.id).and_then(|held| Some((held, newest(held)?)))
            else {
                continue;
            };
            has_data = true;
            if !seen.insert(instrument.id) {
                continue;
            }
            if seen.len() > MOST_LATEST {
                return Err(LatestError::TooManyInstruments);
            }
            match newest {
                Newest::Hot(tick) => picked.fetch.have(tick),
                Newest::InChunk(key) => picked.fetch.ask(instrument.id, holding, key),
            }
            picked.instruments.push(instrument.clone());
        }
        if !has_data && selector.symbol.is_some() {
            picked.without_data.push(index);
        }
    }
    Ok(picked)
}

/// Where the newest tick of an instrument is.
enum Newest<'a> {
    Hot(&'a Tick),
    InChunk(Key),
}

fn newest(holding: &Holding) -> Option<Newest<'_>> {
    // Late chunks are unordered among each other; ordinary ones end with the newest.
    let ordinary = holding.chunks.last().into_iter();
    let stored = ordinary.chain(holding.late.iter()).map(|header| header.last_key()).max();
    match (&holding.hot_latest, stored) {
        (Some(tick), Some(key)) if tick.key() < key => Some(Newest::InChunk(key)),
        (Some(tick), _) => Some(Newest::Hot(tick)),
        (None, key) => key.map(Newest::InChunk),
    }
}
