//! What a sweep may take, for the backends that decide in Rust.

use super::Retention;
use crate::domain::UnixNanos;

/// What decides about a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentAge {
    pub(super) last_seq: u64,
    pub(super) append_time: UnixNanos,
    pub(super) byte_count: u64,
}

/// How many of the oldest segments may go, out of those given in order, while the log holds `log_bytes`.
pub(super) fn segments_to_drop(
    oldest: impl Iterator<Item = SegmentAge>,
    retention: Retention,
    hot_floor: u64,
    mut log_bytes: u64,
) -> usize {
    let mut count = 0;
    for segment in oldest {
        let cold = segment.last_seq < hot_floor;
        let old = segment.append_time < retention.log_before;
        if !cold || !(old || log_bytes > retention.log_bytes) {
            break;
        }
        log_bytes = log_bytes.saturating_sub(segment.byte_count);
        count += 1;
    }
    count
}
