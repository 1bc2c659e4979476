//! Named places at which a test makes the store stumble.
//!
//! Production holds [`Faults::default`], which costs one branch at each place.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;

/// Nothing of the append is done yet.
pub const APPEND_BEFORE: &str = "append.before";
/// The segment is written inside the transaction, which is open.
pub const APPEND_INSIDE: &str = "append.inside";
/// Everything is written, the commit (and with it the sync) is next.
pub const APPEND_BEFORE_SYNC: &str = "append.before_sync";
/// The append is durable, its answer is not given yet.
pub const APPEND_AFTER: &str = "append.after";
/// Nothing of the manifest's change is done yet.
pub const MANIFEST_BEFORE: &str = "manifest.before";
/// The change is written inside the transaction, which is open.
pub const MANIFEST_INSIDE: &str = "manifest.inside";
/// The change is durable, its answer is not given yet.
pub const MANIFEST_AFTER: &str = "manifest.after";
/// A portion is swept inside the transaction, which is open.
pub const SWEEP_INSIDE: &str = "sweep.inside";
/// Nothing of the change of the table of bars is done yet.
pub const BARS_BEFORE: &str = "bars.before";
/// The change is durable if the version was the expected one, its answer is not given yet.
pub const BARS_AFTER: &str = "bars.after";

/// What happens at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAction {
    /// Nothing.
    Continue,
    /// The operation fails there as if the disk had.
    Fail,
    /// The operation pauses there.
    Delay(Duration),
    /// The process ends there, without unwinding and without destructors.
    Abort,
}

/// Decides what happens at each place. Implemented by tests.
#[async_trait]
pub trait Fault: Send + Sync + std::fmt::Debug {
    /// Asked whenever a place is reached.
    async fn hit(&self, point: &'static str) -> FaultAction;
}

/// The places' handle: none by default.
#[derive(Clone, Debug, Default)]
pub struct Faults(Option<Arc<dyn Fault>>);

impl Faults {
    /// Asks `fault` at every place.
    pub fn new(fault: Arc<dyn Fault>) -> Faults {
        Faults(Some(fault))
    }

    /// Reaches a place. An error means that the operation must fail there.
    #[inline]
    pub async fn hit(&self, point: &'static str) -> Result<(), StoreError> {
        match &self.0 {
            None => Ok(()),
            Some(fault) => stumble(fault.as_ref(), point).await,
        }
    }

    /// Asks what shall happen at a place that lies where this process cannot act itself: inside a database.
    pub async fn ask(&self, point: &'static str) -> FaultAction {
        match &self.0 {
            None => FaultAction::Continue,
            Some(fault) => fault.hit(point).await,
        }
    }
}

async fn stumble(fault: &dyn Fault, point: &'static str) -> Result<(), StoreError> {
    match fault.hit(point).await {
        FaultAction::Continue => Ok(()),
        FaultAction::Fail => Err(StoreError::Unavailable(format!("a fault was injected at {point}"))),
        FaultAction::Delay(span) => {
            tokio::time::sleep(span).await;
            Ok(())
        }
        FaultAction::Abort => std::process::abort(),
    }
}
