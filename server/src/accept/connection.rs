//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use http::Request;
use http_body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tower::Service;

use super::opening::{Counted, PREFACE_BYTES};
use super::rate::Rates;
use super::{Limits, Stop};
use crate::dormant::Dormant;
use crate::grpc::layers::guard::Connection;

/// What waits in a stream for its reader: two of the largest messages of a live stream. Hyper's default of 400 KiB
/// would hide for longer that a reader is slow.
const STREAM_SEND_BUFFER: usize = 128 * 1024;

/// Headers of a request. Above the limit of metadata, so that those who pass that one are told so by a status.
const HEADER_LIST: u32 = 32 * 1024;

/// What an HTTP/1.1 connection reads ahead, and so the size of its headers.
const HTTP1_BUFFER: usize = 64 * 1024;

/// How long calls that are ended at the end of a connection's grace have to leave.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What all connections are served by.
pub(super) fn builder(limits: Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.opening).max_buf_size(HTTP1_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(limits.frame_size)
        .max_send_buf_size(STREAM_SEND_BUFFER)
        .max_header_list_size(HEADER_LIST);
    builder
}

/// Serves a connection to its end. `rates` say how many calls it may begin, `age` when it gets old.
pub(super) async fn serve<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: I,
    router: Router,
    builder: Arc<auto::Builder<TokioExecutor>>,
    (limits, rates, age): (Limits, Rates, Duration),
    stop: Stop,
) {
    let received = Arc::new(AtomicUsize::new(0));
    let io = TokioIo::new(Counted { io, received: received.clone() });
    let connection = Connection::default();
    let calls = Calls { router, connection: connection.clone(), rates };
    let mut serving = pin!(builder.serve_connection(io, TowerToHyperService::new(calls)));
    let begun = Instant::now();
    let (mut next, mut at, mut finishing) = (Step::Opening, begun + limits.opening, false);
    loop {
        let due = tokio::select! {
            biased;
            due = Dormant::new(due(stop.clone(), finishing, at)) => due,
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended by an error");
                }
                return;
            }
        };
        match due {
            Due::Abort => return,
            Due::Finish => {
                finishing = true;
                serving.as_mut().graceful_shutdown();
            }
            Due::Step => {
                let now = Instant::now();
                (next, at) = match next {
                    Step::Opening if received.load(Ordering::Relaxed) < PREFACE_BYTES => return,
                    Step::Opening => (Step::Aging, begun + age),
                    Step::Aging => {
                        connection.aging.cancel();
                        finishing = true;
                        serving.as_mut().graceful_shutdown();
                        (Step::Ending, now + limits.grace)
                    }
                    Step::Ending => {
                        connection.ending.cancel();
                        (Step::Cutting, now + LAST_WORDS)
                    }
                    Step::Cutting => return,
                };
            }
        }
    }
}

/// What a connection is told beside its calls.
enum Due {
    /// The server closes its connections.
    Abort,
    /// The server takes no more calls.
    Finish,
    /// The time of the next step has come.
    Step,
}

/// Waits for the end of the server or a time, whichever is first.
async fn due(stop: Stop, finishing: bool, at: Instant) -> Due {
    tokio::select! {
        biased;
        () = stop.abort.cancelled() => Due::Abort,
        () = stop.finishing.cancelled(), if !finishing => Due::Finish,
        () = tokio::time::sleep_until(at) => Due::Step,
    }
}

/// What happens to a connection when its time has come.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// It has to have begun.
    Opening,
    /// It is old: streams end themselves, and it takes no more calls.
    Aging,
    /// Its grace is over: calls that are still open are ended.
    Ending,
    /// It is closed.
    Cutting,
}

/// The calls of one connection on their way to the router.
#[derive(Clone, Debug)]
struct Calls {
    router: Router,
    connection: Connection,
    /// Shared by the copies that hyper makes.
    rates: Rates,
}

impl<B> Service<Request<B>> for Calls
where
    B: Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = <Router as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<B>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut connection = self.connection.clone();
        connection.too_many = self.rates.refuse(Instant::now());
        request.extensions_mut().insert(connection);
        self.router.call(request)
    }
}
