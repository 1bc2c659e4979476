//! What connections are held to.

use std::net::IpAddr;
use std::time::Duration;

/// What connections are held to. The defaults are for clients that nobody vouches for; where one would stand in the way
/// of programs on this machine, or of a proxy that speaks for all, it holds for other machines alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. More are closed at once. Where the system allows fewer open files than that, it refuses
    /// some a little earlier, and the loop waits until it does not.
    pub connections: usize,
    /// Connections at a time from one address; more are closed at once. `None`: 32 from each address of another machine.
    pub connections_per_address: Option<usize>,
    /// Calls at a time on one connection.
    pub streams: u32,
    /// Calls that one connection may begin each second; more are refused. `None`: 200 from another machine.
    pub streams_per_second: Option<u32>,
    /// Calls that all connections from one address together may begin each second; more are refused. `None`: 1,000 from
    /// another machine.
    pub streams_per_second_of_address: Option<u32>,
    /// How long a connection may take to send what every client begins with.
    pub opening: Duration,
    /// How long a silent HTTP/2 connection is left alone before it is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// How long that sign may take.
    pub keepalive_timeout: Duration,
    /// How old a connection gets before its streams are ended with their cursors and it takes no more calls, give or take
    /// a tenth, so that clients that came together do not all come back together.
    pub age: Duration,
    /// How long calls that are open then may go on.
    pub grace: Duration,
    /// Bytes that one call may send before they are read: a whole message of a publisher.
    pub stream_window: u32,
    /// Bytes that one connection may send before they are read. Half of them are also h2's budget for small frames that
    /// nobody has read yet, past which it closes the connection.
    pub connection_window: u32,
    /// The largest frame that is taken, in bytes.
    pub frame_size: u32,
    /// Whether small segments leave at once. Answers are written whole, so waiting for more only adds delay.
    pub nodelay: bool,
}

/// Connections at a time from one address of another machine.
const CONNECTIONS_PER_ADDRESS: usize = 32;

/// Calls that one connection from another machine may begin each second.
const STREAMS_PER_SECOND: u32 = 200;

/// Calls that all connections from one address of another machine may begin each second.
const STREAMS_PER_SECOND_OF_ADDRESS: u32 = 1_000;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1_024,
            connections_per_address: None,
            streams: 100,
            streams_per_second: None,
            streams_per_second_of_address: None,
            opening: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            age: Duration::from_secs(3_600),
            grace: Duration::from_secs(30),
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            frame_size: 16 << 10,
            nodelay: true,
        }
    }
}

impl Limits {
    /// Connections at a time from an address; `None` where they are not counted.
    pub(super) fn connections_from(&self, address: IpAddr) -> Option<usize> {
        let default = (!address.is_loopback()).then_some(CONNECTIONS_PER_ADDRESS);
        self.connections_per_address.or(default)
    }

    /// Calls a second of a connection from an address; `None` where they are not counted.
    pub(super) fn rate_from(&self, address: IpAddr) -> Option<u32> {
        let default = (!address.is_loopback()).then_some(STREAMS_PER_SECOND);
        self.streams_per_second.or(default)
    }

    /// Calls a second of all connections from an address; `None` where they are not counted.
    pub(super) fn rate_of_address(&self, address: IpAddr) -> Option<u32> {
        let default = (!address.is_loopback()).then_some(STREAMS_PER_SECOND_OF_ADDRESS);
        self.streams_per_second_of_address.or(default)
    }

    /// The age of a connection, by its number: spread evenly over a tenth around the limit.
    pub(super) fn age_of(&self, number: u64) -> Duration {
        // Steps of the golden ratio fall far from those before them, however many there are.
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) as f64 / u64::MAX as f64;
        self.age.mul_f64(0.9 + 0.2 * spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_lie_within_a_tenth_and_are_spread() {
        let limits = Limits::default();
        let minute = |number| limits.age_of(number).as_secs() / 60;
        let ages: Vec<u64> = (0..100).map(minute).collect();
        assert!(ages.iter().all(|age| (54..=66).contains(age)), "{ages:?}");
        for age in 54..66 {
            let same = ages.iter().filter(|known| **known == age).count();
            assert!((7..=10).contains(&same), "{same} connections end at minute {age}");
        }
    }

    #[test]
    fn this_machine_is_not_counted_unless_it_is_asked_for() {
        let (own, other): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "10.0.0.9".parse().unwrap());
        let limits = Limits::default();
        assert_eq!((limits.connections_from(own), limits.connections_from(other)), (None, Some(32)));
        assert_eq!((limits.rate_from(own), limits.rate_from(other)), (None, Some(200)));
        assert_eq!((limits.rate_of_address(own), limits.rate_of_address(other)), (None, Some(1_000)));
        let strict = Limits {
            connections_per_address: Some(3),
            streams_per_second: Some(5),
            streams_per_second_of_address: Some(7),
            ..limits
        };
        assert_eq!((strict.connections_from(own), strict.connections_from(other)), (Some(3), Some(3)));
        assert_eq!((strict.rate_from(own), strict.rate_from(other)), (Some(5), Some(5)));
        assert_eq!((strict.rate_of_address(own), strict.rate_of_address(other)), (Some(7), Some(7)));
    }
}
