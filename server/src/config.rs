//! Every option, with its default and unit: by flag, else by environment, else by file, else the default.
//!
//! The only module that reads the environment. It yields plain data and does nothing with it; floors below receive
//! values, never the configuration.

mod addresses;
mod file;
mod traces;
mod transport;
mod units;

use crate::accept::Limits;
use crate::tape::compactor::Policy;
use crate::tape::{HEADER_CACHE_BYTES, LEAST_HEADER_CACHE_BYTES};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::ingest::feed::demo::MAX_RATE;
use crate::query::CHUNK_CACHE_BYTES;
use addresses::Loopback;
pub use addresses::{BusUrl, StoreUrl};
use file::File;
pub use traces::{SampledShare, Traces};
use transport::TransportOptions;
use units::{ByteCount, Span};

/// Where to listen.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50051);

/// Where ticks are kept.
const STORE_PATH: &str = "./tapefeed.db";

/// How long the log is kept.
const LOG_RETENTION: Duration = Duration::from_secs(24 * 3_600);

/// How many bytes of log are kept.
const LOG_RETENTION_BYTES: u64 = 8 << 30;

/// What is logged.
const LOG: &str = "info";

/// How long the demo keeps history, so that it can run for ever.
const DEMO_HISTORY: Duration = Duration::from_secs(24 * 3_600);

/// Synthetic ticks each second: lively to watch, and nothing for the machine.
const DEMO_RATE: u32 = 100;

/// The seed of the synthetic ticks.
const DEMO_SEED: u64 = 1;

/// Self-hosted market data: exact ticks, one cursor over history and live, gRPC.
#[derive(Debug, Parser)]
#[command(name = "tapefeed-server", version, about)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve, with synthetic NASDAQ and NYSE feeds into a store of their own.
    Demo {
        /// The demo's store. Never taken from the environment or the file, so that invented ticks do not get into real ones.
        #[arg(long, value_name = "URL", default_value = "sqlite://./tapefeed-demo.db")]
        store: StoreUrl,
        /// Synthetic ticks each second. [default: 100]
        #[arg(long, value_name = "TICKS/S", env = "TAPEFEED_DEMO_RATE", value_parser = demo_rates())]
        demo_rate: Option<u32>,
        /// What the synthetic ticks are drawn from: the same seed, the same ticks. [default: 1]
        #[arg(long, value_name = "NUMBER", env = "TAPEFEED_DEMO_SEED")]
        demo_seed: Option<u64>,
        #[command(flatten)]
        options: ServeOptions,
    },
    /// Serve what is published and imported.
    Serve {
        #[command(flatten)]
        store: StoreOption,
        #[command(flatten)]
        options: ServeOptions,
    },
    /// Work on the log's epoch, while no server runs.
    Epoch {
        #[command(subcommand)]
        command: EpochCommand,
    },
}

#[derive(Debug, Subcommand)]
enum EpochCommand {
    /// Begin a new epoch after a restore, or in a copied store: cursors that only the other log knew are refused.
    Renew {
        #[command(flatten)]
        store: StoreOption,
        #[command(flatten)]
        common: CommonOptions,
    },
}

#[derive(Debug, Args)]
struct StoreOption {
    /// Where ticks are kept: a file, or postgres://user@host/database. [default: sqlite://./tapefeed.db]
    // The help does not show the variable's value: it may hold a password.
    #[arg(long, value_name = "URL", env = "TAPEFEED_STORE", hide_env_values = true)]
    store: Option<StoreUrl>,
}

#[derive(Debug, Args)]
struct CommonOptions {
    /// What is logged: a level, or pairs such as `info,tapefeed_server=debug`. [default: info]
    #[arg(long, value_name = "FILTER", env = "TAPEFEED_LOG")]
    log: Option<String>,
    /// How lines of the log look: `text` for people, `json` for programs. [default: text]
    #[arg(long, value_name = "FORMAT", env = "TAPEFEED_LOG_FORMAT", hide_possible_values = true)]
    log_format: Option<LogFormat>,
    /// The file of options. [default: ./tapefeed.toml if it is there]
    #[arg(long, value_name = "PATH", env = "TAPEFEED_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ServeOptions {
    /// Where to listen: an address of this machine alone, until there are TLS and authentication. [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS", env = "TAPEFEED_LISTEN")]
    listen: Option<Loopback>,
    /// How commits are announced: `local` for a single server, `redis://host:port` for several over one store. [default: local]
    #[arg(long, value_name = "URL", env = "TAPEFEED_BUS", hide_env_values = true)]
    bus: Option<BusUrl>,
    /// How long the log is kept, which is how far back cursors reach. [default: 24h]
    #[arg(long, value_name = "TIME", env = "TAPEFEED_LOG_RETENTION")]
    log_retention: Option<Span>,
    /// How many bytes of log are kept at most. [default: 8GiB]
    #[arg(long, value_name = "BYTES", env = "TAPEFEED_LOG_RETENTION_BYTES")]
    log_retention_bytes: Option<ByteCount>,
    /// How long history is kept. [default: for ever; demo: 24h]
    #[arg(long, value_name = "TIME", env = "TAPEFEED_HISTORY_RETENTION")]
    history_retention: Option<Span>,
    /// Ticks that fill no chunk are compacted when they are this old. [default: 1h]
    #[arg(long, value_name = "TIME", env = "TAPEFEED_COMPACT_AGE")]
    compact_age: Option<Span>,
    /// A past day is tidied up this long after its last compaction. [default: 10m]
    #[arg(long, value_name = "TIME", env = "TAPEFEED_MERGE_DELAY")]
    merge_delay: Option<Span>,
    /// Memory for chunks of history that are asked for again and again, half of it for decoded ones. [default: 128MiB]
    #[arg(long, value_name = "BYTES", env = "TAPEFEED_CHUNK_CACHE")]
    chunk_cache: Option<ByteCount>,
    /// Memory for what is known of chunks without reading them, some 600 bytes each; of every chunk it is there packed, in
    /// 150 bytes. At least 1MiB. [default: 32MiB]
    #[arg(long, value_name = "BYTES", env = "TAPEFEED_HEADER_CACHE")]
    header_cache: Option<ByteCount>,
    /// The folder in which uploaded files wait for their end. [default: beside the file of the store; for Postgres the
    /// system's temporary folder]
    #[arg(long, value_name = "PATH", env = "TAPEFEED_SPOOL")]
    spool: Option<PathBuf>,
    /// How much disk a Postgres database may take, its write-ahead log included, for the metrics and alerts of a disk that
    /// fills; of a file the disk itself is asked. [default: not known]
    #[arg(long, value_name = "BYTES", env = "TAPEFEED_STORE_SPACE")]
    store_space: Option<ByteCount>,
    /// Whether final bars of a minute, an hour and a day are kept in a table of the store, too, for SQL tools and Grafana.
    /// [default: false]
    #[arg(long, value_name = "BOOL", env = "TAPEFEED_BARS_TABLE", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    bars_table: Option<bool>,
    #[command(flatten)]
    transport: TransportOptions,
    #[command(flatten)]
    common: CommonOptions,
}

/// What the feed can do.
fn demo_rates() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MAX_RATE))
}

/// What the process is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// To serve.
    Serve(Box<ServeConfig>),
    /// To begin a new epoch in a store.
    RenewEpoch {
        /// The store.
        store: StoreUrl,
        /// What is logged, and how.
        log: LogConfig,
    },
}

/// How to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where ticks are kept.
    pub store: StoreUrl,
    /// How commits are announced.
    pub bus: BusUrl,
    /// How long the log is kept.
    pub log_retention: Duration,
    /// How many bytes of log are kept at most.
    pub log_retention_bytes: u64,
    /// How long history is kept; `None` for ever.
    pub history_retention: Option<Duration>,
    /// How old ticks are that are compacted though they fill no chunk.
    pub compact_age: Duration,
    /// How long after its last compaction a past day is tidied up.
    pub merge_delay: Duration,
    /// Memory for chunks of history that are asked for again and again.
    pub chunk_cache_bytes: u64,
    /// Memory for what is known of chunks without reading them.
    pub header_cache_bytes: u64,
    /// The folder in which uploads wait.
    pub spool: PathBuf,
    /// Bytes of disk that a database may take; `None` if nobody has said.
    pub store_space: Option<u64>,
    /// Whether final bars are kept in a table, too.
    pub bars_table: bool,
    /// Synthetic feeds, in the demo.
    pub demo: Option<Demo>,
    /// What connections are held to.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or pairs of a module and a level.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
    /// The option file that was named.
    file: Option<PathBuf>,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// The synthetic feeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demo {
    /// Ticks each second, all symbols together.
    pub ticks_per_second: u32,
    /// What the ticks are drawn from.
    pub seed: u64,
}

/// Options that do not make a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the option file {path} cannot be read: {problem}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: std::io::Error,
    },
    /// The file's text is not what it should be.
    #[error("the option file {path} is not right: {problem}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        problem: String,
    },
}

impl Config {
    /// Reads the command line, the environment and the option file. Prints help, the version or a wrong flag by itself
    /// and ends the process then.
    pub fn read() -> Result<Config, ConfigError> {
        CommandLine::parse().resolve()
    }

    /// What is logged, and how.
    pub fn log(&self) -> &LogConfig {
        match self {
            Config::Serve(serve) => &serve.log,
            Config::RenewEpoch { log, .. } => log,
        }
    }

    /// Where traces go, by the variables that OpenTelemetry names. Only a server has any. The seed
    /// names this process.
    pub fn traces(&self, seed: u128) -> Option<Traces> {
        match self {
            Config::Serve(_) => Traces::read(seed, variable),
            Config::RenewEpoch { .. } => None,
        }
    }
}

/// A variable of the environment, unless it is unset, empty or no text.
#[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { filter: LOG.into(), format: LogFormat::Text, file: None }
    }
}

impl LogConfig {
    /// What the option file says of the filter now; without a word in it, what the process was started with. So the
    /// file is how a running server is told to log more, whatever its command line says.
    pub fn reread(&self) -> Result<String, ConfigError> {
        Ok(File::read(self.file.as_deref())?.log.unwrap_or_else(|| self.filter.clone()))
    }
}

impl CommonOptions {
    fn resolve(self, log: Option<String>, log_format: Option<LogFormat>) -> LogConfig {
        let defaults = LogConfig::default();
        LogConfig {
            filter: self.log.or(log).unwrap_or(defaults.filter),
            format: self.log_format.or(log_format).unwrap_or(defaults.format),
            file: self.config,
        }
    }
}

/// Where systemd wants to be told the state of a service of `Type=notify`.
pub fn notify_socket() -> Option<std::ffi::OsString> {
    std::env::var_os("NOTIFY_SOCKET")
}

impl CommandLine {
    /// Fills in what the command line and the environment leave open.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        match self.command {
            Command::Demo { store, demo_rate, demo_seed, options } => {
                let file = File::read(options.common.config.as_deref())?;
                let demo = Demo {
                    ticks_per_second: demo_rate.or(file.demo_rate).unwrap_or(DEMO_RATE),
                    seed: demo_seed.or(file.demo_seed).unwrap_or(DEMO_SEED),
                };
                Ok(Config::Serve(Box::new(options.resolve(file, store, Some(demo)))))
            }
            Command::Serve { store, options } => {
                let mut file = File::read(options.common.config.as_deref())?;
                let store = store.resolve(&mut file);
                Ok(Config::Serve(Box::new(options.resolve(file, store, None))))
            }
            Command::Epoch { command: EpochCommand::Renew { store, common } } => {
                let mut file = File::read(common.config.as_deref())?;
                Ok(Config::RenewEpoch {
                    store: store.resolve(&mut file),
                    log: common.resolve(file.log, file.log_format),
                })
            }
        }
    }
}

impl StoreOption {
    fn resolve(self, file: &mut File) -> StoreUrl {
        self.store.or_else(|| file.store.take()).unwrap_or_else(|| StoreUrl::Sqlite(STORE_PATH.into()))
    }
}

impl ServeOptions {
    fn resolve(self, file: File, store: StoreUrl, demo: Option<Demo>) -> ServeConfig {
        let demo_history = demo.map(|_| Span(DEMO_HISTORY));
        ServeConfig {
            listen: self.listen.or(file.listen).map_or(LISTEN, |listen| listen.0),
            bus: self.bus.or(file.bus).unwrap_or(BusUrl::Local),
            log_retention: self.log_retention.or(file.log_retention).map_or(LOG_RETENTION, |span| span.0),
            log_retention_bytes: self
                .log_retention_bytes
                .or(file.log_retention_bytes)
                .map_or(LOG_RETENTION_BYTES, |count| count.0),
            history_retention: self.history_retention.or(file.history_retention).or(demo_history).map(|span| span.0),
            compact_age: self.compact_age.or(file.compact_age).map_or(Policy::default().age_cap, |span| span.0),
            merge_delay: self.merge_delay.or(file.merge_delay).map_or(Policy::default().merge_delay, |span| span.0),
            chunk_cache_bytes: self.chunk_cache.or(file.chunk_cache).map_or(CHUNK_CACHE_BYTES, |count| count.0),
            header_cache_bytes: self
                .header_cache
                .or(file.header_cache)
                .map_or(HEADER_CACHE_BYTES, |count| count.0.max(LEAST_HEADER_CACHE_BYTES)),
            store_space: self.store_space.or(file.store_space).map(|count| count.0),
            bars_table: self.bars_table.or(file.bars_table).unwrap_or(false),
            spool: self.spool.or(file.spool).or_else(|| store.spool()).unwrap_or_else(std::env::temp_dir),
            store,
            demo,
            limits: self.transport.or(file.transport).limits(),
            log: self.common.resolve(file.log, file.log_format),
        }
    }
}

/// Reads an option of the file as its text, by the rules of the flag.
macro_rules! from_text {
    ($($kind:ty),*) => {
        $(impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<$kind, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        })*
    };
}
from_text!(StoreUrl, BusUrl, Loopback, Span, ByteCount);

#[cfg(test)]
mod tests;
