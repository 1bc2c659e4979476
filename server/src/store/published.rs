//! What remains of published things that are stored together: one of each key, for backends that write all at once.

use std::collections::BTreeMap;

use crate::domain::{InstrumentDetails, InstrumentId, Published, PublishedBar, PublishedBarKey};

/// The bars by key: of several of one key the last.
pub(super) fn last_bars(
    published: &Published<InstrumentId>,
) -> BTreeMap<(InstrumentId, PublishedBarKey), &PublishedBar> {
    published.bars.iter().map(|(instrument, bar)| ((*instrument, bar.key), bar)).collect()
}

/// The details by instrument: of the newest day, and of several of that day the last.
pub(super) fn newest_details(published: &Published<InstrumentId>) -> BTreeMap<InstrumentId, &InstrumentDetails> {
    let mut newest: BTreeMap<InstrumentId, &InstrumentDetails> = BTreeMap::new();
    for (instrument, details) in &published.details {
        if newest.get(instrument).is_none_or(|known| known.day <= details.day) {
            newest.insert(*instrument, details);
        }
    }
    newest
}
