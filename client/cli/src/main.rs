//! The command line of Tapefeed.
//!
//! One file per noun, each with its arguments and a `run`; what people and programs see is made in `output`, times in
//! and out in `time`. Start reading at `cli`.

mod average;
mod bars;
mod cli;
mod export;
mod failure;
mod file;
mod follow;
mod health;
mod history;
mod import;
mod instruments;
mod latest;
mod lines;
mod moving_average;
mod output;
mod publish;
mod published;
mod range;
mod replay;
mod runs;
mod statistics;
mod table;
mod time;
mod visible;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
