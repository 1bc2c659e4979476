//! Whole replicas over one store in memory, publishers and subscribers on a simulated network, under a simulated clock.
//!
//! Everything in a run is drawn from its seed, one thread does all of it, and nothing reads the time: the same seed is the
//! same run, which is asserted by the hash of its trace. `replica` is what runs on a host, `bus` and `weather` are what
//! it suffers, `nemesis` the trouble; `publisher` and `reader` are clients on bare stubs, which come back whatever
//! happens; `oracle` and `record` say what the contract promises.
//!
//! ```sh
//! TAPEFEED_SIMULATION_SEED=17 cargo test --release -p tapefeed-simulation -- --nocapture
//! TAPEFEED_SIMULATION_SEEDS=20000 cargo test --release -p tapefeed-simulation
//! ```

mod bus;
mod nemesis;
mod oracle;
mod publisher;
mod reader;
mod record;
mod replica;
mod weather;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::world::{Counts, Outcome, run};

/// Seeds of a run of the suite.
const SEEDS: u64 = 200;

/// Threads that run seeds: each run has one.
const THREADS: u64 = 2;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var_os(name)?;
    Some(text.to_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name} is no number")))
}

/// One seed, told in full.
fn tell(seed: u64) {
    let (judged, outcome) = run(seed, true);
    for line in &outcome.told {
        println!("{line}");
    }
    println!(
        "seed {seed}: {judged:?}, {:?} simulated, trace {:016x}, {:?}",
        outcome.simulated, outcome.hash, outcome.counts
    );
    assert_eq!(judged, Ok(()));
}

#[test]
fn two_hundred_seeds_keep_every_promise_and_are_the_same_each_time() {
    if let Some(seed) = number("TAPEFEED_SIMULATION_SEED") {
        return tell(seed);
    }
    let seeds = number("TAPEFEED_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let bad = Mutex::new(Vec::new());
    let total = Mutex::new(Counts::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    match twice(seed) {
                        Ok(outcome) => total.lock().expect("nobody panics in here").sum(&outcome.counts),
                        Err(problem) => bad.lock().expect("nobody panics in here").push((seed, problem)),
                    }
                }
            });
        }
    });
    println!("{seeds} seeds, each twice: {:?}", total.into_inner().expect("all threads have ended"));
    let mut bad = bad.into_inner().expect("all threads have ended");
    bad.sort();
    for (seed, problem) in &bad {
        println!("seed {seed}: {problem}");
        println!(
            "  again: TAPEFEED_SIMULATION_SEED={seed} cargo test --release -p tapefeed-simulation -- \
             --nocapture"
        );
    }
    assert!(bad.is_empty(), "{} of {seeds} seeds break a promise: {:?}", bad.len(), bad.iter().map(|(seed, _)| seed));
}

/// Runs a seed twice: it keeps every promise, and is the same run.
fn twice(seed: u64) -> Result<Outcome, String> {
    let (judged, once) = run(seed, false);
    judged?;
    let (judged, again) = run(seed, false);
    judged?;
    let trace = |outcome: &Outcome| (outcome.hash, outcome.events, outcome.simulated, outcome.counts);
    if trace(&once) != trace(&again) {
        return Err(format!("two runs differ: {:?} and {:?}", trace(&once), trace(&again)));
    }
    Ok(once)
}
