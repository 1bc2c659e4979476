//! A bus that loses, repeats and reorders.

use std::sync::Mutex;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_server::bus::{Announcement, Bus, BusState, LocalBus, ManifestNews};

/// A bus on which nothing can be relied.
#[derive(Debug)]
pub struct LooseBus {
    bus: LocalBus,
    /// The dice, and what is held back until the next announcement.
    state: Mutex<(SmallRng, Option<Announcement>)>,
}

impl LooseBus {
    /// A bus whose whims come from a seed.
    pub fn new(seed: u64) -> LooseBus {
        LooseBus { bus: LocalBus::new(), state: Mutex::new((SmallRng::seed_from_u64(seed), None)) }
    }
}

impl Bus for LooseBus {
    fn announce(&self, announcement: Announcement) {
        let mut state = self.state.lock().expect("no holder of the lock panics");
        match state.0.random_range(0..20) {
            0 => (), // Lost.
            1 => {
                self.bus.announce(announcement.clone());
                self.bus.announce(announcement);
            }
            2 => state.1 = Some(announcement),
            3 => self.bus.announce(Announcement { block: None, ..announcement }),
            _ => self.bus.announce(announcement),
        }
        if state.0.random_bool(0.5)
            && let Some(late) = state.1.take()
        {
            self.bus.announce(late);
        }
    }

    fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Announcement> {
        self.bus.subscribe()
    }

    fn announce_manifest(&self, news: ManifestNews) {
        if self.state.lock().expect("no holder of the lock panics").0.random_bool(0.5) {
            self.bus.announce_manifest(news);
        }
    }

    fn manifests(&self) -> tokio::sync::watch::Receiver<Option<ManifestNews>> {
        self.bus.manifests()
    }

    fn state(&self) -> BusState {
        self.bus.state()
    }
}
