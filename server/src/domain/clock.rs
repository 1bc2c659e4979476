//! The role of a clock. The only reader of the system's clock lives with the application, on the top floor.

use super::UnixNanos;

/// Wall time, passed in wherever time is needed. Order and identity never depend on it.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Now, in UTC.
    fn now(&self) -> UnixNanos;
}
