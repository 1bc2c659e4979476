//! The bus of a single process.

use tokio::sync::broadcast;

use super::{Announcement, Bus};

/// Announcements kept for a receiver that lags. A hub that loses one reads the store, so the number only has to
/// cover a scheduling hiccup.
const KEPT: usize = 1_024;

/// Announces inside this process.
#[derive(Debug)]
pub struct LocalBus {
    sender: broadcast::Sender<Announcement>,
}

impl LocalBus {
    /// A bus without listeners.
    pub fn new() -> LocalBus {
        LocalBus { sender: broadcast::Sender::new(KEPT) }
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
}
