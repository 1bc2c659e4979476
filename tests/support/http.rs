//! A call over plain HTTP/1.1, as a browser or a load balancer makes it. No HTTP library: bytes out, bytes in.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::wait::within;

const ANSWER: Duration = Duration::from_secs(10);

/// An answer over HTTP/1.1.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The status line and headers, names in lower case.
    pub head: String,
    /// What followed, as it was sent.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// `GET` of a path.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").into_bytes();
    call(address, &request).await
}

/// `GET` of a path over HTTP/1.0, to a server that would cut a long answer over HTTP/1.1 into chunks.
pub async fn get_whole(address: SocketAddr, path: &str) -> Answer {
    call(address, format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await
}

/// `GET` of a path with an `Accept` header.
pub async fn get_as(address: SocketAddr, path: &str, accept: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    call(address, request.as_bytes()).await
}

/// A unary call over gRPC-Web: the request is the encoded message.
pub async fn grpc_web(address: SocketAddr, path: &str, message: &[u8]) -> Answer {
    let length = u32::try_from(message.len()).expect("a short message");
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\nContent-Length: {}\r\n\r\n",
        message.len() + 5
    )
    .into_bytes();
    request.push(0);
    request.extend_from_slice(&length.to_be_bytes());
    request.extend_from_slice(message);
    call(address, &request).await
}

async fn call(address: SocketAddr, request: &[u8]) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        stream.write_all(request).await.expect("the server reads");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("the server answers");
        bytes
    };
    let bytes = within("an answer over HTTP/1.1", ANSWER, exchange).await;
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no HTTP: {}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status in {head}"));
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}
