//! The unit that a column of times is kept in.
//!
//! Most venues stamp in milliseconds. Kept in their own unit, such times take half the bytes of nanoseconds.

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum TimeUnit {
    Second = 0,
    Millisecond = 1,
    Microsecond = 2,
    Nanosecond = 3,
}

impl TimeUnit {
    /// The coarsest unit that all times are whole multiples of.
    pub(super) fn of(times: impl Iterator<Item = i64> + Clone) -> TimeUnit {
        // The divisors are written out because division by a constant is a multiplication.
        if times.clone().all(|time| time % 1_000_000_000 == 0) {
            TimeUnit::Second
        } else if times.clone().all(|time| time % 1_000_000 == 0) {
            TimeUnit::Millisecond
        } else if times.clone().all(|time| time % 1_000 == 0) {
            TimeUnit::Microsecond
        } else {
            TimeUnit::Nanosecond
        }
    }

    /// The unit of a stored number, or `None` for a number that no version wrote.
    pub(super) fn from_code(code: u8) -> Option<TimeUnit> {
        match code {
            0 => Some(TimeUnit::Second),
            1 => Some(TimeUnit::Millisecond),
            2 => Some(TimeUnit::Microsecond),
            3 => Some(TimeUnit::Nanosecond),
            _ => None,
        }
    }

    /// Nanoseconds of one.
    pub(super) fn nanos(self) -> i64 {
        match self {
            TimeUnit::Second => 1_000_000_000,
            TimeUnit::Millisecond => 1_000_000,
            TimeUnit::Microsecond => 1_000,
            TimeUnit::Nanosecond => 1,
        }
    }

    /// How many of the unit a time is.
    #[inline]
    pub(super) fn count(self, nanos: i64) -> i64 {
        match self {
            TimeUnit::Second => nanos / 1_000_000_000,
            TimeUnit::Millisecond => nanos / 1_000_000,
            TimeUnit::Microsecond => nanos / 1_000,
            TimeUnit::Nanosecond => nanos,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarsest_unit_without_a_rest_is_taken() {
        let cases: &[(&[i64], TimeUnit)] = &[
            (&[0, 2_000_000_000], TimeUnit::Second),
            (&[1_000_000, 2_000_000_000], TimeUnit::Millisecond),
            (&[1_000, 2_000_000], TimeUnit::Microsecond),
            (&[1_000, 2_000_001], TimeUnit::Nanosecond),
            (&[i64::MAX], TimeUnit::Nanosecond),
        ];
        for (times, unit) in cases {
            assert_eq!(TimeUnit::of(times.iter().copied()), *unit);
            assert_eq!(TimeUnit::from_code(*unit as u8), Some(*unit));
            for &time in *times {
                assert_eq!(unit.count(time) * unit.nanos(), time);
            }
        }
        assert_eq!(TimeUnit::from_code(4), None);
    }
}
