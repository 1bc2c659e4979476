//! What an import may cost. Every refusal names the limit that it passed.

use std::time::Duration;

/// Bounds of uploads and their content.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one upload, as sent.
    pub upload_bytes: u64,
    /// Bytes of one file after unpacking.
    pub content_bytes: u64,
    /// Bytes of one line, without its line break.
    pub line_bytes: usize,
    /// How many times larger than its packed form a file may be.
    pub ratio: u64,
    /// The ratio is not checked before this many unpacked bytes: small files of zeros are harmless.
    pub ratio_floor: u64,
    /// Uploads at the same time. Each holds a blocking thread and a few MiB.
    pub uploads: usize,
    /// Bytes of the spool folder, over all uploads.
    pub spool_bytes: u64,
    /// How long an upload may stay silent.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            upload_bytes: 2 << 30,
            content_bytes: 8 << 30,
            line_bytes: 64 << 10,
            ratio: 100,
            ratio_floor: 1 << 20,
            uploads: 16,
            spool_bytes: 32 << 30,
            idle: Duration::from_secs(60),
        }
    }
}

/// Input lines of one batch. It is part of what makes a run resumable: batch k holds the same lines for ever.
pub const BATCH_LINES: u64 = 10_000;

/// How many rejected lines a run may have unless the options say otherwise.
pub const DEFAULT_MAX_REJECTS: u32 = 1_000;

/// How many rejected lines a run keeps.
pub const KEPT_REJECTS: u64 = 1_000;

/// How many lines of a run are returned with it.
pub const SHOWN_REJECTS: usize = 20;

/// Longest text kept of a rejected line.
pub const REJECT_TEXT_BYTES: usize = 256;

/// How long a run's lease lasts.
pub const LEASE: Duration = Duration::from_secs(15);

/// How often a lease is renewed: two renewals may fail before it ends.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(5);

/// Batches of one run in the writer's queue: one is appended while the next waits.
pub const OUTSTANDING: usize = 2;

/// How long a run waits for a store that does not answer, before it leaves its lease to expire.
pub const STORE_PATIENCE: Duration = Duration::from_secs(60);

/// How long a run that never reached the store is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(600);

/// How many runs are remembered.
pub const REMEMBERED_RUNS: usize = 100;
