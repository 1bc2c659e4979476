//! A future that almost never ends, beside others that often do.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// A future that is polled only after it was woken. Who waits for several things at once polls all of them whenever one
/// comes, and a token that is polled takes its lock each time: for a stream that every commit wakes that adds up. Ready
/// once; pending for ever after that.
pub struct Dormant<T>(FuturesUnordered<Waiting<T>>);

type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send + Sync>>;

impl<T> Dormant<T> {
    /// Leaves a future alone until it wakes.
    pub fn new(future: impl Future<Output = T> + Send + Sync + 'static) -> Dormant<T> {
        let future: Waiting<T> = Box::pin(future);
        Dormant(FuturesUnordered::from_iter([future]))
    }
}

impl<T> Future for Dormant<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.0.poll_next_unpin(cx) {
            Poll::Ready(Some(output)) => Poll::Ready(output),
            // None says that it has been ready before.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl<T> fmt::Debug for Dormant<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Dormant").field("waits", &!self.0.is_empty()).finish()
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
