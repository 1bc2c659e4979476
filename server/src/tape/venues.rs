//! What a view knows of each venue beside its ticks: how far it has come, and what its feeds lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes};

use super::{Registry, View};
use crate::domain::bar::final_until;
use crate::domain::outage::Outages;
use crate::domain::segment::{self, Entries};
use crate::domain::{Control, InstrumentId, Origin, UnixNanos, Venue};

/// Version of the bytes.
const VERSION: u8 = 1;

/// Watermarks of a venue that are remembered at most. Of the older ones only streams could know that begin behind them,
/// and those then end some bars once more.
const MOST_WATERMARKS: usize = 1 << 16;

/// Stored bytes that say nothing of venues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is stored of venues is damaged: {0}")]
pub struct VenuesCorrupt(&'static str);

/// What is known of venues at the position of a view.
#[derive(Clone, Debug, Default)]
pub struct Venues {
    facts: BTreeMap<Venue, VenueFacts>,
    /// Entries that are not ticks are taken in up to here.
    told: u64,
}

/// What is known of one venue.
#[derive(Clone, Debug, Default)]
pub struct VenueFacts {
    /// The newest event time among its ticks.
    newest: Option<UnixNanos>,
    /// Up to where it was told to be complete: positions and times, both ascending.
    watermarks: Arc<Vec<(u64, UnixNanos)>>,
    outages: Arc<Outages>,
}

impl Venues {
    /// What is known of a venue; `None` if the log has nothing of it.
    pub fn get(&self, venue: &Venue) -> Option<&VenueFacts> {
        self.facts.get(venue)
    }

    /// What is known of the venues of those instruments that have ticks in a view, each venue once.
    ///
    /// An instrument is registered before its first tick, and that is no entry of the log: until then it must not count.
    pub fn of(&self, view: &View, registry: &Registry, instruments: &[InstrumentId]) -> Vec<VenueFacts> {
        let traded = instruments.iter().filter(|&&id| view.holding(id).is_some());
        let mut venues: Vec<Venue> = traded.filter_map(|&id| Some(registry.get(id)?.venue.clone())).collect();
        venues.sort_unstable();
        venues.dedup();
        venues.iter().filter_map(|venue| self.get(venue).cloned()).collect()
    }

    /// Every venue that the log has something of.
    pub fn iter(&self) -> impl Iterator<Item = (&Venue, &VenueFacts)> {
        self.facts.iter()
    }

    /// Takes in that a venue has a tick of this time.
    pub(super) fn saw(&mut self, venue: &Venue, time: UnixNanos) {
        let newest = &mut self.facts(venue).newest;
        *newest = (*newest).max(Some(time));
    }

    /// Whether a tick of this time would say something new.
    pub(super) fn is_news(&self, venue: &Venue, time: UnixNanos) -> bool {
        self.facts.get(venue).is_none_or(|facts| facts.newest < Some(time))
    }

    /// Takes in an entry that is not a tick, appended at a time.
    pub(super) fn told(&mut self, log_seq: u64, appended: UnixNanos, control: &Control) {
        if log_seq <= self.told {
            return;
        }
        self.told = log_seq;
        if let Control::Watermark { venue, time } = control {
            let watermarks = &mut self.facts(venue).watermarks;
            if watermarks.last().is_none_or(|(_, last)| last < time) {
                let watermarks = Arc::make_mut(watermarks);
                watermarks.push((log_seq, *time));
                if watermarks.len() > MOST_WATERMARKS {
                    watermarks.drain(..MOST_WATERMARKS / 2);
                }
            }
        } else if let Some(scope) = control.scope() {
            Arc::make_mut(&mut self.facts(&scope.venue).outages).push(log_seq, appended, control);
        }
    }

    /// What is stored beside the manifest, so that trimming the log cannot lose it: version, position, venues with their
    /// newest time and last watermark, then every word about lost data, and CRC32C.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        out.put_u64_le(self.told);
        out.put_u32_le(self.facts.len() as u32);
        let mut words: Vec<(u64, UnixNanos, Control)> = Vec::new();
        for (venue, facts) in &self.facts {
            out.put_u8(venue.as_str().len() as u8);
            out.put_slice(venue.as_str().as_bytes());
            out.put_i64_le(facts.newest.map_or(-1, UnixNanos::nanos));
            let (log_seq, time) = facts.watermarks.last().map_or((0, -1), |(seq, time)| (*seq, time.nanos()));
            out.put_u64_le(log_seq);
            out.put_i64_le(time);
            words.extend(facts.outages.words());
        }
        words.sort_unstable_by_key(|(log_seq, ..)| *log_seq);
        out.put_u32_le(words.len() as u32);
        let mut entries = Entries::default();
        for (log_seq, told, control) in words {
            out.put_u64_le(log_seq);
            out.put_i64_le(told.nanos());
            // A segment's positions are dense: the true ones stand before it.
            entries.controls.push((entries.controls.len() as u64 + 1, control));
        }
        out.put_slice(&segment::encode(&entries, 1));
        out.put_u32_le(crc32c::crc32c(&out));
        out.into()
    }

    /// Reads what [`Venues::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Venues, VenuesCorrupt> {
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(VenuesCorrupt("too short"))?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err(VenuesCorrupt("the checksum differs"));
        }
        if body.first() != Some(&VERSION) {
            return Err(VenuesCorrupt("not a version that this program knows"));
        }
        let mut venues = Venues::default();
        venues.take(&body[1..]).ok_or(VenuesCorrupt("a value is cut off or out of range"))?;
        Ok(venues)
    }

    fn take(&mut self, mut body: &[u8]) -> Option<()> {
        let time = |nanos: i64| UnixNanos::new(nanos).ok();
        let told = body.try_get_u64_le().ok()?;
        for _ in 0..body.try_get_u32_le().ok()? {
            let length = usize::from(body.try_get_u8().ok()?);
            let (name, rest) = body.split_at_checked(length)?;
            body = rest;
            let venue = Venue::new(std::str::from_utf8(name).ok()?).ok()?;
            let facts = self.facts(&venue);
            facts.newest = time(body.try_get_i64_le().ok()?);
            let log_seq = body.try_get_u64_le().ok()?;
            let watermark = time(body.try_get_i64_le().ok()?);
            facts.watermarks = Arc::new(watermark.map(|time| (log_seq, time)).into_iter().collect());
        }
        let count = body.try_get_u32_le().ok()?;
        let mut words = Vec::new();
        for _ in 0..count {
            words.push((body.try_get_u64_le().ok()?, time(body.try_get_i64_le().ok()?)?));
        }
        let entries = segment::decode(body, 1, Origin::Live).ok()?;
        if entries.controls.len() != words.len() {
            return None;
        }
        for ((log_seq, appended), (_, control)) in words.into_iter().zip(&entries.controls) {
            self.told(log_seq, appended, control);
        }
        self.told = told;
        Some(())
    }

    fn facts(&mut self, venue: &Venue) -> &mut VenueFacts {
        if !self.facts.contains_key(venue) {
            self.facts.insert(venue.clone(), VenueFacts::default());
        }
        self.facts.get_mut(venue).expect("it was put there if it was missing")
    }
}

impl VenueFacts {
    /// Bars of the venue that end at or before this are final at the view's position.
    pub fn final_until(&self) -> UnixNanos {
        final_until(self.newest, self.watermarks.last().map(|(_, time)| *time))
    }

    /// Up to where the venue was told to be complete, at a position.
    pub fn watermark(&self, position: u64) -> Option<UnixNanos> {
        let known = self.watermarks.partition_point(|(log_seq, _)| *log_seq <= position);
        known.checked_sub(1).map(|last| self.watermarks[last].1)
    }

    /// The newest event time among its ticks.
    pub fn newest(&self) -> Option<UnixNanos> {
        self.newest
    }

    /// What the venue's feeds lost.
    pub fn outages(&self) -> &Arc<Outages> {
        &self.outages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TimeRange;
    use crate::domain::source::{Detail, GapCause, Scope, Source, SourceGap, SourceSeqs};

    fn at(nanos: i64) -> UnixNanos {
        UnixNanos::new(nanos).unwrap()
    }

    #[test]
    fn what_is_known_of_venues_round_trips_and_damage_is_found() {
        let venue = |name: &str| Venue::new(name).unwrap();
        let gap = |on: &str, from, to| {
            Control::SourceGap(SourceGap {
                scope: Scope { source: Source::new("feed").unwrap(), venue: venue(on), symbols: [].into() },
                range: TimeRange::new(Some(at(from)), Some(at(to))).unwrap(),
                seqs: SourceSeqs::default(),
                cause: GapCause::Disconnected,
                recoverable: false,
                detail: Detail::default(),
            })
        };
        let mut venues = Venues::default();
        venues.saw(&venue("V"), at(50));
        venues.told(3, at(1), &gap("W", 10, 20));
        venues.told(7, at(2), &Control::Watermark { venue: venue("V"), time: at(60) });
        venues.told(9, at(3), &gap("V", 30, 40));
        venues.told(9, at(3), &gap("V", 80, 90));
        let bytes = venues.encode();
        let mut read = Venues::decode(&bytes).unwrap();
        let symbol = crate::domain::Symbol::new("A").unwrap();
        let lost = |venues: &Venues, on: &str, time: i64| {
            venues.get(&venue(on)).unwrap().outages().overlap(&symbol, at(time), Some(at(time + 1)), u64::MAX)
        };
        for venues in [&venues, &read] {
            assert_eq!(venues.get(&venue("V")).unwrap().final_until(), at(60));
            assert_eq!(venues.get(&venue("V")).unwrap().watermark(6), None);
            let found = [("W", 15), ("V", 15), ("V", 35), ("V", 85)].map(|(on, time)| lost(venues, on, time));
            assert_eq!(found, [true, false, true, false]);
        }
        // What is told again from the log changes nothing; what follows does.
        read.told(9, at(3), &gap("V", 80, 90));
        assert!(!lost(&read, "V", 85));
        read.told(10, at(3), &gap("V", 80, 90));
        assert!(lost(&read, "V", 85));
        assert!(Venues::decode(&Venues::default().encode()).is_ok());
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert!(Venues::decode(&damaged).is_err(), "byte {at}");
        }
    }
}
