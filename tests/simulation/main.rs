//! Whole replicas over one store in memory, publishers and subscribers on a simulated network, under a simulated clock.
//!
//! Everything in a run is drawn from its seed, one thread does all of it, and nothing reads the time: the same seed is the
//! same run, which is asserted by the hash of its trace. `replica` is what runs on a host, `bus` and `weather` are what
//! it suffers, `nemesis` the trouble; `publisher` and `reader` are clients on bare stubs, which come back whatever
//! happens; `oracle` and `record` say what the contract promises. Each run is a process of its own (see `entropy`).
//!
//! ```sh
//! cargo test --workspace --test simulation  # 200 seeds, each twice
//! cargo test --workspace --test simulation -- seeds 20000
//! cargo test --workspace --test simulation -- seed 17  # one of them, told in full
//! ```

mod bus;
mod entropy;
mod nemesis;
mod oracle;
mod publisher;
mod reader;
mod record;
mod replica;
mod weather;
mod world;

use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::world::{Counts, run};

/// Seeds of a run of the suite.
const SEEDS: u64 = 200;

/// Runs at a time.
const AT_ONCE: usize = 2;

/// How a run that failed is repeated.
const AGAIN: &str = "cargo test --workspace --test simulation -- seed";

fn main() -> ExitCode {
    // What cargo passes to every test binary is not for this one.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let number = |word: &String| word.parse().expect("a number");
    match words.as_slice() {
        [] => all(SEEDS),
        [word, count] if word == "seeds" => all(number(count)),
        [word, seed] if word == "seed" => one(number(seed), true),
        [word, count] if word == "find" => find(number(count)),
        [word, seed] if word == "quietly" => one(number(seed), false),
        other => {
            eprintln!("{other:?} is neither `seeds COUNT` nor `seed NUMBER`");
            ExitCode::FAILURE
        }
    }
}

/// One run. Its last line is its trace: the same for each run of the seed.
fn one(seed: u64, tell: bool) -> ExitCode {
    entropy::seed(seed);
    let (judged, outcome) = run(seed, tell);
    for line in &outcome.told {
        println!("{line}");
    }
    if let Err(problem) = &judged {
        println!("seed {seed}: {problem}");
    }
    println!("trace {:016x} of {} events in {:?}: {}", outcome.hash, outcome.events, outcome.simulated, outcome.counts);
    if judged.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs seeds, each twice: they keep every promise, and are the same each time.
fn all(seeds: u64) -> ExitCode {
    let next = AtomicU64::new(0);
    let bad = Mutex::new(Vec::new());
    let total = Mutex::new(Counts::default());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    match twice(seed) {
                        Ok(counts) => total.lock().expect("nobody panics in here").sum(&counts),
                        Err(problem) => bad.lock().expect("nobody panics in here").push((seed, problem)),
                    }
                }
            });
        }
    });
    let mut bad = bad.into_inner().expect("all threads have ended");
    bad.sort();
    for (seed, problem) in &bad {
        println!("seed {seed}: {problem}\n  again: {AGAIN} {seed}");
    }
    println!("{seeds} seeds, each twice; {} failed", bad.len());
    println!("{}", total.into_inner().expect("all threads have ended"));
    if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Looks for the first seed that finds something wrong: for those who have planted it.
fn find(seeds: u64) -> ExitCode {
    for seed in 0..seeds {
        if let Err(problem) = process(seed) {
            println!("found by seed {seed}: {problem}");
            return ExitCode::SUCCESS;
        }
    }
    println!("not found by {seeds} seeds");
    ExitCode::FAILURE
}

/// Runs a seed in a process; its trace, or what went wrong.
fn process(seed: u64) -> Result<String, String> {
    let own = std::env::current_exe().expect("the system knows what it runs");
    let output = Command::new(own).args(["quietly", &seed.to_string()]).output();
    let output = output.expect("the system starts what it runs already");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(told.lines().last().unwrap_or_default().to_owned());
    }
    Err(format!("{told}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs a seed in two processes.
fn twice(seed: u64) -> Result<Counts, String> {
    let (once, again) = (process(seed)?, process(seed)?);
    if once != again {
        return Err(format!("two runs differ\n  {once}\n  {again}"));
    }
    Counts::parse(&once).ok_or_else(|| format!("not the end of a run: {once}"))
}
