//! Several replicas inside the test's own process, over one store in memory and a bus that can be relied on for nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_server::bus::{Announcement, Bus, BusState, LocalBus, ManifestNews};
use tapefeed_server::domain::{Action, Batch, Cursor, Decimal, NewTick, Side, Symbol, TradeId, UnixNanos, Venue};
use tapefeed_server::ingest::{IngestError, Receipt, Sender, Submission};
use tapefeed_server::live::{
    Event, IfUnavailable, LiveError, Message, Selector, Session, SlowReader, Start, Subscription,
};
use tapefeed_server::metrics::Metrics;
use tapefeed_server::replica::{Parts, Replica};
use tapefeed_server::store::{MemoryStore, ProducerClaim, ProducerId, Store};
use tapefeed_server::tape::View;
use tapefeed_server::tape::compactor::Policy;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

use crate::failpoints::replica::TestClock;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What lies between replicas.
#[derive(Debug)]
pub struct Ether {
    state: Mutex<EtherState>,
}

#[derive(Debug)]
struct EtherState {
    dice: SmallRng,
    ends: Vec<Arc<LocalBus>>,
    silent: bool,
    /// Held back until something else is said.
    late: Vec<(usize, Announcement)>,
}

/// One replica's end of it: its own words reach it at once, those of others perhaps.
#[derive(Debug)]
pub struct End {
    own: Arc<LocalBus>,
    number: usize,
    ether: Arc<Ether>,
}

impl Ether {
    pub fn new(seed: u64) -> Arc<Ether> {
        let dice = SmallRng::seed_from_u64(seed);
        Arc::new(Ether { state: Mutex::new(EtherState { dice, ends: Vec::new(), silent: false, late: Vec::new() }) })
    }

    pub fn end(self: &Arc<Ether>) -> Arc<End> {
        let own = Arc::new(LocalBus::new());
        let mut state = self.state.lock().expect("no holder of the lock panics");
        state.ends.push(own.clone());
        Arc::new(End { own, number: state.ends.len() - 1, ether: self.clone() })
    }

    /// Whether nothing gets through.
    pub fn silence(&self, silent: bool) {
        self.state.lock().expect("no holder of the lock panics").silent = silent;
    }
}

impl Bus for End {
    fn announce(&self, announcement: Announcement) {
        self.own.announce(announcement.clone());
        let mut state = self.ether.state.lock().expect("no holder of the lock panics");
        let EtherState { dice, ends, silent, late } = &mut *state;
        if *silent {
            return;
        }
        let held = std::mem::take(late);
        for (number, end) in ends.iter().enumerate().filter(|(number, _)| *number != self.number) {
            match dice.random_range(0..12) {
                0 | 1 => (),
                2 => late.push((number, announcement.clone())),
                3 => {
                    end.announce(announcement.clone());
                    end.announce(announcement.clone());
                }
                4 => end.announce(Announcement { block: None, bytes: None, ..announcement.clone() }),
                _ => end.announce(announcement.clone()),
            }
        }
        for (number, announcement) in held {
            ends[number].announce(announcement);
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Announcement> {
        self.own.subscribe()
    }

    fn announce_manifest(&self, news: ManifestNews) {
        let mut state = self.ether.state.lock().expect("no holder of the lock panics");
        let EtherState { dice, ends, silent, .. } = &mut *state;
        for end in ends.iter().filter(|_| !*silent) {
            if dice.random() {
                end.announce_manifest(news);
            }
        }
    }

    fn manifests(&self) -> watch::Receiver<Option<ManifestNews>> {
        self.own.manifests()
    }

    fn state(&self) -> BusState {
        self.own.state()
    }
}

/// One store, its clock, and what lies between the replicas.
pub struct World {
    pub clock: Arc<TestClock>,
    pub store: MemoryStore,
    pub ether: Arc<Ether>,
    pub policy: Policy,
    replicas: u64,
}

impl World {
    pub fn new(seed: u64) -> World {
        // 9 August 2024, 12:00 UTC.
        let clock = TestClock::at(1_723_204_800_000_000_000);
        let store = MemoryStore::new(clock.clone(), tapefeed_server::domain::Epoch(seed | 1));
        World { clock, store, ether: Ether::new(seed), policy: Policy::default(), replicas: seed * 100 }
    }

    pub async fn replica(&mut self) -> Replica {
        let bus = self.ether.end();
        self.replica_with(Arc::new(self.store.reopen()), bus).await
    }

    pub async fn replica_with(&mut self, store: Arc<dyn Store>, bus: Arc<dyn Bus>) -> Replica {
        self.replicas += 1;
        let parts = Parts {
            store,
            bus,
            prices: None,
            clock: self.clock.clone(),
            seed: self.replicas,
            policy: self.policy,
            hub_bytes: 256 << 10,
            hot_tick_limit: 1_000_000,
            chunk_cache_bytes: tapefeed_server::query::CHUNK_CACHE_BYTES,
            header_cache_bytes: tapefeed_server::tape::HEADER_CACHE_BYTES,
            bars_table: false,
            metrics: Metrics::new(),
        };
        timeout(PATIENCE, Replica::start(parts)).await.expect("in time").expect("the replica starts")
    }
}

/// A producer that counts.
pub struct Source {
    clock: Arc<TestClock>,
    pub producer: ProducerId,
    pub claim: ProducerClaim,
    /// The time of the first tick that was published last.
    published: i64,
}

impl Source {
    pub async fn claim(world: &World, replica: &Replica, name: &str) -> Source {
        let producer = ProducerId::new(name).expect("a plain name");
        let claim = replica.ingest.claim(&producer).await.expect("the store answers");
        Source { clock: world.clock.clone(), producer, claim, published: 0 }
    }

    /// Publishes ticks of an instrument, and waits until they are stored.
    pub async fn publish(&mut self, replica: &Replica, symbol: &str, ticks: u64) -> Result<Receipt, IngestError> {
        self.published = self.clock.unix_nano();
        self.send(replica, symbol, ticks, Action::New).await
    }

    /// Takes back the first of the ticks that were published last.
    pub async fn take_back(&mut self, replica: &Replica, symbol: &str, ticks: u64) -> Result<Receipt, IngestError> {
        self.send(replica, symbol, ticks, Action::Cancel).await
    }

    async fn send(
        &mut self,
        replica: &Replica,
        symbol: &str,
        ticks: u64,
        action: Action,
    ) -> Result<Receipt, IngestError> {
        let batch = batch(symbol, self.published, ticks, action);
        let batch_seq = self.claim.last_batch_seq + 1;
        let sender = Sender::Producer { producer: self.producer.clone(), fence: self.claim.fence, batch_seq };
        let receipt = replica.ingest.submit(Submission { batch, sender, backfill: false }).await?;
        let receipt = timeout(PATIENCE, receipt).await.expect("in time").expect("the writer answers")?;
        self.claim.last_batch_seq = batch_seq;
        Ok(receipt)
    }
}

fn batch(symbol: &str, first: i64, ticks: u64, action: Action) -> Batch {
    let name = (Venue::new("XNAS").expect("a venue"), Symbol::new(symbol).expect("a symbol"));
    let tick = |index: u64| NewTick {
        instrument: 0,
        event_time: UnixNanos::new(first + index as i64).expect("a time of this century"),
        receive_time: None,
        price: Decimal::new(10_000 + index as i64, -2).expect("a price"),
        quantity: None,
        side: Side::Buy,
        trade_id: TradeId::Number(index),
        action,
    };
    let ticks = (0..ticks).map(|index| tick(index).canonical()).collect();
    Batch { instruments: vec![name], ticks, ..Batch::default() }
}

/// Everything of every instrument, from a cursor on.
pub async fn follow(replica: &Replica, start: Start) -> Session {
    let subscription = Subscription {
        selectors: vec![Selector { venue: None, symbol: None }],
        start,
        include_backfill: true,
        heartbeat: Duration::from_secs(1),
        flush_window: Duration::ZERO,
        if_unavailable: IfUnavailable::Fail,
        conflated: None,
        slow_reader: SlowReader::CatchUp,
        definitions: false,
        message_ticks: 400,
    };
    replica.live.get().subscribe(subscription).await.expect("the position is there")
}

/// What a stream delivered: the symbols at their positions, and where it stands.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Heard {
    pub ticks: BTreeMap<u64, String>,
    pub cursor: Option<Cursor>,
}

impl Heard {
    /// Listens until a position, or until the stream ends. Nothing may come twice, and nothing out of order.
    pub async fn until(&mut self, replica: &Replica, session: &mut Session, position: u64) -> Option<LiveError> {
        while self.cursor.is_none_or(|cursor| cursor.position < position) {
            let Message { cursor, event } = match timeout(PATIENCE, session.next()).await.expect("an event in time") {
                Ok(message) => message,
                Err(error) => return Some(error),
            };
            match event {
                Event::Run(run) => {
                    // Readers get the block's own bytes, with cursors of its epoch.
                    assert_eq!(Some(run.block.epoch), cursor.map(|cursor| cursor.epoch));
                    for tick in run.ticks() {
                        let newest = self.ticks.last_key_value().map_or(0, |(seq, _)| *seq);
                        assert!(tick.log_seq > newest, "{} after {newest}", tick.log_seq);
                        let tape = replica.tapes.get();
                        let name = tape.registry.get(tick.instrument).expect("shown instruments are known");
                        self.ticks.insert(tick.log_seq, name.symbol.to_string());
                    }
                }
                Event::Ack(_) | Event::Progress { .. } | Event::ReplayCompleted { .. } | Event::SlowConsumer { .. } => {
                }
                other => panic!("a lossless stream of ticks has no {other:?}"),
            }
            self.cursor = cursor;
        }
        None
    }
}

/// The view of a replica, once it is complete up to a position of the same or a newer log.
pub async fn view_at(replica: &Replica, position: u64) -> Arc<View> {
    let wait = async {
        loop {
            let view = replica.tapes.get().views.borrow().clone();
            if view.position() >= position {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the view gets there")
}

/// How many ticks a view has, in chunks and hot.
pub fn ticks_of(view: &View) -> usize {
    let ticks = |holding: &tapefeed_server::tape::Holding| {
        let chunks = holding.chunks.iter().chain(holding.late.iter().cloned());
        chunks.map(|chunk| chunk.tick_count()).sum::<usize>() + holding.hot_count()
    };
    view.holdings().map(|(_, holding)| ticks(holding)).sum()
}
