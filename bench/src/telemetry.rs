//! What a silent collector costs: servers with traces off, and one with traces to a port that takes connections and
//! never answers.
//!
//! A round has fresh servers and two parts: two minutes of an even load on all of them at once, over which CPU and
//! memory are taken, and bursts at full speed in turns, for the rate. A second server without traces is there to tell
//! what is a difference and what is noise between processes: the figures are compared with what both have on average.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::ingest_service_client::IngestServiceClient;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_proto::v1::{publish_ticks_request, publish_ticks_response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::base::ingest::publish;
use crate::figure::{Figure, quantile};
use crate::process::Server;
use crate::ticks::{Tape, Trade, columns};

/// How long the even load of a round is.
const LOAD: Duration = Duration::from_secs(120);

/// And that of the quick run.
const QUICK_LOAD: Duration = Duration::from_secs(20);

/// Ticks of one batch.
const BATCH: usize = 1_000;

/// The time between two batches of the even load: a quarter of a million ticks a second for each server. With much less,
/// processors sleep between batches, and what waking up costs hides everything else.
const GAP: Duration = Duration::from_millis(4);

/// Batches of the even load that may wait for their acknowledgement: the server's credit.
const OUTSTANDING: usize = 8;

/// Instruments of the even load. Ticks wait in memory until a chunk of an instrument is full: with few instruments they
/// are few, and what is left to see is not their tide.
const INSTRUMENTS: u32 = 10;

/// Ticks between two looks at the memory.
const LOOK: usize = 10 * BATCH;

/// Ticks of one burst.
const BURST: usize = 100_000;

/// The servers of a round.
const NAMES: [&str; 3] = ["silent", "off", "off-again"];

/// What was measured of one of them, round by round; of the rate, burst by burst.
#[derive(Debug, Default)]
struct Measured {
    cpu: Vec<f64>,
    resident: Vec<f64>,
    peak: Vec<f64>,
    rate: Vec<f64>,
}

pub async fn run(binary: &Path, quick: bool) -> Result<(), Box<dyn std::error::Error>> {
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", silent.local_addr()?);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            held.push(connection);
        }
    });
    // A server costs some hundredths more or less by when its batches come and where its memory lies: as many rounds as
    // give each server each part of the time equally often.
    let (rounds, load, bursts) = if quick { (1, QUICK_LOAD, 3) } else { (6, LOAD, 8) };
    let trades: Vec<Trade> = Tape::new(100, 1e6).take(BURST).collect();
    let mut measured = NAMES.map(|_| Measured::default());
    for round in 0..rounds {
        let folder = tempfile::tempdir()?;
        let mut servers = Vec::new();
        for name in NAMES {
            let traced = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
            let variables = if name == "silent" { &traced[..] } else { &[] };
            servers.push(Server::start_with(binary, &folder.path().join(format!("{name}.db")), variables).await?);
        }
        // Caches and pools are filled before anything counts.
        for server in &servers {
            publish(server, "warm", &trades, true).await?;
        }
        let [silent, off, again] = &servers[..] else { return Err("a round has three servers".into()) };
        // Each has its own part of the time between two batches, another one in each round: who comes first finds
        // processors asleep, and pays for it.
        let part = |which: u32| GAP * ((which + round) % 3) / 3;
        let costs = tokio::try_join!(
            even_load(silent, load, part(0)),
            even_load(off, load, part(1)),
            even_load(again, load, part(2)),
        )?;
        for ((measured, server), (cpu, resident)) in measured.iter_mut().zip(&servers).zip([costs.0, costs.1, costs.2])
        {
            measured.cpu.push(cpu);
            measured.resident.push(resident);
            measured.peak.push(server.peak_memory_mib());
            eprintln!("round {round}: {cpu:.0} ns/tick, {resident:.1} MiB");
        }
        for burst in 0..bursts {
            for turn in 0..NAMES.len() {
                // Nobody is always the first.
                let which = (turn + burst) % NAMES.len();
                let (_, rate) = publish(&servers[which], &format!("burst-{burst}"), &trades, true).await?;
                measured[which].rate.push(rate);
            }
        }
    }
    let average = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let [silent, off, again] = measured.map(|Measured { cpu, resident, peak, mut rate }| {
        [average(&cpu), average(&resident), average(&peak), quantile(&mut rate, 0.5)]
    });
    let off = std::array::from_fn::<f64, 4, _>(|index| (off[index] + again[index]) / 2.0);
    let metrics = [
        ("CPU of the server, compaction included", "ns/tick", "within 3 % of traces off"),
        ("memory resident under load", "MiB", "at most 16 MiB over traces off"),
        ("most memory resident", "MiB", "at most 16 MiB over traces off"),
        ("acknowledged in bursts", "ticks/s", "at least 95 % of traces off"),
    ];
    let met = [
        silent[0] <= off[0] * 1.03,
        silent[1] <= off[1] + 16.0,
        silent[2] <= off[2] + 16.0,
        silent[3] >= off[3] * 0.95,
    ];
    for (index, (metric, unit, goal)) in metrics.into_iter().enumerate() {
        let peer = Some(("traces off", off[index]));
        let case = "publish columns of 1,000, silent collector";
        Figure { case, metric, unit, value: silent[index], peer, goal: Some((goal, met[index])) }.print("telemetry");
        let case = "publish columns of 1,000, traces off again: the noise";
        Figure { case, metric, unit, value: again[index], peer, goal: None }.print("telemetry");
    }
    Ok(())
}

/// Publishes a batch at even times until all are acknowledged; CPU of the server in ns a tick, and the memory that it
/// has resident in the second half of the time, in MiB: the middle of many looks, because the peak is a moment's chance.
async fn even_load(server: &Server, load: Duration, part: Duration) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let mut client = IngestServiceClient::connect(server.url.clone()).await?;
    let (sender, receiver) = tokio::sync::mpsc::channel(OUTSTANDING);
    let claim = proto::ProducerClaim { producer_id: "even".into(), backfill: true, held_fence: 0 };
    sender.send(proto::PublishTicksRequest { message: Some(publish_ticks_request::Message::Claim(claim)) }).await?;
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut responses = client.publish_ticks(stream).await?.into_inner();
    let cpu = server.cpu_seconds();
    let credit = Arc::new(Semaphore::new(OUTSTANDING));
    let granted = credit.clone();
    let sending = tokio::spawn(async move {
        let mut tape = Tape::new(INSTRUMENTS, 1e6);
        let mut due = interval_at(tokio::time::Instant::now() + part, GAP);
        // Whoever cannot keep up is behind, and catches up.
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let end = Instant::now() + load;
        let mut batch_seq = 0;
        while Instant::now() < end {
            due.tick().await;
            let Ok(permit) = granted.acquire().await else { break };
            permit.forget();
            batch_seq += 1;
            let trades: Vec<Trade> = tape.by_ref().take(BATCH).collect();
            let batch = proto::PublishBatch { batch_seq, content: Some(Content::Columns(columns(&trades))) };
            let message = Some(publish_ticks_request::Message::Batch(batch));
            if sender.send(proto::PublishTicksRequest { message }).await.is_err() {
                break;
            }
        }
    });
    // The stream ends when the sender is gone and everything is acknowledged.
    let mut acknowledged = 0;
    let begin = Instant::now();
    let mut resident = Vec::new();
    while let Some(response) = responses.message().await? {
        if let Some(publish_ticks_response::Message::Ack(_)) = response.message {
            acknowledged += BATCH;
            credit.add_permits(1);
            if begin.elapsed() > load / 2 && acknowledged % LOOK == 0 {
                resident.push(server.resident_memory_mib());
            }
        }
    }
    sending.await?;
    // Compaction of what was published is part of the cost.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    Ok(((server.cpu_seconds() - cpu) * 1e9 / acknowledged as f64, quantile(&mut resident, 0.5)))
}
