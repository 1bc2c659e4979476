//! Measures each call from its headers to its status, outside of everything that may refuse it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::Service;

use super::methods::Methods;
use crate::grpc::proto::ErrorReason;
use crate::metrics::RpcMetrics;

/// A service whose calls are measured.
#[derive(Clone, Debug)]
pub struct Measure<S> {
    inner: S,
    methods: Arc<Methods>,
    metrics: Arc<RpcMetrics>,
}

impl<S> Measure<S> {
    /// Measures the calls of a service. Methods that are not known count as `_OTHER`.
    pub fn new(inner: S, methods: Arc<Methods>, metrics: Arc<RpcMetrics>) -> Measure<S> {
        Measure { inner, methods, metrics }
    }
}

impl<S> Service<Request<Body>> for Measure<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = self.methods.find(request.uri().path());
        let name = method.map_or("_OTHER", |method| method.name);
        let streams = method.is_some_and(|method| method.deadline.is_none());
        let mut call = Call::begin(name, streams, self.metrics.clone());
        let serving = self.inner.call(request);
        Box::pin(async move {
            let response = match serving.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            // An answer that is nothing but a status has it among its headers.
            call.look(response.headers());
            Ok(response.map(|body| Body::new(MeasuredBody { body, call })))
        })
    }
}

/// One call, measured when it is dropped: a client that goes away ends it too.
#[derive(Debug)]
struct Call {
    method: &'static str,
    streams: bool,
    begun: Instant,
    /// How it ended; cancelled until something else is known.
    code: Code,
    metrics: Arc<RpcMetrics>,
}

impl Call {
    fn begin(method: &'static str, streams: bool, metrics: Arc<RpcMetrics>) -> Call {
        if streams {
            metrics.stream_opened(method);
        }
        Call { method, streams, begun: Instant::now(), code: Code::Cancelled, metrics }
    }

    /// Learns the status from headers or trailers, if they have one.
    fn look(&mut self, headers: &HeaderMap) {
        let Some(status) = Status::from_header_map(headers) else { return };
        self.code = status.code();
        if self.code != Code::Ok
            && let Some(info) = status.get_details_error_info()
            && let Some(reason) = reason(&info.reason)
        {
            self.metrics.refused(reason);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.metrics.ended(self.method, code_name(self.code), self.begun.elapsed());
        if self.streams {
            self.metrics.stream_closed(self.method);
        }
    }
}

/// A reason of the contract, as this program has it written down.
fn reason(text: &str) -> Option<&'static str> {
    let name = ErrorReason::from_str_name(&format!("ERROR_REASON_{text}"))?.as_str_name();
    name.strip_prefix("ERROR_REASON_")
}

/// The name of a code, as the gRPC specification and OpenTelemetry's conventions write it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// An answer's body; it carries its call to the end.
#[derive(Debug)]
struct MeasuredBody {
    body: Body,
    call: Call,
}

impl http_body::Body for MeasuredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.look(trailers);
                }
            }
            Poll::Ready(Some(Err(status))) => self.call.code = status.code(),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reasons_of_the_contract_are_labels() {
        assert_eq!(reason("QUEUE_FULL"), Some("QUEUE_FULL"));
        assert_eq!(reason("AAPL"), None);
        assert_eq!(reason(""), None);
    }
}
