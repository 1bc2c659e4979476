//! The rounds of a conflated stream.
//!
//! A round is a stretch of the log, from the end of the round before it to where the log ended when the round began. Of
//! its ticks it keeps, for each instrument, the greatest by (event_time, log_seq), and how many there were. Whoever
//! keeps the greatest tick that they have seen therefore ends with the state of the whole log. Entries about feeds are
//! kept as they are, and so is every correction and cancel: they come last, behind the ticks that they may be about.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::event::{Event, Message, Ticks};
use super::matcher::Matcher;
use crate::domain::{Block, Control, Correction, Cursor, InstrumentId, Origin, Tick};

/// Instruments that one round holds at most: bounds a stream's memory to about 10 MB. A round that is full ends there,
/// and the next begins at once.
const MOST_INSTRUMENTS: usize = 1 << 16;

/// Entries about feeds that one round holds at most.
const MOST_CONTROLS: usize = 256;

/// Corrections that one round holds at most.
const MOST_CORRECTIONS: usize = 1 << 14;

/// A round in the making.
#[derive(Debug, Default)]
pub(super) struct Round {
    ticks: BTreeMap<InstrumentId, (Tick, u32)>,
    controls: Vec<(u64, Control)>,
    corrections: Vec<(u64, Correction, Origin)>,
}

impl Round {
    /// Takes the entries of a block that lie after a position. Returns how far it got: to the block's end, unless the
    /// round is full before it.
    pub(super) fn absorb(&mut self, block: &Block, after: u64, with_ticks: bool, matcher: &mut Matcher) -> u64 {
        let controls = &block.entries.controls;
        let mut reached = block.last_seq();
        let new = controls.partition_point(|(log_seq, _)| *log_seq <= after);
        for (log_seq, control) in &controls[new..] {
            if control.scope().is_some_and(|scope| matcher.wants_news_of(scope)) {
                if self.controls.len() == MOST_CONTROLS {
                    reached = log_seq - 1;
                    break;
                }
                self.controls.push((*log_seq, control.clone()));
            } else if let Control::Correction(correction) = control
                && with_ticks
                && matcher.wants(correction.instrument)
            {
                if self.corrections.len() == MOST_CORRECTIONS {
                    reached = log_seq - 1;
                    break;
                }
                self.corrections.push((*log_seq, correction.clone(), block.origin()));
            }
        }
        if !with_ticks {
            return reached;
        }
        let ticks = &block.entries.ticks;
        let new = ticks.partition_point(|tick| tick.log_seq <= after);
        for tick in ticks[new..].iter().take_while(|tick| tick.log_seq <= reached) {
            if !matcher.wants(tick.instrument) {
                continue;
            }
            let room = self.ticks.len() < MOST_INSTRUMENTS;
            match self.ticks.entry(tick.instrument) {
                Entry::Vacant(_) if !room => {
                    reached = tick.log_seq - 1;
                    break;
                }
                Entry::Vacant(entry) => {
                    entry.insert((tick.clone(), 1));
                }
                Entry::Occupied(mut entry) => {
                    let (greatest, merged) = entry.get_mut();
                    *merged = merged.saturating_add(1);
                    if greatest.key() < tick.key() {
                        *greatest = tick.clone();
                    }
                }
            }
        }
        // Other entries that lie behind the cut belong to the next round.
        self.controls.retain(|(log_seq, _)| *log_seq <= reached);
        self.corrections.retain(|(log_seq, ..)| *log_seq <= reached);
        reached
    }

    /// The messages of the complete round. `before` is the end of the round before it, `end` its own.
    pub(super) fn send(self, before: Cursor, end: Cursor) -> Box<Sending> {
        Box::new(Sending {
            controls: self.controls.into_iter(),
            ticks: self.ticks.into_values(),
            corrections: self.corrections.into_iter(),
            before,
            end,
        })
    }
}

/// A complete round on its way to the reader.
#[derive(Debug)]
pub(super) struct Sending {
    controls: std::vec::IntoIter<(u64, Control)>,
    ticks: std::collections::btree_map::IntoValues<InstrumentId, (Tick, u32)>,
    corrections: std::vec::IntoIter<(u64, Correction, Origin)>,
    before: Cursor,
    /// Where the round ends.
    pub(super) end: Cursor,
}

impl Sending {
    /// The next message; `None` when all have been sent. The last one carries the round's own end, those before it the
    /// end of the round before, so that a cut between them loses nothing.
    pub(super) fn next(&mut self, most_ticks: usize) -> Option<Message> {
        let event = match self.controls.next() {
            Some((log_seq, control)) => Event::Source { log_seq, control },
            None => {
                let (ticks, merged): (Vec<_>, Vec<_>) = self.ticks.by_ref().take(most_ticks).unzip();
                if ticks.is_empty() {
                    let (log_seq, correction, origin) = self.corrections.next()?;
                    Event::Correction { log_seq, correction, origin }
                } else {
                    Event::Ticks(Ticks { ticks, merged, before: Some(self.before) })
                }
            }
        };
        let last = self.controls.len() == 0 && self.ticks.len() == 0 && self.corrections.len() == 0;
        Some(Message { cursor: Some(if last { self.end } else { self.before }), event })
    }
}
