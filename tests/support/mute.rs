//! A proxy whose connections can go mute: nothing passes any more, and nobody is told, as when a cable is cut.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy to one server. Dropping it closes everything.
#[derive(Debug)]
pub struct Mute {
    address: SocketAddr,
    /// Connections made before this many mutings are mute.
    mutings: watch::Sender<u64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Mute {
    /// Starts a proxy to a server.
    ///
    /// # Panics
    ///
    /// If this machine has no free port.
    pub async fn before(server: SocketAddr) -> Mute {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (mutings, watch) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forward(client, server, watch.clone()));
            }
        });
        Mute { address, mutings, accepting }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets every connection that exists go mute. Those that are made later work.
    pub fn cut(&self) {
        self.mutings.send_modify(|mutings| *mutings += 1);
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Forwards bytes both ways until the connection goes mute, and then holds both ends open for ever.
async fn forward(client: TcpStream, server: SocketAddr, mut mutings: watch::Receiver<u64>) -> io::Result<()> {
    mutings.borrow_and_update();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    let mut up = vec![0; 64 << 10];
    let mut down = vec![0; 64 << 10];
    loop {
        tokio::select! {
            biased;
            _ = mutings.changed() => std::future::pending::<()>().await,
            read = from_client.read(&mut up) => match read? {
                0 => return Ok(()),
                count => to_server.write_all(&up[..count]).await?,
            },
            read = from_server.read(&mut down) => match read? {
                0 => return Ok(()),
                count => to_client.write_all(&down[..count]).await?,
            },
        }
    }
}
