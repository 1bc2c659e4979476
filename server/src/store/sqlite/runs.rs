//! Ingestion runs and their leases.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

use super::failure::Failure;
use super::log::written_by_another;
use super::rejects;
use super::rows::{self, from_sql, to_sql};
use super::writer::Writer;
use crate::domain::UnixNanos;
use crate::store::marks::{self, Begin};
use crate::store::{
    Ignored, Lease, NewRun, Run, RunClaim, RunEnd, RunError, RunFailure, RunId, RunOwner, RunProgress, RunRequest,
    RunState, StoreError,
};

impl Writer {
    pub(super) async fn begin_run(&mut self, request: RunRequest) -> Result<RunClaim, StoreError> {
        self.begin().await?;
        let claimed = self.claim_run(request).await;
        self.end(claimed).await
    }

    async fn claim_run(&mut self, request: RunRequest) -> Result<RunClaim, Failure> {
        let connection = self.connection().await?;
        let same_identity = by_identity(connection, &request.run.identity).await?;
        let same_content = by_content(connection, &request.run.content).await?;
        let same_id = by_id(connection, &request.run.id).await?;
        match marks::begin_run(request, same_identity, same_content, same_id) {
            Begin::Answer(claim) => Ok(claim),
            Begin::Continue(run) => {
                continue_run(connection, &run).await?;
                rejects::forget_unstored(connection, &run).await?;
                Ok(RunClaim::Yours(run))
            }
            Begin::Insert(run) => {
                insert(connection, &run).await?;
                Ok(RunClaim::Yours(run))
            }
        }
    }

    pub(super) async fn renew_lease(&mut self, run: RunId, lease: Lease) -> Result<bool, StoreError> {
        self.begin().await?;
        let renewed = match self.connection().await {
            Ok(connection) => renew(connection, &run, lease).await,
            Err(failure) => Err(failure),
        };
        self.end(renewed).await
    }

    pub(super) async fn finish_run(&mut self, run: RunId, owner: RunOwner, end: RunEnd) -> Result<bool, StoreError> {
        let now = self.clock.now();
        self.begin().await?;
        let finished = match self.connection().await {
            Ok(connection) => finish(connection, &run, owner, end, now).await,
            Err(failure) => Err(failure),
        };
        self.end(finished).await
    }

    pub(super) async fn cancel_run(&mut self, run: RunId) -> Result<Option<Run>, StoreError> {
        let now = self.clock.now();
        self.begin().await?;
        let cancelled = match self.connection().await {
            Ok(connection) => cancel(connection, &run, now).await,
            Err(failure) => Err(failure),
        };
        self.end(cancelled).await
    }
}

#[derive(sqlx::FromRow)]
struct RunRow {
    number: i64,
    id: String,
    identity: Vec<u8>,
    content: Vec<u8>,
    parser_version: i64,
    options: Vec<u8>,
    file_name: String,
    size_bytes: i64,
    total_lines: i64,
    trace_id: String,
    again: bool,
    state: i64,
    owner: i64,
    lease_until: i64,
    last_batch: i64,
    lines: i64,
    ticks: i64,
    published: i64,
    ignored_kinds: String,
    rejected: i64,
    unstored_rejected: i64,
    last_seq: i64,
    error_reason: Option<String>,
    error_message: Option<String>,
    create_time: i64,
    finish_time: Option<i64>,
}

impl RunRow {
    fn into_run(self) -> Result<Run, Failure> {
        let row = self.number;
        let time = |nanos| -> Result<UnixNanos, Failure> { rows::time_from_sql(nanos, "runs", row) };
        let invalid_id = |_| rows::damaged("runs", row.to_string(), "id is no run id");
        let damaged_kinds = || rows::damaged("runs", row.to_string(), "ignored_kinds is no JSON object of counts");
        let state = state_from_sql(self.state);
        Ok(Run {
            run: NewRun {
                id: RunId::new(&self.id).map_err(invalid_id)?,
                identity: rows::array_from_sql(self.identity, "runs", row)?,
                content: rows::array_from_sql(self.content, "runs", row)?,
                parser_version: rows::count_from_sql(self.parser_version, "runs", row)?,
                options: self.options,
                file_name: self.file_name,
                size_bytes: from_sql(self.size_bytes),
                total_lines: from_sql(self.total_lines),
                trace_id: self.trace_id,
                again: self.again,
            },
            state: state.ok_or_else(|| rows::damaged("runs", row.to_string(), "state is no state"))?,
            owner: RunOwner(from_sql(self.owner)),
            lease_until: time(self.lease_until)?,
            last_batch: from_sql(self.last_batch),
            progress: RunProgress {
                lines: from_sql(self.lines),
                ticks: from_sql(self.ticks),
                published: from_sql(self.published),
                ignored: ignored_from_sql(&self.ignored_kinds).ok_or_else(damaged_kinds)?,
                rejected: from_sql(self.rejected),
                rejects: Vec::new(),
            },
            unstored_rejected: from_sql(self.unstored_rejected),
            last_seq: from_sql(self.last_seq),
            error: self.error_reason.zip(self.error_message).map(|(reason, message)| RunError { reason, message }),
            create_time: time(self.create_time)?,
            finish_time: self.finish_time.map(time).transpose()?,
        })
    }
}

/// Reads `{"kind": count}`.
fn ignored_from_sql(json: &str) -> Option<Ignored> {
    let kinds: BTreeMap<String, u64> = serde_json::from_str(json).ok()?;
    Some(Ignored(kinds.into_iter().map(|(kind, count)| (kind.into(), count)).collect()))
}

fn ignored_to_sql(ignored: &Ignored) -> String {
    let kinds: BTreeMap<&str, u64> = ignored.0.iter().map(|(kind, count)| (&**kind, *count)).collect();
    serde_json::to_string(&kinds).expect("a map of text to numbers is JSON")
}

fn state_from_sql(state: i64) -> Option<RunState> {
    let states = [RunState::Running, RunState::Succeeded, RunState::Failed, RunState::Cancelled];
    states.into_iter().find(|known| state_to_sql(*known) == state)
}

fn state_to_sql(state: RunState) -> i64 {
    i64::from(state as u8)
}

fn into_runs(found: Vec<RunRow>) -> Result<Vec<Run>, Failure> {
    found.into_iter().map(RunRow::into_run).collect()
}

pub(super) async fn by_id(connection: &mut SqliteConnection, run: &RunId) -> Result<Option<Run>, Failure> {
    let found: Option<RunRow> = sqlx::query_as("SELECT * FROM runs WHERE id = $1")
        .bind(run.as_str().to_owned()) // $1 id
        .fetch_optional(connection)
        .await?;
    found.map(RunRow::into_run).transpose()
}

async fn by_identity(connection: &mut SqliteConnection, identity: &[u8; 32]) -> Result<Option<Run>, Failure> {
    let found: Option<RunRow> = sqlx::query_as("SELECT * FROM runs WHERE identity = $1")
        .bind(identity.to_vec()) // $1 identity
        .fetch_optional(connection)
        .await?;
    found.map(RunRow::into_run).transpose()
}

async fn by_content(connection: &mut SqliteConnection, content: &[u8; 32]) -> Result<Vec<Run>, Failure> {
    let found: Vec<RunRow> = sqlx::query_as("SELECT * FROM runs WHERE content = $1 ORDER BY number DESC")
        .bind(content.to_vec()) // $1 content
        .fetch_all(connection)
        .await?;
    into_runs(found)
}

const LIST: &str = "
    SELECT *
    FROM runs
    WHERE number < CASE
        WHEN $1 IS NULL THEN 9223372036854775807
        ELSE ifnull((SELECT number FROM runs WHERE id = $1), 0)
    END
    ORDER BY number DESC
    LIMIT $2";

pub(super) async fn list(
    connection: &mut SqliteConnection,
    before: Option<RunId>,
    limit: usize,
) -> Result<Vec<Run>, Failure> {
    let found: Vec<RunRow> = sqlx::query_as(LIST)
        .bind(before.map(|run| run.as_str().to_owned())) // $1 id of the run that all are older than, or NULL
        .bind(i64::try_from(limit).unwrap_or(i64::MAX)) // $2 at most
        .fetch_all(connection)
        .await?;
    into_runs(found)
}

const INSERT: &str = "
    INSERT INTO runs (
            number, id, identity, content, parser_version, options, file_name, size_bytes, total_lines, trace_id, again,
            state, owner, lease_until, last_batch, lines, ticks, ignored, rejected, last_seq, create_time
        )
        SELECT
            ifnull(max(number), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
            $11, $12, $13, 0, 0, 0, 0, 0, 0, $14
        FROM runs";

async fn insert(connection: &mut SqliteConnection, run: &Run) -> Result<(), Failure> {
    let NewRun { id, identity, content, parser_version, options, file_name, size_bytes, total_lines, trace_id, again } =
        &run.run;
    sqlx::query(INSERT)
        .bind(id.as_str().to_owned()) // $1 id
        .bind(identity.to_vec()) // $2 identity
        .bind(content.to_vec()) // $3 content
        .bind(i64::from(*parser_version)) // $4 parser_version
        .bind(options.clone()) // $5 options
        .bind(file_name.clone()) // $6 file_name
        .bind(to_sql(*size_bytes)) // $7 size_bytes
        .bind(to_sql(*total_lines)) // $8 total_lines
        .bind(trace_id.clone()) // $9 trace_id
        .bind(*again) // $10 again
        .bind(state_to_sql(run.state)) // $11 state
        .bind(to_sql(run.owner.0)) // $12 owner
        .bind(run.lease_until.nanos()) // $13 lease_until
        .bind(run.create_time.nanos()) // $14 create_time
        .execute(connection)
        .await?;
    Ok(())
}

const CONTINUE: &str = "
    UPDATE runs
    SET state = $2, owner = $3, lease_until = $4, unstored_rejected = 0,
        error_reason = NULL, error_message = NULL, finish_time = NULL
    WHERE id = $1";

async fn continue_run(connection: &mut SqliteConnection, run: &Run) -> Result<(), Failure> {
    sqlx::query(CONTINUE)
        .bind(run.run.id.as_str().to_owned()) // $1 id
        .bind(state_to_sql(run.state)) // $2 state
        .bind(to_sql(run.owner.0)) // $3 owner
        .bind(run.lease_until.nanos()) // $4 lease_until
        .execute(connection)
        .await?;
    Ok(())
}

const RENEW: &str = "
    UPDATE runs
    SET lease_until = $3
    WHERE id = $1 AND owner = $2 AND state = 1
    RETURNING 1";

async fn renew(connection: &mut SqliteConnection, run: &RunId, lease: Lease) -> Result<bool, Failure> {
    let renewed = sqlx::query(RENEW)
        .bind(run.as_str().to_owned()) // $1 id
        .bind(to_sql(lease.owner.0)) // $2 owner
        .bind(lease.until.nanos()) // $3 lease_until
        .fetch_all(connection)
        .await?;
    Ok(!renewed.is_empty())
}

const FINISH: &str = "
    UPDATE runs
    SET state = $3, unstored_rejected = $4, error_reason = $5, error_message = $6, finish_time = $7
    WHERE id = $1 AND owner = $2 AND state = 1
    RETURNING 1";

async fn finish(
    connection: &mut SqliteConnection,
    run: &RunId,
    owner: RunOwner,
    end: RunEnd,
    now: UnixNanos,
) -> Result<bool, Failure> {
    let state = end.state();
    let (error, rejected, rejects) = match end {
        RunEnd::Succeeded => (None, 0, Vec::new()),
        RunEnd::Failed(RunFailure { error, rejected, rejects }) => (Some(error), rejected, rejects),
    };
    let (reason, message) = error.map(|error| (error.reason, error.message)).unzip();
    let finished = sqlx::query(FINISH)
        .bind(run.as_str().to_owned()) // $1 id
        .bind(to_sql(owner.0)) // $2 owner
        .bind(state_to_sql(state)) // $3 state
        .bind(to_sql(rejected)) // $4 unstored_rejected
        .bind(reason) // $5 error_reason
        .bind(message) // $6 error_message
        .bind(now.nanos()) // $7 finish_time
        .fetch_all(&mut *connection)
        .await?;
    if finished.is_empty() {
        return Ok(false);
    }
    rejects::store(connection, run, &rejects).await?;
    Ok(true)
}

const CANCEL: &str = "
    UPDATE runs
    SET state = 4, finish_time = $2
    WHERE id = $1 AND state = 1";

async fn cancel(connection: &mut SqliteConnection, run: &RunId, now: UnixNanos) -> Result<Option<Run>, Failure> {
    sqlx::query(CANCEL)
        .bind(run.as_str().to_owned()) // $1 id
        .bind(now.nanos()) // $2 finish_time
        .execute(&mut *connection)
        .await?;
    by_id(connection, run).await
}

const STORE_PROGRESS: &str = "
    UPDATE runs
    SET last_batch = $3, lines = $4, ticks = $5, ignored = $6, rejected = $7, last_seq = $8, published = $9,
        ignored_kinds = $10
    WHERE id = $1 AND owner = $2 AND state = 1 AND last_batch < $3
    RETURNING 1";

/// Stores what an append has added to a run.
pub(super) async fn store_progress(connection: &mut SqliteConnection, run: &Run) -> Result<(), Failure> {
    let stored = sqlx::query(STORE_PROGRESS)
        .bind(run.run.id.as_str().to_owned()) // $1 id
        .bind(to_sql(run.owner.0)) // $2 owner
        .bind(to_sql(run.last_batch)) // $3 last_batch
        .bind(to_sql(run.progress.lines)) // $4 lines
        .bind(to_sql(run.progress.ticks)) // $5 ticks
        .bind(to_sql(run.progress.ignored.total())) // $6 ignored
        .bind(to_sql(run.progress.rejected)) // $7 rejected
        .bind(to_sql(run.last_seq)) // $8 last_seq
        .bind(to_sql(run.progress.published)) // $9 published
        .bind(ignored_to_sql(&run.progress.ignored)) // $10 ignored_kinds
        .fetch_all(connection)
        .await?;
    if stored.is_empty() { Err(written_by_another()) } else { Ok(()) }
}
