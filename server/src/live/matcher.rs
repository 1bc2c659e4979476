//! Which instruments a subscription wants.

use std::sync::Arc;

use crate::domain::{Instrument, InstrumentId, Symbol, Venue};
use crate::tape::Registry;

/// A predicate over instruments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The venue; `None` is every venue.
    pub venue: Option<Venue>,
    /// The symbol; `None` is every symbol.
    pub symbol: Option<Symbol>,
}

impl Selector {
    fn matches(&self, instrument: &Instrument) -> bool {
        self.venue.as_ref().is_none_or(|venue| *venue == instrument.venue)
            && self.symbol.as_ref().is_none_or(|symbol| *symbol == instrument.symbol)
    }
}

/// Selectors, applied once to every instrument that exists or comes to exist.
#[derive(Debug)]
pub struct Matcher {
    selectors: Vec<Selector>,
    registry: Arc<Registry>,
    /// Whether each known instrument is wanted, by id - 1.
    wanted: Vec<bool>,
    /// How many known instruments each selector matches.
    counts: Vec<u32>,
}

impl Matcher {
    /// Applies selectors to the instruments known so far.
    pub fn new(selectors: Vec<Selector>, registry: Arc<Registry>) -> Matcher {
        let counts = vec![0; selectors.len()];
        let mut matcher = Matcher { selectors, registry, wanted: Vec::new(), counts };
        matcher.learn();
        matcher
    }

    /// How many instruments each selector matched when it was last applied.
    pub fn counts(&self) -> Vec<u32> {
        self.counts.clone()
    }

    /// Whether an instrument is wanted.
    pub fn wants(&mut self, instrument: InstrumentId) -> bool {
        let index = instrument.0 as usize - 1;
        if index >= self.wanted.len() {
            self.learn();
        }
        self.wanted.get(index).copied().unwrap_or(false)
    }

    fn learn(&mut self) {
        for instrument in self.registry.after(InstrumentId(self.wanted.len() as u32)) {
            let mut wanted = false;
            for (selector, count) in self.selectors.iter().zip(&mut self.counts) {
                if selector.matches(&instrument) {
                    wanted = true;
                    *count += 1;
                }
            }
            self.wanted.push(wanted);
        }
    }
}
