//! Which instruments a subscription wants.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::event::Picks;
use crate::domain::source::Scope;
use crate::domain::{Block, Instrument, InstrumentId, Symbol, Venue};
use crate::tape::Registry;

/// A predicate over instruments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The venue; `None` is every venue.
    pub venue: Option<Venue>,
    /// The symbol; `None` is every symbol.
    pub symbol: Option<Symbol>,
}

/// What became of one selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is served.
    Served {
        /// How many instruments it matches now.
        matched: u32,
    },
    /// It is left out, because with it the subscription would match more instruments than a stream may have.
    Limit,
}

/// Selectors, applied once to every instrument that exists or comes to exist. Matching is by hash, so ten thousand
/// selectors cost an instrument no more than one.
#[derive(Debug)]
pub struct Matcher {
    registry: Arc<Registry>,
    /// Whether some selector is for every symbol on every venue.
    everything: bool,
    /// Venues of which every symbol is wanted.
    venues: HashSet<Venue>,
    /// Symbols that are wanted on every venue.
    symbols: HashSet<Symbol>,
    /// Symbols that are wanted on one venue.
    exact: HashMap<Venue, HashSet<Symbol>>,
    /// Whether each known instrument is wanted: bit (id - 1).
    wanted: Vec<u64>,
    /// The wanted instruments one by one, while they are at most [`MOST_LISTED`].
    listed: Option<Vec<InstrumentId>>,
    /// Instruments up to this id have been looked at.
    learned: u32,
}

/// Instruments that are looked up in a block one by one at most, instead of looking at each of its ticks.
const MOST_LISTED: usize = 64;

/// How many ticks can be looked at while one instrument is looked up.
const TICKS_A_LOOKUP: usize = 8;

impl Matcher {
    /// Applies selectors to the instruments known so far, and says what became of each. A selector that would bring the
    /// instruments of all selectors together above `most_instruments` is left out.
    pub fn new(selectors: &[Selector], registry: Arc<Registry>, most_instruments: u32) -> (Matcher, Vec<Outcome>) {
        let mut matcher = Matcher {
            everything: false,
            venues: HashSet::new(),
            symbols: HashSet::new(),
            exact: HashMap::new(),
            wanted: Vec::new(),
            listed: Some(Vec::new()),
            learned: 0,
            registry,
        };
        let by_venue = matcher.count_venues(selectors);
        let mut left = most_instruments;
        let mut outcomes = Vec::with_capacity(selectors.len());
        for selector in selectors {
            let matched = matcher.count(selector, &by_venue);
            let Some(rest) = left.checked_sub(matched) else {
                outcomes.push(Outcome::Limit);
                continue;
            };
            left = rest;
            matcher.add(selector);
            outcomes.push(Outcome::Served { matched });
        }
        matcher.learn();
        (matcher, outcomes)
    }

    /// Instruments of each venue that a selector wants whole.
    fn count_venues(&self, selectors: &[Selector]) -> HashMap<Venue, u32> {
        let whole = selectors.iter().filter(|selector| selector.symbol.is_none());
        let mut counts: HashMap<Venue, u32> = whole.filter_map(|selector| Some((selector.venue.clone()?, 0))).collect();
        if !counts.is_empty() {
            for instrument in self.registry.after(InstrumentId(0)) {
                if let Some(count) = counts.get_mut(&instrument.venue) {
                    *count += 1;
                }
            }
        }
        counts
    }

    fn count(&self, selector: &Selector, by_venue: &HashMap<Venue, u32>) -> u32 {
        let Selector { venue, symbol } = selector;
        match (venue, symbol) {
            (None, None) => self.registry.len() as u32,
            (Some(venue), None) => by_venue.get(venue).copied().unwrap_or(0),
            (None, Some(symbol)) => self.registry.with_symbol(symbol).len() as u32,
            (Some(venue), Some(symbol)) => u32::from(self.registry.find(venue, symbol).is_some()),
        }
    }

    fn add(&mut self, selector: &Selector) {
        match selector.clone() {
            Selector { venue: None, symbol: None } => self.everything = true,
            Selector { venue: Some(venue), symbol: None } => {
                self.venues.insert(venue);
            }
            Selector { venue: None, symbol: Some(symbol) } => {
                self.symbols.insert(symbol);
            }
            Selector { venue: Some(venue), symbol: Some(symbol) } => {
                self.exact.entry(venue).or_default().insert(symbol);
            }
        }
    }

    /// Whether every instrument is wanted, now and later.
    pub fn wants_everything(&self) -> bool {
        self.everything
    }

    /// The wanted instruments that exist, if they are few; more are only ever added at the end. Also those that came in
    /// blocks that were not looked at, such as backfill that nobody here asked for: whoever waits has to name them.
    pub fn few(&mut self) -> Option<&[InstrumentId]> {
        if self.everything {
            return None;
        }
        if self.registry.len() as u32 > self.learned {
            self.learn();
        }
        self.listed.as_deref()
    }

    /// Whether an instrument is wanted.
    pub fn wants(&mut self, instrument: InstrumentId) -> bool {
        if self.everything {
            return true;
        }
        if instrument.0 > self.learned {
            self.learn();
        }
        self.is_wanted(instrument)
    }

    /// Which ticks of a block are wanted of those that lie after one position and not after another; `None` if none is.
    pub fn picks(&mut self, block: &Block, after: u64, end: u64) -> Option<Picks> {
        let ticks = &block.entries.ticks;
        let until = |position: u64| ticks.partition_point(|tick| tick.log_seq <= position);
        let from = if after < block.first_seq { 0 } else { until(after) };
        let to = if end >= block.last_seq() { ticks.len() } else { until(end) };
        if from == to {
            return None;
        }
        if !self.everything {
            let indexes = self.indexes(block, from..to);
            if indexes.is_empty() {
                return None;
            }
            if indexes.len() < to - from {
                return Some(Picks::Some(indexes));
            }
        }
        let all = from == 0 && to == ticks.len() && block.entries.controls.is_empty();
        Some(if all { Picks::All } else { Picks::Range(from..to) })
    }

    /// The indexes of the wanted ticks of a stretch of a block, ascending.
    fn indexes(&mut self, block: &Block, stretch: Range<usize>) -> Vec<u32> {
        if block.greatest_instrument() > Some(InstrumentId(self.learned)) {
            self.learn();
        }
        if let Some(listed) = self.listed.as_ref().filter(|listed| listed.len() * TICKS_A_LOOKUP < stretch.len()) {
            let mut indexes: Vec<u32> = listed.iter().flat_map(|&instrument| block.places(instrument)).collect();
            indexes.retain(|&index| stretch.contains(&(index as usize)));
            indexes.sort_unstable();
            return indexes;
        }
        let ticks = stretch.map(|index| (index, &block.entries.ticks[index]));
        ticks.filter(|(_, tick)| self.is_wanted(tick.instrument)).map(|(index, _)| index as u32).collect()
    }

    fn is_wanted(&self, instrument: InstrumentId) -> bool {
        let bit = instrument.0.wrapping_sub(1);
        self.everything || self.wanted.get(bit as usize / 64).is_some_and(|bits| bits >> (bit % 64) & 1 == 1)
    }

    /// Whether an entry about a feed is about anything that is wanted, now or later.
    pub fn wants_news_of(&self, scope: &Scope) -> bool {
        let Scope { source: _, venue, symbols } = scope;
        if self.everything || self.venues.contains(venue) {
            return true;
        }
        let exact = self.exact.get(venue);
        if symbols.is_empty() {
            // It is about all of the venue, where any wanted symbol may be traded.
            return exact.is_some() || !self.symbols.is_empty();
        }
        let wanted =
            |symbol: &Symbol| self.symbols.contains(symbol) || exact.is_some_and(|symbols| symbols.contains(symbol));
        symbols.iter().any(wanted)
    }

    /// Wanted instruments after an id, ascending, at most `most`, and the id up to which all have been looked at.
    pub fn definitions(&mut self, after: InstrumentId, most: usize) -> (Vec<Arc<Instrument>>, InstrumentId) {
        let known = self.registry.len() as u32;
        let mut found = Vec::new();
        if known == after.0 {
            return (found, after);
        }
        if known > self.learned {
            self.learn();
        }
        for id in after.0 + 1..=known {
            if found.len() == most {
                return (found, InstrumentId(id - 1));
            }
            if self.is_wanted(InstrumentId(id)) {
                found.extend(self.registry.get(InstrumentId(id)));
            }
        }
        (found, InstrumentId(known.max(after.0)))
    }

    /// Looks at the instruments that are new.
    fn learn(&mut self) {
        if self.everything {
            return;
        }
        // Names that come up meanwhile are looked at again next time, which changes nothing.
        let known = self.registry.len() as u32;
        if self.learned == 0 && self.venues.is_empty() {
            for id in self.named() {
                self.mark(id);
            }
            self.learned = known;
            return;
        }
        for instrument in self.registry.after(InstrumentId(self.learned)) {
            if self.matches(&instrument) {
                self.mark(instrument.id);
            }
            self.learned = instrument.id.0;
        }
    }

    /// The ids of the symbols that selectors name, so that a narrow subscription does not look at every instrument.
    fn named(&self) -> Vec<InstrumentId> {
        let mut ids = Vec::new();
        for symbol in &self.symbols {
            ids.extend(self.registry.with_symbol(symbol));
        }
        for (venue, symbols) in &self.exact {
            ids.extend(symbols.iter().filter_map(|symbol| self.registry.find(venue, symbol)));
        }
        ids
    }

    fn matches(&self, instrument: &Instrument) -> bool {
        self.venues.contains(&instrument.venue)
            || self.symbols.contains(&instrument.symbol)
            || self.exact.get(&instrument.venue).is_some_and(|symbols| symbols.contains(&instrument.symbol))
    }

    fn mark(&mut self, instrument: InstrumentId) {
        let bit = instrument.0 as usize - 1;
        if self.wanted.len() <= bit / 64 {
            self.wanted.resize(bit / 64 + 1, 0);
        }
        if self.wanted[bit / 64] >> (bit % 64) & 1 == 1 {
            return;
        }
        self.wanted[bit / 64] |= 1 << (bit % 64);
        self.listed = self.listed.take().filter(|listed| listed.len() < MOST_LISTED);
        if let Some(listed) = &mut self.listed {
            listed.push(instrument);
        }
    }
}
