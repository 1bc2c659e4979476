//! The arguments that all subcommands share, and the way from arguments to an exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tapefeed_client::Client;

use crate::failure::Failure;
use crate::output::Output;
use crate::{
    average, bars, export, health, history, import, instruments, latest, moving_average, publish, replay, runs,
    statistics, watch,
};

/// Read, watch, publish and import market data of a Tapefeed server.
///
/// Times are given as RFC 3339 (2024-08-09T12:00:00Z), as a date alone (midnight in UTC), or as Unix time: with a unit
/// (1723161255s, 1723161255342ms, ...us, ...ns), or as bare digits, whose unit follows from their count: up to 11 digits
/// are seconds, 12 to 14 milliseconds, 15 to 17 microseconds, 18 and more nanoseconds.
///
/// Exit codes: 0 on success, 1 on an error, 2 on wrong usage.
#[derive(Debug, Parser)]
#[command(name = "tapefeed", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// The address of the server
    #[arg(long, global = true, env = "TAPEFEED_SERVER", default_value = "http://127.0.0.1:50051", value_name = "URL")]
    server: String,

    /// Print JSON, one object a line: decimals as text, times as RFC 3339 with nanoseconds
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Instruments(instruments::Args),
    Latest(latest::Args),
    History(history::Args),
    Average(average::Args),
    Statistics(statistics::Args),
    Bars(bars::Args),
    MovingAverage(moving_average::Args),
    Export(export::Args),
    Watch(watch::Args),
    Import(import::Args),
    Runs(runs::Args),
    Publish(publish::Args),
    Replay(replay::Args),
    Health(health::Args),
}

/// Parses the arguments, runs the subcommand, and prints what went wrong.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let server = cli.server.clone();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tapefeed: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(cli));
    // Reading standard input blocks a thread that nothing can wake: do not wait for it.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            // If nobody reads the message either, the exit code remains.
            let _ = writeln!(std::io::stderr(), "tapefeed: {}", failure.explain(&server));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let client =
        Client::builder(cli.server).user_agent(concat!("tapefeed-cli/", env!("CARGO_PKG_VERSION"))).connect().await?;
    let mut output = Output::stdout(cli.json);
    match cli.command {
        Command::Instruments(args) => instruments::run(&client, args, &mut output).await?,
        Command::Latest(args) => latest::run(&client, args, &mut output).await?,
        Command::History(args) => history::run(&client, args, &mut output).await?,
        Command::Average(args) => average::run(&client, args, &mut output).await?,
        Command::Statistics(args) => statistics::run(&client, args, &mut output).await?,
        Command::Bars(args) => bars::run(&client, args, &mut output).await?,
        Command::MovingAverage(args) => moving_average::run(&client, args, &mut output).await?,
        Command::Export(args) => export::run(&client, args, &mut output).await?,
        Command::Watch(args) => watch::run(&client, args, &mut output).await?,
        Command::Import(args) => import::run(&client, args, &mut output).await?,
        Command::Runs(args) => runs::run(&client, args, &mut output).await?,
        Command::Publish(args) => publish::run(&client, args, &mut output).await?,
        Command::Replay(args) => replay::run(&client, args, &mut output).await?,
        Command::Health(args) => health::run(&client, args, &mut output).await?,
    }
    output.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usual_lines_parse() {
        for line in [
            "tapefeed instruments --venue NASDAQ",
            "tapefeed latest AAPL MSFT --json",
            "tapefeed history AAPL --limit 5 --start 2024-08-09",
            "tapefeed history AAPL --all --period 1h30m",
            "tapefeed average BTCUSDT --method vwap --decimals 4 --end 1723161255342ms",
            "tapefeed statistics BTCUSDT --venue BINANCE",
            "tapefeed export AAPL --venue NASDAQ --start 2024-08-09 --format parquet --output ticks.parquet",
            "tapefeed watch",
            "tapefeed watch AAPL --from-cursor AQID+g==",
            "tapefeed watch --snapshot --conflate 250ms --backfill",
            "tapefeed watch AAPL --conflate 0 --start-time 2024-08-09 --if-expired oldest",
            "tapefeed import a.csv b.csv.gz --map time=ts,price=px --time-unit ms --venue X --symbol Y",
            "tapefeed runs",
            "tapefeed bars PETR4 --venue B3 --published --start 2024-08-08 --end 2024-08-10",
            "tapefeed bars BTCUSDT --interval 5m --last 3 --fill previous --forming",
            "tapefeed bars BTCUSDT --interval 1s --follow --forming --venue BINANCE",
            "tapefeed bars BTCUSDT --interval 1d --all --start 2024-08-09 --end 1723161255342ms",
            "tapefeed moving-average BTCUSDT --window 20 --interval 1m --exponential --period 1h",
            "tapefeed moving-average BTCUSDT --window 5 --decimals 2 --venue BINANCE",
            "tapefeed runs show run-1",
            "tapefeed runs rejects run-1 --json",
            "tapefeed runs cancel run-1",
            "tapefeed publish --producer feed-1 --backfill",
            "tapefeed replay capture.jsonl.gz --speed 60 --as-live",
            "tapefeed replay a.csv --speed max --venue X --symbol Y --time-unit ms",
            "tapefeed --server http://example.com:1 health",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "tapefeed",
            "tapefeed latest",
            "tapefeed history AAPL --all --limit 5",
            "tapefeed history AAPL --start soon",
            "tapefeed average AAPL --period 5m --start 2024-08-09",
            "tapefeed average AAPL --decimals 37",
            "tapefeed average AAPL --period 2mo",
            "tapefeed bars PETR4 --published",
            "tapefeed bars PETR4 --venue B3 --published --interval 1m",
            "tapefeed bars PETR4 --last 0",
            "tapefeed bars PETR4 --follow --period 5m",
            "tapefeed bars PETR4 --last 5 --all",
            "tapefeed bars PETR4 --fill zero",
            "tapefeed moving-average BTCUSDT",
            "tapefeed moving-average BTCUSDT --window 0",
            "tapefeed runs rejects",
            "tapefeed export AAPL --format xml",
            "tapefeed watch --from-cursor ?",
            "tapefeed watch --snapshot --start-time 2024-08-09",
            "tapefeed watch --conflate soon",
            "tapefeed import",
            "tapefeed import a.csv --map colour=red",
            "tapefeed import a.csv --time-unit h",
            "tapefeed import a.csv --delimiter ab",
            "tapefeed replay",
            "tapefeed replay a.csv --speed 0",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_err(), "{line}: {parsed:?}");
        }
    }
}
