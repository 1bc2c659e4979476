//! What the connections of one address share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::Limits;
use super::rate::{Rate, SharedRate};

/// Addresses without a connection that are remembered for a moment, so that coming back gives no fresh rate.
const REMEMBERED: usize = 4_096;

/// Who is connected from where.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses(Arc<Mutex<HashMap<IpAddr, Address>>>);

#[derive(Debug)]
struct Address {
    connections: usize,
    rate: Option<SharedRate>,
}

impl Address {
    /// Whether it can be forgotten: it has neither a connection nor calls that still count.
    fn is_over(&self, now: Instant) -> bool {
        let full = |rate: &SharedRate| rate.lock().expect("no holder of the lock panics").is_full(now);
        self.connections == 0 && self.rate.as_ref().is_none_or(full)
    }
}

/// A connection's place among those of its address, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    addresses: Addresses,
    address: IpAddr,
    /// What calls of all connections of the address count against.
    pub(super) rate: Option<SharedRate>,
}

impl Addresses {
    /// A place for one more connection; `None` if there are as many as may be.
    pub(super) fn enter(&self, address: IpAddr, limits: &Limits) -> Option<Place> {
        let mut known = self.0.lock().expect("no holder of the lock panics");
        let most = limits.connections_from(address);
        if most.is_some_and(|most| known.get(&address).is_some_and(|known| known.connections >= most)) {
            return None;
        }
        if known.len() >= limits.connections.saturating_add(REMEMBERED) {
            let now = Instant::now();
            known.retain(|_, address| !address.is_over(now));
        }
        let rate = || limits.rate_of_address(address).map(Rate::shared);
        let entry = known.entry(address).or_insert_with(|| Address { connections: 0, rate: rate() });
        entry.connections += 1;
        Some(Place { addresses: self.clone(), address, rate: entry.rate.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut known = self.addresses.0.lock().expect("no holder of the lock panics");
        let now = Instant::now();
        if let Some(address) = known.get_mut(&self.address) {
            address.connections -= 1;
            if address.is_over(now) {
                known.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_comes_back_at_once_finds_its_rate_as_it_left_it() {
        let addresses = Addresses::default();
        let address: IpAddr = "10.0.0.9".parse().unwrap();
        let limits = Limits { streams_per_second_of_address: Some(3), ..Limits::default() };
        let begin = || addresses.enter(address, &limits).unwrap();
        let call = |place: &Place| place.rate.as_ref().unwrap().lock().unwrap().refuse(Instant::now());
        let (one, other) = (begin(), begin());
        assert_eq!([call(&one), call(&other), call(&one), call(&other)], [None, None, None, Some(3)]);
        drop((one, other));
        assert_eq!(call(&begin()), Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_forgotten_when_their_calls_do_not_count_any_more() {
        let addresses = Addresses::default();
        let limits = Limits { connections: 1, ..Limits::default() };
        let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
        let known = || addresses.0.lock().unwrap().len();
        drop(addresses.enter(address(0), &limits));
        assert_eq!(known(), 0, "it has called nothing");
        for number in 0..=REMEMBERED as u32 {
            let place = addresses.enter(address(number), &limits).unwrap();
            assert_eq!(place.rate.as_ref().unwrap().lock().unwrap().refuse(Instant::now()), None);
        }
        assert_eq!(known(), REMEMBERED + 1);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let _place = addresses.enter(address(0), &limits);
        assert_eq!(known(), 1);
    }
}
