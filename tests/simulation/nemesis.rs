//! Who makes the trouble: hosts that crash or stop, networks that are cut or held up, stores out of reach, a bus that
//! falls silent, and a window that moves.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::SmallRng;

use super::replica::{Site, name};

/// Something bad, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A host is gone, with everything that it held in memory.
    Crash(usize),
    /// It comes back.
    Start(usize),
    /// A replica is asked to stop.
    Stop(usize),
    /// Nothing gets through between two hosts, and what is on its way is lost.
    Cut(String, String),
    /// From now on it does again.
    Mend(String, String),
    /// What two hosts send each other waits.
    Hold(String, String),
    /// It comes, all at once.
    Release(String, String),
    /// A replica does not reach the store.
    CutOff(usize),
    /// It does again.
    Reach(usize),
    /// The bus loses nearly everything, or little.
    Lose(u32),
    /// The log's window moves.
    Sweep,
}

/// What is going to happen, and when.
#[derive(Debug)]
pub struct Nemesis {
    plan: Vec<(Duration, Deed)>,
    replicas: usize,
    hosts: Vec<String>,
    pub done: u64,
}

impl Nemesis {
    /// A plan of trouble for a time.
    pub fn new(dice: &mut SmallRng, time: Duration, replicas: usize, publishers: usize, readers: usize) -> Nemesis {
        let servers: Vec<String> = (0..replicas).map(name).collect();
        let clients = (0..publishers).map(|number| format!("publisher-{number}"));
        let clients = clients.chain((0..readers).map(|number| format!("reader-{number}")));
        let hosts: Vec<String> = servers.iter().cloned().chain(clients).collect();
        let mut plan = Vec::new();
        for _ in 0..dice.random_range(0..14) {
            let at = Duration::from_millis(dice.random_range(300..time.as_millis() as u64));
            let until = at + Duration::from_millis(dice.random_range(20..2_500));
            let replica = dice.random_range(0..replicas);
            // A replica and anybody else.
            let other = (replica + dice.random_range(1..hosts.len())) % hosts.len();
            let pair = (hosts[replica].clone(), hosts[other].clone());
            let (deed, end) = match dice.random_range(0..14) {
                0 | 1 => (Deed::Crash(replica), Some(Deed::Start(replica))),
                2 => (Deed::Stop(replica), Some(Deed::Start(replica))),
                3 | 4 => (Deed::Cut(pair.0.clone(), pair.1.clone()), Some(Deed::Mend(pair.0, pair.1))),
                5 | 6 => (Deed::Hold(pair.0.clone(), pair.1.clone()), Some(Deed::Release(pair.0, pair.1))),
                7 | 8 => (Deed::CutOff(replica), Some(Deed::Reach(replica))),
                9 => (Deed::Lose(100), Some(Deed::Lose(10))),
                _ => (Deed::Sweep, None),
            };
            plan.push((at, deed));
            plan.extend(end.map(|end| (until, end)));
        }
        plan.sort_by_key(|(at, _)| *at);
        Nemesis { plan, replicas, hosts, done: 0 }
    }

    /// What is to happen now.
    pub fn due(&mut self, now: Duration) -> Vec<Deed> {
        let due = self.plan.partition_point(|(at, _)| *at <= now);
        let due: Vec<Deed> = self.plan.drain(..due).map(|(_, deed)| deed).collect();
        self.done += due.len() as u64;
        due
    }

    /// Does it.
    pub fn commit(&self, deed: Deed, sim: &mut turmoil::Sim<'_>, sites: &[Arc<Site>]) {
        match deed {
            Deed::Crash(replica) => sim.crash(name(replica)),
            Deed::Start(replica) => {
                if !sim.is_host_running(name(replica)) {
                    sim.bounce(name(replica));
                }
            }
            Deed::Stop(replica) => sites[replica].asked.lock().expect("one thread").cancel(),
            Deed::Cut(one, other) => sim.partition(one, other),
            Deed::Mend(one, other) => sim.repair(one, other),
            Deed::Hold(one, other) => sim.hold(one, other),
            Deed::Release(one, other) => sim.release(one, other),
            Deed::CutOff(replica) => sites[replica].weather.cut_off(true),
            Deed::Reach(replica) => sites[replica].weather.cut_off(false),
            Deed::Lose(percent) => sites[0].ether.lose(percent),
            Deed::Sweep => (),
        }
    }

    /// Ends all trouble.
    pub fn heal(&self, sim: &mut turmoil::Sim<'_>, sites: &[Arc<Site>]) {
        for site in sites {
            site.weather.calm();
            for other in self.hosts.iter().filter(|other| **other != name(site.number)) {
                sim.release(name(site.number), other.as_str());
                sim.repair(name(site.number), other.as_str());
            }
        }
        sites[0].ether.lose(10);
        self.start_all(sim);
    }

    /// Brings back whoever is down.
    pub fn start_all(&self, sim: &mut turmoil::Sim<'_>) {
        for replica in 0..self.replicas {
            if !sim.is_host_running(name(replica)) {
                sim.bounce(name(replica));
            }
        }
    }
}
