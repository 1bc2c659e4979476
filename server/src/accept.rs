//! The accept loop: connections in, under limits that no client can stretch.
//!
//! tonic's own server waits for connections that never speak, and for streams that never end, for as long as they
//! like. Here a connection has to begin within a deadline, there is a bound on how many there are, and at the end of
//! the server each is asked to finish and then closed. The listener is a role, so that simulated networks fit in.

mod addresses;
mod connection;
mod limits;
mod opening;
mod rate;

pub use limits::Limits;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use addresses::Addresses;
use rate::Rates;

/// Where connections come from.
pub trait Listener: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and who it is.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;

    /// Lets small segments leave at once, where a connection knows of such a thing.
    fn set_nodelay(_io: &Self::Io) {}

    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

impl Listener for TcpListener {
    type Io = tokio::net::TcpStream;

    async fn accept(&mut self) -> io::Result<(Self::Io, SocketAddr)> {
        TcpListener::accept(self).await
    }

    fn set_nodelay(io: &Self::Io) {
        // An error says that the other side is gone already, which shows soon enough.
        let _ = io.set_nodelay(true);
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

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

/// Serves connections until told to stop; returns when the last one is closed.
pub async fn serve<L: Listener>(mut listener: L, router: Router, limits: Limits, stop: Stop) {
    let builder = Arc::new(connection::builder(limits));
    let mut connections = JoinSet::new();
    let of_addresses = Addresses::default();
    let mut pause = ACCEPT_PAUSE.0;
    let (mut accepted_count, mut refused): (u64, u64) = (0, 0);
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
                    biased;
                    () = stop.accepting.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
                continue;
            }
        };
        pause = ACCEPT_PAUSE.0;
        let address = peer.ip();
        let place = (connections.len() < limits.connections).then(|| of_addresses.enter(address, &limits)).flatten();
        let Some(place) = place else {
            refused += 1;
            if refused.is_power_of_two() {
                let (max, max_of_address) = (limits.connections, limits.connections_from(address));
                tracing::warn!(max, max_of_address, refused, "connections are refused: there are too many");
            }
            continue;
        };
        tracing::debug!(%peer, "a connection is open");
        if limits.nodelay {
            L::set_nodelay(&io);
        }
        accepted_count += 1;
        let rates = Rates::new(limits.rate_from(address), place.rate.clone());
        let held_to = (limits, rates, limits.age_of(accepted_count));
        let serving = connection::serve(io, router.clone(), builder.clone(), held_to, stop.clone());
        connections.spawn(async move {
            let _place = place;
            serving.await;
        });
    }
    drop(listener);
    while let Some(closed) = connections.join_next().await {
        report(closed);
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
