//! Tapefeed's benchmarks. Each compares with its peers inside one run and prints one JSON object a line:
//! bench, case, metric, unit, value, peer, peer_value, ratio, goal, met.

mod base;
mod figure;
mod latest;
mod process;
mod ticks;

use std::path::PathBuf;

use clap::Parser;

/// Runs one benchmark.
#[derive(Debug, Parser)]
struct Options {
    /// Which: base, latest.
    name: String,
    /// About a minute instead of a full run.
    #[arg(long)]
    quick: bool,
    /// The server binary.
    #[arg(long)]
    server: PathBuf,
    /// A folder with real captures (`binance/*_trades.csv.gz`), to measure stored bytes on them too.
    #[arg(long, env = "TAPEFEED_SAMPLE_DATA")]
    sample_data: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    match options.name.as_str() {
        "base" => base::run(&options.server, options.quick, options.sample_data.as_deref()).await,
        "latest" => latest::run(options.quick).await,
        other => Err(format!("there is no benchmark {other}: base and latest are").into()),
    }
}
