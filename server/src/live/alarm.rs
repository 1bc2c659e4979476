//! What a session waits for beside the log. None of it is made anew, or looked at, for each time that a stream waits: a
//! timer or a token that is registered anew costs as much as a message. A timer is made for each heartbeat, and for each
//! flush window.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dormant::Dormant;

/// A timer that is set anew only when it must ring at another time, or has rung.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<(Instant, Dormant<()>)>);

impl Alarm {
    /// Rings at a time. A call that is dropped changes nothing.
    pub(super) async fn at(&mut self, at: Instant) {
        if self.0.as_ref().is_none_or(|(set, _)| *set != at) {
            self.0 = Some((at, Dormant::new(tokio::time::sleep_until(at))));
        }
        if let Some((_, ring)) = &mut self.0 {
            ring.await;
        }
        self.0 = None;
    }
}

/// Whether the server stops. Each stream has a token of its own, so that looking at it disturbs no other.
pub(super) struct Draining {
    token: CancellationToken,
    cancelled: Dormant<()>,
}

impl Draining {
    pub(super) fn new(server: &CancellationToken) -> Draining {
        let token = server.child_token();
        Draining { cancelled: Dormant::new(token.clone().cancelled_owned()), token }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    pub(super) fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Waits until it begins; once it has, do not call this again.
    pub(super) async fn begins(&mut self) {
        (&mut self.cancelled).await;
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Draining").field(&self.token).finish()
    }
}

/// A flush window: how long ticks wait for more.
#[derive(Debug)]
pub(super) struct Flush {
    window: Duration,
    alarm: Alarm,
    closes: Instant,
    /// Whether the last window gathered several commits. The next one is then waited for by the clock alone, so that a
    /// stream wakes once a window and not for each commit.
    busy: bool,
}

impl Flush {
    /// `None` for a window of zero: ticks leave at once.
    pub(super) fn new(window: Duration) -> Option<Flush> {
        let closes = Instant::now();
        (!window.is_zero()).then(|| Flush { window, alarm: Alarm::default(), closes, busy: false })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Opens a window, because something has come.
    pub(super) fn open(&mut self) {
        self.closes = Instant::now() + self.window;
    }

    /// Waits until the window closes. A call that is dropped changes nothing.
    pub(super) async fn closed(&mut self) {
        self.alarm.at(self.closes).await;
    }

    /// The window has closed with so many commits, and the next begins; there is none while there is more to send already.
    pub(super) fn gathered(&mut self, commits: usize, at_head: bool) {
        self.busy = commits > 1 && at_head;
        self.open();
    }
}
