//! The instruments that this replica knows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use crate::domain::{Instrument, InstrumentId, Symbol, Venue};
use crate::store::{Store, StoreError};

/// Names to ids and back. Grows; nothing in it changes.
#[derive(Debug)]
pub struct Registry {
    store: Arc<dyn Store>,
    /// Guards the three maps, which change together. Never held across an await.
    known: RwLock<Known>,
    /// How many are known: whoever only looks whether there are new ones needs no lock.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    /// By id - 1.
    instruments: Vec<Arc<Instrument>>,
    ids: HashMap<(Venue, Symbol), InstrumentId>,
    symbols: HashMap<Symbol, Vec<InstrumentId>>,
}

impl Known {
    fn add(&mut self, instrument: Instrument) {
        // Ids are dense, and both registration and refresh bring them in order; a repeat changes nothing.
        if instrument.id.0 as usize != self.instruments.len() + 1 {
            return;
        }
        self.ids.insert((instrument.venue.clone(), instrument.symbol.clone()), instrument.id);
        self.symbols.entry(instrument.symbol.clone()).or_default().push(instrument.id);
        self.instruments.push(Arc::new(instrument));
    }
}

impl Registry {
    /// Reads all instruments of the store.
    pub async fn load(store: Arc<dyn Store>) -> Result<Registry, StoreError> {
        let registry = Registry { store, known: RwLock::default(), count: AtomicUsize::new(0) };
        registry.refresh().await?;
        Ok(registry)
    }

    /// Reads what other replicas registered since.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let after = InstrumentId(self.len() as u32);
        let found = self.store.instruments(after).await?;
        let mut known = self.known.write().expect("no holder of the lock panics");
        for instrument in found {
            known.add(instrument);
        }
        self.count.store(known.instruments.len(), Ordering::Release);
        Ok(())
    }

    /// Ids of instruments in the order asked; unknown ones are registered in the store first.
    pub async fn resolve(&self, instruments: &[(Venue, Symbol)]) -> Result<Vec<InstrumentId>, StoreError> {
        let missing: Vec<_> = {
            let known = self.known.read().expect("no holder of the lock panics");
            let found: Vec<_> = instruments.iter().map(|name| known.ids.get(name).copied()).collect();
            if found.iter().all(Option::is_some) {
                return Ok(found.into_iter().flatten().collect());
            }
            instruments.iter().zip(&found).filter(|(_, id)| id.is_none()).map(|(name, _)| name.clone()).collect()
        };
        self.store.register(&missing).await?;
        self.refresh().await?;
        let known = self.known.read().expect("no holder of the lock panics");
        let resolved = instruments.iter().map(|name| known.ids.get(name).copied());
        resolved.collect::<Option<Vec<_>>>().ok_or_else(|| StoreError::Corrupt {
            table: "instruments",
            row: format!("after {}", known.instruments.len()),
            problem: "ids are not dense".into(),
        })
    }

    /// How many instruments are known; ids run from 1 to this.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An instrument by id.
    pub fn get(&self, id: InstrumentId) -> Option<Arc<Instrument>> {
        let index = (id.0 as usize).checked_sub(1)?;
        self.known.read().expect("no holder of the lock panics").instruments.get(index).cloned()
    }

    /// An instrument by name.
    pub fn find(&self, venue: &Venue, symbol: &Symbol) -> Option<InstrumentId> {
        self.known.read().expect("no holder of the lock panics").ids.get(&(venue.clone(), symbol.clone())).copied()
    }

    /// The instruments of one symbol on all venues, ascending by id.
    pub fn with_symbol(&self, symbol: &Symbol) -> Vec<InstrumentId> {
        self.known.read().expect("no holder of the lock panics").symbols.get(symbol).cloned().unwrap_or_default()
    }

    /// All instruments with an id greater than `after`, ascending.
    pub fn after(&self, after: InstrumentId) -> Vec<Arc<Instrument>> {
        let known = self.known.read().expect("no holder of the lock panics");
        known.instruments.get(after.0 as usize..).unwrap_or_default().to_vec()
    }
}
