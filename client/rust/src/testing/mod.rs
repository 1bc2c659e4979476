//! In-process servers for tests: real connections, scripted behaviour.

mod history;
mod ingest;
mod live;

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use tapefeed_proto::v1::history_service_server::{HistoryService, HistoryServiceServer};
use tapefeed_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use tapefeed_proto::v1::live_service_server::{LiveService, LiveServiceServer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

pub(crate) use history::FakeHistory;
pub(crate) use ingest::FakeIngest;
pub(crate) use live::{FakeLive, Step, wire_tick};

use crate::{Client, ClientBuilder};

pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A status as the server makes it.
pub(crate) fn refusal(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata = metadata.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    let metadata: HashMap<String, String> = metadata.collect();
    let details = ErrorDetails::with_error_info(reason, "tapefeed", metadata);
    Status::with_error_details(code, reason, details)
}

/// A client that reconnects fast.
pub(crate) fn builder(address: &str) -> ClientBuilder {
    Client::builder(address).reconnect_delays(Duration::from_millis(1), Duration::from_millis(10))
}

pub(crate) async fn serve_live(live: impl LiveService) -> String {
    let (listener, address) = listen().await;
    let router = tonic::transport::Server::builder().add_service(LiveServiceServer::new(live));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

pub(crate) async fn serve_ingest(ingest: impl IngestService) -> String {
    let (listener, address) = listen().await;
    let router = tonic::transport::Server::builder().add_service(IngestServiceServer::new(ingest));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

pub(crate) async fn serve_history(history: impl HistoryService) -> String {
    let (listener, address) = listen().await;
    let router = tonic::transport::Server::builder().add_service(HistoryServiceServer::new(history));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address)
}

/// A proxy in front of a server whose connections can be cut without a word.
pub(crate) struct Proxy {
    pub(crate) address: String,
    generation: watch::Sender<u64>,
}

impl Proxy {
    pub(crate) async fn start(server: &str) -> Proxy {
        let (listener, address) = listen().await;
        let server = server.strip_prefix("http://").unwrap().to_owned();
        let (generation, seen) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                let (server, mut seen) = (server.clone(), seen.clone());
                seen.borrow_and_update();
                tokio::spawn(async move {
                    let mut outside = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {}
                        _ = seen.changed() => {}
                    }
                });
            }
        });
        Proxy { address, generation }
    }

    pub(crate) fn cut(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }
}
