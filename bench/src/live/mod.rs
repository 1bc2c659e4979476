//! Live fan-out: CPU of the sender for each delivered tick, beside raw TCP, plain tonic, Redis Pub/Sub and NATS.
//!
//! The server is the real one, over a store file in memory, so that the disk does not set the pace. What it costs to take
//! and store the ticks is measured without subscribers and subtracted. Everybody is as far ahead as the [`case`] says:
//! in turns nobody may put messages together, ahead all may. [`ours`] drives the server, [`theirs`] the peers.

mod case;
mod child;
mod client;
mod h2;
mod idle;
mod latency;
pub mod load;
mod ours;
pub mod peer;
mod text;
mod theirs;

use std::path::Path;
use std::time::Duration;

use crate::figure::{Figure, quantile};
use crate::process::Server;
use crate::ticks::FIRST_TIME;
use case::{CASES, Case, Pace, QUICK_CASES};

type Problem = Box<dyn std::error::Error>;

/// What was measured of a sender.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    /// CPU nanoseconds a delivered tick.
    cpu: f64,
    /// Delivered ticks a second.
    rate: f64,
    /// Bytes a delivered tick on the wire, without HTTP/2's frames.
    bytes: f64,
}

pub async fn run(binary: &Path, quick: bool, nats: Option<&Path>, only: Option<&str>) -> Result<(), Problem> {
    let (rounds, span) = if quick { (3, Duration::from_millis(800)) } else { (3, Duration::from_millis(1_800)) };
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let cases = if quick { &CASES[..QUICK_CASES] } else { CASES };
    let is_asked = |name: &str| only.is_none_or(|part| name.contains(part));
    let server = Server::start(binary, &folder.path().join("live.db")).await?;
    let mut time = FIRST_TIME;
    for case in cases.iter().filter(|case| is_asked(case.name)) {
        let mut ours = Vec::new();
        let mut peers: [(&str, Vec<Measured>); 4] = [
            ("raw TCP, the same bytes and writes", Vec::new()),
            ("tonic, a channel and an encoding each", Vec::new()),
            ("Redis Pub/Sub, the same payload", Vec::new()),
            ("NATS, the same payload", Vec::new()),
        ];
        for _ in 0..rounds {
            let (measured, payload) = ours::measure(&server, case, span, &mut time).await?;
            ours.push(measured);
            if !case.compared {
                continue;
            }
            peers[0].1.push(theirs::raw_tcp(case, measured.bytes, span).await?);
            // Its rows are what a tutorial would write, in whichever encoding ours are.
            peers[1].1.push(theirs::plain_tonic(case, span).await?);
            peers[2].1.push(theirs::by_text(case, payload, span, None).await?);
            if nats.is_some() {
                peers[3].1.push(theirs::by_text(case, payload, span, nats).await?);
            }
        }
        report(case, &ours, &peers);
    }
    drop(server);
    if is_asked("client") {
        client::run(binary, quick).await?;
    }
    if is_asked("latency") {
        let server = Server::start(binary, &folder.path().join("latency.db")).await?;
        latency::run(&server, quick).await?;
    }
    if is_asked("idle") {
        idle::run(binary, quick).await?;
    }
    Ok(())
}

fn median(measured: &[Measured], of: fn(&Measured) -> f64) -> f64 {
    quantile(&mut measured.iter().map(of).collect::<Vec<_>>(), 0.5)
}

fn report(case: &Case, ours: &[Measured], peers: &[(&str, Vec<Measured>)]) {
    let cpu = median(ours, |measured| measured.cpu);
    let figure =
        |metric, unit, value, peer, goal| Figure { case: case.name, metric, unit, value, peer, goal }.print("live");
    figure("delivered", "ticks/s", median(ours, |measured| measured.rate), None, None);
    figure("message bytes", "B/tick", median(ours, |measured| measured.bytes), None, None);
    let metric = "server CPU a delivered tick";
    if !case.compared {
        figure(metric, "ns", cpu, None, None);
    }
    for (index, (name, peer)) in peers.iter().enumerate() {
        if peer.is_empty() {
            continue;
        }
        let theirs = median(peer, |measured| measured.cpu);
        let goal = goal(case, index).map(|(words, most)| (words, cpu / theirs <= most));
        figure(metric, "ns", cpu, Some((name, theirs)), goal);
    }
}

/// The goal beside a peer, and our share of its CPU at most.
fn goal(case: &Case, peer: usize) -> Option<(&'static str, f64)> {
    if case.subscribers != 100 {
        return None;
    }
    match (peer, case.pace, case.columns, case.ticks) {
        (0, Pace::Turns | Pace::Every(0), _, 64) => Some(("at most 2x raw TCP", 2.0)),
        (0, Pace::Turns | Pace::Every(0), _, 1) => Some(("at most 3x raw TCP", 3.0)),
        (1, Pace::Ahead(_), true, 1) => Some(("15x under tonic", 1.0 / 15.0)),
        (2, Pace::Ahead(_), true, 1) => Some(("8x under Redis", 1.0 / 8.0)),
        (3, Pace::Ahead(_), true, 1) => Some(("15x under NATS", 1.0 / 15.0)),
        _ => None,
    }
}
