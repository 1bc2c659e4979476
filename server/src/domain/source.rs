//! What feeds say about themselves: lost data, data that came back, and whether they deliver at all.
//!
//! These are entries of the log between the ticks, because a reader who does not know that something is missing takes
//! silence for a quiet market.

use std::fmt;
use std::sync::Arc;

use super::{Symbol, TimeRange, UnixNanos, Venue};

/// Longest name of a source in bytes.
pub const MAX_SOURCE_BYTES: usize = 64;

/// Longest sentence for people in bytes.
pub const MAX_DETAIL_BYTES: usize = 256;

/// Most symbols that one entry names.
pub const MAX_SOURCE_SYMBOLS: usize = 1_000;

/// The name of a feed: 1 to 64 bytes of `A-Z a-z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Source(Arc<str>);

/// A name of a source with other characters, or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_SOURCE_BYTES} bytes of A-Z a-z 0-9 _ -")]
pub struct SourceInvalid;

impl Source {
    /// Checks length and alphabet.
    pub fn new(text: &str) -> Result<Source, SourceInvalid> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (1..=MAX_SOURCE_BYTES).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Source(text.into()))
        } else {
            Err(SourceInvalid)
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A sentence for people, at most 256 bytes; may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Detail(Arc<str>);

/// A sentence is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("longer than {MAX_DETAIL_BYTES} bytes")]
pub struct DetailInvalid;

impl Detail {
    /// Checks the length.
    pub fn new(text: &str) -> Result<Detail, DetailInvalid> {
        if text.len() > MAX_DETAIL_BYTES { Err(DetailInvalid) } else { Ok(Detail(text.into())) }
    }

    /// The sentence.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which feed an entry is about, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The feed.
    pub source: Source,
    /// The venue.
    pub venue: Venue,
    /// The symbols, at most 1,000; none stands for all of the venue.
    pub symbols: Arc<[Symbol]>,
}

/// Numbers of a source's own sequence, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SourceSeqs {
    /// The first; `None` if the source does not number.
    pub first: Option<u64>,
    /// The last, at least the first; `None` if the source does not number, or the loss is not over.
    pub last: Option<u64>,
}

/// Why a source lost data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum GapCause {
    /// Not known.
    #[default]
    Unspecified = 0,
    /// The source was not reachable.
    Disconnected = 1,
    /// The source's own numbers have a hole.
    SequenceHole = 2,
    /// The feed could not keep up and dropped data.
    Overload = 3,
    /// The source said so.
    Upstream = 4,
}

impl GapCause {
    /// The cause of a stored number, or `None` for a number that no version wrote.
    pub fn from_code(code: u8) -> Option<GapCause> {
        match code {
            0 => Some(GapCause::Unspecified),
            1 => Some(GapCause::Disconnected),
            2 => Some(GapCause::SequenceHole),
            3 => Some(GapCause::Overload),
            4 => Some(GapCause::Upstream),
            _ => None,
        }
    }
}

/// A source lost data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceGap {
    /// Which feed, and what of it.
    pub scope: Scope,
    /// What was missed, by event time.
    pub range: TimeRange,
    /// What was missed, by the source's own numbers.
    pub seqs: SourceSeqs,
    /// Why.
    pub cause: GapCause,
    /// Whether the source can deliver it again.
    pub recoverable: bool,
    /// A sentence for people.
    pub detail: Detail,
}

/// A source got back what it had lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceGapFilled {
    /// Which feed, and what of it.
    pub scope: Scope,
    /// What was filled, by event time.
    pub range: TimeRange,
    /// What was filled, by the source's own numbers.
    pub seqs: SourceSeqs,
    /// The position of the gap, if the filler knows it.
    pub gap_log_seq: Option<u64>,
}

/// A source went up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// Which feed, and what of it.
    pub scope: Scope,
    /// Whether it delivers now.
    pub up: bool,
    /// When that changed, by the source's clock; in the log never `None`, because the server stamps it.
    pub change_time: Option<UnixNanos>,
    /// A sentence for people.
    pub detail: Detail,
}
