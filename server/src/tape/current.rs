//! What is right now, where only its owner says when it is something else.

use std::sync::Arc;

use tokio::sync::watch;

/// A handle on a value that its owner may replace as a whole: the parts of a replica that belong to one epoch.
///
/// A call takes the value once and works with it to its end, so that it never mixes two epochs.
#[derive(Debug)]
pub struct Current<T>(watch::Receiver<Arc<T>>);

impl<T> Current<T> {
    /// A handle on the first value, and the owner's end.
    pub fn begin(first: Arc<T>) -> (watch::Sender<Arc<T>>, Current<T>) {
        let (sender, receiver) = watch::channel(first);
        (sender, Current(receiver))
    }

    /// The value now.
    pub fn get(&self) -> Arc<T> {
        self.0.borrow().clone()
    }

    /// Waits until the value is another one than the last that was seen by this handle; `None` when its owner is gone.
    pub async fn next(&mut self) -> Option<Arc<T>> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Current<T> {
        Current(self.0.clone())
    }
}

/// A value that is never replaced.
impl<T> From<Arc<T>> for Current<T> {
    fn from(value: Arc<T>) -> Current<T> {
        Current(watch::channel(value).1)
    }
}
