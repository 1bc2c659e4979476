//! How many calls may begin each second.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// What the calls of a connection count against: its own rate, and that of its address. `None` counts nothing.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    own: Option<SharedRate>,
    of_address: Option<SharedRate>,
}

/// Never held across an await.
pub(super) type SharedRate = Arc<Mutex<Rate>>;

impl Rates {
    /// The rates of a new connection, which may begin so many calls a second, from an address.
    pub(super) fn new(own: Option<u32>, of_address: Option<SharedRate>) -> Rates {
        Rates { own: own.map(Rate::shared), of_address }
    }

    /// Counts a call. The limit, if it is one too many.
    pub(super) fn refuse(&self, now: Instant) -> Option<u32> {
        let rates = [&self.own, &self.of_address];
        rates.into_iter().flatten().find_map(|rate| rate.lock().expect("no holder of the lock panics").refuse(now))
    }
}

/// How many calls may begin: as many at once as in one second.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: u32,
    /// What may begin now.
    left: f64,
    counted: Instant,
}

impl Rate {
    /// Nothing has begun yet.
    pub(super) fn shared(per_second: u32) -> SharedRate {
        Arc::new(Mutex::new(Rate { per_second, left: f64::from(per_second), counted: Instant::now() }))
    }

    /// Whether no call counts any more.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.left_at(now) >= f64::from(self.per_second)
    }

    fn left_at(&self, now: Instant) -> f64 {
        let per_second = f64::from(self.per_second);
        (self.left + per_second * (now - self.counted).as_secs_f64()).min(per_second)
    }

    /// Counts a call. The limit, if it is one too many.
    pub(super) fn refuse(&mut self, now: Instant) -> Option<u32> {
        self.left = self.left_at(now);
        self.counted = now;
        if self.left < 1.0 {
            return Some(self.per_second);
        }
        self.left -= 1.0;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_gives_a_second_at_once_and_then_its_share() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut rate = Rate { per_second: 10, left: 10.0, counted: begin };
        let taken = |rate: &mut Rate, now| (0..100).filter(|_| rate.refuse(now).is_none()).count();
        assert_eq!(taken(&mut rate, at(0)), 10);
        assert_eq!(rate.refuse(at(0)), Some(10));
        assert_eq!(taken(&mut rate, at(250)), 2);
        assert_eq!(taken(&mut rate, at(1_250)), 10);
        assert_eq!(taken(&mut rate, at(60_000)), 10, "what is not used is not kept");
    }
}
