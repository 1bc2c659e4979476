//! A future that almost never ends, beside others that often do.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is polled only after it was woken. Who waits for several things at once polls all of them whenever one
/// comes, and a token or a timer that is polled takes its lock each time: for a stream that every commit wakes that adds
/// up. Ready once; pending for ever after that.
pub struct Dormant<T> {
    future: Option<Pin<Box<dyn Future<Output = T> + Send + Sync>>>,
    bell: Arc<Bell>,
    /// Whom the bell wakes.
    sleeper: Option<Waker>,
}

/// What wakes the future.
struct Bell {
    /// Whether it rang since the future was polled.
    rang: AtomicBool,
    sleeper: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Swapped and not stored, so that whoever hears one of several rings sees what came before each.
        self.rang.swap(true, Ordering::Release);
        // Who has just come to sleep here looks whether it rang after that.
        let sleeper = self.sleeper.lock().expect("no holder of the lock panics").clone();
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

impl<T> Dormant<T> {
    /// Leaves a future alone until it wakes.
    pub fn new(future: impl Future<Output = T> + Send + Sync + 'static) -> Dormant<T> {
        // It has to be polled once before anything can wake it.
        let bell = Bell { rang: AtomicBool::new(true), sleeper: Mutex::new(None) };
        Dormant { future: Some(Box::pin(future)), bell: Arc::new(bell), sleeper: None }
    }
}

impl<T> Future for Dormant<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let dormant = self.get_mut();
        if !dormant.sleeper.as_ref().is_some_and(|sleeper| sleeper.will_wake(cx.waker())) {
            *dormant.bell.sleeper.lock().expect("no holder of the lock panics") = Some(cx.waker().clone());
            dormant.sleeper = Some(cx.waker().clone());
        }
        // Looking first leaves the bell's cache line to all who look.
        if !dormant.bell.rang.load(Ordering::Relaxed) || !dormant.bell.rang.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let Some(future) = &mut dormant.future else { return Poll::Pending };
        let polled = future.as_mut().poll(&mut Context::from_waker(&Waker::from(dormant.bell.clone())));
        if polled.is_ready() {
            dormant.future = None;
        }
        polled
    }
}

impl<T> fmt::Debug for Dormant<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Dormant").field("waits", &self.future.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn is_polled_again_only_after_it_was_woken() {
        let (token, polls) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let (cancelled, counted) = (token.clone().cancelled_owned(), polls.clone());
        let mut dormant = Dormant::new(async move {
            let mut cancelled = std::pin::pin!(cancelled);
            let poll = |cx: &mut Context<'_>| {
                counted.fetch_add(1, Ordering::Relaxed);
                cancelled.as_mut().poll(cx)
            };
            std::future::poll_fn(poll).await;
            7
        });
        for _ in 0..100 {
            assert_eq!((&mut dormant).now_or_never(), None);
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        // Whoever polled last is woken.
        let waiting = tokio::spawn(async move { ((&mut dormant).await, dormant) });
        tokio::task::yield_now().await;
        token.cancel();
        let (output, mut dormant) = waiting.await.unwrap();
        assert_eq!((output, polls.load(Ordering::Relaxed)), (7, 2));
        assert_eq!((&mut dormant).now_or_never(), None);
    }
}
