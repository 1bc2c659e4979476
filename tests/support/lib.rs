//! What the tests of behaviour stand on: the real binaries as child processes, and bare stubs of the contract.
//!
//! It knows the command lines and the contract, and must not know the server's inside: nothing here imports
//! `tapefeed-server`. Everything it starts is private to one test, has a deadline, and is gone when the test is,
//! however the test ends. Start reading at [`server`].

pub mod checker;
pub mod cli;
pub mod collector;
pub mod columns;
pub mod combination;
pub mod cut;
pub mod database;
pub mod exact;
pub mod file;
pub mod guard;
pub mod http;
pub mod import;
pub mod memory;
pub mod mute;
pub mod power;
mod private;
pub mod process;
pub mod publisher;
pub mod redis_server;
pub mod refusal;
pub mod scrape;
pub mod server;
pub mod strace;
pub mod stubs;
pub mod stumbling;
pub mod values;
pub mod wait;

pub use cli::Cli;
pub use combination::Combination;
pub use database::Database;
pub use publisher::Publisher;
pub use server::{Options, Server};
pub use stubs::Stubs;
pub use wait::{eventually, within};
