//! A refusal as the contract describes it: code, reason, metadata.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What a status says.
#[derive(Debug)]
pub struct Refusal {
    /// The canonical code.
    pub code: Code,
    /// The reason in its ErrorInfo.
    pub reason: String,
    /// The metadata in its ErrorInfo.
    pub metadata: HashMap<String, String>,
    /// The sentence for people.
    pub message: String,
}

impl Refusal {
    /// Reads a status.
    ///
    /// # Panics
    ///
    /// If it has no ErrorInfo of our domain: every status of the server has one.
    pub fn of(status: &Status) -> Self {
        let info = status.get_details_error_info().unwrap_or_else(|| panic!("a status without ErrorInfo: {status:?}"));
        assert_eq!(info.domain, "tapefeed", "{status:?}");
        Self { code: status.code(), reason: info.reason, metadata: info.metadata, message: status.message().to_owned() }
    }

    /// Whether it tells the caller when to come back.
    pub fn has_retry_info(status: &Status) -> bool {
        status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some())
    }

    /// Checks code, reason and that these metadata are there.
    ///
    /// # Panics
    ///
    /// If one differs.
    pub fn assert(&self, code: Code, reason: &str, keys: &[&str]) {
        assert_eq!((self.code, self.reason.as_str()), (code, reason), "{self:?}");
        for key in keys {
            assert!(self.metadata.contains_key(*key), "{key} is missing in {self:?}");
        }
    }
}
