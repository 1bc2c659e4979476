//! How connections are opened: over the network, unless the builder is given another way, and to whichever of several
//! servers takes them.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::service_fn;

/// How long one of several servers may take to accept, before the next one is tried.
const NEXT_AFTER: Duration = Duration::from_secs(1);

/// Both directions of an open connection.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

type Opening = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send>>;

/// Opens connections in a way of the caller's own. See [`crate::ClientBuilder::connector`].
#[derive(Clone)]
pub struct Connector(Arc<dyn Fn(Uri) -> Opening + Send + Sync>);

impl Connector {
    /// Opens a connection to a server's address with `open`.
    pub fn new<F, O, C>(open: F) -> Connector
    where
        F: Fn(Uri) -> O + Send + Sync + 'static,
        O: Future<Output = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Connector(Arc::new(move |uri| {
            let opening = open(uri);
            Box::pin(async move { opening.await.map(|connection| Box::new(connection) as Box<dyn Connection>) })
        }))
    }

    /// Over the network.
    fn network() -> Connector {
        Connector::new(|uri: Uri| async move {
            let address = uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    /// To one of these servers, by `self` or over the network: each connection begins with the server after that of the
    /// connection before, the first with the one numbered `first`, and goes on to the next where nobody accepts.
    pub(crate) fn to_any(by: Option<Connector>, servers: Vec<Uri>, first: usize) -> Connector {
        let by = by.unwrap_or_else(Connector::network);
        let (servers, turn): (Arc<[Uri]>, _) = (servers.into(), Arc::new(AtomicUsize::new(first)));
        Connector(Arc::new(move |_| {
            let (by, servers, turn) = (by.clone(), servers.clone(), turn.clone());
            Box::pin(async move {
                let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for _ in 0..servers.len() {
                    let server = servers[turn.fetch_add(1, Ordering::Relaxed) % servers.len()].clone();
                    refused = match tokio::time::timeout(NEXT_AFTER, (by.0)(server)).await {
                        Ok(Ok(connection)) => return Ok(connection),
                        Ok(Err(error)) => error,
                        Err(_) => io::ErrorKind::TimedOut.into(),
                    };
                }
                Err(refused)
            })
        }))
    }

    async fn open(self, uri: Uri) -> io::Result<TokioIo<Box<dyn Connection>>> {
        (self.0)(uri).await.map(TokioIo::new)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Connector")
    }
}

/// A connection that is opened at its first call.
pub(crate) fn open_lazy(endpoint: &Endpoint, connector: Option<&Connector>) -> Channel {
    match connector.cloned() {
        None => endpoint.connect_lazy(),
        Some(connector) => endpoint.connect_with_connector_lazy(service_fn(move |uri| connector.clone().open(uri))),
    }
}

/// A connection that is open.
pub(crate) async fn open(endpoint: &Endpoint, connector: Option<&Connector>) -> Result<Channel, Error> {
    match connector.cloned() {
        None => endpoint.connect().await,
        Some(connector) => endpoint.connect_with_connector(service_fn(move |uri| connector.clone().open(uri))).await,
    }
}
