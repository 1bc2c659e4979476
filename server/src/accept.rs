//! The accept loop: connections in, under limits that no client can stretch.
//!
//! tonic's own server waits for connections that never speak, and for streams that never end, for as long as they
//! like. Here a connection has to begin within a deadline, there is a bound on how many there are, and at the end of
//! the server each is asked to finish and then closed. The listener is a role, so that simulated networks fit in.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Where connections come from.
pub trait Listener: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and who it is.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;

    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

impl Listener for TcpListener {
    type Io = tokio::net::TcpStream;

    async fn accept(&mut self) -> io::Result<(Self::Io, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // Answers are written whole, so waiting for more to send only adds delay.
        // An error says that the other side is gone already, which shows soon enough.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

/// What a connection is held to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time. More are closed at once. Where the system allows fewer open files than that, it refuses
    /// some a little earlier, and the loop waits until it does not.
    pub connections: usize,
    /// How long a connection may take to send what every client begins with.
    pub opening: Duration,
    /// How long a silent HTTP/2 connection is left alone before it is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// How long that sign may take.
    pub keepalive_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1_024,
            opening: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
        }
    }
}

/// Streams at a time on one connection.
const MAX_STREAMS: u32 = 100;

/// What one stream may send before it is read: a whole message of a publisher.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// What one connection may send before it is read. Half of it is also h2's budget for small frames that nobody has
/// read yet, past which it closes the connection.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// What waits in a stream for its reader: two of the largest messages of a live stream. Hyper's default of 400 KiB
/// would hide for longer that a reader is slow.
const STREAM_SEND_BUFFER: usize = 128 * 1024;

/// Headers of a request. Above the limit of metadata, so that those who pass that one are told so by a status.
const HEADER_LIST: u32 = 32 * 1024;

/// What an HTTP/1.1 connection reads ahead, and so the size of its headers.
const HTTP1_BUFFER: usize = 64 * 1024;

/// Length of the preface that every HTTP/2 client begins with; requests of HTTP/1.1 are hardly shorter.
const PREFACE_BYTES: usize = 24;

/// How long to wait after an accept that failed for want of files or memory, first and at most.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What the end of the server says to connections.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// No more connections are taken, and the port is free.
    pub accepting: CancellationToken,
    /// Connections take no more calls, and close after those they have.
    pub finishing: CancellationToken,
    /// Connections close now.
    pub abort: CancellationToken,
}

impl Stop {
    /// Tokens that no other connection looks at.
    fn of_connection(&self) -> Stop {
        Stop {
            accepting: self.accepting.clone(),
            finishing: self.finishing.child_token(),
            abort: self.abort.child_token(),
        }
    }
}

/// Serves connections until told to stop; returns when the last one is closed.
pub async fn serve<L: Listener>(mut listener: L, router: Router, limits: Limits, stop: Stop) {
    let builder = Arc::new(builder(limits));
    let mut connections = JoinSet::new();
    let mut pause = ACCEPT_PAUSE.0;
    let mut refused: u64 = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.accepting.cancelled() => break,
            Some(closed) = connections.join_next() => {
                report(closed);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (io, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection went away before it was accepted");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for now");
                tokio::select! {
                    () = stop.accepting.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
                continue;
            }
        };
        pause = ACCEPT_PAUSE.0;
        if connections.len() >= limits.connections {
            refused += 1;
            if refused.is_power_of_two() {
                let max = limits.connections;
                tracing::warn!(max, refused, "connections are refused: there are too many");
            }
            continue;
        }
        tracing::debug!(%peer, "a connection is open");
        connections.spawn(connection(io, router.clone(), builder.clone(), limits, stop.of_connection()));
    }
    drop(listener);
    while let Some(closed) = connections.join_next().await {
        report(closed);
    }
}

fn builder(limits: Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.opening).max_buf_size(HTTP1_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_SEND_BUFFER)
        .max_header_list_size(HEADER_LIST);
    builder
}

/// Serves one connection to its end.
async fn connection<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: I,
    router: Router,
    builder: Arc<auto::Builder<TokioExecutor>>,
    limits: Limits,
    stop: Stop,
) {
    let received = Arc::new(AtomicUsize::new(0));
    let io = TokioIo::new(Counted { io, received: received.clone() });
    let mut serving = pin!(builder.serve_connection(io, TowerToHyperService::new(router)));
    let mut opening = pin!(tokio::time::sleep(limits.opening));
    let (mut opened, mut finishing) = (false, false);
    loop {
        tokio::select! {
            biased;
            () = stop.abort.cancelled() => return,
            () = stop.finishing.cancelled(), if !finishing => {
                finishing = true;
                serving.as_mut().graceful_shutdown();
            }
            () = &mut opening, if !opened => {
                if received.load(Ordering::Relaxed) < PREFACE_BYTES {
                    return;
                }
                opened = true;
            }
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended by an error");
                }
                return;
            }
        }
    }
}

/// Errors of accept that say nothing about the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn report(closed: Result<(), tokio::task::JoinError>) {
    if let Err(error) = closed {
        tracing::error!(%error, "serving a connection panicked");
    }
}

/// Counts what a connection sends until it has begun.
#[derive(Debug)]
struct Counted<I> {
    io: I,
    received: Arc<AtomicUsize>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if self.received.load(Ordering::Relaxed) < PREFACE_BYTES {
            let received = buf.filled().len() - before;
            self.received.fetch_add(received, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
