//! The server and its subscribers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use tapefeed_proto::v1 as proto;
use tokio::task::JoinHandle;

use super::case::{Case, Pace, Wanted};
use super::h2::{self, Received};
use super::load::{CREDIT, GAP, Load};
use super::{Measured, Problem};
use crate::process::Server;
use crate::ticks::{Tape, symbol};

pub const SUBSCRIBE: &str = "/tapefeed.v1.LiveService/SubscribeTicks";

/// How long a poll of readers leaves the processors to others.
const LOOK: Duration = Duration::from_micros(200);

/// The request of one subscriber.
pub fn request(case: &Case, subscriber: usize) -> Vec<u8> {
    let any = || vec![proto::Selector { venue: String::new(), symbol: "*".into() }];
    let some = |first: u32, count: u32| -> Vec<proto::Selector> {
        let place = |index| (first + index * 7) % case.instruments;
        let named = |index| proto::Selector { venue: "BENCH".into(), symbol: symbol(place(index)) };
        (0..count).map(named).collect()
    };
    let selectors = match case.wanted {
        Wanted::Everything => any(),
        Wanted::Few(count) => some(0, count),
        Wanted::Sets(count) => some(subscriber as u32 % case.instruments, count),
    };
    let encoding = if case.columns { proto::Encoding::Columns } else { proto::Encoding::Rows };
    proto::SubscribeTicksRequest {
        selectors,
        encoding: encoding as i32,
        heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        flush_window: Some(prost_types::Duration { seconds: 0, nanos: case.flush_micros * 1_000 }),
        ..proto::SubscribeTicksRequest::default()
    }
    .encode_to_vec()
}

/// Readers of a case: their counts, and the tasks that read.
pub struct Readers {
    received: Vec<Arc<Received>>,
    tasks: Vec<JoinHandle<std::io::Error>>,
}

impl Readers {
    pub async fn open(address: &str, case: &Case) -> Result<Readers, Problem> {
        let received: Vec<Arc<Received>> = (0..case.subscribers).map(|_| Arc::default()).collect();
        let mut tasks = Vec::new();
        let each = case.subscribers.div_ceil(case.connections);
        for (index, streams) in received.chunks(each).enumerate() {
            let requests = (0..streams.len()).map(|stream| request(case, index * each + stream)).collect();
            tasks.push(h2::subscribe(address, SUBSCRIBE, requests, streams.to_vec(), case.settings).await?);
        }
        Ok(Readers { received, tasks })
    }

    pub fn slowest(&self, of: fn(&Received) -> &AtomicU64) -> u64 {
        self.received.iter().map(|received| of(received).load(Ordering::Acquire)).min().unwrap_or(0)
    }

    pub fn bytes(&self) -> u64 {
        self.received.iter().map(|received| received.bytes.load(Ordering::Acquire)).sum()
    }

    /// Waits until everybody has something.
    pub async fn reach(&self, of: fn(&Received) -> &AtomicU64, least: u64) -> Result<(), Problem> {
        let begun = Instant::now();
        while self.slowest(of) < least {
            if self.tasks.iter().any(JoinHandle::is_finished) {
                return Err("a reader's connection has ended".into());
            }
            if begun.elapsed() > Duration::from_secs(30) {
                return Err(format!("readers stand at {} of {least}", self.slowest(of)).into());
            }
            // A short wait is one for the last of them; a long one must not take their processor.
            if begun.elapsed() < LOOK { tokio::task::yield_now().await } else { tokio::time::sleep(LOOK).await }
        }
        Ok(())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Publishes for a time as a case wants it; how many ticks, and the last position.
async fn publish(
    loads: &mut [Load],
    case: &Case,
    readers: Option<&Readers>,
    from: u64,
    span: Duration,
) -> Result<(u64, u64), Problem> {
    let (begun, mut sent, mut last) = (Instant::now(), 0u64, from);
    let everything = case.wanted == Wanted::Everything;
    let follow = async |least: u64| match readers {
        // Who wants few ticks learns by a Progress alone how far the log is.
        Some(readers) if everything => readers.reach(|received| &received.position, least).await,
        _ => Ok(()),
    };
    let ahead = case.pace.ahead();
    while begun.elapsed() < span {
        match case.pace {
            Pace::Turns | Pace::Every(_) => {
                if let Pace::Every(micros) = case.pace {
                    let due = Duration::from_micros(u64::from(micros)) * (sent / case.ticks as u64) as u32;
                    while begun.elapsed() < due {
                        tokio::task::yield_now().await;
                    }
                }
                last = loads[0].publish(case.ticks).await?.1;
                sent += case.ticks as u64;
                follow(last.saturating_sub(ahead)).await?;
            }
            Pace::Ahead(_) => {
                let batch = ahead / CREDIT as u64;
                follow((from + sent + batch).saturating_sub(ahead)).await?;
                if loads[0].outstanding() == CREDIT {
                    last = loads[0].acknowledged().await?.1;
                }
                loads[0].send(batch as usize).await?;
                sent += batch;
            }
            Pace::Producers(_) => {
                for load in &mut *loads {
                    if load.outstanding() == CREDIT {
                        last = last.max(load.acknowledged().await?.1);
                    }
                    load.send(1).await?;
                    sent += 1;
                }
                follow((from + sent).saturating_sub(ahead)).await?;
            }
        }
    }
    for load in loads {
        while load.outstanding() > 0 {
            last = last.max(load.acknowledged().await?.1);
        }
    }
    Ok((sent, last))
}

/// What a case costs the server, and the bytes of one of its messages where nothing puts more together. Its ticks go on
/// at an event time, which it leaves where they end: none comes late.
pub async fn measure(
    server: &Server,
    case: &Case,
    span: Duration,
    time: &mut i64,
) -> Result<(Measured, usize), Problem> {
    let producers = if let Pace::Producers(count) = case.pace { count } else { 1 };
    let mut loads = Vec::new();
    for producer in 0..producers {
        let tape = Tape::new(case.instruments, GAP).from(*time);
        loads.push(Load::of(&server.url, &format!("bench-live-{producer}"), tape).await?);
    }
    // Every instrument exists, and what a start costs is over.
    for _ in 0..10 {
        loads[0].publish(case.instruments as usize * 20 / 10).await?;
    }
    let (_, from) = loads[0].publish(1).await?;
    let cpu = server.cpu_seconds();
    let (ticks, _) = publish(&mut loads, case, None, from, span).await?;
    let storing = (server.cpu_seconds() - cpu) / ticks as f64;

    let address = server.url.trim_start_matches("http://");
    let readers = Readers::open(address, case).await?;
    readers.reach(|received| &received.bytes, 1).await?;
    let (_, warm) = loads[0].publish(case.ticks).await?;
    readers.reach(|received| &received.position, warm).await?;
    // One message alone: what the peers' payload is.
    let bytes = readers.bytes();
    let (_, warm) = loads[0].publish(case.ticks).await?;
    readers.reach(|received| &received.position, warm).await?;
    let payload = (readers.bytes() - bytes) as usize / case.subscribers;

    let (bytes, cpu, begun) = (readers.bytes(), server.cpu_seconds(), Instant::now());
    let (ticks, last) = publish(&mut loads, case, Some(&readers), warm, span).await?;
    readers.reach(|received| &received.position, last).await?;
    *time = loads.iter().map(|load| load.tape().time()).max().unwrap_or(*time);
    let (seconds, cpu, bytes) = (begun.elapsed().as_secs_f64(), server.cpu_seconds() - cpu, readers.bytes() - bytes);
    let share = match case.wanted {
        Wanted::Everything => 1.0,
        Wanted::Few(count) | Wanted::Sets(count) => f64::from(count) / f64::from(case.instruments),
    };
    let delivered = ticks as f64 * case.subscribers as f64 * share;
    let measured = Measured {
        cpu: (cpu - storing * ticks as f64) * 1e9 / delivered,
        rate: delivered / seconds,
        bytes: bytes as f64 / delivered,
    };
    Ok((measured, payload))
}
