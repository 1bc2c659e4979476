//! Subscribers and publishers of Redis and NATS, by their text protocols.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Says something, and counts the bytes of everything that comes.
pub async fn drain(address: &str, said: &[u8], bytes: Arc<AtomicU64>) -> io::Result<JoinHandle<()>> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(said).await?;
    Ok(tokio::spawn(async move {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match socket.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => bytes.fetch_add(read as u64, Ordering::Relaxed),
            };
        }
    }))
}

/// A channel's or a subject's name.
pub const SUBJECT: &str = "ticks";

/// What a subscriber of Redis says.
pub fn redis_subscribe() -> Vec<u8> {
    format!("SUBSCRIBE {SUBJECT}\r\n").into_bytes()
}

/// A message to Redis' subscribers.
pub fn redis_publish(payload: &[u8]) -> Vec<u8> {
    let mut out =
        format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{SUBJECT}\r\n${}\r\n", SUBJECT.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
    out
}

/// Bytes of a message as a subscriber of Redis gets it.
pub fn redis_bytes(payload: usize) -> usize {
    // *3, $7 message, the channel, the payload.
    format!("*3\r\n$7\r\nmessage\r\n${}\r\n{SUBJECT}\r\n${payload}\r\n\r\n", SUBJECT.len()).len() + payload
}

/// What a subscriber of NATS says.
pub fn nats_subscribe() -> Vec<u8> {
    format!("CONNECT {{\"verbose\":false}}\r\nSUB {SUBJECT} 1\r\nPING\r\n").into_bytes()
}

/// What a publisher of NATS says first.
pub fn nats_connect() -> Vec<u8> {
    b"CONNECT {\"verbose\":false}\r\n".to_vec()
}

/// A message to NATS' subscribers.
pub fn nats_publish(payload: &[u8]) -> Vec<u8> {
    let mut out = format!("PUB {SUBJECT} {}\r\n", payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
    out
}

/// Bytes of a message as a subscriber of NATS gets it.
pub fn nats_bytes(payload: usize) -> usize {
    format!("MSG {SUBJECT} 1 {payload}\r\n\r\n").len() + payload
}
