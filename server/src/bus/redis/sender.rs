//! Passes announcements on to Redis, off the path of whoever commits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::link::{self, Patience};
use super::message::Message;
use super::{STREAM_BYTES, Shared, stream_key};
use crate::domain::Epoch;

/// How long Redis may take for an answer: half of what a frozen one may go unnoticed, with [`PING_INTERVAL`].
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// How long the connection may be silent before it is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Messages that one round trip carries at most.
const PIPELINE: usize = 64;

/// What an entry costs in Redis beside its message, about.
const ENTRY_BYTES: usize = 64;

/// The shortest and the longest stream, in entries: the first so that a burst of large ones leaves some, the second so
/// that a change from small to large ones overshoots the bound by little.
const STREAM_ENTRIES: std::ops::RangeInclusive<usize> = 64..=65_536;

/// How long the stream of an epoch that nobody adds to any more stays, and how often its end is put off.
const STREAM_LIFE: Duration = Duration::from_secs(86_400);
const LIFE_INTERVAL: Duration = Duration::from_secs(60);

const ROLE: &str = "announcing";

/// The task's state.
pub(super) struct Sender {
    client: redis::Client,
    queue: mpsc::Receiver<Message>,
    followed: watch::Receiver<Option<Epoch>>,
    shared: Arc<Shared>,
    patience: Patience,
    /// The average length of an entry, moving.
    average: usize,
    /// When the streams that we add to were last given a longer life.
    prolonged: HashMap<Epoch, Instant>,
    /// The log that was followed until now.
    last_followed: Option<Epoch>,
}

impl Sender {
    pub(super) fn new(
        client: redis::Client,
        queue: mpsc::Receiver<Message>,
        followed: watch::Receiver<Option<Epoch>>,
        shared: Arc<Shared>,
        seed: u64,
    ) -> Sender {
        let patience = Patience::new(SmallRng::seed_from_u64(seed));
        Sender {
            client,
            queue,
            followed,
            shared,
            patience,
            average: 1_024,
            prolonged: HashMap::new(),
            last_followed: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let Err(error) = self.send().await else { return };
            self.shared.sending.down(ROLE, &error);
            self.patience.wait().await;
        }
    }

    /// Connects, and sends until an error, or until nobody announces any more.
    async fn send(&mut self) -> RedisResult<()> {
        let mut connection = link::connect(&self.client, Some(ANSWER_PATIENCE)).await?;
        ping(&mut connection).await?;
        // What waited for Redis has long been read from the store.
        while self.queue.try_recv().is_ok() {
            self.count_dropped(1);
        }
        let mut messages = Vec::with_capacity(PIPELINE);
        loop {
            self.shared.sending.up(ROLE);
            self.patience.reset();
            let waiting = self.queue.recv_many(&mut messages, PIPELINE);
            tokio::select! {
                received = tokio::time::timeout(PING_INTERVAL, waiting) => match received {
                    Ok(0) => return Ok(()),
                    Ok(_) => {
                        if let Err(error) = self.add(&mut connection, &messages).await {
                            self.count_dropped(messages.len());
                            return Err(error);
                        }
                        messages.clear();
                    }
                    Err(_) => ping(&mut connection).await?,
                },
                Ok(()) = self.followed.changed() => self.forget(&mut connection).await?,
            }
        }
    }

    async fn add(&mut self, connection: &mut MultiplexedConnection, messages: &[Message]) -> RedisResult<()> {
        let mut pipe = redis::pipe();
        for message in messages {
            let entry = message.encode(self.shared.origin);
            // An average that follows within some ten entries.
            self.average = (self.average * 15 + entry.len() + ENTRY_BYTES) / 16;
            let length = (STREAM_BYTES / self.average.max(1)).clamp(*STREAM_ENTRIES.start(), *STREAM_ENTRIES.end());
            let key = stream_key(message.epoch());
            pipe.cmd("XADD").arg(&key).arg("MAXLEN").arg("~").arg(length).arg("*").arg("m").arg(entry).ignore();
            let now = Instant::now();
            let prolonged = self.prolonged.get(&message.epoch());
            if prolonged.is_none_or(|last| now.duration_since(*last) >= LIFE_INTERVAL) {
                pipe.cmd("EXPIRE").arg(&key).arg(STREAM_LIFE.as_secs()).ignore();
                self.prolonged.insert(message.epoch(), now);
            }
        }
        pipe.query_async(connection).await
    }

    /// After a change of the log: nobody needs the stream of the one before.
    async fn forget(&mut self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let now = *self.followed.borrow_and_update();
        let last = std::mem::replace(&mut self.last_followed, now);
        if let Some(last) = last.filter(|last| Some(*last) != now) {
            self.prolonged.remove(&last);
            let _: i64 = redis::cmd("UNLINK").arg(stream_key(last)).query_async(connection).await?;
        }
        Ok(())
    }

    fn count_dropped(&self, count: usize) {
        self.shared.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    redis::cmd("PING").exec_async(connection).await
}
