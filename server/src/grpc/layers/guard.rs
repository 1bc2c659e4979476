//! Holds each call to the limits of its method, whatever the service behind it does.
//!
//! Unknown methods, too much metadata, too large messages, deadlines of unary calls, panics, and the end of the server
//! all become a status with a reason here. Streams have no deadline: they end themselves, and if one does not when the
//! server stops, it is ended here.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;
use tracing::Instrument as _;
use tracing::field::Empty;

use super::methods::{Method, Methods};
use super::request::{BoundedBody, Oversize};
use super::response::{Ending, NamedBody, Naming};
use super::span::CallSpan;
use crate::grpc::error::Refusal;
use crate::grpc::limits::{MAX_DEADLINE, MAX_METADATA_BYTES};
use crate::trace;

/// When calls learn that the server stops.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// New calls are refused, and streams end themselves.
    pub draining: CancellationToken,
    /// Streams that are still open are ended.
    pub ending: CancellationToken,
}

/// What a call knows of its connection: an extension of its request, put there by whoever accepts connections.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// Cancelled when the connection is old: streams end themselves, and their clients come back on another one.
    pub aging: CancellationToken,
    /// Cancelled when its grace is over: streams that are still open are ended.
    pub ending: CancellationToken,
    /// Calls a second that the connection or its address may begin, if this one is beyond them.
    pub too_many: Option<u32>,
}

impl Connection {
    /// Tells a stream that its connection is old. Of a call that came over none, never.
    pub fn aging(extensions: &http::Extensions) -> CancellationToken {
        extensions.get::<Connection>().map(|connection| connection.aging.clone()).unwrap_or_default()
    }
}

/// The services behind their limits.
#[derive(Clone, Debug)]
pub struct Guard {
    routes: Routes,
    methods: Arc<Methods>,
    ends: Ends,
}

impl Guard {
    /// Puts the services behind their limits.
    pub fn new(routes: Routes, methods: Arc<Methods>, ends: Ends) -> Guard {
        Guard { routes: routes.prepare(), methods, ends }
    }

    /// What forbids a call before it reaches its service.
    fn admit(&self, request: &Request<Body>) -> Result<Method, Refusal> {
        let path = request.uri().path();
        let method = *self.methods.find(path).ok_or_else(|| Refusal::method_unknown(path))?;
        let metadata = metadata_bytes(request.headers());
        if metadata > MAX_METADATA_BYTES {
            let (max, actual) = (MAX_METADATA_BYTES as u64, metadata as u64);
            return Err(Refusal::limit_exceeded("metadata_bytes", max, Some(actual)));
        }
        if let Some(Connection { too_many: Some(max), .. }) = request.extensions().get() {
            return Err(Refusal::too_many_calls(*max));
        }
        if self.ends.draining.is_cancelled() && !method.while_draining {
            return Err(Refusal::shutting_down(None));
        }
        Ok(method)
    }

    /// Serves a call to its answer; a stream's answer goes on after it.
    async fn serve(mut self, method: Method, request: Request<Body>, span: CallSpan) -> Response<Body> {
        let naming = Naming { method, oversize: Oversize::default() };
        let deadline = method.deadline.map(|default| {
            let asked = asked_deadline(request.headers()).unwrap_or(default);
            asked.min(MAX_DEADLINE)
        });
        let oversize = naming.oversize.clone();
        let request = request.map(|body| Body::new(BoundedBody::new(body, method.request_limit, oversize)));
        let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
        // Tokens of its own, because each piece that a stream has to wait for looks at them.
        let (server, of_connection) = (self.ends.ending.child_token(), connection.ending.child_token());
        let call = unpanicked(async move { self.routes.call(request).await });
        let end = || end(server.clone(), of_connection.clone());
        let ended = async {
            match deadline {
                Some(deadline) => {
                    tokio::time::sleep(deadline).await;
                    let millis = deadline.as_millis();
                    Refusal::deadline_exceeded(format!("the call took longer than {millis} ms"))
                }
                None => end().await,
            }
        };
        let answered = tokio::select! {
            biased;
            answered = call => answered,
            refusal = ended => return refuse(refusal, span),
        };
        let mut response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(panic) => {
                let problem = format!("{} panicked: {}", method.name, panic_text(&panic));
                return refuse(Refusal::internal(problem), span);
            }
        };
        if let Some(code) = naming.rename(response.headers_mut()) {
            span.end(code);
            return response;
        }
        let ending = method.deadline.is_none().then(|| Ending::new(end()));
        response.map(|body| Body::new(NamedBody::new(body, naming, ending, span)))
    }
}

impl Service<Request<Body>> for Guard {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let admitted = self.admit(&request);
        // One span for each call, named as OpenTelemetry's conventions want it; unknown names are not repeated.
        let method = admitted.as_ref().ok().map(|method| method.name);
        let span = tracing::info_span!(
            "rpc",
            otel.kind = "server",
            rpc.system.name = "grpc",
            rpc.method = method.unwrap_or("_OTHER"),
            rpc.response.status_code = Empty,
        );
        trace::follow_caller(&span, request.headers());
        if trace::of(&span).is_some() {
            // What only a collector wants to know, so that lines of the log stay short.
            trace::rename(&span, method.unwrap_or("grpc"));
            if let Some(authority) = request.uri().authority() {
                trace::set(&span, "server.address", authority.host().to_owned());
                trace::set(&span, "server.port", i64::from(authority.port_u16().unwrap_or(80)));
            }
        }
        let call = CallSpan::new(span.clone());
        let guard = self.clone();
        Box::pin(
            async move {
                match admitted {
                    Ok(method) => Ok(guard.serve(method, request, call).await),
                    Err(refusal) => Ok(refuse(refusal, call)),
                }
            }
            .instrument(span),
        )
    }
}

/// Why a stream is ended that does not end itself, once it has to be.
async fn end(server: CancellationToken, connection: CancellationToken) -> Refusal {
    tokio::select! {
        biased;
        () = server.cancelled() => Refusal::shutting_down(None),
        () = connection.cancelled() => Refusal::stream_expired(None),
    }
}

/// An answer that is nothing but a status.
fn refuse(refusal: Refusal, span: CallSpan) -> Response<Body> {
    span.end(refusal.code());
    Status::from(refusal).into_http()
}

/// Names and values of all metadata together.
fn metadata_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// The time that a call gives itself: up to eight digits and a unit, as gRPC has it. Anything else counts as none.
fn asked_deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// What a panic was about.
type Panic = Box<dyn Any + Send>;

/// Makes a panic an outcome: a defect in one call must not take others with it.
async fn unpanicked<F: Future>(future: F) -> Result<F::Output, Panic> {
    let mut future = pin!(future);
    std::future::poll_fn(move |cx| {
        // After a panic the future is never polled again, so what it left behind is never seen.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// The words of a panic.
pub(super) fn panic_text(panic: &Panic) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "without words",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        let cases = [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("15S", Some(Duration::from_secs(15))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("999999999S", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1", None),
            ("1s", None),
            ("\u{e9}", None),
        ];
        for (text, expected) in cases {
            let mut headers = HeaderMap::new();
            let value = http::HeaderValue::from_bytes(text.as_bytes()).unwrap();
            headers.insert("grpc-timeout", value);
            assert_eq!(asked_deadline(&headers), expected, "{text}");
        }
        assert_eq!(asked_deadline(&HeaderMap::new()), None);
    }
}
