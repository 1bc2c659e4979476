//! The bus of the simulation: datagrams on the simulated network. They are late, come in any order, twice or not at all,
//! and stop where the network is cut.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_server::bus::{Announcement, Bus, BusState, LocalBus, ManifestNews};
use tokio::sync::{broadcast, mpsc, watch};
use turmoil::net::UdpSocket;

use super::replica::name;

/// Where replicas listen for each other.
const PORT: u16 = 7_000;

/// What was said, by number: datagrams carry the number.
#[derive(Debug)]
pub struct Ether {
    state: Mutex<State>,
    replicas: usize,
}

#[derive(Debug)]
struct State {
    dice: SmallRng,
    said: BTreeMap<u64, Said>,
    /// How many of a hundred words are lost, said twice, or said without the block's bytes.
    lost: u32,
    twice: u32,
    bare: u32,
}

#[derive(Clone, Debug)]
enum Said {
    Commit(Announcement),
    Manifest(ManifestNews),
}

impl Ether {
    /// What lies between so many replicas.
    pub fn new(seed: u64, replicas: usize) -> Arc<Ether> {
        let mut dice = SmallRng::seed_from_u64(seed);
        let (lost, twice, bare) = (dice.random_range(0..30), dice.random_range(0..20), dice.random_range(0..20));
        let state = State { dice, said: BTreeMap::new(), lost, twice, bare };
        Arc::new(Ether { state: Mutex::new(state), replicas })
    }

    /// How many of a hundred words are lost from now on.
    pub fn lose(&self, lost: u32) {
        self.state.lock().expect("one thread").lost = lost;
    }

    /// The numbers of the datagrams for one listener.
    fn say(&self, said: &Said) -> Vec<u64> {
        let mut state = self.state.lock().expect("one thread");
        if state.dice.random_range(0..100) < state.lost {
            return Vec::new();
        }
        let bare = state.dice.random_range(0..100) < state.bare;
        let said = match said {
            Said::Commit(announcement) if bare => {
                Said::Commit(Announcement { block: None, bytes: None, ..announcement.clone() })
            }
            said => said.clone(),
        };
        let number = state.said.len() as u64;
        state.said.insert(number, said);
        let times = if state.dice.random_range(0..100) < state.twice { 2 } else { 1 };
        vec![number; times]
    }

    fn heard(&self, number: u64) -> Said {
        self.state.lock().expect("one thread").said[&number].clone()
    }
}

/// One replica's end: it hears itself at once, and others perhaps.
#[derive(Debug)]
pub struct End {
    own: Arc<LocalBus>,
    out: mpsc::UnboundedSender<Said>,
}

impl End {
    /// Listens on this host. Its task ends with the host.
    pub async fn open(ether: Arc<Ether>, number: usize) -> std::io::Result<End> {
        let socket = UdpSocket::bind(("0.0.0.0", PORT)).await?;
        let own = Arc::new(LocalBus::new());
        let (out, mut words) = mpsc::unbounded_channel();
        let ears = own.clone();
        tokio::spawn(async move {
            let mut datagram = [0; 8];
            loop {
                tokio::select! {
                    biased;
                    said = words.recv() => {
                        let Some(said) = said else { return };
                        for other in (0..ether.replicas).filter(|other| *other != number) {
                            for word in ether.say(&said) {
                                let _ = socket.send_to(&word.to_le_bytes(), (name(other).as_str(), PORT)).await;
                            }
                        }
                    }
                    heard = socket.recv_from(&mut datagram) => {
                        if heard.is_ok() {
                            match ether.heard(u64::from_le_bytes(datagram)) {
                                Said::Commit(announcement) => ears.announce(announcement),
                                Said::Manifest(news) => ears.announce_manifest(news),
                            }
                        }
                    }
                }
            }
        });
        Ok(End { own, out })
    }
}

impl Bus for End {
    fn announce(&self, announcement: Announcement) {
        self.own.announce(announcement.clone());
        let _ = self.out.send(Said::Commit(announcement));
    }

    fn subscribe(&self) -> broadcast::Receiver<Announcement> {
        self.own.subscribe()
    }

    fn announce_manifest(&self, news: ManifestNews) {
        self.own.announce_manifest(news);
        let _ = self.out.send(Said::Manifest(news));
    }

    fn manifests(&self) -> watch::Receiver<Option<ManifestNews>> {
        self.own.manifests()
    }

    fn state(&self) -> BusState {
        self.own.state()
    }
}
