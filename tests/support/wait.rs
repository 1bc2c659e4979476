//! Waiting with an end.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long [`eventually`] pauses between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until there is something to see.
///
/// # Panics
///
/// If there is nothing within the time.
pub async fn eventually<T, F, Look>(what: &str, limit: Duration, mut look: F) -> T
where
    F: FnMut() -> Look,
    Look: Future<Output = Option<T>>,
{
    let begin = Instant::now();
    loop {
        // A look that hangs is cut, and counts as nothing seen.
        let left = limit.saturating_sub(begin.elapsed());
        if let Ok(Some(seen)) = tokio::time::timeout(left, look()).await {
            return seen;
        }
        assert!(begin.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Awaits a future that must end in time.
///
/// # Panics
///
/// If it does not.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {limit:?}"),
    }
}

/// Now, in nanoseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a test outside the server has no other clock to share with it")]
pub fn now_unix_nano() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    i64::try_from(elapsed.as_nanos()).expect("the year is below 2262")
}
