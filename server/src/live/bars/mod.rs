//! Streams of bars.
//!
//! A [`BarSession`] reads a [`Session`] of every tick, because a bar ends by the ticks of its whole venue, and tells the
//! bars that change. Growing bars are added up as ticks come; what a late tick changes is read again at the position of
//! the stream, by the same reader that answers lists. So a resumed stream needs no more than a position: what grows
//! there is read from the view. Start reading at [`BarSession::next`].

mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event::{Ack, Event, Message};
use super::matcher::{Matcher, Outcome, Selector};
use super::{IfUnavailable, Live, LiveError, Session, SlowReader, Start, Subscription};
use crate::domain::bar::{Bar, Contents, Interval};
use crate::domain::{Control, Cursor, Instrument, Symbol, UnixNanos};
use crate::store::StoreError;
use crate::tape::{BarReader, Finish, Registry, View};
use state::{BarId, SeriesId, Settled, State};

/// The shortest time between two messages about the same growing bar, unless asked for.
pub const DEFAULT_BAR_INTERVAL: Duration = Duration::from_secs(1);

/// Instruments that the selectors with a venue, and those without, may match each: bounds a stream's memory to a few
/// hundred bytes for each of them.
pub const MOST_BAR_INSTRUMENTS: u32 = 100_000;

/// Bars of one message: with the longest names and numbers they stay below 64 KiB.
const MESSAGE_BARS: usize = 128;

/// Ticks that are taken in at most before bars are told.
const STEP_TICKS: usize = 1 << 14;

/// Intervals between two late ticks of a series that are rather read than left out.
const NEAR: usize = 64;

/// How long a store that does not answer is left alone.
const RETRY_WAIT: Duration = Duration::from_millis(250);

/// A wish to follow bars.
#[derive(Clone, Debug)]
pub struct BarSubscription {
    /// Which instruments; those without a venue pool all venues of each symbol. At least one.
    pub selectors: Vec<Selector>,
    /// From where: live, a snapshot, or after a cursor.
    pub start: Start,
    /// What happens if that is no longer in the log.
    pub if_unavailable: IfUnavailable,
    /// The length of a bar.
    pub interval: Interval,
    /// Whether bars are told while they grow.
    pub include_forming: bool,
    /// The shortest time between two messages about the same growing bar.
    pub min_interval: Duration,
    /// How often progress is told.
    pub heartbeat: Duration,
}

/// One event, and where to go on after it.
#[derive(Clone, Debug)]
pub struct BarMessage {
    /// The stream continues behind this; `None` before the end of a snapshot.
    pub cursor: Option<Cursor>,
    /// What happened.
    pub event: BarEvent,
}

/// What a subscriber of bars is told.
#[derive(Clone, Debug)]
pub enum BarEvent {
    /// Bars that changed, by start, then by venue and symbol; at least one but in an empty snapshot.
    Bars(Vec<NamedBar>),
    /// Every bar of an interval that has ticks is final and told.
    Complete {
        /// Its start.
        start: UnixNanos,
        /// Its end.
        end: UnixNanos,
    },
    /// What streams of ticks tell too; never ticks.
    Other(Event),
}

/// A bar, and whose.
#[derive(Clone, Debug)]
pub struct NamedBar {
    /// The symbol.
    pub symbol: Symbol,
    /// The instrument; `None` pools all venues of the symbol.
    pub instrument: Option<Arc<Instrument>>,
    /// The bar.
    pub bar: Bar,
}

/// How the state at a position is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// Growing bars are told when they change.
    Quiet,
    /// They are told at once, because a change before the position may not have been.
    Resumed,
    /// They are the snapshot.
    Snapshot,
}

/// One subscription to bars. Dropping it ends it.
#[derive(Debug)]
pub struct BarSession {
    ticks: Session,
    state: State,
    interval: Interval,
    reader: Arc<dyn BarReader>,
    views: watch::Receiver<Arc<View>>,
    registry: Arc<Registry>,
    selectors: Vec<Selector>,
    draining: CancellationToken,
    include_forming: bool,
    min_interval: Duration,
    /// Growing bars may be told again from here on.
    next_round: Instant,
    outgoing: VecDeque<BarMessage>,
    /// Everything up to here has been told; `None` before the end of a snapshot.
    told: Option<Cursor>,
    /// Everything up to here has been taken in.
    taken: Cursor,
    /// The state is to be read at `taken`.
    begin: Option<Begin>,
    in_snapshot: bool,
}

impl Live {
    /// Starts a subscription to bars, or says why its position cannot be continued.
    pub async fn subscribe_bars(&self, wish: BarSubscription) -> Result<BarSession, LiveError> {
        let everything = |start, if_unavailable| Subscription {
            selectors: vec![Selector { venue: None, symbol: None }],
            start,
            if_unavailable,
            include_backfill: true,
            heartbeat: wish.heartbeat,
            flush_window: Duration::ZERO,
            conflated: None,
            slow_reader: SlowReader::CatchUp,
            definitions: false,
            message_ticks: 1,
        };
        let policy = match wish.if_unavailable {
            IfUnavailable::Snapshot => IfUnavailable::Fail,
            other => other,
        };
        let asked = match wish.start {
            Start::Snapshot => None,
            start => match self.subscribe(everything(start, policy)).await {
                Err(LiveError::Expired { .. }) if wish.if_unavailable == IfUnavailable::Snapshot => None,
                asked => Some(asked?),
            },
        };
        let (ticks, begin) = match (asked, wish.start) {
            (Some(ticks), Start::Live) => (ticks, Begin::Quiet),
            (Some(ticks), _) => (ticks, Begin::Resumed),
            (None, _) => {
                let at = self.views.borrow().cursor();
                (self.subscribe(everything(Start::After(at), IfUnavailable::Fail)).await?, Begin::Snapshot)
            }
        };
        Ok(self.bars_of(ticks, begin, wish))
    }

    fn bars_of(&self, ticks: Session, begin: Begin, wish: BarSubscription) -> BarSession {
        let BarSubscription { selectors, interval, include_forming, min_interval, .. } = wish;
        let most = self.most_instruments.min(MOST_BAR_INSTRUMENTS);
        let of = |alone: bool| selectors.iter().filter(move |selector| selector.venue.is_some() == alone);
        let matcher = |alone| {
            let own: Vec<Selector> = of(alone).cloned().collect();
            Matcher::new(&own, self.registry.clone(), most)
        };
        let ((alone, of_alone), (pooled, of_pooled)) = (matcher(true), matcher(false));
        let (mut of_alone, mut of_pooled) = (of_alone.into_iter(), of_pooled.into_iter());
        let outcome = |selector: &Selector| match selector.venue {
            Some(_) => of_alone.next(),
            None => of_pooled.next(),
        };
        let outcomes: Vec<Outcome> = selectors.iter().filter_map(outcome).collect();
        let mut ticks = ticks.feeding_bars();
        let taken = ticks.position();
        let in_snapshot = begin == Begin::Snapshot;
        let mut outgoing = VecDeque::new();
        // What was prepared for the subscriber of ticks: the acknowledgement, and maybe a gap.
        while let Some(Message { cursor, event }) = ticks.ready_opening() {
            let event = match event {
                Event::Ack(ack) => {
                    let min_interval = Some(min_interval);
                    Event::Ack(Ack { outcomes: outcomes.clone(), min_interval, flush_window: Duration::ZERO, ..ack })
                }
                event => event,
            };
            let cursor = cursor.filter(|_| !in_snapshot);
            outgoing.push_back(BarMessage { cursor, event: BarEvent::Other(event) });
        }
        BarSession {
            ticks,
            state: State::new(interval, self.registry.clone(), alone, pooled),
            interval,
            reader: self.bars.clone(),
            views: self.views.clone(),
            registry: self.registry.clone(),
            selectors,
            draining: self.draining.clone(),
            include_forming,
            min_interval,
            next_round: Instant::now(),
            outgoing,
            told: (!in_snapshot).then_some(taken),
            taken,
            begin: Some(begin),
            in_snapshot,
        }
    }
}

impl BarSession {
    /// Where to go on if the stream ends now; `None` before the end of a snapshot.
    pub fn cursor(&self) -> Option<Cursor> {
        self.told
    }

    /// The next message. After an error there is none.
    pub async fn next(&mut self) -> Result<BarMessage, LiveError> {
        loop {
            if let Some(message) = self.outgoing.pop_front() {
                return Ok(message);
            }
            if let Some(begin) = self.begin {
                self.begin(begin).await?;
                continue;
            }
            let round = (self.include_forming && !self.state.changed.is_empty()).then_some(self.next_round);
            let first = tokio::select! {
                biased;
                message = self.ticks.next() => Some(message?),
                () = tokio::time::sleep_until(round.unwrap_or_else(Instant::now)), if round.is_some() => None,
            };
            let mut ticks = 0;
            let mut other = first.and_then(|message| self.take(message, &mut ticks));
            while other.is_none()
                && ticks < STEP_TICKS
                && let Some(message) = self.ticks.ready()
            {
                other = self.take(message, &mut ticks);
            }
            self.tell().await?;
            if let Some(Message { cursor, event }) = other {
                self.pass_on(cursor, event);
            }
        }
    }

    /// Takes a message of the ticks in. Gives back what has to be told itself, after the bars before it.
    fn take(&mut self, message: Message, ticks: &mut usize) -> Option<Message> {
        match &message.event {
            Event::Run(run) => {
                for tick in run.ticks() {
                    self.state.tick(tick);
                }
                *ticks += run.len();
            }
            Event::Correction { correction, .. } => self.state.correction(correction),
            Event::Source { control: Control::Watermark { venue, time }, .. } => self.state.watermark(venue, *time),
            Event::Source { control, .. } => {
                if control.scope().is_some_and(|scope| self.state.wants_news_of(scope)) {
                    return Some(message);
                }
            }
            _ => return Some(message),
        }
        self.taken = message.cursor.unwrap_or(self.taken);
        None
    }

    /// Tells what is no bar.
    fn pass_on(&mut self, cursor: Option<Cursor>, event: Event) {
        self.taken = cursor.unwrap_or(self.taken);
        match event {
            // A snapshot was asked for, no replay.
            Event::ReplayCompleted { .. } if self.in_snapshot => return,
            // What grows at the oldest entry is not known from what came before.
            Event::StreamGap { .. } => self.begin = Some(Begin::Resumed),
            _ => (),
        }
        self.told = Some(self.taken);
        self.outgoing.push_back(BarMessage { cursor: self.told, event: BarEvent::Other(event) });
    }

    /// Reads the state at the position of the stream.
    async fn begin(&mut self, begin: Begin) -> Result<(), LiveError> {
        let position = self.taken.position;
        let view = loop {
            let view = self.view(position).await?;
            match self.state.read(&*self.reader, (&view, position)).await {
                Ok(()) => break view,
                Err(error) => self.wait_for_store(error).await?,
            }
        };
        self.begin = None;
        let growing: Vec<BarId> = self.state.growing().collect();
        match begin {
            Begin::Quiet => (),
            Begin::Resumed => self.state.changed.extend(growing),
            Begin::Snapshot => {
                let event = Event::SnapshotBegin { position, tick_count: growing.len() as u32 };
                self.outgoing.push_back(BarMessage { cursor: None, event: BarEvent::Other(event) });
                let growing = growing.into_iter();
                let bars = growing.filter_map(|bar| Some((bar, self.state.contents(bar)?.clone()))).collect();
                let bars = self.named(&view, bars);
                for part in bars.chunks(MESSAGE_BARS) {
                    self.outgoing.push_back(BarMessage { cursor: None, event: BarEvent::Bars(part.to_vec()) });
                }
                self.told = Some(self.taken);
                let event = Event::SnapshotEnd { position, without_data: self.without_data(&view) };
                self.outgoing.push_back(BarMessage { cursor: self.told, event: BarEvent::Other(event) });
            }
        }
        Ok(())
    }

    /// The selectors with an exact symbol for which there is no tick.
    fn without_data(&self, view: &View) -> Vec<usize> {
        let lacks = |selector: &Selector| super::snapshot::lacks_data(view, selector, &self.registry);
        (0..self.selectors.len()).filter(|&index| lacks(&self.selectors[index])).collect()
    }

    /// Tells the bars that changed by what was taken in.
    async fn tell(&mut self) -> Result<(), LiveError> {
        let Settled { ended, complete } = self.state.settle();
        let mut found: BTreeMap<BarId, Contents> = ended.into_iter().collect();
        let late = std::mem::take(&mut self.state.late);
        if !late.is_empty() {
            let revised = self.reread(late).await?;
            found.extend(revised.into_iter().filter_map(|(bar, contents)| self.state.revised(bar, contents)));
        }
        if !self.include_forming {
            self.state.changed.clear();
        } else if Instant::now() >= self.next_round && !self.state.changed.is_empty() {
            self.next_round = Instant::now() + self.min_interval;
            let changed = std::mem::take(&mut self.state.changed).into_iter();
            found.extend(changed.filter_map(|bar| Some((bar, self.state.contents(bar)?.clone()))));
        }
        if found.is_empty() {
            return Ok(());
        }
        let view = self.view(self.taken.position).await?;
        let bars = self.named(&view, found.into_iter().collect());
        let parts = bars.chunks(MESSAGE_BARS).map(|part| BarEvent::Bars(part.to_vec()));
        let marks = complete.into_iter().filter_map(|start| {
            let end = self.interval.end_of(start)?;
            Some(BarEvent::Complete { start, end })
        });
        let events: Vec<BarEvent> = parts.chain(marks).collect();
        let last = events.len() - 1;
        for (index, event) in events.into_iter().enumerate() {
            if index == last {
                self.told = Some(self.taken);
            }
            self.outgoing.push_back(BarMessage { cursor: self.told, event });
        }
        Ok(())
    }

    /// The contents of bars that late ticks or corrections changed, at the position of the stream.
    async fn reread(&mut self, late: BTreeSet<BarId>) -> Result<Vec<(BarId, Contents)>, LiveError> {
        loop {
            let view = self.view(self.taken.position).await?;
            match self.read(&view, &late).await {
                Ok(revised) => return Ok(revised),
                Err(error) => self.wait_for_store(error).await?,
            }
        }
    }

    async fn read(&self, view: &View, late: &BTreeSet<BarId>) -> Result<Vec<(BarId, Contents)>, StoreError> {
        let mut starts: BTreeMap<SeriesId, Vec<UnixNanos>> = BTreeMap::new();
        for &(start, id) in late {
            starts.entry(id).or_default().push(start);
        }
        let mut found = Vec::with_capacity(late.len());
        for (id, starts) in starts {
            let (series, _) = self.state.series(id);
            let near =
                |one: &UnixNanos, next: &UnixNanos| self.interval.later(*one, NEAR).is_none_or(|far| *next <= far);
            for stretch in starts.chunk_by(near) {
                let (Some(&from), Some(&last)) = (stretch.first(), stretch.last()) else { continue };
                let at = (view, self.taken.position);
                let until = self.interval.end_of(last);
                let bars = self.reader.bars(at, &series.instruments, self.interval, (from, until)).await?;
                let mut bars = bars.into_bars();
                found.extend(stretch.iter().filter_map(|&start| Some(((start, id), bars.remove(&start)?))));
            }
        }
        Ok(found)
    }

    /// Bars under their names, in the order of messages.
    fn named(&self, view: &View, bars: Vec<(BarId, Contents)>) -> Vec<NamedBar> {
        let mut named: Vec<NamedBar> = Vec::with_capacity(bars.len());
        for ((start, id), contents) in bars {
            let (series, final_until) = self.state.series(id);
            let facts = view.venues().of(view, &self.registry, &series.instruments);
            let at = (self.taken.position, final_until);
            let finish = Finish::new(&facts, series.symbol.clone(), at, self.interval);
            named.push(NamedBar {
                symbol: series.symbol.clone(),
                instrument: series.instrument.clone(),
                bar: finish.bar(start, contents),
            });
        }
        let venue = |bar: &NamedBar| bar.instrument.as_ref().map(|instrument| instrument.venue.clone());
        named.sort_by(|a, b| (a.bar.start, venue(a), &a.symbol).cmp(&(b.bar.start, venue(b), &b.symbol)));
        named
    }

    /// A view that has reached a position.
    async fn view(&mut self, position: u64) -> Result<Arc<View>, LiveError> {
        loop {
            let view = self.views.borrow_and_update().clone();
            if view.position() >= position {
                return Ok(view);
            }
            let changed = tokio::select! {
                biased;
                () = self.draining.cancelled() => return Err(LiveError::ShuttingDown),
                changed = self.views.changed() => changed,
            };
            if changed.is_err() {
                // No more views come, because the log is another one now; the ticks end by that too, and say how.
                loop {
                    self.ticks.next().await?;
                }
            }
        }
    }

    /// Who lags is late, not wrong: what the store cannot read now is read later.
    async fn wait_for_store(&self, error: StoreError) -> Result<(), LiveError> {
        let StoreError::Unavailable(problem) = error else {
            return Err(error.into());
        };
        tracing::debug!(%problem, "a stream of bars waits for the store");
        tokio::select! {
            () = self.draining.cancelled() => Err(LiveError::ShuttingDown),
            () = tokio::time::sleep(RETRY_WAIT) => Ok(()),
        }
    }
}
