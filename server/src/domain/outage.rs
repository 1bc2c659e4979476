//! Which stretches of event time feeds have lost and not got back, by what they said in the log.

use super::source::{Scope, SourceGap, SourceGapFilled};
use super::{Control, Symbol, UnixNanos};

/// Entries of a venue that count: the newest ones. A feed that stumbles all day long must not cost every bar of later
/// years.
pub const MOST_WORDS: usize = 1_000;

/// What the feeds of one venue said about lost data, in the order of the log.
#[derive(Clone, Debug, Default)]
pub struct Outages(Vec<Word>);

/// One entry of the log about a feed.
#[derive(Clone, Debug)]
struct Word {
    log_seq: u64,
    /// When it was appended: stands for times that the feed does not know.
    told: UnixNanos,
    control: Control,
}

/// A half-open stretch of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    start: UnixNanos,
    /// `None` goes on.
    end: Option<UnixNanos>,
}

impl Outages {
    /// Takes an entry in; it comes after all that were taken before. Others than those about feeds mean nothing.
    pub fn push(&mut self, log_seq: u64, told: UnixNanos, control: &Control) {
        if control.scope().is_none() {
            return;
        }
        if self.0.len() == MOST_WORDS {
            self.0.remove(0);
        }
        self.0.push(Word { log_seq, told, control: control.clone() });
    }

    /// The entries that count, with their positions and when they were appended.
    pub fn words(&self) -> impl Iterator<Item = (u64, UnixNanos, Control)> {
        self.0.iter().map(|word| (word.log_seq, word.told, word.control.clone()))
    }

    /// The position of the last entry that counts; 0 where there is none.
    pub fn newest(&self) -> u64 {
        self.0.last().map_or(0, |word| word.log_seq)
    }

    /// Whether nothing was ever said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether data of a symbol is missing in `[start, end)`, as the log tells it up to a position; without an end the
    /// stretch goes on for ever.
    ///
    /// A gap without a start begins when it was told. One without an end lasts until its source says that it is up
    /// again, by the time of that change.
    pub fn overlap(&self, symbol: &Symbol, start: UnixNanos, end: Option<UnixNanos>, position: u64) -> bool {
        let known = &self.0[..self.0.partition_point(|word| word.log_seq <= position)];
        let asked = Stretch { start, end };
        known.iter().enumerate().any(|(index, word)| match &word.control {
            Control::SourceGap(gap) if is_about(&gap.scope, symbol) => {
                let lost = word.lost(gap, &known[index + 1..]);
                missing(word.log_seq, gap, lost, &known[index + 1..], symbol, asked)
            }
            _ => false,
        })
    }

    /// The stretch of event time in which what was said behind a position may have changed the answer of
    /// [`Outages::overlap`] for a symbol, from its start to its end; without an end it goes on for ever. `None`: nothing
    /// was said.
    pub fn said_after(&self, symbol: &Symbol, position: u64) -> Option<(UnixNanos, Option<UnixNanos>)> {
        let first = self.0.partition_point(|word| word.log_seq <= position);
        let mut said: Option<Stretch> = None;
        for (index, word) in self.0.iter().enumerate().skip(first) {
            let gaps = self.0[..index].iter().filter_map(|earlier| match &earlier.control {
                Control::SourceGap(gap) if is_about(&gap.scope, symbol) => Some((earlier, gap)),
                _ => None,
            });
            let changed: Vec<Stretch> = match &word.control {
                Control::SourceGap(gap) if is_about(&gap.scope, symbol) => vec![word.lost(gap, &[])],
                Control::SourceGapFilled(filled) => {
                    let meant = gaps.filter(|(earlier, gap)| fills(filled, earlier.log_seq, gap, symbol));
                    let start = filled.range.start().unwrap_or(UnixNanos::MIN);
                    let stretch = Stretch { start, end: filled.range.end() };
                    meant.map(|(earlier, gap)| earlier.lost(gap, &[]).common(stretch)).collect()
                }
                Control::SourceStatus(status) if status.up => {
                    let open =
                        gaps.filter(|(_, gap)| gap.range.end().is_none() && same_feed(&status.scope, &gap.scope));
                    let stretch = Stretch { start: status.change_time.unwrap_or(word.told), end: None };
                    open.map(|(earlier, gap)| earlier.lost(gap, &[]).common(stretch)).collect()
                }
                _ => Vec::new(),
            };
            for stretch in changed.into_iter().filter(|stretch| !stretch.is_empty()) {
                said = Some(said.map_or(stretch, |said| said.hull(stretch)));
            }
        }
        said.map(|Stretch { start, end }| (start, end))
    }
}

impl Word {
    /// What a gap covers, given what was said after it.
    fn lost(&self, gap: &SourceGap, later: &[Word]) -> Stretch {
        let start = gap.range.start().unwrap_or(self.told);
        if gap.range.end().is_some() {
            return Stretch { start, end: gap.range.end() };
        }
        let up = later.iter().find_map(|word| match &word.control {
            Control::SourceStatus(status)
                if status.up && same_feed(&status.scope, &gap.scope) && reaches(&status.scope, &gap.scope) =>
            {
                Some(status.change_time.unwrap_or(word.told))
            }
            _ => None,
        });
        Stretch { start, end: up.map(|up| up.max(start)) }
    }
}

/// Whether some of what a gap lost lies in a stretch and was not filled since.
fn missing(gap_seq: u64, gap: &SourceGap, lost: Stretch, later: &[Word], symbol: &Symbol, asked: Stretch) -> bool {
    let mut left = vec![lost.common(asked)];
    for word in later {
        if let Control::SourceGapFilled(filled) = &word.control
            && fills(filled, gap_seq, gap, symbol)
        {
            let start = filled.range.start().unwrap_or(lost.start);
            let end = filled.range.end().or(lost.end);
            left = left.into_iter().flat_map(|stretch| stretch.without(Stretch { start, end })).collect();
        }
    }
    left.iter().any(|stretch| !stretch.is_empty())
}

/// Whether a word that data came back is about a gap, and a symbol of it.
fn fills(filled: &SourceGapFilled, gap_seq: u64, gap: &SourceGap, symbol: &Symbol) -> bool {
    let meant = filled.gap_log_seq.is_none_or(|seq| seq == gap_seq);
    meant && same_feed(&filled.scope, &gap.scope) && is_about(&filled.scope, symbol)
}

fn same_feed(one: &Scope, other: &Scope) -> bool {
    one.source == other.source && one.venue == other.venue
}

/// Whether a scope names a symbol; one without symbols is about all of its venue.
fn is_about(scope: &Scope, symbol: &Symbol) -> bool {
    scope.symbols.is_empty() || scope.symbols.contains(symbol)
}

/// Whether a scope covers everything of another.
fn reaches(scope: &Scope, other: &Scope) -> bool {
    scope.symbols.is_empty()
        || !other.symbols.is_empty() && other.symbols.iter().all(|symbol| scope.symbols.contains(symbol))
}

impl Stretch {
    fn is_empty(self) -> bool {
        self.end.is_some_and(|end| end <= self.start)
    }

    /// The smallest stretch that covers both.
    fn hull(self, other: Stretch) -> Stretch {
        let end = match (self.end, other.end) {
            (Some(one), Some(other)) => Some(one.max(other)),
            _ => None,
        };
        Stretch { start: self.start.min(other.start), end }
    }

    fn common(self, other: Stretch) -> Stretch {
        let end = match (self.end, other.end) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Stretch { start: self.start.max(other.start), end }
    }

    /// What is left on either side of another stretch.
    fn without(self, other: Stretch) -> Vec<Stretch> {
        let before = self.common(Stretch { start: UnixNanos::MIN, end: Some(other.start) });
        let after = other.end.map(|end| self.common(Stretch { start: end, end: None }));
        [Some(before), after].into_iter().flatten().filter(|stretch| !stretch.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::source::{Detail, GapCause, Source, SourceSeqs, SourceStatus};
    use crate::domain::{TimeRange, Venue};

    fn at(nanos: i64) -> UnixNanos {
        UnixNanos::new(nanos).unwrap()
    }

    fn symbol(name: &str) -> Symbol {
        Symbol::new(name).unwrap()
    }

    fn scope(source: &str, symbols: &[&str]) -> Scope {
        let symbols = symbols.iter().map(|name| symbol(name)).collect();
        Scope { source: Source::new(source).unwrap(), venue: Venue::new("V").unwrap(), symbols }
    }

    fn range(start: Option<i64>, end: Option<i64>) -> TimeRange {
        TimeRange::new(start.map(at), end.map(at)).unwrap()
    }

    fn gap(symbols: &[&str], start: Option<i64>, end: Option<i64>) -> Control {
        Control::SourceGap(SourceGap {
            scope: scope("feed", symbols),
            range: range(start, end),
            seqs: SourceSeqs::default(),
            cause: GapCause::Unspecified,
            recoverable: true,
            detail: Detail::default(),
        })
    }

    fn filled(source: &str, symbols: &[&str], start: Option<i64>, end: Option<i64>, gap: Option<u64>) -> Control {
        Control::SourceGapFilled(SourceGapFilled {
            scope: scope(source, symbols),
            range: range(start, end),
            seqs: SourceSeqs::default(),
            gap_log_seq: gap,
        })
    }

    fn up(symbols: &[&str], time: i64) -> Control {
        let status = SourceStatus {
            scope: scope("feed", symbols),
            up: true,
            change_time: Some(at(time)),
            detail: Detail::default(),
        };
        Control::SourceStatus(status)
    }

    #[test]
    fn what_was_lost_and_not_got_back_is_missing() {
        let filled_by_feed = |symbols: &[&str], start, end, gap| filled("feed", symbols, start, end, gap);
        // Name, entries (positions 1, 2, ..., told at 1,000 times that), symbol, stretch asked, whether it is missing.
        type Case = (&'static str, Vec<Control>, &'static str, (i64, Option<i64>), bool);
        let cases: Vec<Case> = vec![
            ("nothing said", vec![], "A", (0, None), false),
            ("inside", vec![gap(&[], Some(10), Some(20))], "A", (15, Some(16)), true),
            ("touching the start", vec![gap(&[], Some(10), Some(20))], "A", (0, Some(10)), false),
            ("touching the end", vec![gap(&[], Some(10), Some(20))], "A", (20, Some(30)), false),
            ("another symbol", vec![gap(&["B"], Some(10), Some(20))], "A", (0, None), false),
            ("its symbol", vec![gap(&["B", "A"], Some(10), Some(20))], "A", (0, None), true),
            ("not over", vec![gap(&[], Some(10), None)], "A", (5_000, Some(6_000)), true),
            ("over when up", vec![gap(&[], Some(10), None), up(&[], 70)], "A", (70, None), false),
            ("up for others only", vec![gap(&[], Some(10), None), up(&["B"], 70)], "A", (70, None), true),
            ("up before the gap", vec![up(&[], 5), gap(&[], Some(10), None)], "A", (70, None), true),
            ("no start: when told", vec![gap(&[], None, Some(3_000))], "A", (999, Some(1_000)), false),
            ("no start: since told", vec![gap(&[], None, Some(3_000))], "A", (999, Some(1_001)), true),
            (
                "filled",
                vec![gap(&[], Some(10), Some(20)), filled_by_feed(&[], None, None, None)],
                "A",
                (0, None),
                false,
            ),
            (
                "filled in part",
                vec![gap(&[], Some(10), Some(20)), filled_by_feed(&[], Some(12), Some(15), None)],
                "A",
                (12, Some(15)),
                false,
            ),
            (
                "the rest",
                vec![gap(&[], Some(10), Some(20)), filled_by_feed(&[], Some(12), Some(15), None)],
                "A",
                (12, Some(16)),
                true,
            ),
            (
                "filled piece by piece",
                vec![
                    gap(&[], Some(10), Some(20)),
                    filled_by_feed(&[], Some(15), None, None),
                    filled_by_feed(&[], None, Some(15), None),
                ],
                "A",
                (0, None),
                false,
            ),
            (
                "another feed's",
                vec![gap(&[], Some(10), Some(20)), filled("other", &[], None, None, None)],
                "A",
                (0, None),
                true,
            ),
            (
                "another gap's",
                vec![gap(&[], Some(10), Some(20)), filled_by_feed(&[], None, None, Some(7))],
                "A",
                (0, None),
                true,
            ),
            (
                "filled for another symbol",
                vec![gap(&[], Some(10), Some(20)), filled_by_feed(&["B"], None, None, Some(1))],
                "A",
                (0, None),
                true,
            ),
            (
                "filled before it was lost",
                vec![filled_by_feed(&[], None, None, None), gap(&[], Some(10), Some(20))],
                "A",
                (0, None),
                true,
            ),
        ];
        for (name, entries, of, (start, end), expected) in cases {
            let mut outages = Outages::default();
            for (index, control) in entries.iter().enumerate() {
                let log_seq = index as u64 + 1;
                outages.push(log_seq, at(1_000 * log_seq as i64), control);
            }
            let found = outages.overlap(&symbol(of), at(start), end.map(at), u64::MAX);
            assert_eq!(found, expected, "{name}");
            assert!(!outages.overlap(&symbol(of), at(start), end.map(at), 0), "{name}: before everything");
            // What has changed since a position lies where something was said since.
            for position in 0..=entries.len() as u64 {
                let said = outages.said_after(&symbol(of), position);
                for time in (0..8_000).filter(|time| *time < 100 || time % 500 < 3) {
                    let then = |position| outages.overlap(&symbol(of), at(time), Some(at(time + 1)), position);
                    let told =
                        said.is_some_and(|(start, end)| start <= at(time) && end.is_none_or(|end| at(time) < end));
                    assert!(told || then(position) == then(u64::MAX), "{name}: {time} since {position}");
                }
            }
        }
    }
}
