//! How a session waits: for the log, the clock or the end, and for its flush window.

use super::alarm::Flush;
use super::delivery::Delivery;
use super::start::mid_stream;
use super::{LiveError, Session};
use crate::tape::FollowError;
use crate::tape::follower::Step;

impl Session {
    /// Goes on behind what was passed over while the stream waited, because none of it is for this stream.
    pub(super) fn pass(&mut self) {
        if let Some(passed) = self.follower.pass() {
            // Who waits at the head has nothing left to send.
            self.done = passed;
            self.mark.reached(passed.position);
        }
    }

    /// Waits until something may be due.
    pub(super) async fn wait(&mut self) -> Result<(), LiveError> {
        if self.flush.as_ref().is_some_and(Flush::is_busy) {
            return self.wait_for_window().await;
        }
        let few = self.matcher.few();
        self.follower.want(few);
        if few.is_some() && self.follower.is_at_head() {
            self.mark.waits();
        } else {
            self.mark.reached(self.done.position);
        }
        let alarm = self.due_heartbeat.map_or(self.next_heartbeat, |heartbeat| heartbeat.until);
        let not_before = match &self.delivery {
            Delivery::Lossless { .. } => None,
            Delivery::Conflated { gathering: Some(_), .. } => None,
            Delivery::Conflated { due, .. } => Some(*due),
        };
        let follower = &mut self.follower;
        let step = tokio::select! {
            biased;
            () = self.draining.begins() => return Err(LiveError::ShuttingDown),
            () = self.alarm.at(alarm) => return Ok(()),
            step = async {
                if let Some(due) = not_before {
                    tokio::time::sleep_until(due).await;
                }
                follower.next().await
            } => step,
        };
        match step {
            Ok(step) => {
                let (commits, live) = (step.commits(), !step.from_log && self.replay_end.is_none());
                self.take(step)?;
                if live { self.fill_window(commits).await } else { Ok(()) }
            }
            Err(FollowError::Expired { oldest, .. }) => {
                self.miss(oldest);
                Ok(())
            }
            Err(FollowError::EpochChanged { head, lineage }) => Err(mid_stream(&lineage, &head, self.done)),
            Err(FollowError::Store(error)) => Err(error.into()),
        }
    }

    /// Gives the ticks that came first in a window the time that the window has.
    async fn fill_window(&mut self, commits: usize) -> Result<(), LiveError> {
        let Some(flush) = self.flush.as_mut().filter(|_| self.follower.is_at_head()) else { return Ok(()) };
        // What was taken is kept already, so a call that is dropped here loses nothing.
        flush.open();
        flush.closed().await;
        let more = self.follower.ready();
        let commits = commits + more.as_ref().map_or(0, Step::commits);
        flush.gathered(commits, self.follower.is_at_head());
        more.map_or(Ok(()), |step| self.take(step))
    }

    /// Waits until a window closes that others before it have filled.
    async fn wait_for_window(&mut self) -> Result<(), LiveError> {
        let Some(flush) = &mut self.flush else { return Ok(()) };
        tokio::select! {
            biased;
            () = self.draining.begins() => return Err(LiveError::ShuttingDown),
            () = flush.closed() => {}
        }
        let step = self.follower.ready();
        flush.gathered(step.as_ref().map_or(0, Step::commits), self.follower.is_at_head());
        step.map_or(Ok(()), |step| self.take(step))
    }
}
