//! Page tokens: where the next page begins, at which position, and for which arguments.
//!
//! A token is text for its bearer and carries everything: any replica can go on with it. Layout, little-endian: version,
//! kind, epoch, position, key (two numbers), digest of the arguments, the first page's now, time of issue, 32 bytes that
//! the next page goes on from if there are any, CRC32C.

use std::ops::Range;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::Xxh3;

use crate::domain::{Cursor, Epoch, I256, UnixNanos};

use super::subject::{Selector, Span, Subject};
use super::{Key, Order, Query, View, ViewError};

/// How many items a page has when the caller does not say.
pub const DEFAULT_PAGE_SIZE: usize = 1_000;

/// How many items a page has at most.
pub const MOST_PAGE_SIZE: usize = 10_000;

/// How long a token can be used after it was given.
pub const TOKEN_LIFE: Duration = Duration::from_secs(600);

/// Length of a token before it becomes text, without what it carries.
const TOKEN_BYTES: usize = 62;

const VERSION: u8 = 1;

/// Why a page token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageTokenInvalid {
    /// Not a token of this service, or damaged.
    #[error("not a token of this service: pass next_page_token unchanged")]
    Malformed,
    /// A token of another method, or other arguments than those of the first page.
    #[error("belongs to another request: repeat the arguments of the first page")]
    OtherRequest,
    /// Older than its life, or of a walk whose position is so old that corrections have changed what was there.
    #[error("older than 10 minutes, or its walk has outlived a correction: begin again")]
    Expired,
    /// Positions of the token's log do not hold here.
    #[error("belongs to another log than this server's")]
    OtherLog,
}

/// Whose pages a token turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// ListTicks.
    Ticks = 1,
    /// ListInstruments.
    Instruments = 2,
    /// ListPublishedBars.
    PublishedBars = 3,
    /// ListBars.
    Bars = 4,
    /// ListMovingAverages.
    MovingAverages = 5,
    /// ReadTicks.
    Reading = 6,
}

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageToken {
    pub(super) kind: Kind,
    /// The position that all pages are answered at.
    pub(super) pinned: Cursor,
    /// The last item of the page before; the kind says how to read it.
    pub(super) last: (u64, u64),
    /// The arguments of the first page, by [`Arguments`].
    pub(super) digest: u64,
    /// What a period looked back from on the first page.
    pub(super) now: UnixNanos,
    /// When the token was given.
    pub(super) issued: UnixNanos,
    /// A number that the next page goes on from, where the kind has one.
    pub(super) carried: Option<I256>,
}

impl PageToken {
    /// The token as text.
    pub(super) fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        bytes.extend_from_slice(&[VERSION, self.kind as u8]);
        for number in [
            self.pinned.epoch.0,
            self.pinned.position,
            self.last.0,
            self.last.1,
            self.digest,
            self.now.nanos() as u64,
            self.issued.nanos() as u64,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        if let Some(carried) = self.carried {
            bytes.extend_from_slice(&carried.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token and checks that it continues this request.
    pub(super) fn open(text: &str, kind: Kind, digest: u64, now: UnixNanos) -> Result<PageToken, PageTokenInvalid> {
        let token = PageToken::decode(text).ok_or(PageTokenInvalid::Malformed)?;
        if token.kind != kind || token.digest != digest {
            return Err(PageTokenInvalid::OtherRequest);
        }
        // Clocks of replicas differ a little: a token from the future is merely young.
        if now > token.issued.saturating_add(TOKEN_LIFE) {
            return Err(PageTokenInvalid::Expired);
        }
        Ok(token)
    }

    /// The last item of the page before, where that is a tick.
    pub(super) fn key(&self) -> Result<Key, PageTokenInvalid> {
        let time = i64::try_from(self.last.0).ok().and_then(|nanos| UnixNanos::new(nanos).ok());
        Ok((time.ok_or(PageTokenInvalid::Malformed)?, self.last.1))
    }

    /// The last item of the page before, where the kind keeps two instants there.
    pub(super) fn instants(&self) -> Result<(UnixNanos, UnixNanos), PageTokenInvalid> {
        let instant = |number: u64| i64::try_from(number).ok().and_then(|nanos| UnixNanos::new(nanos).ok());
        instant(self.last.0).zip(instant(self.last.1)).ok_or(PageTokenInvalid::Malformed)
    }

    fn decode(text: &str) -> Option<PageToken> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, checksum) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body).to_le_bytes() != *checksum || body.first() != Some(&VERSION) {
            return None;
        }
        let (body, rest) = body.split_at_checked(TOKEN_BYTES - 4)?;
        let carried = match rest.len() {
            0 => None,
            _ => Some(I256::from_le_bytes(rest.try_into().ok()?)),
        };
        let kind = match body[1] {
            1 => Kind::Ticks,
            2 => Kind::Instruments,
            3 => Kind::PublishedBars,
            4 => Kind::Bars,
            5 => Kind::MovingAverages,
            6 => Kind::Reading,
            _ => return None,
        };
        let number = |index: usize| {
            let at = 2 + 8 * index;
            body[at..at + 8].try_into().map(u64::from_le_bytes).ok()
        };
        let time = |index: usize| UnixNanos::new(number(index)? as i64).ok();
        Some(PageToken {
            kind,
            pinned: Cursor { epoch: Epoch(number(0)?), position: number(1)? },
            last: (number(2)?, number(3)?),
            digest: number(4)?,
            now: time(5)?,
            issued: time(6)?,
            carried,
        })
    }
}

/// Gathers the arguments that a token is bound to. Every part is written with its length or a mark, so that two
/// different requests never hash the same bytes.
pub(super) struct Arguments(Xxh3);

impl Arguments {
    pub(super) fn new(kind: Kind) -> Arguments {
        let mut hash = Xxh3::new();
        hash.update(&[kind as u8]);
        Arguments(hash)
    }

    pub(super) fn subject(self, subject: &Subject) -> Arguments {
        let venue = subject.venue.as_ref().map(|venue| venue.as_str());
        self.name(venue).name(Some(subject.symbol.as_str()))
    }

    pub(super) fn selector(self, selector: &Selector) -> Arguments {
        let venue = selector.venue.as_ref().map(|venue| venue.as_str());
        let symbol = selector.symbol.as_ref().map(|symbol| symbol.as_str());
        self.name(venue).name(symbol)
    }

    pub(super) fn span(mut self, span: Span) -> Arguments {
        match span {
            Span::Range(range) => {
                self.0.update(&[0]);
                for bound in [range.start(), range.end()] {
                    let nanos = bound.map_or(-1, UnixNanos::nanos);
                    self.0.update(&nanos.to_le_bytes());
                }
            }
            Span::Period(period) => {
                self.0.update(&[1]);
                self.0.update(&period.as_nanos().to_le_bytes());
            }
        }
        self
    }

    pub(super) fn days(mut self, days: &Range<u32>) -> Arguments {
        self.0.update(&days.start.to_le_bytes());
        self.0.update(&days.end.to_le_bytes());
        self
    }

    pub(super) fn order(mut self, order: Order) -> Arguments {
        self.0.update(&[order as u8]);
        self
    }

    pub(super) fn number(mut self, number: u64) -> Arguments {
        self.0.update(&number.to_le_bytes());
        self
    }

    pub(super) fn digest(self) -> u64 {
        self.0.digest()
    }

    fn name(mut self, name: Option<&str>) -> Arguments {
        let name = name.unwrap_or_default();
        // Names have 1 to 64 bytes, so a length of zero marks absence.
        self.0.update(&[name.len() as u8]);
        self.0.update(name.as_bytes());
        self
    }
}

impl Query {
    /// A view that has reached a token's position.
    pub(super) async fn pinned_view<E>(&self, token: &PageToken) -> Result<std::sync::Arc<View>, E>
    where
        E: From<ViewError> + From<PageTokenInvalid>,
    {
        match self.view(Some(token.pinned)).await {
            Err(ViewError::EpochChanged { .. }) => Err(PageTokenInvalid::OtherLog.into()),
            // Trades are no longer known as they were there.
            Ok(view) if view.settled() > token.pinned.position => Err(PageTokenInvalid::Expired.into()),
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Symbol, TimeRange, Venue};

    fn token() -> PageToken {
        PageToken {
            kind: Kind::Ticks,
            pinned: Cursor { epoch: Epoch(7), position: 99 },
            last: (12, 34),
            digest: 56,
            now: UnixNanos::new(1_000).unwrap(),
            issued: UnixNanos::new(2_000).unwrap(),
            carried: None,
        }
    }

    #[test]
    fn tokens_round_trip_as_text_without_padding() {
        let text = token().encode();
        assert_eq!(text.len(), 83);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        let opened = PageToken::open(&text, Kind::Ticks, 56, UnixNanos::new(2_000).unwrap());
        assert_eq!(opened, Ok(token()));
    }

    #[test]
    fn a_changed_character_is_detected() {
        let text = token().encode();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(PageToken::decode(&changed), None, "character {at}");
        }
        for foreign in ["", "A", "!!!!", &text[..82], &format!("{text}A"), &format!("{text}=")] {
            assert_eq!(PageToken::decode(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let text = token().encode();
        let at = |nanos: i64| UnixNanos::new(nanos).unwrap();
        let life = TOKEN_LIFE.as_nanos() as i64;
        let open = |kind, digest, now| PageToken::open(&text, kind, digest, at(now)).err();
        assert_eq!(open(Kind::Ticks, 56, 2_000 + life), None);
        assert_eq!(open(Kind::Ticks, 56, 2_001 + life), Some(PageTokenInvalid::Expired));
        assert_eq!(open(Kind::Ticks, 56, 0), None);
        assert_eq!(open(Kind::Ticks, 57, 2_000), Some(PageTokenInvalid::OtherRequest));
        assert_eq!(open(Kind::Instruments, 56, 2_000), Some(PageTokenInvalid::OtherRequest));
    }

    #[test]
    fn every_argument_changes_the_digest() {
        let subject = |venue: Option<&str>, symbol: &str| Subject {
            venue: venue.map(|venue| Venue::new(venue).unwrap()),
            symbol: Symbol::new(symbol).unwrap(),
        };
        let range = |start: Option<i64>, end: Option<i64>| {
            let bound = |nanos: Option<i64>| nanos.map(|nanos| UnixNanos::new(nanos).unwrap());
            Span::Range(TimeRange::new(bound(start), bound(end)).unwrap())
        };
        let period = |nanos| Span::Period(Duration::from_nanos(nanos));
        let requests = [
            (subject(None, "AB"), range(None, None), Order::Ascending),
            (subject(Some("A"), "B"), range(None, None), Order::Ascending),
            (subject(Some("AB"), "C"), range(None, None), Order::Ascending),
            (subject(Some("A"), "BC"), range(None, None), Order::Ascending),
            (subject(None, "AB"), range(Some(0), None), Order::Ascending),
            (subject(None, "AB"), range(None, Some(0)), Order::Ascending),
            (subject(None, "AB"), range(Some(0), Some(5)), Order::Ascending),
            (subject(None, "AB"), period(5), Order::Ascending),
            (subject(None, "AB"), period(6), Order::Ascending),
            (subject(None, "AB"), period(6), Order::Descending),
        ];
        let digests: std::collections::BTreeSet<u64> = requests
            .iter()
            .map(|(subject, span, order)| {
                Arguments::new(Kind::Ticks).subject(subject).span(*span).order(*order).digest()
            })
            .collect();
        assert_eq!(digests.len(), requests.len());
    }
}
