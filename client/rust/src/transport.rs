//! The way of every call: a channel, and with the feature `otel` the caller's trace.
//!
//! A call that is made inside a trace gets a span, and its metadata name that span as W3C Trace Context, so that the
//! server's spans continue the trace. Outside a trace a call is sent as it is: the client begins none, because its
//! streams live for days.

use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::{Channel, Error};
use tower::Service;

/// A connection that tells the server of the caller's trace.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    channel: Channel,
}

impl Transport {
    pub(crate) fn new(channel: Channel) -> Transport {
        Transport { channel }
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(cx)
    }

    #[cfg(not(feature = "otel"))]
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.channel.call(request))
    }

    #[cfg(feature = "otel")]
    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Some(span) = traced::begin(&mut request) else {
            return Box::pin(self.channel.call(request));
        };
        let call = self.channel.call(request);
        Box::pin(traced::follow(call, span))
    }
}

#[cfg(feature = "otel")]
mod traced {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::{Frame, SizeHint};
    use opentelemetry::trace::TraceContextExt as _;
    use tonic::body::Body;
    use tonic::codegen::Bytes;
    use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
    use tonic::transport::Error;
    use tonic::{Code, Status};
    use tracing::field::Empty;
    use tracing::{Instrument as _, Span};

    /// Begins the span of a call and names it in the metadata; `None` outside a trace.
    pub(super) fn begin(request: &mut Request<Body>) -> Option<Span> {
        if !opentelemetry::Context::map_current(|context| context.span().span_context().is_valid()) {
            return None;
        }
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let span = tracing::info_span!(
            "rpc.client",
            otel.name = method,
            otel.kind = "client",
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = method,
            rpc.response.status_code = Empty,
            error.type = Empty,
            server.address = Empty,
            server.port = Empty,
        );
        if let Some(authority) = request.uri().authority() {
            span.record("server.address", authority.host());
            span.record("server.port", authority.port_u16());
        }
        // Without a subscriber for our span, the caller's own is named.
        span.in_scope(|| opentelemetry::Context::map_current(|context| name(context, request.headers_mut())));
        Some(span)
    }

    fn name(context: &opentelemetry::Context, headers: &mut HeaderMap) {
        let span = context.span();
        let span = span.span_context();
        let flags = span.trace_flags().to_u8();
        let parent = format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id());
        let (Ok(parent), state) = (HeaderValue::from_str(&parent), span.trace_state().header()) else {
            return;
        };
        headers.insert("traceparent", parent);
        if let (false, Ok(state)) = (state.is_empty(), HeaderValue::from_str(&state)) {
            headers.insert("tracestate", state);
        }
    }

    /// Follows a call to the end of its answer.
    pub(super) async fn follow(
        call: impl Future<Output = Result<Response<Body>, Error>>,
        span: Span,
    ) -> Result<Response<Body>, Error> {
        let answer = call.instrument(span.clone()).await;
        match answer {
            Ok(response) => {
                let mut told = Told(Some(span));
                told.read(response.headers());
                Ok(response.map(|body| Body::new(Followed { body, told })))
            }
            Err(error) => {
                Told(Some(span)).tell(Code::Unavailable);
                Err(error)
            }
        }
    }

    /// The span until its code is told. Dropped before, the caller has lost interest.
    struct Told(Option<Span>);

    impl Told {
        fn read(&mut self, headers: &HeaderMap) {
            if let Some(status) = Status::from_header_map(headers) {
                self.tell(status.code());
            }
        }

        fn tell(&mut self, code: Code) {
            let Some(span) = self.0.take() else { return };
            // Inside, because a span ends where it was left for the last time.
            span.in_scope(|| {
                let name = code_name(code);
                span.record("rpc.response.status_code", name);
                if code != Code::Ok {
                    span.record("error.type", name);
                    span.record("otel.status_code", "ERROR");
                }
            });
        }
    }

    impl Drop for Told {
        fn drop(&mut self) {
            self.tell(Code::Cancelled);
        }
    }

    /// An answer on its way in.
    struct Followed {
        body: Body,
        told: Told,
    }

    impl http_body::Body for Followed {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        self.told.read(trailers);
                    }
                }
                Poll::Ready(Some(Err(status))) => self.told.tell(status.code()),
                Poll::Ready(None) | Poll::Pending => (),
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

    /// A code as gRPC writes it.
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
}
