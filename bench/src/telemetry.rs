//! What a silent collector costs: durable ingest with traces off, and with traces to a port that takes connections and
//! never answers. Both servers run side by side and take turns, so that the machine's moods hit both.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::base::ingest::publish;
use crate::figure::{Figure, quantile};
use crate::process::Server;
use crate::ticks::{Tape, Trade};

/// How long the full run publishes, both servers together: long enough for a queue that is not bounded to show.
const FULL: Duration = Duration::from_secs(240);

/// How long the quick run does.
const QUICK: Duration = Duration::from_secs(30);

/// Ticks of one turn.
const TURN: usize = 100_000;

pub async fn run(binary: &Path, quick: bool) -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", silent.local_addr()?);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            held.push(connection);
        }
    });
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let off = Server::start(binary, &folder.path().join("off.db")).await?;
    let traced = Server::start_with(binary, &folder.path().join("traced.db"), &variables).await?;
    let trades: Vec<Trade> = Tape::new(100, 1e6).take(TURN).collect();
    // Caches and pools are filled before anything counts.
    for server in [&off, &traced] {
        publish(server, "warm", &trades, true).await?;
    }
    let (mut off_cpu, mut traced_cpu, mut off_rate, mut traced_rate) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let end = Instant::now() + if quick { QUICK } else { FULL };
    let mut turn = 0;
    while Instant::now() < end {
        let both = [(&off, &mut off_cpu, &mut off_rate), (&traced, &mut traced_cpu, &mut traced_rate)];
        for (server, cpus, rates) in both {
            let (cpu, rate) = publish(server, &format!("turn-{turn}"), &trades, true).await?;
            cpus.push(cpu);
            rates.push(rate);
        }
        turn += 1;
    }
    let case = "publish columns of 1,000, silent collector";
    let print = |metric, unit, value: f64, peer: f64, goal| {
        Figure { case, metric, unit, value, peer: Some(("traces off", peer)), goal: Some(goal) }.print("telemetry");
    };
    let (cpu, peer) = (quantile(&mut traced_cpu, 0.5), quantile(&mut off_cpu, 0.5));
    let goal = ("within 3 % of traces off", cpu <= peer * 1.03);
    print("CPU of the server, compaction included", "ns/tick", cpu, peer, goal);
    let (rate, peer) = (quantile(&mut traced_rate, 0.5), quantile(&mut off_rate, 0.5));
    print("acknowledged", "ticks/s", rate, peer, ("at least 95 % of traces off", rate >= peer * 0.95));
    let (memory, peer) = (traced.peak_memory_mib(), off.peak_memory_mib());
    print("most memory resident", "MiB", memory, peer, ("at most 16 MiB over traces off", memory <= peer + 16.0));
    Ok(())
}
