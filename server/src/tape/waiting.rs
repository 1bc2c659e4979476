//! Who waits at the head of a hub, and for what.
//!
//! A follower has a place here for as long as it lives: waiting again costs a short lock, and neither memory nor a
//! timer. Who wants everything is woken by every block. Who wants a few instruments is woken by blocks with one of them,
//! found by instrument and not by looking at each who waits, and learns when it wakes how far the log went on without it.
//! [`Waiting::pushed`] wakes all whom a block concerns at once, when nothing is locked any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use crate::domain::{Block, InstrumentId};

/// The places of all who follow a hub.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Guards who waits; held for a change, or while those are collected who are to be woken.
    places: Mutex<Places>,
}

#[derive(Debug)]
struct Places {
    /// The last position that was pushed.
    head: u64,
    /// Whether nothing will be pushed any more.
    over: bool,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Who waits for whatever comes, each once; some may have stopped waiting.
    wide: Vec<u32>,
    /// Who waits for a few instruments, by instrument, waiting or not.
    by_instrument: HashMap<InstrumentId, Vec<u32>>,
    /// How many places are for a few instruments.
    narrow: usize,
    /// Instruments up to this one have been seen in blocks. One beyond it concerns everybody: a selector may match it.
    known: InstrumentId,
}

#[derive(Debug, Default)]
struct Slot {
    /// Who waits. Taken when it is woken.
    waker: Option<Waker>,
    /// Nothing up to here was for who has been woken.
    passed: u64,
    /// Whether it waits for a few instruments.
    narrow: bool,
    /// Whether it stands among the wide.
    listed: bool,
}

impl Waiting {
    /// Nobody waits at a head.
    pub(super) fn new(head: u64) -> Waiting {
        let places = Places {
            head,
            over: false,
            slots: Vec::new(),
            free: Vec::new(),
            wide: Vec::new(),
            by_instrument: HashMap::new(),
            narrow: 0,
            known: InstrumentId(0),
        };
        Waiting { places: Mutex::new(places) }
    }

    /// The log goes on with a block: wakes whom it concerns.
    pub(super) fn pushed(&self, block: &Block) {
        let mut woken = Vec::new();
        let mut places = self.lock();
        places.head = block.last_seq();
        places.collect(block, &mut woken);
        drop(places);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Nothing comes any more: wakes everybody.
    pub(super) fn end(&self) {
        let mut woken = Vec::new();
        let mut places = self.lock();
        places.over = true;
        let head = places.head;
        places.slots.iter_mut().for_each(|slot| slot.wake(head, &mut woken));
        drop(places);
        woken.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().expect("no holder of the lock panics")
    }
}

impl Places {
    fn collect(&mut self, block: &Block, woken: &mut Vec<Waker>) {
        let before = block.first_seq - 1;
        if self.narrow > 0 {
            let greatest = block.greatest_instrument().unwrap_or(InstrumentId(0));
            if greatest > self.known || !block.entries.controls.is_empty() {
                self.known = self.known.max(greatest);
                self.slots.iter_mut().for_each(|slot| slot.wake(before, woken));
                return;
            }
            for instrument in block.instruments() {
                for &index in self.by_instrument.get(&instrument).into_iter().flatten() {
                    self.slots[index as usize].wake(before, woken);
                }
            }
        }
        woken.reserve(self.wide.len());
        for index in self.wide.drain(..) {
            let slot = &mut self.slots[index as usize];
            slot.listed = false;
            slot.wake(before, woken);
        }
    }

    /// Has a place woken by whatever comes.
    fn widen(&mut self, index: u32) {
        if !std::mem::replace(&mut self.slots[index as usize].listed, true) {
            self.wide.push(index);
        }
    }
}

impl Slot {
    fn wake(&mut self, passed: u64, woken: &mut Vec<Waker>) {
        if let Some(waker) = self.waker.take() {
            self.passed = passed;
            woken.push(waker);
        }
    }
}

/// One follower's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    waiting: Arc<Waiting>,
    index: u32,
    /// Whether it waits, or has been woken and not asked since how far it was passed over.
    waits: bool,
    /// What it waits for, if not for whatever comes.
    wanted: Option<Vec<InstrumentId>>,
}

impl Place {
    /// A place for who waits for whatever comes.
    pub(super) fn new(waiting: Arc<Waiting>) -> Place {
        let mut places = waiting.lock();
        let index = places.free.pop().unwrap_or_else(|| {
            places.slots.push(Slot::default());
            u32::try_from(places.slots.len() - 1).expect("streams are bounded")
        });
        drop(places);
        Place { waiting, index, waits: false, wanted: None }
    }

    /// Says what to wait for from now on: blocks with one of some instruments, with a new one, or about a feed; or, with
    /// `None`, whatever comes. Instruments are only ever added, behind those that were told before.
    pub(super) fn want(&mut self, wanted: Option<&[InstrumentId]>) {
        let told = self.wanted.as_ref().map(Vec::len);
        if told == wanted.map(<[_]>::len) {
            return;
        }
        let waiting = self.waiting.clone();
        let mut places = waiting.lock();
        let Some(wanted) = wanted else {
            self.forget(&mut places);
            if self.waits {
                places.widen(self.index);
            }
            return;
        };
        if told.is_none() {
            places.narrow += 1;
            places.slots[self.index as usize].narrow = true;
        }
        for &instrument in &wanted[told.unwrap_or(0)..] {
            places.by_instrument.entry(instrument).or_default().push(self.index);
        }
        self.wanted = Some(wanted.to_vec());
    }

    /// Takes back what it has told to wait for.
    fn forget(&mut self, places: &mut Places) {
        let Some(wanted) = self.wanted.take() else { return };
        places.narrow -= 1;
        places.slots[self.index as usize].narrow = false;
        for instrument in wanted {
            let Some(waiting) = places.by_instrument.get_mut(&instrument) else { continue };
            if let Some(place) = waiting.iter().position(|&index| index == self.index) {
                waiting.swap_remove(place);
            }
            if waiting.is_empty() {
                places.by_instrument.remove(&instrument);
            }
        }
    }

    /// Ready when the log has gone on behind a position with something to look at. Until [`Place::pass`] is called, it
    /// goes on waiting where it began to.
    pub(super) fn poll(&mut self, after: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut places = self.waiting.lock();
        if places.over {
            return Poll::Ready(());
        }
        let head = places.head;
        let slot = &mut places.slots[self.index as usize];
        if self.waits {
            return match &mut slot.waker {
                Some(waker) => {
                    waker.clone_from(cx.waker());
                    Poll::Pending
                }
                None => Poll::Ready(()),
            };
        }
        if head > after {
            return Poll::Ready(());
        }
        slot.waker = Some(cx.waker().clone());
        self.waits = true;
        if !slot.narrow {
            places.widen(self.index);
        }
        Poll::Pending
    }

    /// Ends the waiting; up to where nothing was for this place meanwhile.
    pub(super) fn pass(&mut self) -> Option<u64> {
        if !std::mem::take(&mut self.waits) {
            return None;
        }
        let mut places = self.waiting.lock();
        let head = places.head;
        let slot = &mut places.slots[self.index as usize];
        // Who was not woken was passed over by all that came.
        let passed = if slot.waker.take().is_some() { head } else { slot.passed };
        Some(passed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let waiting = self.waiting.clone();
        let mut places = waiting.lock();
        self.forget(&mut places);
        places.slots[self.index as usize].waker = None;
        places.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::domain::segment::Entries;
    use crate::domain::source::{Detail, Scope, Source, SourceStatus};
    use crate::domain::{Control, Decimal, Epoch, Origin, Side, Tick, TradeId, UnixNanos, Venue};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Woken>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn block(first_seq: u64, instruments: &[u32], controls: Vec<(u64, Control)>) -> Block {
        let at = |nanos| UnixNanos::new(nanos).unwrap();
        let tick = |(index, &instrument): (usize, &u32)| Tick {
            instrument: InstrumentId(instrument),
            log_seq: first_seq + index as u64,
            event_time: at(1),
            receive_time: at(1),
            price: Decimal::new(1, 0).unwrap(),
            quantity: None,
            side: Side::Buy,
            trade_id: TradeId::None,
            origin: Origin::Live,
        };
        Block {
            epoch: Epoch(1),
            first_seq,
            entry_count: (instruments.len() + controls.len()) as u32,
            append_time: at(1),
            backfill: false,
            chain: [0; 16],
            entries: Entries { ticks: instruments.iter().enumerate().map(tick).collect(), controls },
            encodings: Default::default(),
            traced: Default::default(),
            segments: Vec::new(),
        }
    }

    /// A place, and how often it was woken.
    struct Reader {
        place: Place,
        woken: Arc<Woken>,
        waker: Waker,
    }

    impl Reader {
        fn new(waiting: &Arc<Waiting>, wanted: Option<&[u32]>) -> Reader {
            let woken = Arc::new(Woken::default());
            let mut place = Place::new(waiting.clone());
            let wanted = wanted.map(|ids| ids.iter().map(|&id| InstrumentId(id)).collect::<Vec<_>>());
            place.want(wanted.as_deref());
            Reader { place, waker: woken.clone().into(), woken }
        }

        fn waits(&mut self, after: u64) -> bool {
            self.place.poll(after, &mut Context::from_waker(&self.waker)).is_pending()
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn narrow_readers_are_woken_by_their_instruments_and_learn_how_far_they_were_passed_over() {
        let waiting = Arc::new(Waiting::new(0));
        let (mut all, mut one) = (Reader::new(&waiting, None), Reader::new(&waiting, Some(&[1])));
        waiting.pushed(&block(1, &[1, 2, 3], vec![]));
        assert!(!all.waits(0) && !one.waits(0), "there is something to look at");
        assert!(all.waits(3) && one.waits(3));
        waiting.pushed(&block(4, &[2, 3], vec![]));
        waiting.pushed(&block(6, &[3], vec![]));
        assert_eq!((all.woken(), one.woken()), (1, 0), "a reader is woken once until it waits again");
        assert_eq!(all.place.pass(), Some(3), "nothing that came was passed over");
        assert!(one.waits(3), "it goes on waiting where it began to");
        waiting.pushed(&block(7, &[2, 1], vec![]));
        waiting.pushed(&block(9, &[2], vec![]));
        assert_eq!(one.woken(), 1);
        assert!(!one.waits(3));
        assert_eq!(one.place.pass(), Some(6), "up to the block that has its instrument");
        assert!(one.waits(9));
        waiting.pushed(&block(10, &[2], vec![]));
        assert_eq!(one.place.pass(), Some(10), "it was not woken, so all of it was not for it");
        assert_eq!(one.place.pass(), None);
    }

    #[test]
    fn new_instruments_and_news_of_feeds_concern_everybody() {
        let waiting = Arc::new(Waiting::new(0));
        let mut none = Reader::new(&waiting, Some(&[]));
        assert!(none.waits(0));
        waiting.pushed(&block(1, &[4], vec![]));
        assert_eq!((none.woken(), none.place.pass()), (1, Some(0)), "a selector may match the new one");
        none.place.want(Some(&[InstrumentId(4)]));
        assert!(none.waits(1));
        waiting.pushed(&block(2, &[3], vec![]));
        waiting.pushed(&block(3, &[4], vec![]));
        assert_eq!((none.woken(), none.place.pass()), (2, Some(2)));
        assert!(none.waits(3));
        let scope = Scope { source: Source::new("feed").unwrap(), venue: Venue::new("V").unwrap(), symbols: [].into() };
        let down = SourceStatus { scope, up: false, change_time: None, detail: Detail::default() };
        waiting.pushed(&block(4, &[], vec![(4, Control::SourceStatus(down))]));
        assert_eq!((none.woken(), none.place.pass()), (3, Some(3)));
        assert!(none.waits(4));
        waiting.end();
        assert_eq!(none.woken(), 4);
        assert!(!none.waits(4), "nobody waits at a head that will not move");
    }

    #[test]
    fn places_that_are_left_are_used_again_and_owe_nothing() {
        let waiting = Arc::new(Waiting::new(0));
        for round in 0..100 {
            let mut readers: Vec<Reader> = (0..10).map(|id| Reader::new(&waiting, Some(&[id]))).collect();
            readers.extend((0..10).map(|_| Reader::new(&waiting, None)));
            assert!(readers.iter_mut().all(|reader| reader.waits(round)));
            // As a heartbeat would.
            for reader in &mut readers[10..] {
                reader.place.pass();
                assert!(reader.waits(round));
            }
            waiting.pushed(&block(round + 1, &[20], vec![]));
        }
        let places = waiting.lock();
        assert_eq!((places.slots.len(), places.free.len(), places.narrow), (20, 20, 0));
        assert!(places.by_instrument.is_empty() && places.wide.len() <= 20);
    }
}
