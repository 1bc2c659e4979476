//! The snapshot at the start of a stream: the latest tick of each matching instrument, out of one view.

use std::sync::Arc;

use super::matcher::{Matcher, Selector};
use crate::domain::{InstrumentId, Tick};
use crate::store::StoreError;
use crate::tape::{NewestTicks, Registry, View};

/// A snapshot while it is read. The view does not change under it, however slow the reader is.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) view: Arc<View>,
    newest: Arc<dyn NewestTicks>,
    /// Instruments up to this have been read.
    read: InstrumentId,
    last: InstrumentId,
    /// Whether its beginning has been told.
    pub(super) begun: bool,
    pub(super) tick_count: u32,
    /// Which selectors have an exact symbol and no tick.
    pub(super) without_data: Vec<usize>,
}

impl Snapshot {
    pub(super) fn new(
        view: Arc<View>,
        newest: Arc<dyn NewestTicks>,
        matcher: &mut Matcher,
        selectors: &[Selector],
        registry: &Registry,
    ) -> Snapshot {
        let last = InstrumentId(registry.len() as u32);
        let tick_count =
            (1..=last.0).filter(|&id| has_data(&view, InstrumentId(id)) && matcher.wants(InstrumentId(id)));
        let tick_count = tick_count.count() as u32;
        let without_data = selectors.iter().enumerate().filter(|(_, selector)| lacks_data(&view, selector, registry));
        let without_data = without_data.map(|(index, _)| index).collect();
        Snapshot { newest, read: InstrumentId(0), last, begun: false, tick_count, without_data, view }
    }

    /// The next ticks, at most `most`; none at the end.
    pub(super) async fn page(&mut self, matcher: &mut Matcher, most: usize) -> Result<Vec<Tick>, StoreError> {
        let mut wanted = Vec::new();
        let mut read = self.read;
        while wanted.len() < most && read < self.last {
            read.0 += 1;
            if has_data(&self.view, read) && matcher.wants(read) {
                wanted.push(read);
            }
        }
        let ticks = self.newest.newest_ticks(&self.view, &wanted).await?;
        // Only now, so that a call that is dropped has read nothing.
        self.read = read;
        Ok(ticks)
    }
}

fn has_data(view: &View, instrument: InstrumentId) -> bool {
    view.holding(instrument).is_some_and(|holding| holding.has_ticks())
}

/// Whether a selector has an exact symbol for which there is no tick.
pub(super) fn lacks_data(view: &View, selector: &Selector, registry: &Registry) -> bool {
    let Some(symbol) = &selector.symbol else { return false };
    let instruments = match &selector.venue {
        Some(venue) => registry.find(venue, symbol).into_iter().collect(),
        None => registry.with_symbol(symbol),
    };
    !instruments.into_iter().any(|id| has_data(view, id))
}
