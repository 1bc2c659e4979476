//! The span of a call: it ends with the last word of the answer, and names the code as OpenTelemetry's conventions want it.

use tonic::Code;
use tracing::Span;

use crate::trace;

/// The span of one call. Dropped before its end is told, the client has gone away.
#[derive(Debug)]
pub(super) struct CallSpan(Option<Span>);

impl CallSpan {
    pub(super) fn new(span: Span) -> CallSpan {
        CallSpan(Some(span))
    }

    /// Does something inside the span.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(span) => span.in_scope(work),
            None => work(),
        }
    }

    /// Tells the code of the call, and lets go of the span.
    pub(super) fn end(mut self, code: Code) {
        self.tell(code);
    }

    fn tell(&mut self, code: Code) {
        let Some(span) = self.0.take() else { return };
        let name = code_name(code);
        // Inside, because a span ends where it was left for the last time.
        span.in_scope(|| {
            span.record("rpc.response.status_code", name);
            if is_fault(code) {
                trace::fail(&span, name);
            }
        });
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        self.tell(Code::Cancelled);
    }
}

/// Whether a code says that the server has failed, rather than that the call was refused.
fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// A code as gRPC writes it.
pub(in crate::grpc) fn code_name(code: Code) -> &'static str {
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
