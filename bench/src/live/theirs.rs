//! The peers: the same readers, the same payload, and as many messages ahead.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::case::{Case, Pace};
use super::child::Peer;
use super::load::CREDIT;
use super::ours::Readers;
use super::{Measured, Problem, text};

/// How long a poll of readers leaves the processors to others.
const LOOK: Duration = Duration::from_micros(200);

/// Messages that a peer is told to send at once where it may be far ahead.
const TOLD_AT_ONCE: usize = 64;

/// Messages that may be on their way to the slowest subscriber, and how many are sent at once.
fn ahead(case: &Case) -> (usize, usize) {
    let ahead = case.pace.ahead() as usize / case.ticks;
    match case.pace {
        Pace::Turns => (0, 1),
        Pace::Every(_) => (ahead, TOLD_AT_ONCE),
        Pace::Ahead(_) | Pace::Producers(_) => (ahead, (ahead / CREDIT).max(1)),
    }
}

/// Waits until every count has come to something.
async fn reach(counts: &[Arc<AtomicU64>], least: u64) -> Result<(), Problem> {
    let begun = Instant::now();
    while counts.iter().any(|count| count.load(Ordering::Acquire) < least) {
        if begun.elapsed() > Duration::from_secs(30) {
            return Err("a peer's readers do not get what was sent".into());
        }
        if begun.elapsed() < LOOK { tokio::task::yield_now().await } else { tokio::time::sleep(LOOK).await }
    }
    Ok(())
}

/// The same bytes in writes of the same size: what our server writes at once, up to a frame; back to back, a commit.
pub async fn raw_tcp(case: &Case, bytes_a_tick: f64, span: Duration) -> Result<Measured, Problem> {
    let (ahead, at_once) = ahead(case);
    let message = (bytes_a_tick * case.ticks as f64) as usize;
    let written = if matches!(case.pace, Pace::Every(_)) { message } else { message * at_once };
    let write = written.min(case.settings.frame as usize);
    let arguments = ["raw".to_owned(), case.subscribers.to_string(), message.to_string(), write.to_string()];
    let mut peer = Peer::own(&arguments).await?;
    let bytes: Vec<Arc<AtomicU64>> = (0..case.subscribers).map(|_| Arc::default()).collect();
    for bytes in &bytes {
        text::drain(&peer.address, b"!", bytes.clone()).await?;
    }
    let (cpu, begun) = (peer.cpu_seconds(), Instant::now());
    let mut sent = 0;
    while begun.elapsed() < span {
        peer.send(at_once).await?;
        sent += at_once;
        reach(&bytes, (sent.saturating_sub(ahead) * message) as u64).await?;
    }
    reach(&bytes, (sent * message) as u64).await?;
    Ok(measured(&peer, cpu, begun, sent, case, message))
}

pub async fn plain_tonic(case: &Case, span: Duration) -> Result<Measured, Problem> {
    let (ahead, at_once) = ahead(case);
    let encoding = if case.columns { "columns" } else { "rows" };
    let arguments = ["tonic".to_owned(), case.ticks.to_string(), encoding.to_owned(), (ahead + 1).to_string()];
    let mut peer = Peer::own(&arguments).await?;
    let readers = Readers::open(&peer.address.clone(), case).await?;
    let begun = Instant::now();
    // The first message tells that everybody is there.
    let mut sent = 0;
    while readers.slowest(|received| &received.messages) == 0 {
        if begun.elapsed() > Duration::from_secs(30) {
            return Err("tonic's readers do not come".into());
        }
        peer.send(1).await?;
        sent += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Who came late has missed some of the first messages.
    let missed = sent - readers.slowest(|received| &received.messages) as usize;
    let (warm, bytes) = (sent, readers.bytes());
    let (cpu, begun) = (peer.cpu_seconds(), Instant::now());
    while begun.elapsed() < span {
        peer.send(at_once).await?;
        sent += at_once;
        readers.reach(|received| &received.messages, sent.saturating_sub(ahead + missed) as u64).await?;
    }
    readers.reach(|received| &received.messages, (sent - missed) as u64).await?;
    let message = (readers.bytes() - bytes) as usize / case.subscribers / (sent - warm);
    Ok(measured(&peer, cpu, begun, sent - warm, case, message))
}

/// Redis, or NATS if its program is given.
pub async fn by_text(case: &Case, payload: usize, span: Duration, nats: Option<&Path>) -> Result<Measured, Problem> {
    let (ahead, at_once) = ahead(case);
    let message: Vec<u8> = (0..payload).map(|index| (index * 31 % 251) as u8).collect();
    let (peer, subscribe, hello, publish, wire) = match nats {
        None => {
            let (peer, wire) = (Peer::redis().await?, text::redis_bytes(payload));
            (peer, text::redis_subscribe(), Vec::new(), text::redis_publish(&message), wire)
        }
        Some(binary) => {
            let (peer, wire) = (Peer::nats(binary).await?, text::nats_bytes(payload));
            (peer, text::nats_subscribe(), text::nats_connect(), text::nats_publish(&message), wire)
        }
    };
    let publish = publish.repeat(at_once);
    let bytes: Vec<Arc<AtomicU64>> = (0..case.subscribers).map(|_| Arc::default()).collect();
    for bytes in &bytes {
        text::drain(&peer.address, &subscribe, bytes.clone()).await?;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    // What a greeting took is not counted.
    let greeting = bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).max().unwrap_or(0);
    for bytes in &bytes {
        bytes.fetch_add(greeting - bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    let mut socket = TcpStream::connect(&peer.address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(&hello).await?;
    let (mut reading, mut writing) = socket.into_split();
    let answers = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while matches!(reading.read(&mut buffer).await, Ok(read) if read > 0) {}
    });
    let (cpu, begun) = (peer.cpu_seconds(), Instant::now());
    let mut sent = 0;
    while begun.elapsed() < span {
        writing.write_all(&publish).await?;
        sent += at_once;
        reach(&bytes, greeting + (sent.saturating_sub(ahead) * wire) as u64).await?;
    }
    reach(&bytes, greeting + (sent * wire) as u64).await?;
    answers.abort();
    Ok(measured(&peer, cpu, begun, sent, case, wire))
}

fn measured(peer: &Peer, cpu: f64, begun: Instant, sent: usize, case: &Case, message: usize) -> Measured {
    let delivered = (sent * case.ticks * case.subscribers) as f64;
    Measured {
        cpu: (peer.cpu_seconds() - cpu) * 1e9 / delivered,
        rate: delivered / begun.elapsed().as_secs_f64(),
        bytes: message as f64 / case.ticks as f64,
    }
}
