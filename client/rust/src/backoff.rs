//! Delays between attempts: exponential, jittered, and never shorter than the server asks for.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// The longest delay that a server can ask for.
const MAX_HINT: Duration = Duration::from_secs(60);

/// The bounds of a series of delays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delays {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

/// A series of growing delays. Each is drawn from the upper half of its step, so that clients that were cut together do
/// not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    delays: Delays,
    step: Duration,
    random: SmallRng,
}

impl Backoff {
    pub(crate) fn new(delays: Delays) -> Backoff {
        Backoff::with_random(delays, SmallRng::from_os_rng())
    }

    fn with_random(delays: Delays, random: SmallRng) -> Backoff {
        Backoff { delays, step: delays.first, random }
    }

    /// The next delay; `asked` is the server's RetryInfo.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let jittered = self.step.mul_f64(self.random.random_range(0.5..=1.0));
        self.step = self.step.saturating_mul(2).min(self.delays.longest);
        match asked {
            Some(asked) => {
                let asked = asked.min(MAX_HINT);
                jittered.max(asked.mul_f64(self.random.random_range(1.0..=1.2)))
            }
            None => jittered,
        }
    }

    /// Begins anew after a success.
    pub(crate) fn reset(&mut self) {
        self.step = self.delays.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        let delays = Delays { first: Duration::from_millis(50), longest: Duration::from_secs(5) };
        Backoff::with_random(delays, SmallRng::seed_from_u64(7))
    }

    #[test]
    fn delays_double_up_to_the_longest_with_jitter_below() {
        let mut backoff = backoff();
        for step in [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let delay = backoff.next(None);
            let step = Duration::from_millis(step);
            assert!(delay >= step / 2 && delay <= step, "{delay:?} is outside of {step:?}");
        }
        backoff.reset();
        assert!(backoff.next(None) <= Duration::from_millis(50));
    }

    #[test]
    fn server_s_request_is_honoured_within_reason() {
        let mut backoff = backoff();
        let asked = Duration::from_secs(2);
        let delay = backoff.next(Some(asked));
        assert!(delay >= asked && delay <= asked * 12 / 10);
        assert!(backoff.next(Some(Duration::from_secs(1 << 40))) <= MAX_HINT * 12 / 10);
    }
}
