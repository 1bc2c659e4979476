//! Hears what other replicas announce, over a connection that does nothing else.
//!
//! Ids of the stream are trusted for no longer than a connection: each begins at the stream's end, and what was missed
//! before is a hole that the hub fills from the store. A blocking read is answered every second, with entries or
//! without; a Redis that does not answer is frozen, and the connection is given up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamRangeReply, StreamReadReply};
use redis::{RedisResult, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use super::link::{self, Patience};
use super::message::{Heard, Malformed, Message};
use super::{Shared, stream_key};
use crate::bus::{Bus as _, LocalBus};
use crate::domain::Epoch;

/// How long one read blocks when there is nothing: the heartbeat of the connection.
const BLOCK: Duration = Duration::from_secs(1);

/// How long an answer may take beyond that. Together a frozen Redis is noticed within 2.5 s.
const ANSWER_PATIENCE: Duration = Duration::from_millis(1_500);

/// Entries of one read: with the longest entries 2 MiB.
const READ_ENTRIES: usize = 32;

/// Doubts of the hub are heeded this often at most: each costs a connection.
const DOUBT_INTERVAL: Duration = Duration::from_secs(5);

const ROLE: &str = "listening";

/// The task's state.
pub(super) struct Reader {
    client: redis::Client,
    followed: watch::Receiver<Option<Epoch>>,
    local: Arc<LocalBus>,
    shared: Arc<Shared>,
    patience: Patience,
    doubted: Option<Instant>,
}

impl Reader {
    pub(super) fn new(
        client: redis::Client,
        followed: watch::Receiver<Option<Epoch>>,
        local: Arc<LocalBus>,
        shared: Arc<Shared>,
        seed: u64,
    ) -> Reader {
        let patience = Patience::new(SmallRng::seed_from_u64(seed));
        Reader { client, followed, local, shared, patience, doubted: None }
    }

    pub(super) async fn run(mut self) {
        loop {
            let Ok(Some(epoch)) = self.followed.wait_for(Option::is_some).await.map(|epoch| *epoch) else { return };
            match self.read(epoch).await {
                Ok(()) => (),
                Err(error) => {
                    self.shared.reading.down(ROLE, &error);
                    self.patience.wait().await;
                }
            }
        }
    }

    /// Connects, and reads one log's stream until an error, another log, or a doubt.
    async fn read(&mut self, epoch: Epoch) -> RedisResult<()> {
        let mut connection = link::connect(&self.client, None).await?;
        let key = stream_key(epoch);
        let mut last = within(ANSWER_PATIENCE, end_of(&mut connection, &key)).await?;
        let (mut followed, shared) = (self.followed.clone(), self.shared.clone());
        loop {
            self.shared.reading.up(ROLE);
            self.patience.reset();
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(READ_ENTRIES).arg("BLOCK").arg(BLOCK.as_millis() as u64);
            read.arg("STREAMS").arg(&key).arg(&last);
            let reply: Option<StreamReadReply> = tokio::select! {
                reply = within(BLOCK + ANSWER_PATIENCE, read.query_async(&mut connection)) => reply?,
                changed = followed.wait_for(|now| *now != Some(epoch)) => {
                    let _ = changed;
                    return Ok(());
                }
                () = shared.doubt.notified() => {
                    let now = Instant::now();
                    if self.doubted.is_none_or(|last| now.duration_since(last) >= DOUBT_INTERVAL) {
                        self.doubted = Some(now);
                        tracing::info!("the log grows and Redis is silent: the connection is made again");
                        return Ok(());
                    }
                    // The read that was given up may have been answered, and its entries are lost with it: begin at the
                    // same id again.
                    continue;
                }
            };
            for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids) {
                self.hear(entry.map.get("m"));
                last = entry.id;
                // Decoding takes up to a millisecond an entry: others may run in between.
                tokio::task::yield_now().await;
            }
        }
    }

    fn hear(&self, value: Option<&Value>) {
        let heard = match value {
            Some(Value::BulkString(bytes)) => Message::decode(bytes, self.shared.origin),
            _ => Err(Malformed),
        };
        match heard {
            Ok(Heard::Announcement(announcement)) => self.local.announce(announcement),
            Ok(Heard::Manifest(news)) => self.local.announce_manifest(news),
            Ok(Heard::Echo) => (),
            Err(Malformed) => {
                // One bad entry stops nothing: the next good one shows the hole, if it was one.
                if self.shared.malformed.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!("an entry of the stream in Redis is no announcement; such entries are passed over");
                }
            }
        }
    }
}

/// The id of the last entry of a stream, or the one before the first.
async fn end_of(connection: &mut MultiplexedConnection, key: &str) -> RedisResult<String> {
    let mut newest = redis::cmd("XREVRANGE");
    newest.arg(key).arg("+").arg("-").arg("COUNT").arg(1);
    let reply: StreamRangeReply = newest.query_async(connection).await?;
    Ok(reply.ids.into_iter().next().map_or_else(|| "0-0".to_owned(), |entry| entry.id))
}

/// An answer in time. The connection itself waits without end, because blocking reads do.
async fn within<T>(patience: Duration, answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| Err(link::silence(patience)))
}
