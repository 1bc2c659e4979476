//! Where Redis is. The password in it is for Redis alone.

use std::fmt;

/// `redis://[user:password@]host[:port][/database]`. Shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

/// An address that is no Redis address. Says nothing of what was given, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the bus has no usable address: write redis://[user:password@]host[:port][/database]; TLS is not in this version"
)]
pub struct RedisUrlInvalid;

impl RedisUrl {
    /// Takes an address as it is; [`RedisUrl::client`] judges it, so that no refusal repeats a password.
    pub fn new(text: impl Into<String>) -> RedisUrl {
        RedisUrl(text.into())
    }

    pub(super) fn client(&self) -> Result<redis::Client, RedisUrlInvalid> {
        if !self.0.starts_with("redis://") {
            return Err(RedisUrlInvalid);
        }
        redis::Client::open(self.0.as_str()).map_err(|_| RedisUrlInvalid)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Everything before the last @ may be a secret; without a scheme, everything may.
        match self
            .0
            .strip_prefix("redis://")
            .map(|rest| rest.rsplit_once('@').map_or((false, rest), |(_, host)| (true, host)))
        {
            Some((true, host)) => write!(out, "redis://***@{host}"),
            Some((false, host)) => write!(out, "redis://{host}"),
            None => out.write_str("redis://***"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let table = [
            ("redis://localhost:6379/2", "redis://localhost:6379/2"),
            ("redis://:secret@localhost", "redis://***@localhost"),
            ("redis://user:se@cret@localhost:1", "redis://***@localhost:1"),
            ("rediss://:secret@localhost", "redis://***"),
            ("secret", "redis://***"),
        ];
        for (given, shown) in table {
            let url = RedisUrl::new(given);
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
        assert!(RedisUrl::new("redis://:secret@localhost").client().is_ok());
        assert_eq!(RedisUrl::new("rediss://:secret@localhost").client().err(), Some(RedisUrlInvalid));
        assert_eq!(RedisUrl::new("redis://:sec ret@local host:x").client().err(), Some(RedisUrlInvalid));
    }
}
