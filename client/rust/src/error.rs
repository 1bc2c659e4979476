//! What can go wrong, typed: the server's refusals with their reason, and failures on the way.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tapefeed_proto::v1::ErrorReason;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::publish::RefusedBatches;

/// The domain under which the server gives its reasons.
const DOMAIN: &str = "tapefeed";

/// Why a call or a stream failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server answered with an error.
    #[error("{0}")]
    Refused(Box<Refusal>),

    /// The server could not be reached, or the connection broke.
    #[error("no connection to the server: {0}")]
    Transport(String),

    /// The server's answer breaks the contract: client and server do not fit together.
    #[error("the server's answer breaks the contract: {0}")]
    Protocol(String),

    /// An argument cannot be sent. Nothing was sent.
    #[error("{0}")]
    Invalid(String),

    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        source: Arc<io::Error>,
    },

    /// Published batches were refused; their ticks are inside. What came after them is stored.
    #[error("{0}")]
    BatchesRefused(Box<RefusedBatches>),

    /// The publisher or stream has ended before.
    #[error("already closed")]
    Closed,
}

/// An error of the server, as its status tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The canonical gRPC code.
    pub code: Code,
    /// The reason; [`ErrorReason::Unspecified`] if the server gave none, or one that this version does not know.
    pub reason: ErrorReason,
    /// A sentence that says what to change.
    pub message: String,
    /// The facts of the reason, by the names that the contract's `ErrorReason` lists.
    pub metadata: BTreeMap<String, String>,
    /// The violated fields, the first 20.
    pub violations: Vec<Violation>,
    /// How long the server asks to wait before the next attempt.
    pub retry_delay: Option<Duration>,
}

/// A field that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field, such as `batch.rows.ticks[3].price`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

// === impl Error ===

impl Error {
    pub(crate) fn protocol(what: impl Into<String>) -> Error {
        Error::Protocol(what.into())
    }

    pub(crate) fn deadline_exceeded(limit: Duration) -> Error {
        Error::deadline_passed(format!("no answer within {limit:?}"))
    }

    fn deadline_passed(message: String) -> Error {
        Error::Refused(Box::new(Refusal {
            code: Code::DeadlineExceeded,
            reason: ErrorReason::DeadlineExceeded,
            message,
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_delay: None,
        }))
    }

    pub(crate) fn io(path: impl Into<String>, source: io::Error) -> Error {
        Error::Io { path: path.into(), source: Arc::new(source) }
    }

    /// Sorts a status: what the server said, or what happened to the connection.
    pub(crate) fn from_status(status: Status) -> Error {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
        if info.is_none() {
            // Both sides of the transport watch the deadline, and say so by this text alone.
            if status.message() == TimeoutExpired(()).to_string() {
                return Error::deadline_passed("no answer before the deadline".to_owned());
            }
            // Only statuses made on this side have a source: connect failures, resets, GOAWAY.
            if status.source().is_some() {
                return Error::Transport(innermost(&status));
            }
        }
        let (reason, metadata) = match info {
            Some(info) => (reason_named(&info.reason), info.metadata),
            None => (ErrorReason::Unspecified, Default::default()),
        };
        let violations = status.get_details_bad_request().map(|bad| {
            let violations = bad.field_violations.into_iter();
            let violations =
                violations.map(|violation| Violation { field: violation.field, description: violation.description });
            violations.collect()
        });
        Error::Refused(Box::new(Refusal {
            code: status.code(),
            reason,
            message: status.message().to_owned(),
            metadata: metadata.into_iter().collect(),
            violations: violations.unwrap_or_default(),
            retry_delay: status.get_details_retry_info().and_then(|info| info.retry_delay),
        }))
    }

    /// What the server said, if it was the server.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Refused(refusal) => Some(refusal),
            Error::BatchesRefused(batches) => batches.batches.first()?.error.refusal(),
            _ => None,
        }
    }

    /// The server's reason; [`ErrorReason::Unspecified`] if it gave none, or if the error is not the server's.
    pub fn reason(&self) -> ErrorReason {
        self.refusal().map_or(ErrorReason::Unspecified, |refusal| refusal.reason)
    }

    /// The gRPC code of the server's answer, if there was one.
    pub fn code(&self) -> Option<Code> {
        self.refusal().map(|refusal| refusal.code)
    }

    /// One of the reason's facts, such as `oldest_cursor` of CURSOR_EXPIRED.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.refusal()?.metadata.get(name).map(String::as_str)
    }

    /// The violated fields of a refused request.
    pub fn violations(&self) -> &[Violation] {
        self.refusal().map_or(&[], |refusal| refusal.violations.as_slice())
    }

    /// How long the server asks to wait before the next attempt.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.refusal()?.retry_delay
    }

    /// Whether the same request may succeed later, unchanged. Everything else is fatal: the request must change first.
    ///
    /// Retryable are broken connections, UNAVAILABLE, RESOURCE_EXHAUSTED with a delay or without a reason of the server,
    /// DEADLINE_EXCEEDED, `PRODUCER_UNKNOWN`, and INTERNAL, UNKNOWN and CANCELLED without a reason of the server: those
    /// are born in the transport.
    pub fn is_retryable(&self) -> bool {
        let refusal = match self {
            Error::Transport(_) => return true,
            Error::Refused(refusal) => refusal,
            _ => return false,
        };
        let without_reason = refusal.reason == ErrorReason::Unspecified;
        match refusal.code {
            Code::Unavailable | Code::DeadlineExceeded => true,
            Code::ResourceExhausted => {
                refusal.retry_delay.is_some() || without_reason || refusal.reason == ErrorReason::QueueFull
            }
            Code::FailedPrecondition => refusal.reason == ErrorReason::ProducerUnknown,
            Code::Internal | Code::Unknown | Code::Cancelled => without_reason,
            _ => false,
        }
    }

    /// Whether a read that failed so is asked again at once, with a back-off: the connection broke, or UNAVAILABLE.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Error::Transport(_)) || self.code() == Some(Code::Unavailable)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        Error::from_status(status)
    }
}

/// The reason of an ErrorInfo's name, which lacks the enum's prefix.
fn reason_named(name: &str) -> ErrorReason {
    ErrorReason::from_str_name(&format!("ERROR_REASON_{name}")).unwrap_or_default()
}

/// The last cause, which names what the system said: the ones before it only say which layer failed.
fn innermost(status: &Status) -> String {
    let mut cause = status.source();
    let mut text = status.message().to_owned();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

// === impl Refusal ===

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            out.write_str(self.code.description())?;
        } else {
            out.write_str(&self.message)?;
        }
        for violation in &self.violations {
            // The message may repeat its only violation.
            if !self.message.contains(&violation.description) {
                write!(out, "; {}: {}", violation.field, violation.description)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn refused(code: Code, reason: Option<&str>, delay: Option<Duration>) -> Error {
        let mut details = ErrorDetails::new();
        if let Some(reason) = reason {
            let metadata = HashMap::from([("limit".to_owned(), "7".to_owned())]);
            details.set_error_info(reason, DOMAIN, metadata);
        }
        if delay.is_some() {
            details.set_retry_info(delay);
        }
        Status::with_error_details(code, "no", details).into()
    }

    #[test]
    fn details_are_typed() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("RANGE_INVERTED", DOMAIN, HashMap::new())
            .add_bad_request_violation("end_time", "lies before start_time");
        let error = Error::from(Status::with_error_details(Code::InvalidArgument, "swap start and end", details));
        assert_eq!(error.reason(), ErrorReason::RangeInverted);
        assert_eq!(error.code(), Some(Code::InvalidArgument));
        assert_eq!(error.violations()[0].field, "end_time");
        assert_eq!(error.to_string(), "swap start and end; end_time: lies before start_time");
        let limit = refused(Code::ResourceExhausted, Some("LIMIT_EXCEEDED"), None);
        assert_eq!(limit.metadata("limit"), Some("7"));
        assert_eq!(limit.metadata("max"), None);
    }

    #[test]
    fn unknown_reasons_and_foreign_domains_are_unspecified() {
        assert_eq!(refused(Code::Aborted, Some("FROM_THE_FUTURE"), None).reason(), ErrorReason::Unspecified);
        let details = ErrorDetails::with_error_info("NO_DATA", "elsewhere", HashMap::new());
        let error = Error::from(Status::with_error_details(Code::NotFound, "no", details));
        assert_eq!(error.reason(), ErrorReason::Unspecified);
    }

    #[test]
    fn fatal_and_retryable_errors() {
        let second = Some(Duration::from_secs(1));
        for (error, retryable) in [
            (Error::Transport("cut".into()), true),
            (Error::Protocol("odd".into()), false),
            (Error::Closed, false),
            (refused(Code::Unavailable, None, None), true),
            (refused(Code::Unavailable, Some("SHUTTING_DOWN"), second), true),
            (refused(Code::ResourceExhausted, Some("QUEUE_FULL"), None), true),
            (refused(Code::ResourceExhausted, Some("LIMIT_EXCEEDED"), None), false),
            (refused(Code::ResourceExhausted, Some("LIMIT_EXCEEDED"), second), true),
            (refused(Code::ResourceExhausted, None, None), true),
            (refused(Code::Internal, None, None), true),
            (refused(Code::Internal, Some("INTERNAL"), None), false),
            (refused(Code::Cancelled, None, None), true),
            (refused(Code::Unknown, None, None), true),
            (refused(Code::DeadlineExceeded, Some("DEADLINE_EXCEEDED"), None), true),
            (refused(Code::OutOfRange, Some("CURSOR_EXPIRED"), None), false),
            (refused(Code::FailedPrecondition, Some("EPOCH_CHANGED"), None), false),
            (refused(Code::FailedPrecondition, Some("PRODUCER_UNKNOWN"), None), true),
            (refused(Code::Aborted, Some("PRODUCER_FENCED"), None), false),
            (refused(Code::InvalidArgument, Some("CURSOR_INVALID"), None), false),
            (refused(Code::Unimplemented, Some("NOT_SERVED"), None), false),
            (refused(Code::PermissionDenied, None, None), false),
        ] {
            assert_eq!(error.is_retryable(), retryable, "{error:?}");
        }
    }
}
