//! What a subscriber was told over all its lives, and whether that is what the contract promises.

use tapefeed_proto::v1 as proto;

use super::oracle::{Entry, Oracle, Wish, key};
use super::reader::State;

/// One thing that a subscriber was told.
#[derive(Clone, Debug)]
pub enum Seen {
    Tick(proto::Tick),
    /// The word of a feed: its position and its name.
    Status(u64, String),
    /// Positions that are missing, first and last.
    Gap(u64, u64),
    /// Everything up to a position has come.
    Complete(u64),
}

/// What a subscriber was told, in order.
#[derive(Debug)]
pub struct Record {
    wish: Wish,
    conflated: bool,
    /// The position behind which the subscription begins.
    begin: Option<u64>,
    /// The cursor of the last message.
    pub reached: u64,
    seen: Vec<Seen>,
    /// The ticks of a snapshot that has not ended, and how many it promised.
    snapshot: Option<(Vec<proto::Tick>, u32)>,
    /// How often it was told that it lags.
    pub lags: u32,
    /// How often it was told that what comes next leaves the log soon.
    pub notices: u32,
    pub snapshots: u32,
    /// Ticks that others stand for.
    pub merged: u64,
}

impl Record {
    pub fn new(wish: Wish, conflated: bool) -> Record {
        Record {
            wish,
            conflated,
            begin: None,
            reached: 0,
            seen: Vec::new(),
            snapshot: None,
            lags: 0,
            notices: 0,
            snapshots: 0,
            merged: 0,
        }
    }

    pub fn begin(&mut self, position: u64) {
        self.begin = Some(position);
        self.reached = position;
    }

    pub fn is_conflated(&self) -> bool {
        self.conflated
    }

    pub fn in_snapshot(&self) -> bool {
        self.begin.is_none() || self.snapshot.is_some()
    }

    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// How many ticks, and how many gaps.
    pub fn counts(&self) -> (usize, usize) {
        let ticks = self.seen.iter().filter(|seen| matches!(seen, Seen::Tick(_))).count();
        let gaps = self.seen.iter().filter(|seen| matches!(seen, Seen::Gap(..))).count();
        (ticks, gaps)
    }

    pub fn seen(&mut self, seen: Seen) {
        self.seen.push(seen);
    }

    /// A cursor: they never go back.
    pub fn reach(&mut self, position: u64) {
        assert!(position >= self.reached, "the cursor went back from {} to {position}", self.reached);
        self.reached = position;
    }

    pub fn ticks(&mut self, ticks: Vec<proto::Tick>, merged: &[u32]) {
        assert!(!ticks.is_empty(), "no message is empty");
        assert_eq!(merged.len(), if self.conflated { ticks.len() } else { 0 }, "counts belong to rounds");
        self.merged += merged.iter().map(|count| u64::from(*count) - 1).sum::<u64>();
        match &mut self.snapshot {
            Some((snapshot, _)) => snapshot.extend(ticks),
            None => self.seen.extend(ticks.into_iter().map(Seen::Tick)),
        }
    }

    /// Forgets what was told after a tick; returns its position. `None` where no tick is.
    pub fn forget_after(&mut self, kept: usize) -> Option<u64> {
        let Seen::Tick(tick) = &self.seen[kept - 1] else { return None };
        let log_seq = tick.log_seq;
        self.seen.truncate(kept);
        self.reached = log_seq;
        Some(log_seq)
    }

    pub fn begin_snapshot(&mut self, position: u64, tick_count: u32) {
        assert!(position >= self.reached, "a snapshot does not go back");
        self.snapshot = Some((Vec::new(), tick_count));
    }

    /// The snapshot is complete: it has the newest tick of everything that is wanted, backfill included.
    pub fn end_snapshot(&mut self, position: u64, oracle: &Oracle) -> Result<(), String> {
        let (ticks, promised) = self.snapshot.take().expect("it began");
        let wish = Wish { include_backfill: true, ..self.wish.clone() };
        let expected = state(oracle, &wish, 0, position, &[]);
        let mut came = State::new();
        for tick in ticks {
            oracle.judge_tick(&tick)?;
            if let Some(twice) = came.insert((tick.venue.clone(), tick.symbol.clone()), tick) {
                return Err(format!("a snapshot has {}/{} twice", twice.venue, twice.symbol));
            }
        }
        if promised as usize != came.len() || seqs(&came) != expected {
            return Err(format!("the snapshot at {position} is {:?} instead of {expected:?}", seqs(&came)));
        }
        self.snapshots += 1;
        match self.begin {
            None => self.begin = Some(position),
            Some(_) => self.seen.push(Seen::Gap(self.reached + 1, position)),
        }
        Ok(())
    }

    /// Whether all of it is what the contract promises.
    pub fn judge(&self, oracle: &Oracle) -> Result<(), String> {
        let begin = self.begin.ok_or("it never began")?;
        let gaps: Vec<(u64, u64)> = self
            .seen
            .iter()
            .filter_map(|seen| if let Seen::Gap(from, to) = seen { Some((*from, *to)) } else { None })
            .collect();
        for seen in &self.seen {
            if let Seen::Tick(tick) = seen {
                oracle.judge_tick(tick)?;
            }
        }
        if self.conflated { self.judge_rounds(oracle, begin, &gaps) } else { self.judge_all(oracle, begin, &gaps) }
    }

    /// Every entry that is wanted, once, in order; nothing is claimed to be complete before it is.
    fn judge_all(&self, oracle: &Oracle, begin: u64, gaps: &[(u64, u64)]) -> Result<(), String> {
        let missing = |position: u64| gaps.iter().any(|(from, to)| (*from..=*to).contains(&position));
        let wanted = oracle.stretch(begin, self.reached);
        let mut wanted = wanted.filter(|(position, logged)| self.wish.wants(logged) && !missing(*position)).peekable();
        for (index, seen) in self.seen.iter().enumerate() {
            let (position, name) = match seen {
                Seen::Gap(..) => continue,
                Seen::Complete(position) => match wanted.peek() {
                    Some((next, _)) if *next <= *position => {
                        return Err(format!("complete up to {position} was claimed before {next} came"));
                    }
                    _ => continue,
                },
                Seen::Tick(tick) => (tick.log_seq, &tick.trade_id),
                Seen::Status(position, name) => (*position, name),
            };
            let Some((next, logged)) = wanted.next() else {
                return Err(format!("{position} came, and nothing was to come any more"));
            };
            let expected = match &logged.entry {
                Entry::Tick(tick) => &tick.trade_id,
                Entry::Status(status) => &status.detail,
            };
            if next != position || expected != name {
                let before = &self.seen[index.saturating_sub(3)..index];
                return Err(format!("{position} ({name}) came instead of {next} ({expected}), after {before:?}"));
            }
        }
        match wanted.next() {
            Some((position, _)) => Err(format!("{position} never came, and the cursor says {}", self.reached)),
            None => Ok(()),
        }
    }

    /// Who keeps the greatest ticks ends with the state of every tick, and heard every word of a feed.
    fn judge_rounds(&self, oracle: &Oracle, begin: u64, gaps: &[(u64, u64)]) -> Result<(), String> {
        let mut kept = State::new();
        let mut heard = Vec::new();
        for seen in &self.seen {
            match seen {
                Seen::Tick(tick) => keep(&mut kept, tick),
                Seen::Status(position, _) => heard.push(*position),
                Seen::Gap(..) | Seen::Complete(_) => (),
            }
        }
        let expected = state(oracle, &self.wish, begin, self.reached, gaps);
        let kept = seqs(&kept);
        if gaps.is_empty() && kept != expected {
            return Err(format!("the final state is {kept:?} instead of {expected:?}"));
        }
        // What was missed may be greater than all that was not; a tick of it may have come inside an unfinished round.
        for (name, newest) in &expected {
            let newer = kept.get(name).is_some_and(|seq| {
                let of = |seq: &u64| match &oracle.log[seq].entry {
                    Entry::Tick(tick) => key(tick, *seq),
                    Entry::Status(_) => (0, 0),
                };
                of(seq) >= of(newest)
            });
            if !newer {
                return Err(format!("{name:?} ends at {:?} instead of {newest}", kept.get(name)));
            }
        }
        heard.sort_unstable();
        heard.dedup();
        let missing = |position: u64| gaps.iter().any(|(from, to)| (*from..=*to).contains(&position));
        let words = oracle.stretch(begin, self.reached).filter(|(position, logged)| {
            matches!(logged.entry, Entry::Status(_)) && self.wish.wants(logged) && !missing(*position)
        });
        for (position, _) in words {
            if heard.binary_search(&position).is_err() {
                return Err(format!("the word of a feed at {position} never came"));
            }
        }
        Ok(())
    }
}

fn keep(state: &mut State, tick: &proto::Tick) {
    let name = (tick.venue.clone(), tick.symbol.clone());
    let newer = state.get(&name).is_none_or(|known| key(known, known.log_seq) < key(tick, tick.log_seq));
    if newer {
        state.insert(name, tick.clone());
    }
}

fn seqs(state: &State) -> std::collections::BTreeMap<(String, String), u64> {
    state.iter().map(|(name, tick)| (name.clone(), tick.log_seq)).collect()
}

/// The greatest ticks of a stretch of the log, behind `begin` up to `end`, without what is in gaps.
fn state(
    oracle: &Oracle,
    wish: &Wish,
    begin: u64,
    end: u64,
    gaps: &[(u64, u64)],
) -> std::collections::BTreeMap<(String, String), u64> {
    let mut newest = State::new();
    for (position, logged) in oracle.stretch(begin, end) {
        let missing = gaps.iter().any(|(from, to)| (*from..=*to).contains(&position));
        if let Entry::Tick(tick) = &logged.entry
            && !missing
            && wish.wants(logged)
        {
            keep(&mut newest, &proto::Tick { log_seq: position, ..tick.clone() });
        }
    }
    seqs(&newest)
}
