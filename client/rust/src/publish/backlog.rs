//! What is not acknowledged: ticks that gather, batches that wait, batches on their way, and their numbers.
//!
//! A batch gets its number when it is first sent, and keeps it until it is acknowledged. It loses the number only when
//! the server says that nothing from this number on is stored: after a refused batch, or when the server has forgotten.
//! Nothing here waits or speaks to the network.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::batch::{Content, MAX_BATCH_BYTES, bytes_of};
use super::task::Reply;
use crate::{Error, NewTick};

/// How many batches may wait for credit. More stay in the command queue, so that senders wait.
const MAX_READY: usize = 2;

/// A batch that is sealed and not acknowledged.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Set from the first time that it is sent.
    number: Option<u64>,
    pub(super) content: Content,
    bytes: u64,
    sent: Instant,
    /// Whoever waits for this very batch.
    pub(super) reply: Option<Reply>,
}

#[derive(Debug)]
pub(super) struct Backlog {
    batch_size: usize,
    /// The batch that grows, its estimated bytes, and when its first tick came.
    gathering: Vec<NewTick>,
    gathering_bytes: usize,
    gathering_since: Instant,
    /// Sealed batches in order, those with numbers first.
    ready: VecDeque<Outgoing>,
    /// Sent and not acknowledged, all with numbers.
    inflight: VecDeque<Outgoing>,
    inflight_bytes: u64,
    pending_ticks: u64,
    /// The last number that was given out, and the last that was acknowledged.
    last_number: u64,
    acknowledged: u64,
    credit_batches: usize,
    credit_bytes: u64,
    /// How many batches were sealed, and how many of them are acknowledged or refused.
    sealed: u64,
    settled: u64,
}

impl Backlog {
    pub(super) fn new(batch_size: usize) -> Backlog {
        Backlog {
            batch_size,
            gathering: Vec::new(),
            gathering_bytes: 0,
            gathering_since: Instant::now(),
            ready: VecDeque::new(),
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            pending_ticks: 0,
            last_number: 0,
            acknowledged: 0,
            credit_batches: 1,
            credit_bytes: 0,
            sealed: 0,
            settled: 0,
        }
    }

    /// How many ticks are gathered or sent, and not acknowledged.
    pub(super) fn pending_ticks(&self) -> u64 {
        self.pending_ticks
    }

    /// The number of the last acknowledged batch.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn sealed(&self) -> u64 {
        self.sealed
    }

    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether another batch may wait.
    pub(super) fn has_room(&self) -> bool {
        self.ready.len() < MAX_READY
    }

    /// When the first tick of the growing batch came.
    pub(super) fn gathering_since(&self) -> Option<Instant> {
        (!self.gathering.is_empty()).then_some(self.gathering_since)
    }

    /// When the oldest batch on its way was sent.
    pub(super) fn oldest_sent(&self) -> Option<Instant> {
        self.inflight.front().map(|batch| batch.sent)
    }

    pub(super) fn gather(&mut self, tick: NewTick) {
        let bytes = bytes_of(&tick);
        if self.gathering_bytes + bytes > MAX_BATCH_BYTES {
            self.seal();
        }
        if self.gathering.is_empty() {
            self.gathering_since = Instant::now();
        }
        self.pending_ticks += 1;
        self.gathering_bytes += bytes;
        self.gathering.push(tick);
        if self.gathering.len() >= self.batch_size {
            self.seal();
        }
    }

    /// Ends the growing batch.
    pub(super) fn seal(&mut self) {
        if self.gathering.is_empty() {
            return;
        }
        let ticks = std::mem::take(&mut self.gathering);
        self.gathering_bytes = 0;
        self.push_ready(Content::Ticks(ticks), None);
    }

    /// Takes a batch of its own, behind what has gathered.
    pub(super) fn push(&mut self, content: Content, reply: Option<Reply>) {
        self.seal();
        self.pending_ticks += content.tick_count() as u64;
        self.push_ready(content, reply);
    }

    fn push_ready(&mut self, content: Content, reply: Option<Reply>) {
        self.sealed += 1;
        self.ready.push_back(Outgoing {
            number: None,
            bytes: content.bytes() as u64,
            content,
            sent: Instant::now(),
            reply,
        });
    }

    /// What may be on its way from now on.
    pub(super) fn credit(&mut self, batches: u32, bytes: u64) {
        self.credit_batches = batches.max(1) as usize;
        self.credit_bytes = bytes;
    }

    /// Whether there is a batch, and credit for it. One batch may always be on its way.
    pub(super) fn may_send(&self) -> bool {
        let Some(next) = self.ready.front() else {
            return false;
        };
        self.inflight.is_empty()
            || (self.inflight.len() < self.credit_batches && self.inflight_bytes + next.bytes <= self.credit_bytes)
    }

    /// Puts the next batch on its way; its number and content.
    pub(super) fn send_next(&mut self) -> Option<(u64, &Content)> {
        let mut batch = self.ready.pop_front()?;
        let number = batch.number.unwrap_or_else(|| {
            self.last_number += 1;
            self.last_number
        });
        batch.number = Some(number);
        batch.sent = Instant::now();
        self.inflight_bytes += batch.bytes;
        self.inflight.push_back(batch);
        self.inflight.back().map(|batch| (number, &batch.content))
    }

    /// Takes the oldest batch, which must have this number, off.
    pub(super) fn acknowledge(&mut self, number: u64) -> Result<Outgoing, Error> {
        let oldest = self.inflight.pop_front_if(|batch| batch.number == Some(number));
        let batch =
            oldest.ok_or_else(|| Error::protocol(format!("batch {number} was acknowledged out of its turn")))?;
        self.acknowledged = number;
        self.settle(&batch);
        Ok(batch)
    }

    /// Begins after the last batch that the server has.
    pub(super) fn begin(&mut self, last: u64) {
        self.acknowledged = last;
        self.last_number = last;
    }

    /// Goes on after a cut: what was on its way waits again, with the numbers that it had, for the server knows which it
    /// has. Returns how many acknowledged batches the server has forgotten.
    pub(super) fn resume(&mut self, last: u64) -> u64 {
        self.call_back();
        if last >= self.acknowledged {
            self.last_number = self.last_number.max(last);
            return 0;
        }
        let forgotten = self.acknowledged - last;
        self.acknowledged = last;
        self.renumber_after(last);
        forgotten
    }

    /// Takes the refused batch of this number out; those behind it wait again and will get its number and the next.
    pub(super) fn take_out(&mut self, number: u64) -> Option<Outgoing> {
        let index = self.inflight.iter().position(|batch| batch.number == Some(number))?;
        let batch = self.inflight.remove(index)?;
        self.settle(&batch);
        self.call_back();
        self.renumber_after(number.saturating_sub(1));
        Some(batch)
    }

    /// Everything that is not acknowledged, to tell those who wait for it.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Outgoing> {
        self.inflight.drain(..).chain(self.ready.drain(..))
    }

    fn settle(&mut self, batch: &Outgoing) {
        self.inflight_bytes -= batch.bytes;
        self.pending_ticks -= batch.content.tick_count() as u64;
        self.settled += 1;
    }

    fn call_back(&mut self) {
        while let Some(batch) = self.inflight.pop_back() {
            self.ready.push_front(batch);
        }
        self.inflight_bytes = 0;
    }

    /// Takes the numbers after `last` back.
    fn renumber_after(&mut self, last: u64) {
        for batch in &mut self.ready {
            batch.number = batch.number.filter(|&number| number <= last);
        }
        self.last_number = last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UnixNanos;

    fn backlog(batches: usize) -> Backlog {
        let mut backlog = Backlog::new(1);
        backlog.begin(10);
        backlog.credit(8, u64::MAX);
        for _ in 0..batches {
            backlog.gather(NewTick::new("X", "A", UnixNanos(1), "1".parse().unwrap()));
        }
        backlog
    }

    fn send_all(backlog: &mut Backlog) -> Vec<u64> {
        let mut numbers = Vec::new();
        while backlog.may_send() {
            numbers.extend(backlog.send_next().map(|(number, _)| number));
        }
        numbers
    }

    #[test]
    fn numbers_survive_a_cut() {
        let mut backlog = backlog(4);
        assert_eq!(send_all(&mut backlog), [11, 12, 13, 14]);
        backlog.acknowledge(11).unwrap();
        // The server has 12 too; its acknowledgement was lost.
        assert_eq!(backlog.resume(12), 0);
        backlog.gather(NewTick::new("X", "A", UnixNanos(1), "1".parse().unwrap()));
        assert_eq!(send_all(&mut backlog), [12, 13, 14, 15]);
    }

    #[test]
    fn a_refused_batch_gives_its_number_to_the_next() {
        let mut backlog = backlog(4);
        send_all(&mut backlog);
        assert!(backlog.take_out(12).is_some());
        assert_eq!(backlog.resume(11), 0);
        assert_eq!(send_all(&mut backlog), [11, 12, 13]);
        assert_eq!((backlog.settled(), backlog.sealed()), (1, 4));
        assert!(backlog.take_out(99).is_none());
    }

    #[test]
    fn what_the_server_forgot_is_counted_and_numbered_over() {
        let mut backlog = backlog(3);
        send_all(&mut backlog);
        backlog.acknowledge(11).unwrap();
        assert_eq!(backlog.resume(4), 7);
        assert_eq!(send_all(&mut backlog), [5, 6]);
    }

    #[test]
    fn numbers_of_another_publisher_are_not_used_again() {
        let mut backlog = backlog(1);
        assert_eq!(backlog.resume(20), 0);
        assert_eq!(send_all(&mut backlog), [21]);
    }

    #[test]
    fn acknowledgements_come_in_turn() {
        let mut backlog = backlog(2);
        send_all(&mut backlog);
        assert!(backlog.acknowledge(12).is_err());
        assert!(backlog.acknowledge(11).is_ok());
        assert_eq!(backlog.pending_ticks(), 1);
    }
}
