//! Keeps the table of bars, which other programs read by SQL: the final bars of a minute, an hour and a day of each
//! instrument.
//!
//! Works from views, off every path that somebody waits on. The bars that the log touched between two looks wait in
//! [`Pending`] until their venue has come past their end, and are then read whole from the view, by the reader that
//! answers lists of bars. So the first tick of a bar, a late one and a correction are all the same. Where the log does
//! not reach back to the mark of the table, every bar is read from the view once. Start reading at [`Recorder::term`].
//!
//! Of several replicas one records at a time: a change expects the version of the mark that its maker knows, and who
//! comes too late stands by until the table stands still.

mod pending;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{BarReader, Finish, FollowError, Follower, Tape, View};
use crate::domain::bar::{BarBuilder, Contents, Interval, final_until};
use crate::domain::{Cursor, Instrument, InstrumentId, UnixNanos, Venue};
use crate::metrics::Metrics;
use crate::store::{BarKey, BarRow, BarsChange, BarsMark, Store, StoreError};
use pending::Pending;

/// The lengths of bars in the table.
const INTERVALS: [Interval; 3] = [Interval::MINUTE, Interval::HOUR, Interval::DAY];

/// How often the table follows the view.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the mark moves on while no bar ends: a restart takes so much of the log in again.
const MARK_INTERVAL: Duration = Duration::from_secs(10);

/// How long the table stands still before a replica that stands by takes over.
const STANDBY_WAIT: Duration = Duration::from_secs(30);

/// How long a store that fails is left alone.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// Rows from which on a change is written, though more follow: 0.3 MB.
const CHANGE_ROWS: usize = 1_000;

/// Bars that are read at once.
const READ_BARS: usize = 1_000;

/// Intervals between two bars of an instrument that are rather read than left out.
const NEAR: usize = 16;

/// Bars that wait, from which on the final ones are written before more of the log is taken in: 20 MB.
const MOST_PENDING: usize = 1 << 18;

/// Memory of the blocks that are taken in at once.
const STEP_BYTES: usize = 4 << 20;

/// The task's state, for one epoch.
#[derive(Debug)]
pub struct Recorder {
    tape: Tape,
    store: Arc<dyn Store>,
    reader: Arc<dyn BarReader>,
    metrics: Metrics,
    /// The mark as it was read or written last. Its position is that of the next change, too.
    mark: BarsMark,
    /// The log is taken in up to here.
    taken: u64,
    pending: Pending,
    /// What is written next: rows that come, and keys of rows that go.
    change: BTreeMap<BarKey, Option<BarRow>>,
}

/// Why a term of recording ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("another replica has changed the table")]
    Outrun,
    #[error("the log does not reach back to the mark")]
    Expired,
    #[error("the epoch is over")]
    Over,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<FollowError> for End {
    fn from(error: FollowError) -> End {
        match error {
            FollowError::Expired { .. } => End::Expired,
            FollowError::EpochChanged { .. } => End::Over,
            FollowError::Store(error) => End::Store(error),
        }
    }
}

impl Recorder {
    /// A recorder of one tape.
    pub fn new(tape: Tape, store: Arc<dyn Store>, reader: Arc<dyn BarReader>, metrics: Metrics) -> Recorder {
        let (pending, change) = (Pending::default(), BTreeMap::new());
        Recorder { tape, store, reader, metrics, mark: BarsMark::default(), taken: 0, pending, change }
    }

    /// Records until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let _: Option<()> = stop.run_until_cancelled(self.record()).await;
    }

    async fn record(&mut self) {
        loop {
            let Err(end) = self.term().await;
            match end {
                End::Outrun => self.stand_by().await,
                // The next epoch has a recorder of its own, and this one is stopped.
                End::Over => std::future::pending().await,
                End::Expired | End::Store(_) => {
                    self.metrics.tape.store_failed("bars");
                    tracing::warn!(error = %end, "the table of bars is behind and waits for the store");
                    tokio::time::sleep(RETRY_WAIT).await;
                }
            }
        }
    }

    /// Records from where the table stands, until something keeps it from it.
    async fn term(&mut self) -> Result<Infallible, End> {
        self.mark = self.store.bars_mark().await?;
        self.change.clear();
        let epoch = self.tape.epoch;
        let known = self.mark.epoch.unwrap_or(epoch);
        let stands = self.mark.position.map(|position| Cursor { epoch: known, position });
        match stands.and_then(|cursor| self.tape.lineage.carry(cursor)) {
            Some(cursor) => self.resume(cursor.position).await?,
            None => {
                let shared = || self.tape.lineage.shared_with(known).unwrap_or(0);
                self.fill((known != epoch).then(shared)).await?;
            }
        }
        loop {
            match self.follow().await {
                Err(End::Expired) => self.fill(None).await?,
                Err(end) => return Err(end),
            }
        }
    }

    /// Waits until nobody changes the table any more, though there is something to record.
    async fn stand_by(&self) {
        let mut seen = None;
        loop {
            match self.store.bars_mark().await {
                Ok(mark) if seen == Some(mark) && mark.position != Some(self.view().position()) => return,
                Ok(mark) => {
                    self.show(mark.position.unwrap_or(0));
                    seen = Some(mark);
                }
                Err(error) => tracing::debug!(%error, "the mark of the table of bars cannot be read now"),
            }
            tokio::time::sleep(STANDBY_WAIT).await;
        }
    }

    /// Learns which bars grow at a position: they have ticks up to there, and no tick up to there ends them.
    async fn resume(&mut self, position: u64) -> Result<(), End> {
        let mut views = self.tape.views.clone();
        let reached = views.wait_for(|view| view.position() >= position).await;
        let view = reached.map_err(|_| End::Over)?.clone();
        let mut newest: BTreeMap<Venue, UnixNanos> = BTreeMap::new();
        let mut traded: Vec<Arc<Instrument>> = Vec::new();
        for (instrument, _) in view.holdings() {
            let Some(named) = self.tape.registry.get(instrument) else { continue };
            if let Some(time) = self.reader.newest((&view, position), instrument).await? {
                let newest = newest.entry(named.venue.clone()).or_insert(time);
                *newest = time.max(*newest);
                traded.push(named);
            }
        }
        self.pending = Pending::default();
        for named in traded {
            let watermark = view.venues().get(&named.venue).and_then(|facts| facts.watermark(position));
            let settled = final_until(newest.get(&named.venue).copied(), watermark);
            for interval in INTERVALS {
                let from = (interval.start_of(settled), None);
                let growing = self.reader.bars((&view, position), &[named.id], interval, from).await?;
                for (start, _) in growing.iter() {
                    self.pending.add(&named.venue, BarKey { instrument: named.id, interval, start });
                }
            }
        }
        self.taken = position;
        Ok(())
    }

    /// Records every bar that history has, and stands at the position from which it began then. Before that, rows of a
    /// greater revision than `forget_above` go.
    async fn fill(&mut self, forget_above: Option<u64>) -> Result<(), End> {
        let (position, instruments) = {
            let view = self.view();
            let instruments: Vec<InstrumentId> = view.holdings().map(|(instrument, _)| instrument).collect();
            (view.position(), instruments)
        };
        tracing::info!(position, "the table of bars is filled from history");
        self.change.clear();
        self.pending = Pending::default();
        self.mark.position = None;
        self.show(0);
        self.write(forget_above).await?;
        for instrument in instruments {
            let mut filled = self.fill_in(instrument).await;
            // A store that does not answer for a while must not cost what is filled in already.
            while let Err(End::Store(StoreError::Unavailable(problem))) = filled {
                self.metrics.tape.store_failed("bars");
                tracing::warn!(%problem, "the filling of the table of bars waits for the store");
                tokio::time::sleep(RETRY_WAIT).await;
                filled = match self.keep_filling().await {
                    Ok(()) => self.fill_in(instrument).await,
                    Err(end) => Err(end),
                };
            }
            filled?;
        }
        self.mark.position = Some(position);
        self.write(None).await?;
        self.resume(position).await
    }

    /// After a failure while the table is filled: finds the mark as it was, or as the write left it whose outcome was not
    /// told.
    async fn keep_filling(&mut self) -> Result<(), End> {
        let mark = self.store.bars_mark().await?;
        let versions = self.mark.version..=self.mark.version + 1;
        if !versions.contains(&mark.version) || mark.epoch != Some(self.tape.epoch) || mark.position.is_some() {
            return Err(End::Outrun);
        }
        self.mark = mark;
        Ok(())
    }

    /// Records every bar of an instrument that history has.
    async fn fill_in(&mut self, instrument: InstrumentId) -> Result<(), End> {
        for interval in INTERVALS {
            self.record_stretch(instrument, interval, (UnixNanos::MIN, None)).await?;
        }
        // A bar whose trades were all taken back has no tick by which it would be found.
        let view = self.view();
        let corrections = view.holding(instrument).and_then(|holding| holding.corrections.clone());
        for logged in corrections.iter().flat_map(|corrections| corrections.iter()) {
            self.pending.touch(instrument, logged.correction.event_time, &self.tape.registry);
        }
        self.settle(&view).await
    }

    /// Follows the log from where it is taken in.
    async fn follow(&mut self) -> Result<Infallible, End> {
        let after = Cursor { epoch: self.tape.epoch, position: self.taken };
        let mut follower = Follower::new(self.tape.hub.clone(), self.store.clone(), after, STEP_BYTES);
        let mut written = Instant::now();
        loop {
            let view = self.view();
            let since = self.taken;
            self.take(&mut follower, &view).await?;
            self.record_outages(&view, since).await?;
            self.settle(&view).await?;
            let moved = self.mark.position != Some(self.taken);
            if !self.change.is_empty() || moved && written.elapsed() >= MARK_INTERVAL {
                self.mark.position = Some(self.taken);
                self.write(None).await?;
                written = Instant::now();
            }
            self.show(self.taken);
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Takes the log in up to a view.
    async fn take(&mut self, follower: &mut Follower, view: &View) -> Result<(), End> {
        while self.taken < view.position() {
            let step = follower.next().await?;
            for block in &step.blocks {
                self.pending.take(block, (self.taken, view.position()), &self.tape.registry);
            }
            self.taken = follower.position().position.min(view.position());
            if self.pending.len() >= MOST_PENDING {
                self.settle(view).await?;
            }
        }
        // The last block may reach beyond the view.
        follower.seek(self.taken);
        Ok(())
    }

    /// Records the bars anew over which something was said behind a position about what feeds lost.
    async fn record_outages(&mut self, view: &View, since: u64) -> Result<(), End> {
        let told = |venue: &Venue| {
            let outages = view.venues().get(venue)?.outages();
            (outages.newest() > since).then(|| outages.clone())
        };
        if !view.venues().iter().any(|(venue, _)| told(venue).is_some()) {
            return Ok(());
        }
        for (instrument, _) in view.holdings() {
            let Some(named) = self.tape.registry.get(instrument) else { continue };
            let Some(outages) = told(&named.venue) else { continue };
            let Some(stretch) = outages.said_after(&named.symbol, since) else { continue };
            for interval in INTERVALS {
                self.record_stretch(instrument, interval, stretch).await?;
            }
        }
        Ok(())
    }

    /// Records the bars of an instrument that have anything of `[from, until)`, a page at a time; without an end all from
    /// there on.
    async fn record_stretch(
        &mut self,
        instrument: InstrumentId,
        interval: Interval,
        (from, until): (UnixNanos, Option<UnixNanos>),
    ) -> Result<(), End> {
        let until = until.and_then(|until| interval.next_start(until));
        let mut from = interval.start_of(from);
        loop {
            let view = self.view();
            let Some(next) = self.reader.next_from((&view, view.position()), instrument, from) else {
                return Ok(());
            };
            from = interval.start_of(next);
            if until.is_some_and(|until| from >= until) {
                return Ok(());
            }
            let end = [interval.later(from, READ_BARS), until].into_iter().flatten().min();
            let bars = self.read(&view, instrument, interval, (from, end)).await?;
            self.put(&view, instrument, interval, bars.into_bars()).await?;
            let Some(end) = end else { return Ok(()) };
            from = end;
        }
    }

    /// Records the bars that wait and are final by a view.
    async fn settle(&mut self, view: &View) -> Result<(), End> {
        let due = self.pending.due(view.venues());
        let near = |one: &BarKey, next: &BarKey| {
            let far = one.interval.later(one.start, NEAR);
            (one.instrument, one.interval) == (next.instrument, next.interval)
                && far.is_none_or(|far| next.start <= far)
        };
        for keys in due.chunk_by(near).flat_map(|keys| keys.chunks(READ_BARS)) {
            let (Some(first), Some(last)) = (keys.first(), keys.last()) else { continue };
            let stretch = (first.start, last.interval.end_of(last.start));
            let mut bars = self.read(view, first.instrument, first.interval, stretch).await?.into_bars();
            let touched = keys.iter().filter_map(|key| Some((key.start, bars.remove(&key.start)?)));
            self.put(view, first.instrument, first.interval, touched.collect()).await?;
        }
        Ok(())
    }

    async fn read(
        &self,
        view: &View,
        instrument: InstrumentId,
        interval: Interval,
        stretch: (UnixNanos, Option<UnixNanos>),
    ) -> Result<BarBuilder, End> {
        Ok(self.reader.bars((view, view.position()), &[instrument], interval, stretch).await?)
    }

    /// Puts bars as a view has them into the next change: those with ticks that are final come, others go.
    async fn put(
        &mut self,
        view: &View,
        instrument: InstrumentId,
        interval: Interval,
        bars: BTreeMap<UnixNanos, Contents>,
    ) -> Result<(), End> {
        let Some(named) = self.tape.registry.get(instrument) else { return Ok(()) };
        let facts = view.venues().of(view, &self.tape.registry, &[instrument]);
        let reached = facts.iter().map(|facts| facts.final_until()).max().unwrap_or(UnixNanos::MIN);
        let finish = Finish::new(&facts, named.symbol.clone(), (view.position(), reached), interval);
        for (start, contents) in bars {
            let bar = finish.bar(start, contents);
            let row = BarRow::of(instrument, interval, &bar).filter(|_| bar.is_final);
            self.change.insert(BarKey { instrument, interval, start }, row);
        }
        if self.change.len() >= CHANGE_ROWS { self.write(None).await } else { Ok(()) }
    }

    /// Writes the next change, at the position of the mark.
    async fn write(&mut self, forget_above: Option<u64>) -> Result<(), End> {
        let BarsMark { version, position, .. } = self.mark;
        let epoch = self.tape.epoch;
        let gone = self.change.iter().filter(|(_, row)| row.is_none()).map(|(key, _)| *key).collect();
        let rows = self.change.values().flatten().cloned().collect();
        let change = BarsChange { epoch, version, position, forget_above, gone, rows };
        // What fails stays, to be written again.
        if !self.store.record_bars(change).await? {
            return Err(End::Outrun);
        }
        self.change.clear();
        self.mark = BarsMark { version: version + 1, epoch: Some(epoch), position };
        Ok(())
    }

    /// Tells how far the table is.
    fn show(&self, position: u64) {
        self.metrics.tape.bars_position.set(position as i64);
    }

    fn view(&self) -> Arc<View> {
        self.tape.views.borrow().clone()
    }
}
