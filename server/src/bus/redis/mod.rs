//! The bus between replicas: a Redis Stream for each epoch of the log.
//!
//! Whoever commits announces to its own hub directly, and to the other replicas through a bounded queue, off the
//! writer's path ([`sender`]). One connection is for reading alone ([`reader`]). Redis may restart, forget everything,
//! or freeze: what is missed is read from the store, and both tasks come back by themselves for as long as it takes.
//! [`message`] is what an entry of the stream holds; [`latest`] the hash of latest prices for other programs.

pub mod latest;
mod link;
mod message;
mod reader;
mod sender;
mod url;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use latest::LatestPrices;
pub use url::{RedisUrl, RedisUrlInvalid};

use super::{Announcement, Bus, BusState, LocalBus, ManifestNews};
use crate::domain::Epoch;
use link::Health;
use message::Message;

/// Announcements that wait for Redis; more are dropped. With [`MAX_PAYLOAD_BYTES`] they hold at most 16 MiB.
const QUEUE: usize = 256;

/// Segments longer than this are announced as a range: the other replicas read them from the store.
const MAX_PAYLOAD_BYTES: usize = 64 << 10;

/// Bytes that the stream of an epoch may hold, about: its length is kept at this many average entries.
pub const STREAM_BYTES: usize = 16 << 20;

/// The stream of an epoch.
fn stream_key(epoch: Epoch) -> String {
    format!("tapefeed:log:{epoch}")
}

/// Announces to other processes through Redis. Its tasks end when it is dropped.
#[derive(Debug)]
pub struct RedisBus {
    local: Arc<LocalBus>,
    queue: mpsc::Sender<Message>,
    followed: watch::Sender<Option<Epoch>>,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What the handle and the tasks share.
#[derive(Debug)]
struct Shared {
    /// Marks our own entries, which the local hub has already.
    origin: u64,
    sending: Health,
    reading: Health,
    dropped: AtomicU64,
    malformed: AtomicU64,
    /// Wakes the reader when its connection is in doubt.
    doubt: Notify,
}

impl RedisBus {
    /// Starts both tasks. Redis need not be there yet. `origin` is this process's own random number, `seed` draws
    /// jitter.
    pub fn start(url: &RedisUrl, origin: u64, seed: u64) -> Result<RedisBus, RedisUrlInvalid> {
        let client = url.client()?;
        let local = Arc::new(LocalBus::new());
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (followed, follow) = watch::channel(None);
        let shared = Arc::new(Shared {
            origin,
            sending: Health::begin("connecting"),
            reading: Health::begin("connecting"),
            dropped: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            doubt: Notify::new(),
        });
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let sender = sender::Sender::new(client.clone(), waiting, follow.clone(), shared.clone(), seed);
        let reader = reader::Reader::new(client, follow, local.clone(), shared.clone(), seed.wrapping_add(1));
        tasks.spawn(stop.clone().run_until_cancelled_owned(sender.run()));
        tasks.spawn(stop.clone().run_until_cancelled_owned(reader.run()));
        tasks.close();
        Ok(RedisBus { local, queue, followed, shared, tasks, stop })
    }

    /// Ends both tasks. What waits is not sent any more: the store has it.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    fn send(&self, message: Message) {
        if self.queue.try_send(message).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for RedisBus {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Bus for RedisBus {
    fn announce(&self, announcement: Announcement) {
        let message = Message::of(&announcement);
        self.local.announce(announcement);
        self.send(message);
    }

    fn subscribe(&self) -> broadcast::Receiver<Announcement> {
        self.local.subscribe()
    }

    fn announce_manifest(&self, news: ManifestNews) {
        self.local.announce_manifest(news);
        self.send(Message::Manifest(news));
    }

    fn manifests(&self) -> watch::Receiver<Option<ManifestNews>> {
        self.local.manifests()
    }

    fn follow(&self, epoch: Epoch) {
        self.followed.send_replace(Some(epoch));
    }

    fn doubt(&self) {
        self.shared.doubt.notify_one();
    }

    fn state(&self) -> BusState {
        let (sending, reading) = (self.shared.sending.state(), self.shared.reading.state());
        let (problem, since) = match (sending, reading) {
            ((Some(problem), since), _) | (_, (Some(problem), since)) => (Some(problem), since),
            ((None, one), (None, other)) => (None, one.max(other)),
        };
        BusState {
            kind: "redis",
            problem,
            since,
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            malformed: self.shared.malformed.load(Ordering::Relaxed),
        }
    }
}
