//! Connections that break at a byte: in the middle of a message as well as between two.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// A connection that reads a number of bytes, and then is gone with a reset.
#[derive(Debug)]
struct Cut {
    stream: TcpStream,
    left: usize,
    broke: Arc<AtomicBool>,
}

/// Connects. The connection breaks after `bytes` received bytes; `broke` then turns true.
pub async fn connect(
    endpoint: Endpoint,
    bytes: usize,
    broke: Arc<AtomicBool>,
) -> Result<Channel, tonic::transport::Error> {
    let connect = move |uri: http::Uri| {
        let broke = broke.clone();
        async move {
            let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
            let stream = TcpStream::connect(authority).await?;
            // Closing sends a reset, as the kernel does for a process that dies with unread bytes.
            stream.set_zero_linger()?;
            Ok::<_, io::Error>(TokioIo::new(Cut { stream, left: bytes, broke }))
        }
    };
    endpoint.connect_with_connector(service_fn(connect)).await
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "cut by the test")
}

impl AsyncRead for Cut {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left == 0 {
            this.broke.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(gone()));
        }
        let mut part = out.take(this.left);
        ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
        let read = part.filled().len();
        this.left -= read;
        // The bytes were read into the unfilled part of `out` itself.
        let filled = part.filled().to_vec();
        out.put_slice(&filled);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(Err(gone()));
        }
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
