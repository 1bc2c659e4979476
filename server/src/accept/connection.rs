//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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
use super::{Limits, Stop};
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

/// Serves a connection to its end. `rate` is how many calls it may begin each second, `age` when it gets old.
pub(super) async fn serve<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: I,
    router: Router,
    builder: Arc<auto::Builder<TokioExecutor>>,
    (limits, rate, age): (Limits, Option<u32>, Duration),
    stop: Stop,
) {
    let received = Arc::new(AtomicUsize::new(0));
    let io = TokioIo::new(Counted { io, received: received.clone() });
    let connection = Connection::default();
    let rate = rate.map(|rate| Arc::new(Mutex::new(Rate::new(rate))));
    let calls = Calls { router, connection: connection.clone(), rate };
    let mut serving = pin!(builder.serve_connection(io, TowerToHyperService::new(calls)));
    let begun = Instant::now();
    let mut step = pin!(tokio::time::sleep_until(begun + limits.opening));
    let (mut next, mut finishing) = (Step::Opening, false);
    loop {
        tokio::select! {
            biased;
            () = stop.abort.cancelled() => return,
            () = stop.finishing.cancelled(), if !finishing => {
                finishing = true;
                serving.as_mut().graceful_shutdown();
            }
            () = &mut step => {
                let now = Instant::now();
                let (following, due) = match next {
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
                next = following;
                step.as_mut().reset(due);
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
    /// Shared by the copies that hyper makes; never held across an await.
    rate: Option<Arc<Mutex<Rate>>>,
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
        if let Some(rate) = &self.rate {
            connection.too_many = rate.lock().expect("no holder of the lock panics").refuse(Instant::now());
        }
        request.extensions_mut().insert(connection);
        self.router.call(request)
    }
}

/// How many calls a connection may begin: as many at once as in one second.
#[derive(Debug)]
struct Rate {
    per_second: u32,
    /// What may begin now.
    left: f64,
    counted: Instant,
}

impl Rate {
    fn new(per_second: u32) -> Rate {
        Rate { per_second, left: f64::from(per_second), counted: Instant::now() }
    }

    /// Counts a call. The limit, if it is one too many.
    fn refuse(&mut self, now: Instant) -> Option<u32> {
        let per_second = f64::from(self.per_second);
        self.left = (self.left + per_second * (now - self.counted).as_secs_f64()).min(per_second);
        self.counted = now;
        if self.left < 1.0 {
            return Some(self.per_second);
        }
        self.left -= 1.0;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_gives_a_second_at_once_and_then_its_share() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut rate = Rate { per_second: 10, left: 10.0, counted: begin };
        let taken = |rate: &mut Rate, now| (0..100).filter(|_| rate.refuse(now).is_none()).count();
        assert_eq!(taken(&mut rate, at(0)), 10);
        assert_eq!(rate.refuse(at(0)), Some(10));
        assert_eq!(taken(&mut rate, at(250)), 2);
        assert_eq!(taken(&mut rate, at(1_250)), 10);
        assert_eq!(taken(&mut rate, at(60_000)), 10, "what is not used is not kept");
    }
}
