//! Durable ingest on Postgres: PublishTicks beside `COPY BINARY` and inserts into the same Postgres, in turns, and a
//! replica's subscribers beside Redis Pub/Sub. CPU is told apart for server, Postgres and loader.

mod cluster;
mod load;
mod peers;
mod replicas;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sqlx::PgConnection;

use crate::figure::{Figure, quantile};
use crate::process::Server;
use crate::ticks::{Tape, Trade};
use cluster::{Cluster, Spent};
use load::{Form, INSTRUMENTS, Published};
use peers::Peer;

type Problem = Box<dyn std::error::Error>;

/// One way to store ticks.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Through gRPC, with the server's compaction, which is waited for.
    Compacted(Form),
    /// Through gRPC to a server that may not compact, because another replica has the lease: what an acknowledgement
    /// alone costs.
    Acknowledged(Form),
    Peer(Peer),
}

const LARGE: Form = Form { producers: 8, batch: 1_000, columns: true };
const SMALL: Form = Form { producers: 16, batch: 100, columns: true };

/// The case that the goals are about.
const COLUMNS: &str = "columns, 8 producers of 1,000";
const ACKNOWLEDGED: &str = "columns, 8 producers of 1,000, without compaction";
/// What they are compared with: the cheapest of the plain ways.
const COPY: &str = "COPY BINARY of 100,000, five columns and a btree";

/// Every way, and which share of the ticks it gets: slow ones need no million rows.
const CASES: [(&str, Way, usize); 11] = [
    (COLUMNS, Way::Compacted(LARGE), 1),
    (COPY, Way::Peer(Peer::Copy(100_000)), 2),
    (ACKNOWLEDGED, Way::Acknowledged(LARGE), 1),
    ("COPY BINARY of 1,000, five columns and a btree", Way::Peer(Peer::Copy(1_000)), 4),
    ("rows, 8 producers of 1,000", Way::Compacted(Form { columns: false, ..LARGE }), 2),
    ("COPY BINARY of 100,000, all of a tick and a btree", Way::Peer(Peer::CopyAll(100_000)), 2),
    ("columns, 16 producers of 100", Way::Compacted(SMALL), 2),
    ("INSERT of 1,000, earlier schema", Way::Peer(Peer::Insert(1_000)), 8),
    ("columns, 16 producers of 100, without compaction", Way::Acknowledged(SMALL), 2),
    ("INSERT of one row, earlier schema", Way::Peer(Peer::Insert(1)), 100),
    ("rows, 16 producers of 100", Way::Compacted(Form { columns: false, ..SMALL }), 2),
];

/// What was measured of a case in one round, for each tick.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    /// Nanoseconds.
    server: f64,
    postgres: f64,
    loader: f64,
    /// Bytes.
    wal: f64,
    log: f64,
    chunks: f64,
    /// Ticks a second until the last acknowledgement or commit.
    rate: f64,
    /// Of a batch's acknowledgement or commit, in microseconds.
    p50: f64,
    p99: f64,
}

/// Runs in turns all cases, or those with `only` in their names and COPY; also `replicas`.
pub async fn run(binary: &Path, quick: bool, only: Option<&str>) -> Result<(), Problem> {
    let is_asked = |name: &str| only.is_none_or(|part| name.contains(part));
    if !CASES.iter().any(|(name, ..)| is_asked(name)) && !is_asked("replicas") {
        return Err("no case of ingest has that in its name".into());
    }
    let (rounds, count) = if quick { (3, 800_000) } else { (5, 2_000_000) };
    let mut cluster = Cluster::start().await?;
    let mut measured: BTreeMap<&str, Vec<Measured>> = BTreeMap::new();
    for round in 0..rounds {
        let mut round = Round::start(&mut cluster, binary, round).await?;
        for (name, way, share) in CASES.into_iter().filter(|(name, ..)| is_asked(name) || *name == COPY) {
            let result = round.measure(way, count / share).await?;
            measured.entry(name).or_default().push(result);
        }
    }
    print(&measured);
    if is_asked("replicas") {
        replicas::run(&mut cluster, binary, quick).await?;
    }
    Ok(())
}

/// One server over a database of its own, and a database for the peers.
struct Round<'a> {
    cluster: &'a mut Cluster,
    server: Server,
    store: PgConnection,
    peers: String,
    large: Vec<Tape>,
    small: Vec<Tape>,
    plain: Vec<Tape>,
    case: usize,
}

impl<'a> Round<'a> {
    async fn start(cluster: &'a mut Cluster, binary: &Path, round: usize) -> Result<Round<'a>, Problem> {
        let url = cluster.create(&format!("tapefeed_{round}")).await?;
        let peers = cluster.create(&format!("peers_{round}")).await?;
        let server = Server::start_on(binary, &["--store", &url], &[]).await?;
        let store = cluster.connect(&url).await?;
        let (large, small) = (load::tapes(LARGE.producers, 0), load::tapes(SMALL.producers, INSTRUMENTS));
        let mut round = Round { cluster, server, store, peers, large, small, plain: load::tapes(1, 0), case: 0 };
        // Each instrument holds half a chunk of hot ticks before anything counts, as it does on the average.
        for form in [LARGE, SMALL] {
            let trades = load::trades(round.tapes(form), INSTRUMENTS as usize * 2_048);
            round.publish(form, trades).await?;
        }
        round.rest().await?;
        Ok(round)
    }

    fn tapes(&mut self, form: Form) -> &mut [Tape] {
        if form.producers == LARGE.producers { &mut self.large } else { &mut self.small }
    }

    async fn publish(&mut self, form: Form, trades: Vec<Vec<Trade>>) -> Result<Published, Problem> {
        self.case += 1;
        let name = format!("case-{}", self.case);
        let published = load::publish(&self.server.url, form, &name, trades).await;
        Ok(published.map_err(|problem| problem.to_string())?)
    }

    /// Waits until server and Postgres have nothing left to do.
    async fn rest(&mut self) -> Result<(), Problem> {
        loop {
            let before = self.cluster.spent(&[&self.server]).await?;
            tokio::time::sleep(Duration::from_millis(600)).await;
            let spent = self.cluster.spent(&[&self.server]).await?.since(before);
            if spent.server + spent.postgres < 0.03 {
                return Ok(());
            }
        }
    }

    async fn measure(&mut self, way: Way, count: usize) -> Result<Measured, Problem> {
        let form = match way {
            Way::Peer(peer) => return self.peer(peer, count).await,
            Way::Compacted(form) | Way::Acknowledged(form) => form,
        };
        let compacts = matches!(way, Way::Compacted(_));
        if !compacts {
            self.hold_upkeep(true).await?;
        }
        let trades = load::trades(self.tapes(form), count);
        let sizes = self.sizes().await?;
        let before = self.cluster.spent(&[&self.server]).await?;
        let mut published = self.publish(form, trades).await?;
        if compacts {
            self.rest().await?;
        } else {
            // The view follows within milliseconds.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        self.cluster.checkpoint().await?;
        let spent = self.cluster.spent(&[&self.server]).await?.since(before);
        let mut measured = a_tick(spent, count, published.seconds, &mut published.latencies);
        let grown = self.sizes().await?;
        measured.log = (grown.log - sizes.log) / count as f64;
        measured.chunks = (grown.chunks - sizes.chunks) / (grown.compacted - sizes.compacted).max(1.0);
        if !compacts {
            self.hold_upkeep(false).await?;
            self.rest().await?;
        }
        Ok(measured)
    }

    async fn peer(&mut self, peer: Peer, count: usize) -> Result<Measured, Problem> {
        let trades = load::trades(&mut self.plain, count).remove(0);
        let before = self.cluster.spent(&[]).await?;
        let mut stored = peers::store(self.cluster, &self.peers, peer, &trades).await?;
        self.cluster.checkpoint().await?;
        let spent = self.cluster.spent(&[]).await?.since(before);
        let mut measured = a_tick(spent, count, stored.seconds, &mut stored.latencies);
        measured.log = stored.disk / count as f64;
        Ok(measured)
    }

    /// Takes the lease of the upkeep as another replica would have it, or gives it back. The server asks every 2 s.
    async fn hold_upkeep(&mut self, hold: bool) -> Result<(), Problem> {
        let lease = "UPDATE upkeep SET holder = 1, lease_until = CASE WHEN $1 THEN 9223372036854775807 ELSE 0 END";
        sqlx::query(lease).bind(hold).execute(&mut self.store).await?;
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        Ok(())
    }

    async fn sizes(&mut self) -> Result<Sizes, Problem> {
        let sizes = "
            SELECT pg_total_relation_size('segments')::DOUBLE PRECISION AS log,
                (pg_total_relation_size('chunks') + pg_total_relation_size('chunk_bytes'))::DOUBLE PRECISION AS chunks,
                (SELECT coalesce(sum(tick_count), 0) FROM chunks)::DOUBLE PRECISION AS compacted";
        Ok(sqlx::query_as(sizes).fetch_one(&mut self.store).await?)
    }
}

/// Bytes of the tables with their indexes, and ticks that are in chunks.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
struct Sizes {
    log: f64,
    chunks: f64,
    compacted: f64,
}

fn a_tick(spent: Spent, count: usize, seconds: f64, latencies: &mut [f64]) -> Measured {
    let count = count as f64;
    Measured {
        server: spent.server * 1e9 / count,
        postgres: spent.postgres * 1e9 / count,
        loader: spent.loader * 1e9 / count,
        wal: spent.wal / count,
        rate: count / seconds,
        p50: quantile(latencies, 0.5),
        p99: quantile(latencies, 0.99),
        ..Measured::default()
    }
}

type Reading = fn(&Measured) -> f64;

fn print(measured: &BTreeMap<&str, Vec<Measured>>) {
    let median =
        |case: &str, reading: Reading| quantile(&mut measured[case].iter().map(reading).collect::<Vec<_>>(), 0.5);
    let storing: Reading = |each| each.server + each.postgres;
    let everything: Reading = |each| each.server + each.postgres + each.loader;
    let copy = median(COPY, storing);
    for (case, way, _) in CASES.into_iter().filter(|(case, ..)| measured.contains_key(case)) {
        let figure = |metric, unit, reading: Reading, goal| {
            let peer = Some((COPY, median(COPY, reading))).filter(|(_, value)| case != COPY && *value > 0.0);
            Figure { case, metric, unit, value: median(case, reading), peer, goal }.print("ingest");
        };
        let cpu = median(case, storing);
        let goal = match case {
            COLUMNS => Some(("at least 4x under COPY, with compaction", cpu * 4.0 <= copy)),
            ACKNOWLEDGED => Some(("at least 5x under COPY, acknowledged", cpu * 5.0 <= copy)),
            _ => None,
        };
        figure("CPU of server and Postgres", "ns/tick", storing, goal);
        let ours = !matches!(way, Way::Peer(_));
        if ours {
            figure("CPU of the server", "ns/tick", |each| each.server, None);
            figure("CPU of Postgres", "ns/tick", |each| each.postgres, None);
        }
        figure("CPU of the loader", "ns/tick", |each| each.loader, None);
        let rate = median(case, |each| each.rate);
        let goal = (case == COLUMNS).then_some(("at least 1 M ticks/s, loader on the same two cores", rate >= 1e6));
        figure("acknowledged", "ticks/s", |each| each.rate, goal);
        if case == COLUMNS {
            let goal = ("at most 2,000: 1 M ticks/s of two cores", median(case, everything) <= 2_000.0);
            figure("CPU of server, Postgres and loader", "ns/tick", everything, Some(goal));
        }
        let goal = (case == COLUMNS).then_some(("at most 20", median(case, |each| each.wal) <= 20.0));
        figure("WAL", "B/tick", |each| each.wal, goal);
        let goal = (case == COLUMNS).then_some(("log at most 8", median(case, |each| each.log) <= 8.0));
        figure(if ours { "log on disk" } else { "table on disk" }, "B/tick", |each| each.log, goal);
        if matches!(way, Way::Compacted(_)) {
            let chunks = median(case, |each| each.chunks);
            let goal = (case == COLUMNS).then_some(("chunks at most 6", chunks <= 6.0));
            figure("chunks on disk, statistics and indexes included", "B/tick", |each| each.chunks, goal);
        }
        let batch = if ours { "a batch to its acknowledgement, 8 outstanding each" } else { "one commit" };
        for (share, reading) in [("p50", (|each| each.p50) as Reading), ("p99", |each| each.p99)] {
            let value = median(case, reading);
            Figure { case, metric: &format!("{batch}, {share}"), unit: "us", value, peer: None, goal: None }
                .print("ingest");
        }
    }
}
