//! Where things are: the store, the bus, and where to listen, as people write them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::bus::RedisUrl;
use crate::store::PostgresUrl;

/// Where ticks are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// An embedded file.
    Sqlite(PathBuf),
    /// A database that several servers may share. Never shows its password.
    Postgres(PostgresUrl),
}

/// How commits are announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusUrl {
    /// Inside this process.
    Local,
    /// To other servers over the same store.
    Redis(RedisUrl),
}

/// An address of this machine alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loopback(pub(super) SocketAddr);

impl StoreUrl {
    /// Where uploads wait: a folder beside the store, so that a full disk is the operator's own. `None`: the store is on
    /// another machine.
    pub(super) fn spool(&self) -> Option<PathBuf> {
        match self {
            StoreUrl::Sqlite(path) => {
                let mut folder = path.clone().into_os_string();
                folder.push(".spool");
                Some(folder.into())
            }
            StoreUrl::Postgres(_) => None,
        }
    }
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<StoreUrl, String> {
        let path = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:"));
        match path {
            Some(path) if !path.is_empty() => Ok(StoreUrl::Sqlite(path.into())),
            // What is refused here is repeated to the user, so a URL with a password is not: opening it says more.
            _ => PostgresUrl::new(text).map(StoreUrl::Postgres).ok_or_else(|| {
                "write sqlite://<path>, as in sqlite://./tapefeed.db, or postgres://<user>@<host>/<database>".into()
            }),
        }
    }
}

impl FromStr for BusUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<BusUrl, String> {
        match text {
            "local" => Ok(BusUrl::Local),
            // Judged when it is used: what is refused here is repeated on the terminal, with its password.
            _ if text.starts_with("redis") => Ok(BusUrl::Redis(RedisUrl::new(text))),
            _ => Err("write local, or redis://[user:password@]host[:port][/database]".into()),
        }
    }
}

impl FromStr for Loopback {
    type Err = String;

    fn from_str(text: &str) -> Result<Loopback, String> {
        let address: SocketAddr =
            text.parse().map_err(|_| "write an IP address and a port, as in 127.0.0.1:50051".to_owned())?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "{address} is no loopback address, and this version has neither TLS nor authentication: whoever \
                 reaches the port could read and write everything. Listen on 127.0.0.1 or [::1], and put a proxy that \
                 has both in front of it"
            ));
        }
        Ok(Loopback(address))
    }
}
