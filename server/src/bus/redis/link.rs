//! One connection: made with named patience, given up when it does not answer, made again for ever.

use std::sync::Mutex;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::SmallRng;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, RedisResult};
use tokio::time::Instant;

/// How long connecting may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// The first wait between attempts to connect; it doubles up to [`LAST_WAIT`], and each is jittered, so that replicas do
/// not come back all at once.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// The longest wait, so that Redis is used again within 3 s of its return.
const LAST_WAIT: Duration = Duration::from_millis(1_500);

/// A connection whose answers are waited for no longer than `answer_patience`; `None`: the caller waits by itself.
pub(super) async fn connect(
    client: &redis::Client,
    answer_patience: Option<Duration>,
) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_PATIENCE))
        .set_response_timeout(answer_patience);
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    // The handshake's own commands have no deadline when answers have none.
    match tokio::time::timeout(2 * CONNECT_PATIENCE, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(silence(2 * CONNECT_PATIENCE)),
    }
}

/// Redis did not answer in time.
pub(super) fn silence(patience: Duration) -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {patience:?}")).into()
}

/// Growing, jittered waits.
#[derive(Debug)]
pub(super) struct Patience {
    next: Duration,
    random: SmallRng,
}

impl Patience {
    pub(super) fn new(random: SmallRng) -> Patience {
        Patience { next: FIRST_WAIT, random }
    }

    /// Waits longer than the last time.
    pub(super) async fn wait(&mut self) {
        let wait = self.next.mul_f64(self.random.random_range(0.5..1.0));
        self.next = (self.next * 2).min(LAST_WAIT);
        tokio::time::sleep(wait).await;
    }

    /// Begins with short waits again.
    pub(super) fn reset(&mut self) {
        self.next = FIRST_WAIT;
    }
}

/// Whether a connection works, and since when.
#[derive(Debug)]
pub(super) struct Health {
    /// Guards the two together. Never held across an await.
    state: Mutex<(Option<String>, Instant)>,
}

impl Health {
    pub(super) fn begin(problem: &str) -> Health {
        Health { state: Mutex::new((Some(problem.to_owned()), Instant::now())) }
    }

    pub(super) fn state(&self) -> (Option<String>, Instant) {
        self.state.lock().expect("no holder of the lock panics").clone()
    }

    /// It works.
    pub(super) fn up(&self, role: &'static str) {
        let mut state = self.state.lock().expect("no holder of the lock panics");
        if state.0.is_some() {
            tracing::info!(role, "Redis is there");
            *state = (None, Instant::now());
        }
    }

    /// It does not, for a reason that names no secret. Logged when it begins.
    pub(super) fn down(&self, role: &'static str, error: &RedisError) {
        let problem = describe(error);
        let mut state = self.state.lock().expect("no holder of the lock panics");
        if state.0.is_none() || state.0.as_deref() == Some("connecting") {
            tracing::warn!(role, problem, "Redis is away; what it would bring is read from the store");
            *state = (Some(problem), Instant::now());
        } else if state.0.as_ref() != Some(&problem) {
            state.0 = Some(problem);
        }
    }
}

/// The kind of an error. Its own text may quote what was sent.
fn describe(error: &RedisError) -> String {
    if error.is_timeout() {
        "it does not answer".to_owned()
    } else if error.is_io_error() {
        "no connection".to_owned()
    } else {
        // Redis begins a refusal with a word in capitals, which a pipeline puts behind its own words.
        let text = error.to_string();
        let capitals = |word: &&str| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
        match text.split(|letter: char| !letter.is_ascii_alphanumeric()).find(capitals) {
            Some(code) => format!("it refuses with {code}"),
            None => format!("{:?}", error.kind()),
        }
    }
}
