//! How connections are opened: over the network, unless the builder is given another way.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::service_fn;

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
