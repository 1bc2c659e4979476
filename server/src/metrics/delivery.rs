//! From the receipt of a batch to its first delivery to a subscriber.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::LATENCIES;
use super::ingest::seconds;

/// Groups that may be on their way at once. One that is pushed out is not measured, and nothing else happens.
const SLOTS: usize = 1024;

/// Groups between their append and the first subscriber who gets a tick of them. Writer and sessions meet here without
/// a lock: a session that is not the first reads one atomic for each block.
#[derive(Debug)]
pub struct Deliveries {
    latency: Histogram,
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    /// The group's last position; 0 when there is none.
    position: AtomicU64,
    /// When the group's first batch was received, in nanoseconds since 1970.
    received: AtomicI64,
}

impl Deliveries {
    pub(super) fn new(registry: &mut Registry) -> Deliveries {
        let latency = Histogram::new(LATENCIES);
        registry.register(
            "tapefeed_delivery_latency_seconds",
            "From the receipt of a live batch to its first delivery to a subscriber",
            latency.clone(),
        );
        Deliveries { latency, slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }

    /// Fibonacci hashing: positions of groups of a constant size spread over all slots.
    fn slot(&self, position: u64) -> &Slot {
        let index = position.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54;
        &self.slots[index as usize % SLOTS]
    }

    /// A live group is about to be announced.
    pub fn begin(&self, last_seq: u64, received: i64) {
        let slot = self.slot(last_seq);
        slot.position.store(0, Ordering::Release);
        slot.received.store(received, Ordering::Release);
        slot.position.store(last_seq, Ordering::Release);
    }

    /// A subscriber gets ticks of a group. Measured if it is the first; whether it is.
    pub fn delivered(&self, last_seq: u64, now: impl FnOnce() -> i64) -> bool {
        let slot = self.slot(last_seq);
        if slot.position.load(Ordering::Acquire) != last_seq {
            return false;
        }
        let received = slot.received.load(Ordering::Acquire);
        let first = slot.position.compare_exchange(last_seq, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if first {
            self.latency.observe(seconds(now() - received));
        }
        first
    }
}
