//! One constructor for each reason of the contract: its code, its words, and what travels with it.

use std::borrow::Cow;
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tonic::Code;

use super::Refusal;
use crate::domain::date::Date;
use crate::domain::{Cursor, CursorInvalid, Epoch, UnixNanos};
use crate::grpc::proto::ErrorReason;
use crate::grpc::violation::Violations;

/// When a caller may try again after the store did not answer: about as long as a database needs to restart a backend.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// When a caller may try again after a full queue: a few commits later.
const QUEUE_RETRY: Duration = Duration::from_millis(250);

/// When a caller may come back after a planned end: another replica is there at once, the same one a little later.
const END_RETRY: Duration = Duration::from_secs(1);

/// What a caller needs to know about the log after a fork. Absent facts are left out.
#[derive(Clone, Copy, Debug)]
pub struct EpochFacts {
    /// The log as it is now.
    pub epoch: Epoch,
    /// The log that it forked from, and the last position they share.
    pub fork: Option<(Epoch, u64)>,
    /// The oldest cursor that can be resumed.
    pub oldest: Option<Cursor>,
    /// The newest cursor.
    pub newest: Option<Cursor>,
}

impl Refusal {
    /// One field breaks its rule.
    pub fn field(field: impl Display, description: impl Display) -> Refusal {
        let mut violations = Violations::default();
        violations.add(field, description);
        violations.refuse()
    }

    /// Fields break their rules. See [`Violations::refuse`].
    pub(in crate::grpc) fn fields(violations: Violations) -> Refusal {
        let mut refusal = Refusal::new(Code::InvalidArgument, ErrorReason::FieldInvalid, violations.to_string());
        refusal.0.violations = violations;
        refusal
    }

    /// A message could not be decoded.
    pub fn message_malformed(problem: impl Display) -> Refusal {
        let message = format!("the message cannot be decoded: {problem}");
        Refusal::new(Code::InvalidArgument, ErrorReason::MessageMalformed, message)
    }

    /// No such instrument. An empty venue stands for all venues.
    pub fn instrument_unknown(venue: &str, symbol: &str) -> Refusal {
        let (name, message) = if venue.is_empty() {
            (symbol.to_owned(), format!("no venue has an instrument {symbol}"))
        } else {
            (format!("{venue}/{symbol}"), format!("there is no instrument {symbol} on {venue}"))
        };
        Refusal::new(Code::NotFound, ErrorReason::InstrumentUnknown, message)
            .with("venue", venue)
            .with("symbol", symbol)
            .resource("tapefeed.v1.Instrument", name)
    }

    /// A range ends before it begins.
    pub fn range_inverted(start: UnixNanos, end: UnixNanos) -> Refusal {
        Refusal::new(Code::InvalidArgument, ErrorReason::RangeInverted, "end_time lies before start_time: swap them")
            .with("start_time", start)
            .with("end_time", end)
    }

    /// A range of days ends before it begins.
    pub fn dates_inverted(start: u32, end: u32) -> Refusal {
        Refusal::new(Code::InvalidArgument, ErrorReason::RangeInverted, "end_date lies before start_date: swap them")
            .with("start_date", Date(start))
            .with("end_date", Date(end))
    }

    /// A page token is broken, too old, or belongs to other arguments.
    pub fn page_token_invalid(problem: impl Display) -> Refusal {
        let message = format!("page_token: {problem}; ask for the first page again, without a token");
        Refusal::new(Code::InvalidArgument, ErrorReason::PageTokenInvalid, message)
    }

    /// A cursor is broken.
    pub fn cursor_invalid(field: &str) -> Refusal {
        let message = format!("{field}: {}", CursorInvalid);
        Refusal::new(Code::InvalidArgument, ErrorReason::CursorInvalid, message)
    }

    /// A cursor is older than the replay window, which now begins after `oldest`.
    pub fn cursor_expired(oldest: Cursor) -> Refusal {
        Refusal::new(
            Code::OutOfRange,
            ErrorReason::CursorExpired,
            "the position is older than the replay window: resume from oldest_cursor, or ask for a snapshot",
        )
        .with_cursor("oldest_cursor", oldest)
        .with("oldest_log_seq", oldest.position + 1)
    }

    /// A position was lost by a fork, or belongs to another log.
    pub fn epoch_changed(facts: EpochFacts) -> Refusal {
        let EpochFacts { epoch, fork, oldest, newest } = facts;
        let mut refusal = Refusal::new(
            Code::FailedPrecondition,
            ErrorReason::EpochChanged,
            "the log is another one now, and the position is not in it: start anew, or from oldest_cursor",
        )
        .with("epoch", epoch.0);
        if let Some((parent, log_seq)) = fork {
            refusal = refusal.with("parent_epoch", parent.0).with("fork_log_seq", log_seq);
        }
        if let Some(oldest) = oldest {
            refusal = refusal.with_cursor("oldest_cursor", oldest);
        }
        if let Some(newest) = newest {
            refusal = refusal.with_cursor("newest_cursor", newest);
        }
        refusal
    }

    /// The instrument is known, but nothing can be averaged. The words say what is missing.
    pub fn no_data(message: impl Into<String>) -> Refusal {
        Refusal::new(Code::NotFound, ErrorReason::NoData, message)
    }

    /// A newer stream has claimed the producer id.
    pub fn producer_fenced(producer: &str) -> Refusal {
        Refusal::new(
            Code::Aborted,
            ErrorReason::ProducerFenced,
            "a newer stream has claimed this producer_id: let one process publish under it",
        )
        .with("producer_id", producer)
    }

    /// The producer is forgotten, or was never claimed.
    pub fn producer_unknown(producer: &str) -> Refusal {
        Refusal::new(
            Code::FailedPrecondition,
            ErrorReason::ProducerUnknown,
            "the producer_id is forgotten after 7 idle days: claim it again and number from 1",
        )
        .with("producer_id", producer)
    }

    /// A batch has ticks that break a rule; its number is still expected.
    pub fn batch_invalid(violations: Violations, expected_batch_seq: u64) -> Refusal {
        let mut refusal = Refusal::fields(violations);
        refusal.0.reason = ErrorReason::BatchInvalid;
        refusal.with("expected_batch_seq", expected_batch_seq)
    }

    /// A batch has another number than the next one.
    pub fn batch_out_of_order(expected_batch_seq: u64) -> Refusal {
        let message = format!("batch_seq has a hole: {expected_batch_seq} is expected");
        Refusal::new(Code::FailedPrecondition, ErrorReason::BatchOutOfOrder, message)
            .with("expected_batch_seq", expected_batch_seq)
    }

    /// A batch has a known number with other content, or one too old to compare.
    pub fn batch_conflict(batch_seq: u64, expected_batch_seq: u64) -> Refusal {
        let message = format!(
            "batch {batch_seq} is stored with other content, or too old to compare: {expected_batch_seq} is expected"
        );
        Refusal::new(Code::AlreadyExists, ErrorReason::BatchConflict, message)
            .with("batch_seq", batch_seq)
            .with("expected_batch_seq", expected_batch_seq)
    }

    /// More to store than the server may hold.
    pub fn queue_full() -> Refusal {
        Refusal::new(
            Code::ResourceExhausted,
            ErrorReason::QueueFull,
            "the server has more to store than it may hold: send the same again later",
        )
        .retry_after(QUEUE_RETRY)
    }

    /// The store does not answer. What it said belongs into the log.
    pub fn store_unavailable() -> Refusal {
        Refusal::new(Code::Unavailable, ErrorReason::StoreUnavailable, "the store does not answer: try again later")
            .retry_after(STORE_RETRY)
    }

    /// A file has a defect as a whole. Add `line` or `byte` with [`Refusal::with`] if known.
    pub fn file_malformed(run_id: &str, problem: impl Display) -> Refusal {
        let message = format!("nothing of the file is stored: {problem}");
        Refusal::new(Code::InvalidArgument, ErrorReason::FileMalformed, message).with("run_id", run_id)
    }

    /// Another run stands in the way before this one began.
    pub fn import_conflict(run_id: &str, problem: impl Display) -> Refusal {
        Refusal::new(Code::AlreadyExists, ErrorReason::ImportConflict, problem.to_string()).with("run_id", run_id)
    }

    /// Another owner has taken the run over.
    pub fn import_taken_over(run_id: &str) -> Refusal {
        Refusal::new(
            Code::Aborted,
            ErrorReason::ImportConflict,
            "another upload of the same file has taken the run over: watch it instead",
        )
        .with("run_id", run_id)
    }

    /// The run id names the run of another file.
    pub fn run_exists(run_id: &str) -> Refusal {
        Refusal::new(
            Code::AlreadyExists,
            ErrorReason::RunExists,
            "run_id names the run of another file: choose a new one",
        )
        .with("run_id", run_id)
    }

    /// No such run.
    pub fn run_unknown(run_id: &str) -> Refusal {
        let message = format!("there is no run {run_id}");
        Refusal::new(Code::NotFound, ErrorReason::RunUnknown, message)
            .with("run_id", run_id)
            .resource("tapefeed.v1.IngestionRun", run_id)
    }

    /// The run was cancelled by another call.
    pub fn run_cancelled(run_id: &str) -> Refusal {
        Refusal::new(
            Code::Aborted,
            ErrorReason::RunCancelled,
            "the run was cancelled; what is stored stays, and the same file continues it",
        )
        .with("run_id", run_id)
    }

    /// Corrections and cancels are not taken yet.
    pub fn action_not_supported() -> Refusal {
        Refusal::new(
            Code::Unimplemented,
            ErrorReason::ActionNotSupported,
            "this server does not take corrections and cancels yet: send ACTION_NEW only",
        )
    }

    /// The contract knows the call or option, this server does not serve it.
    pub fn not_served(what: impl Display) -> Refusal {
        let message = format!("this server does not serve {what} yet");
        Refusal::new(Code::Unimplemented, ErrorReason::NotServed, message)
    }

    /// The contract does not know the method.
    pub fn method_unknown(path: &str) -> Refusal {
        let message = format!("there is no method {path}: ask reflection for those there are");
        Refusal::new(Code::Unimplemented, ErrorReason::MethodUnknown, message)
    }

    /// A limit is passed. `limit` is its name with its unit, for example `request_bytes`.
    pub fn limit_exceeded(limit: &str, max: u64, actual: Option<u64>) -> Refusal {
        let told = actual.map_or(Cow::Borrowed("more"), |actual| actual.to_string().into());
        let message = format!("{limit} is at most {max}, this call has {told}");
        let mut refusal = Refusal::new(Code::ResourceExhausted, ErrorReason::LimitExceeded, message.clone())
            .with("limit", limit)
            .with("max", max);
        if let Some(actual) = actual {
            refusal = refusal.with("actual", actual);
        }
        refusal.0.quota = Some((limit.to_owned(), message));
        refusal
    }

    /// A connection, or its address, begins more calls a second than it may.
    pub fn too_many_calls(max: u32) -> Refusal {
        Refusal::limit_exceeded("calls_per_second", u64::from(max), None).retry_after(END_RETRY)
    }

    /// The reader was too slow and asked to be disconnected.
    pub fn slow_consumer(cursor: Cursor) -> Refusal {
        Refusal::new(
            Code::Unavailable,
            ErrorReason::SlowConsumer,
            "the reader is too slow for this stream: resume from the cursor, or choose conflated delivery",
        )
        .with_cursor("cursor", cursor)
        .retry_after(END_RETRY)
    }

    /// The stream or its connection has reached its age.
    pub fn stream_expired(cursor: Option<Cursor>) -> Refusal {
        planned_end(ErrorReason::StreamExpired, "the stream has reached its age: come back and resume", cursor)
    }

    /// The server stops. Subscriptions give the cursor to resume with.
    pub fn shutting_down(cursor: Option<Cursor>) -> Refusal {
        planned_end(ErrorReason::ShuttingDown, "the server stops: come back and resume", cursor)
    }

    /// The call took longer than it may.
    pub fn deadline_exceeded(message: impl Into<String>) -> Refusal {
        Refusal::new(Code::DeadlineExceeded, ErrorReason::DeadlineExceeded, message)
    }

    /// The caller cancelled the call.
    pub fn cancelled() -> Refusal {
        Refusal::new(Code::Cancelled, ErrorReason::Cancelled, "the caller cancelled the call")
    }

    /// A defect of the server. The problem goes to the log under an id, and the caller gets the id alone.
    pub fn internal(problem: impl Display) -> Refusal {
        let error_id = error_id();
        tracing::error!(%error_id, %problem, "a call failed by a defect");
        let message = format!("the server has a defect; its log has more under {error_id}");
        Refusal::new(Code::Internal, ErrorReason::Internal, message).with("error_id", error_id)
    }
}

fn planned_end(reason: ErrorReason, message: &str, cursor: Option<Cursor>) -> Refusal {
    let refusal = Refusal::new(Code::Unavailable, reason, message).retry_after(END_RETRY);
    match cursor {
        Some(cursor) => refusal.with_cursor("cursor", cursor),
        None => refusal,
    }
}

/// An id that no other defect of any start of the server has: a keyed hash of a counter. It names and hides nothing,
/// so it needs no injected randomness.
fn error_id() -> String {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}", KEY.hash_one(COUNT.fetch_add(1, Ordering::Relaxed)))
}
