//! The option file, `tapefeed.toml`: the same names as the flags.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::transport::TransportOptions;
use super::units::{ByteCount, Span};
use super::{BusUrl, ConfigError, LogFormat, Loopback, StoreUrl};

/// Read if it is there and no other file is named.
const DEFAULT_PATH: &str = "tapefeed.toml";

/// The options of a file. A name that is not one of these is refused, because a mistyped option would silently be its
/// default.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct File {
    pub(super) listen: Option<Loopback>,
    pub(super) store: Option<StoreUrl>,
    pub(super) bus: Option<BusUrl>,
    pub(super) log_retention: Option<Span>,
    pub(super) log_retention_bytes: Option<ByteCount>,
    pub(super) history_retention: Option<Span>,
    pub(super) compact_age: Option<Span>,
    pub(super) merge_delay: Option<Span>,
    pub(super) chunk_cache: Option<ByteCount>,
    pub(super) header_cache: Option<ByteCount>,
    pub(super) spool: Option<PathBuf>,
    pub(super) store_space: Option<ByteCount>,
    pub(super) bars_table: Option<bool>,
    pub(super) demo_rate: Option<u32>,
    pub(super) demo_seed: Option<u64>,
    pub(super) log: Option<String>,
    pub(super) log_format: Option<LogFormat>,
    #[serde(flatten)]
    pub(super) transport: TransportOptions,
}

impl File {
    /// Reads the named file, or the default one if it exists.
    pub(super) fn read(named: Option<&Path>) -> Result<File, ConfigError> {
        let path = named.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(path) {
            Ok(text) => File::parse(path.to_owned(), &text),
            Err(problem) if named.is_none() && problem.kind() == ErrorKind::NotFound => Ok(File::default()),
            Err(problem) => Err(ConfigError::Unreadable { path: path.to_owned(), problem }),
        }
    }

    pub(super) fn parse(path: PathBuf, text: &str) -> Result<File, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::Malformed { path, problem: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        File::parse("tapefeed.toml".into(), text).map_err(|error| error.to_string())
    }

    #[test]
    fn files_are_read_with_the_names_of_the_flags() {
        let file =
            parse("listen = \"[::1]:4000\"\nlog-retention = \"2h\"\ndemo-rate = 5\nbars-table = true\n").unwrap();
        assert_eq!(file.listen, "[::1]:4000".parse().ok());
        assert_eq!(file.log_retention, "2h".parse().ok());
        assert_eq!(file.demo_rate, Some(5));
        assert_eq!(file.bars_table, Some(true));
        assert_eq!(file.store, None);
        let file = parse("stream-window = \"2MiB\"\nmax-connections = 7\nnodelay = false\n").unwrap();
        let limits = file.transport.limits();
        assert_eq!((limits.stream_window, limits.connections, limits.nodelay), (2 << 20, 7, false));
    }

    #[test]
    fn what_a_file_gets_wrong_is_named() {
        for (text, told) in [
            ("log-retentoin = \"2h\"", "log-retentoin"),
            ("log-retention = \"2 hours\"", "2 hours"),
            ("listen = \"0.0.0.0:50051\"", "loopback"),
            ("store = \"mysql://db\"", "sqlite://"),
            ("listen", "line 1"),
            ("stream-window = \"1KiB\"", "65535"),
            ("keepalive-interval = \"soon\"", "soon"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
            assert!(error.contains("tapefeed.toml"), "{error}");
        }
        assert!(File::read(Some(Path::new("no/such/file.toml"))).is_err());
    }
}
