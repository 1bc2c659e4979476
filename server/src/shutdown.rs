//! How the server stops: every step has a deadline, and no client can move one.
//!
//! From the moment it is asked: health says so and the port is free; a little later new calls are refused and streams
//! end themselves with the cursor to resume from; then what is still streaming is ended; writes are flushed; what is
//! still connected is cut; the store is closed. [`Shutdown::run`] is the whole sequence.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// When the steps happen, counted from the moment the server is asked to stop.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// New calls are refused from here on. Until then, balancers that ask for health look elsewhere.
    pub draining: Duration,
    /// Streams that have not ended themselves are ended.
    pub ending: Duration,
    /// Connections that are still open are cut.
    pub abort: Duration,
    /// Flushing and closing are given up.
    pub exit: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            draining: Duration::from_millis(200),
            ending: Duration::from_secs(2),
            abort: Duration::from_secs(10),
            exit: Duration::from_secs(15),
        }
    }
}

/// When the process ends by force, if the sequence itself does not come to its end.
const HARD_EXIT: Duration = Duration::from_secs(20);

/// What the rest of the server watches to learn that it stops, in the order of the steps.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// The server is asked to stop.
    pub asked: CancellationToken,
    /// New calls are refused, and streams end themselves with their cursor.
    pub draining: CancellationToken,
    /// Streams that are still open are ended.
    pub ending: CancellationToken,
    /// Connections are cut.
    pub abort: CancellationToken,
}

impl Shutdown {
    /// Waits until the server is asked to stop, and then stops it, step by step.
    ///
    /// `told` tells health and makes the port free. `disconnected` ends when the last connection is closed, and
    /// `closed` flushes what is left and closes the store.
    pub async fn run(
        self,
        times: Times,
        told: impl Future<Output = ()>,
        disconnected: impl Future<Output = ()>,
        closed: impl Future<Output = ()>,
    ) {
        self.asked.cancelled().await;
        let start = Instant::now();
        tracing::info!("stopping: no more connections are taken");
        told.await;

        let mut disconnected = std::pin::pin!(disconnected);
        let mut alone = false;
        for (step, at) in [(&self.draining, times.draining), (&self.ending, times.ending), (&self.abort, times.abort)] {
            // With nobody connected there is nothing to wait for.
            alone = alone || timeout_at(start + at, disconnected.as_mut()).await.is_ok();
            step.cancel();
        }
        if !alone {
            tracing::info!("stopping: some connections had to be cut");
            alone = timeout_at(start + times.exit, disconnected).await.is_ok();
        }
        let closed = timeout_at(start + times.exit, closed).await.is_ok();
        if !(alone && closed) {
            tracing::warn!("stopping: something did not end in time and is left behind");
        }
        tracing::info!(millis = start.elapsed().as_millis() as u64, "stopped");
    }
}

/// Asks for a stop at the first SIGTERM or SIGINT. A second one ends the process at once, and so does the hard limit.
///
/// # Errors
///
/// The system does not let us listen for signals.
pub fn on_signals(asked: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !first {
                tracing::warn!("a second signal: exiting at once");
                std::process::exit(1);
            }
            asked.cancel();
            // A thread of its own: it works even if no task gets to run any more.
            std::thread::spawn(|| {
                std::thread::sleep(HARD_EXIT);
                std::process::exit(1);
            });
        }
    });
    Ok(())
}
