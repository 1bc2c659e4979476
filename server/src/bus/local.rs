//! The bus of a single process.

use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::{Announcement, Bus, BusState, ManifestNews};

/// Announcements kept for a receiver that lags. A hub that loses one reads the store, so the number only has to
/// cover a scheduling hiccup.
const KEPT: usize = 256;

/// Announces inside this process.
#[derive(Debug)]
pub struct LocalBus {
    sender: broadcast::Sender<Announcement>,
    manifests: watch::Sender<Option<ManifestNews>>,
    started: Instant,
}

impl LocalBus {
    /// A bus without listeners.
    pub fn new() -> LocalBus {
        LocalBus { sender: broadcast::Sender::new(KEPT), manifests: watch::Sender::new(None), started: Instant::now() }
    }
}

impl Default for LocalBus {
    fn default() -> LocalBus {
        LocalBus::new()
    }
}

impl Bus for LocalBus {
    fn announce(&self, announcement: Announcement) {
        // Without listeners there is nobody to tell; the store has it.
        let _ = self.sender.send(announcement);
    }

    fn subscribe(&self) -> broadcast::Receiver<Announcement> {
        self.sender.subscribe()
    }

    fn announce_manifest(&self, news: ManifestNews) {
        self.manifests.send_replace(Some(news));
    }

    fn manifests(&self) -> watch::Receiver<Option<ManifestNews>> {
        self.manifests.subscribe()
    }

    fn state(&self) -> BusState {
        BusState { kind: "local", problem: None, since: self.started, dropped: 0, malformed: 0 }
    }
}
