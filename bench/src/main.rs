//! Tapefeed's benchmarks. Each compares with its peers inside one run and prints one JSON object a line:
//! bench, case, metric, unit, value, peer, peer_value, ratio, goal, met.

mod base;
mod figure;
mod history;
mod ingest;
mod latest;
mod live;
mod process;
mod soak;
mod telemetry;
mod ticks;

use std::path::PathBuf;

use clap::Parser;

/// The server's, so that what of it runs in here costs what it costs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs one benchmark.
#[derive(Debug, Parser)]
struct Options {
    /// Which: base, history, ingest, latest, live, soak or telemetry.
    name: String,
    /// About a minute instead of a full run.
    #[arg(long)]
    quick: bool,
    /// Of live and ingest, only the cases with this in their names; also client, latency, idle and replicas. Of history
    /// codec, compaction or headers alone.
    #[arg(long)]
    only: Option<String>,
    /// The server binary.
    #[arg(long)]
    server: PathBuf,
    /// A folder with real captures (`binance/*_trades.csv.gz`), to measure stored bytes on them too.
    #[arg(long, env = "TAPEFEED_SAMPLE_DATA")]
    sample_data: Option<PathBuf>,
    /// The program of a NATS server, to compare with it too.
    #[arg(long)]
    nats: Option<PathBuf>,
    /// A Postgres on which databases may be made, for `history`.
    #[arg(long)]
    database: Option<String>,
    /// A Python with the peers of `history`.
    #[arg(long)]
    python: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|name| name == "peer") {
        return live::peer::run(&arguments[2..]);
    }
    tokio::runtime::Runtime::new()?.block_on(run(Options::parse()))
}

async fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    match options.name.as_str() {
        "base" => base::run(&options.server, options.quick, options.sample_data.as_deref()).await,
        "history" => {
            let (database, python) = (options.database.as_deref(), options.python.as_deref());
            let world = history::World { server: &options.server, database, python };
            history::run(world, options.quick, options.only.as_deref()).await
        }
        "ingest" => ingest::run(&options.server, options.quick, options.only.as_deref()).await,
        "latest" => latest::run(options.quick).await,
        "live" => live::run(&options.server, options.quick, options.nats.as_deref(), options.only.as_deref()).await,
        "soak" => soak::run(&options.server, options.quick).await,
        "telemetry" => telemetry::run(&options.server, options.quick).await,
        other => {
            Err(format!("there is no benchmark {other}: base, history, ingest, latest, live, soak and telemetry are")
                .into())
        }
    }
}
