//! Why a call is refused: the only place where a [`Status`] is born.
//!
//! A handler answers with a [`Refusal`], which knows its reason and what travels with it; turning it into a status
//! adds the `google.rpc` details. There is one constructor for each reason of the contract, and its words tell the
//! caller what to change. Nothing of the inside (SQL, paths, stacks) gets into a status: what the caller cannot know
//! goes to the log under an id, see [`Refusal::internal`].

mod queries;
mod reasons;
mod transport;

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

pub use reasons::EpochFacts;
pub(super) use transport::is_named;

use super::proto::ErrorReason;
use super::violation::Violations;
use crate::domain::Cursor;
use crate::store::StoreError;
use crate::trace;

/// The domain of every reason.
pub const DOMAIN: &str = "tapefeed";

/// All details of a status together, encoded. They travel as a header, and peers take 8 to 16 KiB of those.
const MAX_DETAILS_BYTES: usize = 4 * 1024;

/// A message, a metadata value or a resource name is cut here, so that an echo of bad input stays small.
const MAX_TEXT_BYTES: usize = 256;

/// A refused call. Boxed, so that results stay small on the way that succeeds.
#[derive(Clone, Debug)]
pub struct Refusal(Box<Facts>);

#[derive(Clone, Debug)]
struct Facts {
    code: Code,
    reason: ErrorReason,
    message: String,
    metadata: HashMap<String, String>,
    violations: Violations,
    /// Type and name of what was not found.
    resource: Option<(&'static str, String)>,
    retry_after: Option<Duration>,
    /// The limit that was passed, in words.
    quota: Option<(String, String)>,
}

impl Refusal {
    /// A refusal with nothing but its code, reason and message. Prefer the constructor of the reason.
    pub fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Refusal {
        Refusal(Box::new(Facts {
            code,
            reason,
            message: cut(message.into()),
            metadata: HashMap::new(),
            violations: Violations::default(),
            resource: None,
            retry_after: None,
            quota: None,
        }))
    }

    /// Adds a fact for programs.
    pub fn with(mut self, key: &str, value: impl Display) -> Refusal {
        self.0.metadata.insert(key.to_owned(), cut(value.to_string()));
        self
    }

    /// Adds a cursor, as base64 with padding.
    pub fn with_cursor(self, key: &str, cursor: Cursor) -> Refusal {
        self.with(key, BASE64.encode(cursor.encode()))
    }

    /// Says it in other words, where the caller needs more than the reason's own.
    pub fn saying(mut self, message: impl Into<String>) -> Refusal {
        self.0.message = cut(message.into());
        self
    }

    /// Says when the call may be tried again.
    pub fn retry_after(mut self, delay: Duration) -> Refusal {
        self.0.retry_after = Some(delay);
        self
    }

    fn resource(mut self, kind: &'static str, name: impl Into<String>) -> Refusal {
        self.0.resource = Some((kind, cut(name.into())));
        self
    }

    /// The status code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The reason.
    pub fn reason(&self) -> ErrorReason {
        self.0.reason
    }

    /// The reason as it stands in ErrorInfo, for example `CURSOR_EXPIRED`.
    pub fn reason_name(&self) -> &'static str {
        let name = self.0.reason.as_str_name();
        name.strip_prefix("ERROR_REASON_").unwrap_or(name)
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

/// Cuts a text at [`MAX_TEXT_BYTES`], on a character.
fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES - 3));
        text.push_str("...");
    }
    text
}

impl Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.reason_name(), self.0.message)
    }
}

impl std::error::Error for Refusal {}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        match error {
            StoreError::Unavailable(problem) => {
                tracing::warn!(%problem, "a call is refused because the store does not answer");
                Refusal::store_unavailable()
            }
            StoreError::Corrupt { .. } => Refusal::internal(error),
            StoreError::EpochChanged(epoch) => {
                Refusal::epoch_changed(EpochFacts { epoch, fork: None, oldest: None, newest: None })
            }
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let reason = refusal.reason_name();
        let Facts { code, reason: _, message, mut metadata, mut violations, resource, retry_after, quota } = *refusal.0;
        if let Some(here) = trace::current() {
            metadata.insert("trace_id".into(), here.trace_id.to_string());
        }
        if violations.total() > 0 {
            metadata.insert("violation_count".into(), violations.total().to_string());
        }
        loop {
            let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata.clone());
            for violation in violations.first() {
                details.add_bad_request_violation(violation.field.as_str(), violation.description.as_str());
            }
            if let Some((kind, name)) = &resource {
                details.set_resource_info(*kind, name.as_str(), "", message.as_str());
            }
            if retry_after.is_some() {
                details.set_retry_info(retry_after);
            }
            if let Some((limit, description)) = &quota {
                details.add_quota_failure_violation(limit.as_str(), description.as_str());
            }
            let status = Status::with_error_details(code, message.as_str(), details);
            // Long violations give way, the last first; what remains is bounded by the cuts above.
            if status.details().len() <= MAX_DETAILS_BYTES || !violations.drop_last() {
                return status;
            }
        }
    }
}

#[cfg(test)]
mod tests;
