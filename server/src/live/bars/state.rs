//! What a stream of bars knows at a position: how far venues have come, and the bars that grow.
//!
//! A series is one instrument, or all venues of a symbol. Series whose bars end by the same venues are a group, so that
//! a venue that comes on is looked at once for all of them. The contents of growing bars are here; those of final ones
//! are not: when a late tick changes one, it is read again. So is every bar of a trade that is corrected, growing or not;
//! one whose trades were all taken back stays a bar, without ticks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::domain::bar::{BarBuilder, Contents, Interval, final_until};
use crate::domain::source::Scope;
use crate::domain::{Correction, Instrument, InstrumentId, Symbol, Tick, TradeId, UnixNanos, Venue};
use crate::live::Matcher;
use crate::store::StoreError;
use crate::tape::{BarReader, Registry, View};

/// A series, by its place in the state.
pub(super) type SeriesId = u32;

/// A bar: its start, and whose it is. The order is that of messages, but for the names.
pub(super) type BarId = (UnixNanos, SeriesId);

/// One instrument, or all venues of a symbol together.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) symbol: Symbol,
    /// `None` pools all venues.
    pub(super) instrument: Option<Arc<Instrument>>,
    /// Those that have ticks.
    pub(super) instruments: Vec<InstrumentId>,
    group: usize,
    /// The bars that are not final.
    growing: BarBuilder,
}

/// One venue.
#[derive(Debug, Default)]
struct VenueState {
    newest: Option<UnixNanos>,
    watermark: Option<UnixNanos>,
    /// Its bars that end at or before this are final, as of the last settling.
    settled: UnixNanos,
    groups: Vec<usize>,
}

/// Series that end their bars together.
#[derive(Debug)]
struct Group {
    venues: BTreeSet<usize>,
    /// Bars that end at or before this are final, as of the last settling.
    final_until: UnixNanos,
    /// The series with a growing bar, by its start.
    growing: BTreeMap<UnixNanos, BTreeSet<SeriesId>>,
}

/// What an instrument is to the stream.
#[derive(Clone, Debug)]
struct Known {
    venue: usize,
    /// Its own series and the pooled one of its symbol, as far as they are wanted.
    series: [Option<SeriesId>; 2],
}

/// What settling found.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Bars that are final now.
    pub(super) ended: Vec<(BarId, Contents)>,
    /// Starts of which no bar grows any more.
    pub(super) complete: BTreeSet<UnixNanos>,
}

/// What a stream of bars knows at a position.
#[derive(Debug)]
pub(super) struct State {
    interval: Interval,
    registry: Arc<Registry>,
    /// Which instruments are wanted by themselves, and which pooled.
    alone: Matcher,
    pooled: Matcher,
    venues: Vec<VenueState>,
    venue_ids: HashMap<Venue, usize>,
    groups: Vec<Group>,
    group_ids: HashMap<BTreeSet<usize>, usize>,
    pub(super) series: Vec<Series>,
    pools: HashMap<Symbol, SeriesId>,
    /// By instrument id - 1.
    known: Vec<Option<Known>>,
    /// How many series have a growing bar, by its start.
    growing: BTreeMap<UnixNanos, usize>,
    /// Venues that have come on, and groups that are new, since the last settling.
    moved: BTreeSet<usize>,
    new_groups: BTreeSet<usize>,
    /// Growing bars that changed since they were last told.
    pub(super) changed: BTreeSet<BarId>,
    /// Bars to be read again: final ones that late ticks changed, and those of trades that were corrected.
    pub(super) late: BTreeSet<BarId>,
    /// The trades of which something was said, by instrument.
    corrected: HashMap<InstrumentId, HashSet<(UnixNanos, TradeId)>>,
}

impl State {
    /// Knows nothing yet.
    pub(super) fn new(interval: Interval, registry: Arc<Registry>, alone: Matcher, pooled: Matcher) -> State {
        State {
            interval,
            registry,
            alone,
            pooled,
            venues: Vec::new(),
            venue_ids: HashMap::new(),
            groups: Vec::new(),
            group_ids: HashMap::new(),
            series: Vec::new(),
            pools: HashMap::new(),
            known: Vec::new(),
            growing: BTreeMap::new(),
            moved: BTreeSet::new(),
            new_groups: BTreeSet::new(),
            changed: BTreeSet::new(),
            late: BTreeSet::new(),
            corrected: HashMap::new(),
        }
    }

    /// Learns everything anew from a view, at a position that it has reached.
    pub(super) async fn read(
        &mut self,
        reader: &dyn BarReader,
        (view, position): (&View, u64),
    ) -> Result<(), StoreError> {
        let (interval, registry) = (self.interval, self.registry.clone());
        let alone = std::mem::replace(&mut self.alone, Matcher::new(&[], registry.clone(), 0).0);
        let pooled = std::mem::replace(&mut self.pooled, Matcher::new(&[], registry.clone(), 0).0);
        *self = State::new(interval, registry.clone(), alone, pooled);
        // The view knows how far venues are where it stands itself; elsewhere their instruments are looked at.
        let current = view.position() == position;
        for (venue, facts) in view.venues().iter() {
            let id = self.venue(venue);
            self.venues[id].watermark = facts.watermark(position);
            self.venues[id].newest = facts.newest().filter(|_| current);
        }
        let mut traded = Vec::new();
        for (instrument, holding) in view.holdings() {
            for logged in holding.corrections.iter().flat_map(|corrections| corrections.iter()) {
                self.name(&logged.correction);
            }
            if current {
                traded.push(instrument);
            } else if let Some(newest) = reader.newest((view, position), instrument).await? {
                traded.push(instrument);
                if let Some(named) = registry.get(instrument) {
                    let venue = self.venue(&named.venue);
                    self.venues[venue].newest = self.venues[venue].newest.max(Some(newest));
                }
            } else if holding.corrections.iter().flat_map(|all| all.iter()).any(|one| one.log_seq <= position) {
                traded.push(instrument);
            }
        }
        for venue in &mut self.venues {
            venue.settled = final_until(venue.newest, venue.watermark);
        }
        for instrument in traded {
            self.know(instrument);
        }
        for id in 0..self.series.len() {
            let Series { instruments, group, .. } = &self.series[id];
            let from = interval.start_of(self.groups[*group].final_until);
            let growing = reader.bars((view, position), instruments, interval, (from, None)).await?;
            for (start, _) in growing.iter() {
                self.grow((start, id as SeriesId));
            }
            self.series[id].growing = growing;
        }
        self.moved.clear();
        self.new_groups.clear();
        self.changed.clear();
        Ok(())
    }

    /// Takes a tick in.
    pub(super) fn tick(&mut self, tick: &Tick) {
        let Some(Known { venue, series }) = self.know(tick.instrument) else {
            return;
        };
        let state = &mut self.venues[venue];
        if state.newest < Some(tick.event_time) {
            state.newest = Some(tick.event_time);
            self.moved.insert(venue);
        }
        let start = self.interval.start_of(tick.event_time);
        if !self.corrected.is_empty() && self.is_named(tick) {
            self.late.extend(series.into_iter().flatten().map(|id| (start, id)));
            return;
        }
        for id in series.into_iter().flatten() {
            let Series { group, growing, .. } = &mut self.series[id as usize];
            let is_final = self.interval.end_of(start).is_some_and(|end| end <= self.groups[*group].final_until);
            // Whatever grows is here with all its ticks, and what is not here and not final had none.
            match growing.get(start).is_some() {
                true => {
                    growing.push(tick);
                    self.changed.insert((start, id));
                }
                false if is_final => {
                    self.late.insert((start, id));
                }
                false => {
                    growing.push(tick);
                    self.grow((start, id));
                }
            }
        }
    }

    /// Takes in that something is said of a trade.
    pub(super) fn correction(&mut self, correction: &Correction) {
        self.name(correction);
        let Some(Known { series, .. }) = self.know(correction.instrument) else {
            return;
        };
        let start = self.interval.start_of(correction.event_time);
        self.late.extend(series.into_iter().flatten().map(|id| (start, id)));
    }

    /// Remembers which trade is meant: when it comes, it may not count as it is.
    fn name(&mut self, correction: &Correction) {
        let Correction { instrument, event_time, trade_id, .. } = correction;
        self.corrected.entry(*instrument).or_default().insert((*event_time, trade_id.clone()));
    }

    fn is_named(&self, tick: &Tick) -> bool {
        let named = self.corrected.get(&tick.instrument);
        named.is_some_and(|named| named.contains(&(tick.event_time, tick.trade_id.clone())))
    }

    /// Takes in what a bar is that was read again. Gives back what is to be told of it at once: a final one.
    pub(super) fn revised(&mut self, bar: BarId, contents: Contents) -> Option<(BarId, Contents)> {
        let (start, id) = bar;
        let Series { group, growing, .. } = &mut self.series[id as usize];
        let is_final = self.interval.end_of(start).is_some_and(|end| end <= self.groups[*group].final_until);
        if is_final {
            return Some((bar, contents));
        }
        let grew = growing.get(start).is_some();
        growing.insert(start, contents);
        if grew {
            self.changed.insert(bar);
        } else {
            self.grow(bar);
        }
        None
    }

    /// Takes in that a venue was told to be complete up to a time.
    pub(super) fn watermark(&mut self, venue: &Venue, time: UnixNanos) {
        let id = self.venue(venue);
        let watermark = &mut self.venues[id].watermark;
        *watermark = (*watermark).max(Some(time));
        self.moved.insert(id);
    }

    /// Ends the bars that are final by what was taken in.
    pub(super) fn settle(&mut self) -> Settled {
        let mut due = std::mem::take(&mut self.new_groups);
        for venue in std::mem::take(&mut self.moved) {
            let venue = &mut self.venues[venue];
            venue.settled = final_until(venue.newest, venue.watermark);
            due.extend(&venue.groups);
        }
        let mut settled = Settled::default();
        for group in due {
            let group = &mut self.groups[group];
            let reached = group.venues.iter().map(|&venue| self.venues[venue].settled).max();
            group.final_until = reached.unwrap_or(group.final_until).max(group.final_until);
            while let Some(first) = group.growing.first_entry()
                && self.interval.end_of(*first.key()).is_some_and(|end| end <= group.final_until)
            {
                let (start, members) = first.remove_entry();
                for id in members {
                    if let Some((_, contents)) = self.series[id as usize].growing.pop_until(group.final_until) {
                        settled.ended.push(((start, id), contents));
                    }
                    self.changed.remove(&(start, id));
                    let left = self.growing.get_mut(&start).expect("every growing bar is counted");
                    *left -= 1;
                    if *left == 0 {
                        self.growing.remove(&start);
                        settled.complete.insert(start);
                    }
                }
            }
        }
        settled
    }

    /// Every growing bar.
    pub(super) fn growing(&self) -> impl Iterator<Item = BarId> {
        let groups = self.groups.iter().flat_map(|group| &group.growing);
        groups.flat_map(|(&start, members)| members.iter().map(move |&id| (start, id)))
    }

    /// The contents of a growing bar.
    pub(super) fn contents(&self, (start, id): BarId) -> Option<&Contents> {
        self.series[id as usize].growing.get(start)
    }

    /// A series, and up to where its bars are final.
    pub(super) fn series(&self, id: SeriesId) -> (&Series, UnixNanos) {
        let series = &self.series[id as usize];
        (series, self.groups[series.group].final_until)
    }

    /// Whether an entry about a feed is about anything that is wanted.
    pub(super) fn wants_news_of(&self, scope: &Scope) -> bool {
        self.alone.wants_news_of(scope) || self.pooled.wants_news_of(scope)
    }

    /// Marks a bar as growing.
    fn grow(&mut self, bar: BarId) {
        let (start, id) = bar;
        self.groups[self.series[id as usize].group].growing.entry(start).or_default().insert(id);
        *self.growing.entry(start).or_default() += 1;
        self.changed.insert(bar);
    }

    fn venue(&mut self, venue: &Venue) -> usize {
        if let Some(&id) = self.venue_ids.get(venue) {
            return id;
        }
        self.venues.push(VenueState::default());
        self.venue_ids.insert(venue.clone(), self.venues.len() - 1);
        self.venues.len() - 1
    }

    /// What an instrument is to the stream. One that is met for the first time has its first tick.
    fn know(&mut self, id: InstrumentId) -> Option<Known> {
        let index = (id.0 as usize).checked_sub(1)?;
        if self.known.len() <= index {
            self.known.resize(index + 1, None);
        }
        if let Some(known) = &self.known[index] {
            return Some(known.clone());
        }
        // The hub knows every instrument before it shows a tick of it.
        let instrument = self.registry.get(id)?;
        let venue = self.venue(&instrument.venue);
        let alone = self.alone.wants(id).then(|| {
            let group = self.group(BTreeSet::from([venue]));
            self.add(&instrument, Some(instrument.clone()), group)
        });
        let pooled = self.pooled.wants(id).then(|| match self.pools.get(&instrument.symbol).copied() {
            Some(pool) => {
                self.join(pool, id, venue);
                pool
            }
            None => {
                let group = self.group(BTreeSet::from([venue]));
                let pool = self.add(&instrument, None, group);
                self.pools.insert(instrument.symbol.clone(), pool);
                pool
            }
        });
        self.known[index] = Some(Known { venue, series: [alone, pooled] });
        self.known[index].clone()
    }

    fn add(&mut self, first: &Instrument, instrument: Option<Arc<Instrument>>, group: usize) -> SeriesId {
        self.series.push(Series {
            symbol: first.symbol.clone(),
            instrument,
            instruments: vec![first.id],
            group,
            growing: BarBuilder::new(self.interval),
        });
        (self.series.len() - 1) as SeriesId
    }

    /// Adds an instrument to a pooled series, which moves to the group of all its venues.
    fn join(&mut self, pool: SeriesId, id: InstrumentId, venue: usize) {
        self.series[pool as usize].instruments.push(id);
        let from = self.series[pool as usize].group;
        let mut venues = self.groups[from].venues.clone();
        if !venues.insert(venue) {
            return;
        }
        let to = self.group(venues);
        self.series[pool as usize].group = to;
        let starts: Vec<UnixNanos> = self.series[pool as usize].growing.iter().map(|(start, _)| start).collect();
        for start in starts {
            if let Some(members) = self.groups[from].growing.get_mut(&start) {
                members.remove(&pool);
                if members.is_empty() {
                    self.groups[from].growing.remove(&start);
                }
            }
            self.groups[to].growing.entry(start).or_default().insert(pool);
        }
        self.new_groups.insert(to);
    }

    fn group(&mut self, venues: BTreeSet<usize>) -> usize {
        if let Some(&id) = self.group_ids.get(&venues) {
            return id;
        }
        let id = self.groups.len();
        for &venue in &venues {
            self.venues[venue].groups.push(id);
        }
        let final_until = venues.iter().map(|&venue| self.venues[venue].settled).max().unwrap_or(UnixNanos::MIN);
        self.groups.push(Group { venues: venues.clone(), final_until, growing: BTreeMap::new() });
        self.group_ids.insert(venues, id);
        id
    }
}
