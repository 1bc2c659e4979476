//! A reader of gRPC streams that costs its machine little: it speaks just enough HTTP/2 to subscribe, reads, and looks at
//! nothing but the cursor that begins each message.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tapefeed_server::domain::Cursor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a reader's library tells the server when it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Flow-control window of each stream.
    pub stream_window: u32,
    /// And of the connection.
    pub connection_window: u32,
    /// The largest frame that it takes.
    pub frame: u32,
}

/// What the streams of one or more connections have received.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes of messages and their prefixes.
    pub bytes: AtomicU64,
    /// Messages whose beginning has come.
    pub messages: AtomicU64,
    /// The position that the last message's cursor names.
    pub position: AtomicU64,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// Opens a connection with a stream for each request, which counts in `streams`, and reads until it is dropped.
pub async fn subscribe(
    address: &str,
    path: &str,
    requests: Vec<Vec<u8>>,
    streams: Vec<Arc<Received>>,
    settings: Settings,
) -> io::Result<tokio::task::JoinHandle<io::Error>> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(&opening(address, path, &requests, settings)).await?;
    let streams = streams.into_iter().map(Stream::new).collect();
    let reader = Reader { socket, streams, settings, connection_read: 0, out: Vec::new() };
    Ok(tokio::spawn(reader.run()))
}

/// What a client says first: its settings, and a call for each request.
pub fn opening(address: &str, path: &str, requests: &[Vec<u8>], settings: Settings) -> Vec<u8> {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let Settings { stream_window, connection_window, frame: largest } = settings;
    // SETTINGS_INITIAL_WINDOW_SIZE, SETTINGS_MAX_FRAME_SIZE, SETTINGS_ENABLE_PUSH off.
    let told = [&[0, 4][..], &stream_window.to_be_bytes(), &[0, 5], &largest.to_be_bytes(), &[0, 2, 0, 0, 0, 0]];
    frame(&mut out, SETTINGS, 0, 0, &told.concat());
    if connection_window > 65_535 {
        frame(&mut out, WINDOW_UPDATE, 0, 0, &(connection_window - 65_535).to_be_bytes());
    }
    let headers = headers(address, path);
    for (index, request) in requests.iter().enumerate() {
        let stream = 2 * index as u32 + 1;
        let message = [&[0][..], &(request.len() as u32).to_be_bytes(), request].concat();
        frame(&mut out, HEADERS, END_HEADERS, stream, &headers);
        frame(&mut out, DATA, END_STREAM, stream, &message);
    }
    out
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Header fields as literals that no table remembers.
fn headers(authority: &str, path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "longer texts need a longer length");
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// One stream's messages, as far as they have come.
#[derive(Debug)]
struct Stream {
    received: Arc<Received>,
    /// The first bytes of the message: its prefix and its cursor.
    head: [u8; HEAD],
    have: usize,
    /// Bytes of the message behind its head.
    rest: usize,
    /// Bytes since the last window update.
    read: u32,
}

/// Prefix, tag, length and cursor.
const HEAD: usize = 5 + 2 + 20;

impl Stream {
    fn new(received: Arc<Received>) -> Stream {
        Stream { received, head: [0; HEAD], have: 0, rest: 0, read: 0 }
    }

    fn take(&mut self, mut data: &[u8]) {
        self.received.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        while !data.is_empty() {
            if self.rest > 0 {
                let skipped = self.rest.min(data.len());
                self.rest -= skipped;
                data = &data[skipped..];
                continue;
            }
            let wanted = self.wanted().min(data.len() + self.have);
            let taken = wanted - self.have;
            self.head[self.have..wanted].copy_from_slice(&data[..taken]);
            self.have = wanted;
            data = &data[taken..];
            if self.have == self.wanted() {
                self.open();
            }
        }
    }

    /// How long the head is, as far as is known.
    fn wanted(&self) -> usize {
        if self.have < 5 { 5 } else { HEAD.min(5 + self.length()) }
    }

    fn length(&self) -> usize {
        u32::from_be_bytes([self.head[1], self.head[2], self.head[3], self.head[4]]) as usize
    }

    /// The head is complete: what it says.
    fn open(&mut self) {
        if self.have < self.wanted() {
            return;
        }
        let length = self.length();
        self.received.messages.fetch_add(1, Ordering::Release);
        if let Some(&[0x0A, size, ref rest @ ..]) = self.head.get(5..self.have)
            && let Some(cursor) = rest.get(..usize::from(size))
            && let Ok(cursor) = Cursor::decode(cursor)
        {
            self.received.position.store(cursor.position, Ordering::Release);
        }
        self.rest = 5 + length - self.have;
        self.have = 0;
    }
}

struct Reader {
    socket: TcpStream,
    streams: Vec<Stream>,
    settings: Settings,
    connection_read: u32,
    out: Vec<u8>,
}

impl Reader {
    async fn run(mut self) -> io::Error {
        let mut buffer = vec![0; 256 << 10];
        let (mut start, mut end) = (0, 0);
        loop {
            // What is left of a frame moves to the front.
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
            if end == buffer.len() {
                buffer.resize(2 * end, 0);
            }
            match self.socket.read(&mut buffer[end..]).await {
                Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                Ok(read) => end += read,
                Err(error) => return error,
            }
            while end - start >= 9 {
                let head = &buffer[start..start + 9];
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let (kind, flags) = (head[3], head[4]);
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                if end - start < 9 + length {
                    break;
                }
                let payload = &buffer[start + 9..start + 9 + length];
                start += 9 + length;
                if let Err(error) = take(
                    &mut self.streams,
                    self.settings,
                    &mut self.connection_read,
                    &mut self.out,
                    kind,
                    flags,
                    stream,
                    payload,
                ) {
                    return error;
                }
            }
            if !self.out.is_empty() {
                if let Err(error) = self.socket.write_all(&self.out).await {
                    return error;
                }
                self.out.clear();
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the buffer is borrowed beside them")]
fn take(
    streams: &mut [Stream],
    settings: Settings,
    connection_read: &mut u32,
    out: &mut Vec<u8>,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
) -> io::Result<()> {
    match kind {
        DATA => {
            let own = &mut streams[(stream / 2) as usize];
            own.take(payload);
            own.read += payload.len() as u32;
            *connection_read += payload.len() as u32;
            if own.read > settings.stream_window / 2 {
                frame(out, WINDOW_UPDATE, 0, stream, &own.read.to_be_bytes());
                own.read = 0;
            }
            if *connection_read > settings.connection_window / 2 {
                frame(out, WINDOW_UPDATE, 0, 0, &connection_read.to_be_bytes());
                *connection_read = 0;
            }
            Ok(())
        }
        SETTINGS if flags & ACK == 0 => {
            frame(out, SETTINGS, ACK, 0, &[]);
            Ok(())
        }
        PING if flags & ACK == 0 => {
            frame(out, PING, ACK, 0, payload);
            Ok(())
        }
        RESET | GO_AWAY => Err(io::Error::other(format!("the server ended the stream: frame {kind}"))),
        HEADERS if flags & END_STREAM != 0 => {
            Err(io::Error::other(format!("the stream ended: {}", String::from_utf8_lossy(payload))))
        }
        _ => Ok(()),
    }
}
