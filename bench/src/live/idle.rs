//! What subscriptions cost in memory: those that wait, and those that nobody reads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::Problem;
use super::case::{BASE, Case, GRPC_JS, Wanted};
use super::h2::{self, Received};
use super::load::Load;
use super::ours::{SUBSCRIBE, request};
use crate::figure::Figure;
use crate::process::Server;

const STREAMS: usize = 10_000;

/// Streams of a connection: as many as the server lets it have.
const EACH: usize = 100;

/// Streams that nobody reads.
const FROZEN: usize = 500;

pub async fn run(binary: &Path, quick: bool) -> Result<(), Problem> {
    idle(binary, "10,000 idle subscriptions of everything, 100 a connection", BASE).await?;
    let few = Case { wanted: Wanted::Sets(5), ..BASE };
    idle(binary, "10,000 idle subscriptions of 5 instruments, 100 a connection", few).await?;
    frozen(binary, if quick { 100_000 } else { 400_000 }).await
}

async fn idle(binary: &Path, name: &'static str, case: Case) -> Result<(), Problem> {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let server = Server::start(binary, &folder.path().join("idle.db")).await?;
    let mut load = Load::start(&server.url, "bench-idle").await?;
    load.publish(2_000).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = server.resident_memory_mib() * 1_024.0;
    let address = server.url.trim_start_matches("http://");
    let (mut streams, mut tasks, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for connection in 0..STREAMS / EACH {
        let (cpu, received) = (server.cpu_seconds(), (0..EACH).map(|_| Arc::<Received>::default()).collect::<Vec<_>>());
        let requests = (0..EACH).map(|stream| request(&case, connection * EACH + stream)).collect();
        tasks.push(h2::subscribe(address, SUBSCRIBE, requests, received.clone(), case.settings).await?);
        let begun = Instant::now();
        while received.iter().any(|stream| stream.bytes.load(Ordering::Acquire) == 0) {
            if begun.elapsed() > Duration::from_secs(30) {
                return Err("not all subscriptions are acknowledged".into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        costs.push((server.cpu_seconds() - cpu) * 1e6 / EACH as f64);
        streams.extend(received);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let each = (server.resident_memory_mib() * 1_024.0 - before) / STREAMS as f64;
    let cpu = server.cpu_seconds();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle = (server.cpu_seconds() - cpu) * 1e6 / 5.0 / STREAMS as f64;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let figure = |metric, unit, value, peer, goal| Figure { case: name, metric, unit, value, peer, goal }.print("live");
    figure("memory of a subscription", "KiB", each, None, Some(("at most 15 KB", each * 1.024 <= 15.0)));
    figure("CPU of a subscription that waits, a Progress each second", "us/s", idle, None, None);
    let mean = |costs: &[f64]| costs.iter().sum::<f64>() / costs.len() as f64;
    let tenth = costs.len() / 10;
    let (first, last) = (mean(&costs[..tenth]), mean(&costs[costs.len() - tenth..]));
    figure("CPU of opening one, the last 1,000", "us", last, Some(("the first 1,000", first)), None);
    Ok(())
}

/// The memory that readers cost who have stopped reading while others go on.
async fn frozen(binary: &Path, ticks: usize) -> Result<(), Problem> {
    let mut memory = Vec::new();
    for frozen in [0, FROZEN] {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let server = Server::start(binary, &folder.path().join("frozen.db")).await?;
        let mut load = Load::start(&server.url, "bench-frozen").await?;
        load.publish(2_000).await?;
        let address = server.url.trim_start_matches("http://");
        let mut sockets: Vec<TcpStream> = Vec::new();
        for stream in 0..frozen {
            let mut socket = TcpStream::connect(address).await?;
            socket.write_all(&h2::opening(address, SUBSCRIBE, &[request(&BASE, stream)], GRPC_JS)).await?;
            sockets.push(socket);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = server.resident_memory_mib() * 1_024.0;
        for _ in 0..ticks / 500 {
            load.publish(500).await?;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        memory.push(server.resident_memory_mib() * 1_024.0 - before);
    }
    let each = (memory[1] - memory[0]) / FROZEN as f64;
    let case = "500 subscriptions of everything that nobody reads, own connections, windows of 64 KiB";
    // What waits for the socket, a step of blocks, and what was gathered for a write.
    let goal = Some(("its bounds: at most 1.5 MiB", each <= 1_536.0));
    Figure { case, metric: "memory of a frozen reader", unit: "KiB", value: each, peer: None, goal }.print("live");
    Ok(())
}
