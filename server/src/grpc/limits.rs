//! The limits of calls, in one place: CONTRACT's defaults. Each refusal names the limit by the name given here.

use std::time::Duration;

/// The largest request of a unary call that takes no list of selectors.
pub const MAX_UNARY_REQUEST_BYTES: usize = 64 * 1024;

/// The largest request with selectors: ten thousand of the longest fit.
pub const MAX_SELECTOR_REQUEST_BYTES: usize = 1024 * 1024;

/// The largest message of PublishTicks and ImportFile.
pub const MAX_INGEST_MESSAGE_BYTES: usize = 1024 * 1024;

/// The largest message that the server sends. Give it to each service as `max_encoding_message_size`.
pub const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;

/// Most selectors of a unary call.
pub const MAX_UNARY_SELECTORS: usize = 1_000;

/// Most selectors of a subscription.
pub const MAX_STREAM_SELECTORS: usize = 10_000;

/// How far ahead of the server's clock the event time of a live tick may lie.
pub const MAX_EVENT_TIME_AHEAD: Duration = Duration::from_secs(5 * 60);

/// How long a unary call may take if it does not say.
pub const UNARY_DEADLINE: Duration = Duration::from_secs(10);

/// How long a page of history may take if the call does not say.
pub const HISTORY_DEADLINE: Duration = Duration::from_secs(30);

/// How long a unary call may take at most, whatever it says.
pub const MAX_DEADLINE: Duration = Duration::from_secs(60);

/// All metadata of a call together, names and values.
pub const MAX_METADATA_BYTES: usize = 8 * 1024;
