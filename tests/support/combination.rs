//! What a server stands on: each store with each bus that it may have. One suite of behaviour runs over all of them.

use crate::database::FreshDatabase;
use crate::redis_server::RedisServer;
use crate::server::{Options, Server};

/// A store and a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combination {
    /// An embedded file, and the bus inside the process.
    SqliteLocal,
    /// A Postgres database, and the bus inside the process.
    PostgresLocal,
    /// A Postgres database, and Redis.
    PostgresRedis,
}

impl Combination {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::SqliteLocal, Self::PostgresLocal, Self::PostgresRedis];

    /// An empty store and a bus of a test's own. `None` where the machine has no Postgres or no Redis, which is said
    /// loudly and is a failure in CI.
    pub async fn prepare(self) -> Option<Ground> {
        let database = match self {
            Self::SqliteLocal => None,
            Self::PostgresLocal | Self::PostgresRedis => Some(FreshDatabase::make().await?),
        };
        let redis = match self {
            Self::SqliteLocal | Self::PostgresLocal => None,
            Self::PostgresRedis => Some(RedisServer::given_or_own().await?),
        };
        Some(Ground { database, redis })
    }
}

/// A store and a bus, as long as it lives.
#[derive(Debug)]
pub struct Ground {
    database: Option<FreshDatabase>,
    redis: Option<RedisServer>,
}

impl Ground {
    /// A server over them. A file is in the server's own folder.
    pub fn options(&self) -> Options {
        let options = match &self.database {
            Some(database) => Options::serve().database(database.url()),
            None => Options::serve(),
        };
        match &self.redis {
            Some(redis) => options.argument("--bus").argument(redis.url()),
            None => options,
        }
    }

    /// Several servers over them, each with these arguments, too.
    pub async fn servers<const N: usize>(&self, arguments: &[&str]) -> [Server; N] {
        let options = arguments.iter().fold(self.options(), |options, argument| options.argument(*argument));
        let mut servers = Vec::with_capacity(N);
        for _ in 0..N {
            servers.push(Server::start(options.clone()).await);
        }
        servers.try_into().expect("so many were started")
    }
}

/// Several servers' addresses, as clients take them.
pub fn urls(servers: &[Server]) -> String {
    servers.iter().map(Server::url).collect::<Vec<_>>().join(",")
}
