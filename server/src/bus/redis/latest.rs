//! The hash of latest prices, for other programs that want a price with one `HGET`. Nothing of ours reads it.
//!
//! `tapefeed:latest` has a field `venue/symbol` for each instrument, whose value is one JSON object; decimals in it are
//! strings. Replicas write it side by side: a script keeps the greatest `log_seq` under the newest epoch, by the time
//! at which the epoch began. An instrument whose trades were all taken back has no field; `tapefeed:latest:gone` keeps
//! the `log_seq` of that, so that a replica that lags does not bring an old price back.

use std::fmt;
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use serde::Serialize;

use super::link;
use super::url::{RedisUrl, RedisUrlInvalid};
use crate::domain::{Epoch, Tick, UnixNanos};

/// The hash.
pub const LATEST_KEY: &str = "tapefeed:latest";

/// The epoch of its values.
const EPOCH_KEY: &str = "tapefeed:latest:epoch";

/// The `log_seq` by which a field went away.
const GONE_KEY: &str = "tapefeed:latest:gone";

/// How long Redis may take for a batch.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// Prices that one call of the script sets at most: about a millisecond of Redis' time.
pub const BATCH: usize = 256;

/// `KEYS`: hash, epoch, gone. `ARGV`: epoch, its beginning in milliseconds, then field, log_seq and value of each price;
/// an empty value takes the field away. 1: set as far as they are newer. 0: a newer epoch has been here.
///
/// Numbers in Lua are exact up to 2^53, which positions and milliseconds do not reach.
const SCRIPT: &str = r"
local known = redis.call('HMGET', KEYS[2], 'epoch', 'start')
if known[1] ~= ARGV[1] then
    if known[2] and tonumber(known[2]) > tonumber(ARGV[2]) then
        return 0
    end
    redis.call('UNLINK', KEYS[1], KEYS[3])
    redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'start', ARGV[2])
end
for at = 3, #ARGV, 3 do
    local field, seq, value = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local old = redis.call('HGET', KEYS[1], field)
    local gone = redis.call('HGET', KEYS[3], field)
    local newest = gone or old and string.match(old, '^{.log_seq.:(%d+),')
    if not newest or tonumber(newest) < tonumber(seq) then
        if value == '' then
            redis.call('HDEL', KEYS[1], field)
            redis.call('HSET', KEYS[3], field, seq)
        else
            redis.call('HSET', KEYS[1], field, value)
            if gone then
                redis.call('HDEL', KEYS[3], field)
            end
        end
    end
end
return 1
";

/// The newest price of an instrument.
#[derive(Clone, Debug)]
pub struct LatestPrice {
    /// `venue/symbol`.
    pub field: String,
    /// The position of its newest tick, or that of the newest correction of its instrument, whichever is greater.
    pub log_seq: u64,
    /// The newest tick; `None` if every trade was taken back.
    pub tick: Option<Tick>,
}

/// The value of a field. The script reads `log_seq`, so it stays first.
#[derive(Serialize)]
struct Value<'a> {
    log_seq: u64,
    epoch: &'a str,
    event_time: String,
    event_time_unix_nano: i64,
    price: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<String>,
}

/// Writes the hash.
pub struct LatestPrices {
    client: redis::Client,
    script: redis::Script,
    connection: Option<MultiplexedConnection>,
}

/// What came of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The hash has these prices, or newer ones.
    Yes,
    /// The hash belongs to a newer epoch.
    Outdated,
    /// Redis is away; what it had may be gone when it is back.
    Away,
}

impl fmt::Debug for LatestPrices {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client knows the password.
        out.debug_struct("LatestPrices").field("connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl LatestPrices {
    /// Connects with the first batch.
    pub fn new(url: &RedisUrl) -> Result<LatestPrices, RedisUrlInvalid> {
        Ok(LatestPrices { client: url.client()?, script: redis::Script::new(SCRIPT), connection: None })
    }

    /// The same hash, over a connection of its own.
    pub fn again(&self) -> LatestPrices {
        LatestPrices { client: self.client.clone(), script: redis::Script::new(SCRIPT), connection: None }
    }

    /// Writes at most [`BATCH`] prices of an epoch that began at `start`.
    pub async fn write(&mut self, epoch: Epoch, start: UnixNanos, prices: &[LatestPrice]) -> Written {
        match self.try_write(epoch, start, prices).await {
            Ok(true) => Written::Yes,
            Ok(false) => Written::Outdated,
            Err(error) => {
                tracing::debug!(kind = ?error.kind(), "the latest prices are not written");
                self.connection = None;
                Written::Away
            }
        }
    }

    /// Whether the hash still has what was written; false after a `FLUSHALL`, too.
    pub async fn has(&mut self, epoch: Epoch) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let mut ask = redis::cmd("HGET");
        let known: RedisResult<Option<String>> = ask.arg(EPOCH_KEY).arg("epoch").query_async(connection).await;
        matches!(known, Ok(Some(known)) if known == epoch.to_string())
    }

    async fn try_write(&mut self, epoch: Epoch, start: UnixNanos, prices: &[LatestPrice]) -> RedisResult<bool> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(link::connect(&self.client, Some(ANSWER_PATIENCE)).await?),
        };
        let epoch = epoch.to_string();
        let mut call = self.script.key(LATEST_KEY);
        call.key(EPOCH_KEY).key(GONE_KEY).arg(&epoch).arg(start.nanos() / 1_000_000);
        for price in prices {
            let json = price.tick.as_ref().map_or_else(String::new, |tick| {
                let value = Value {
                    log_seq: price.log_seq,
                    epoch: &epoch,
                    event_time: tick.event_time.to_string(),
                    event_time_unix_nano: tick.event_time.nanos(),
                    price: tick.price.to_string(),
                    quantity: tick.quantity.map(|quantity| quantity.to_string()),
                };
                serde_json::to_string(&value).expect("numbers and text are always JSON")
            });
            call.arg(&price.field).arg(price.log_seq).arg(json);
        }
        let written: i64 = call.invoke_async(connection).await?;
        Ok(written == 1)
    }
}
