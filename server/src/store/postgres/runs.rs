//! Ingestion runs, their leases and rejects.

use std::collections::BTreeMap;

use sqlx::{FromRow as _, PgConnection, Row as _};

use super::failure::Failure;
use super::rows::{self, from_sql, text_from_sql, text_to_sql, to_sql, to_sql_at_most};
use super::terms::Terms;
use crate::domain::UnixNanos;
use crate::store::{
    Ignored, Lease, NewRun, Reject, Run, RunClaim, RunEnd, RunError, RunFailure, RunId, RunOwner, RunProgress,
    RunRequest, RunState, StoreError,
};

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
    kinds: String,
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
        let error = self
            .error_reason
            .zip(self.error_message)
            .map(|(reason, message)| RunError { reason: text_from_sql(&reason), message: text_from_sql(&message) });
        Ok(Run {
            run: NewRun {
                id: RunId::new(&self.id).map_err(invalid_id)?,
                identity: rows::array_from_sql(self.identity, "runs", row)?,
                content: rows::array_from_sql(self.content, "runs", row)?,
                parser_version: rows::count_from_sql(self.parser_version, "runs", row)?,
                options: self.options,
                file_name: text_from_sql(&self.file_name),
                size_bytes: from_sql(self.size_bytes),
                total_lines: from_sql(self.total_lines),
                trace_id: text_from_sql(&self.trace_id),
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
                ignored: ignored_from_sql(&self.kinds).ok_or_else(damaged_kinds)?,
                rejected: from_sql(self.rejected),
                rejects: Vec::new(),
            },
            unstored_rejected: from_sql(self.unstored_rejected),
            last_seq: from_sql(self.last_seq),
            error,
            create_time: time(self.create_time)?,
            finish_time: self.finish_time.map(time).transpose()?,
        })
    }
}

/// Reads `{"kind": count}`.
fn ignored_from_sql(json: &str) -> Option<Ignored> {
    let kinds: BTreeMap<String, u64> = serde_json::from_str(json).ok()?;
    Some(Ignored(kinds.into_iter().map(|(kind, count)| (text_from_sql(&kind).into(), count)).collect()))
}

fn state_from_sql(state: i64) -> Option<RunState> {
    let states = [RunState::Running, RunState::Succeeded, RunState::Failed, RunState::Cancelled];
    states.into_iter().find(|known| state_to_sql(*known) == state)
}

fn state_to_sql(state: RunState) -> i64 {
    i64::from(state as u8)
}

const BEGIN: &str = "
    SELECT claim, (run).*, (run).ignored_kinds::TEXT AS kinds
    FROM begin_run($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

pub(super) async fn begin(
    connection: &mut PgConnection,
    request: RunRequest,
    terms: Terms,
) -> Result<RunClaim, Failure> {
    let RunRequest { run, lease } = request;
    let NewRun { id, identity, content, parser_version, options, file_name, size_bytes, total_lines, trace_id, again } =
        run;
    let row = sqlx::query(BEGIN)
        .bind(terms.check_identity) // $1 whether the database's identity is checked
        .bind(terms.new_epoch) // $2 name of an epoch that would begin
        .bind(terms.now) // $3 the time, or NULL
        .bind(id.as_str()) // $4 id
        .bind(&identity[..]) // $5 identity
        .bind(&content[..]) // $6 content
        .bind(i64::from(parser_version)) // $7 parser_version
        .bind(options) // $8 options
        .bind(text_to_sql(&file_name)) // $9 file_name
        .bind(to_sql(size_bytes)) // $10 size_bytes
        .bind(to_sql(total_lines)) // $11 total_lines
        .bind(text_to_sql(&trace_id)) // $12 trace_id
        .bind(again) // $13 again
        .bind(to_sql(lease.owner.0)) // $14 owner
        .bind(lease.now.nanos()) // $15 when the lease is taken
        .bind(lease.until.nanos()) // $16 lease_until
        .fetch_one(connection)
        .await?;
    let run = RunRow::from_row(&row)?.into_run()?;
    Ok(match row.try_get::<i32, _>("claim")? {
        0 => RunClaim::Yours(run),
        1 => RunClaim::Leased(run),
        2 => RunClaim::Done(run),
        3 => RunClaim::OtherOptions(run),
        4 => RunClaim::OtherParser(run),
        5 => RunClaim::IdTaken(run),
        _ => {
            return Err(StoreError::Unavailable("the database's functions are of another version".to_owned()).into());
        }
    })
}

const RENEW: &str = "
    UPDATE runs
    SET lease_until = $3
    WHERE id = $1 AND owner = $2 AND state = 1";

pub(super) async fn renew_lease(connection: &mut PgConnection, run: RunId, lease: Lease) -> Result<bool, Failure> {
    let renewed = sqlx::query(RENEW)
        .bind(run.as_str()) // $1 id
        .bind(to_sql(lease.owner.0)) // $2 owner
        .bind(lease.until.nanos()) // $3 lease_until
        .execute(connection)
        .await?;
    Ok(renewed.rows_affected() > 0)
}

const FINISH: &str = "
    WITH finished AS (
        UPDATE runs
        SET state = $3, unstored_rejected = $4, error_reason = $5, error_message = $6,
            finish_time = coalesce($7, unix_nanos())
        WHERE id = $1 AND owner = $2 AND state = 1
        RETURNING number
    ), kept AS (
        INSERT INTO run_rejects (run, line, code, reason, text)
            SELECT number, line, code, reason, text
            FROM finished, unnest($8::BIGINT[], $9::TEXT[], $10::TEXT[], $11::TEXT[])
                AS rejected (line, code, reason, text)
            ON CONFLICT DO NOTHING
    )
    SELECT number
    FROM finished";

pub(super) async fn finish(
    connection: &mut PgConnection,
    run: RunId,
    owner: RunOwner,
    end: RunEnd,
    now: Option<i64>,
) -> Result<bool, Failure> {
    let state = end.state();
    let (error, rejected, rejects) = match end {
        RunEnd::Succeeded => (None, 0, Vec::new()),
        RunEnd::Failed(RunFailure { error, rejected, rejects }) => (Some(error), rejected, rejects),
    };
    let (reason, message) = error.map(|error| (text_to_sql(&error.reason), text_to_sql(&error.message))).unzip();
    let texts =
        |text: fn(&Reject) -> &str| -> Vec<String> { rejects.iter().map(|reject| text_to_sql(text(reject))).collect() };
    let finished = sqlx::query(FINISH)
        .bind(run.as_str()) // $1 id
        .bind(to_sql(owner.0)) // $2 owner
        .bind(state_to_sql(state)) // $3 state
        .bind(to_sql(rejected)) // $4 unstored_rejected
        .bind(reason) // $5 error_reason
        .bind(message) // $6 error_message
        .bind(now) // $7 finish_time, or NULL
        .bind(rejects.iter().map(|reject| to_sql(reject.line)).collect::<Vec<i64>>()) // $8 rejected lines
        .bind(texts(|reject| &reject.code)) // $9 why, for programs
        .bind(texts(|reject| &reject.reason)) // $10 why, in words
        .bind(texts(|reject| &reject.text)) // $11 their text
        .fetch_optional(connection)
        .await?;
    Ok(finished.is_some())
}

const CANCEL: &str = "
    SELECT *, ignored_kinds::TEXT AS kinds
    FROM cancel_run($1, $2)";

pub(super) async fn cancel(
    connection: &mut PgConnection,
    run: RunId,
    now: Option<i64>,
) -> Result<Option<Run>, Failure> {
    let found: Option<RunRow> = sqlx::query_as(CANCEL)
        .bind(now) // $1 finish_time, or NULL
        .bind(run.as_str()) // $2 id
        .fetch_optional(connection)
        .await?;
    found.map(RunRow::into_run).transpose()
}

const BY_ID: &str = "
    SELECT *, ignored_kinds::TEXT AS kinds
    FROM runs
    WHERE id = $1";

pub(super) async fn by_id(connection: &mut PgConnection, run: RunId) -> Result<Option<Run>, Failure> {
    let found: Option<RunRow> = sqlx::query_as(BY_ID)
        .bind(run.as_str()) // $1 id
        .fetch_optional(connection)
        .await?;
    found.map(RunRow::into_run).transpose()
}

const LIST: &str = "
    SELECT *, ignored_kinds::TEXT AS kinds
    FROM runs
    WHERE number < CASE
        WHEN $1::TEXT IS NULL THEN 9223372036854775807
        ELSE coalesce((SELECT number FROM runs WHERE id = $1), 0)
    END
    ORDER BY number DESC
    LIMIT $2";

pub(super) async fn list(
    connection: &mut PgConnection,
    before: Option<RunId>,
    limit: usize,
) -> Result<Vec<Run>, Failure> {
    let found: Vec<RunRow> = sqlx::query_as(LIST)
        .bind(before.as_ref().map(RunId::as_str)) // $1 id of the run that all are older than, or NULL
        .bind(i64::try_from(limit).unwrap_or(i64::MAX)) // $2 at most
        .fetch_all(connection)
        .await?;
    found.into_iter().map(RunRow::into_run).collect()
}

const REJECTS: &str = "
    SELECT line, code, reason, text
    FROM run_rejects
    WHERE run = (SELECT number FROM runs WHERE id = $1) AND line > $2
    ORDER BY line
    LIMIT $3";

pub(super) async fn rejects(
    connection: &mut PgConnection,
    run: RunId,
    after_line: u64,
    limit: usize,
) -> Result<Vec<Reject>, Failure> {
    let found: Vec<(i64, String, String, String)> = sqlx::query_as(REJECTS)
        .bind(run.as_str()) // $1 id
        .bind(to_sql_at_most(after_line)) // $2 line
        .bind(i64::try_from(limit).unwrap_or(i64::MAX)) // $3 at most
        .fetch_all(connection)
        .await?;
    let reject = |(line, code, reason, text): (i64, String, String, String)| Reject {
        line: from_sql(line),
        code: code.into(),
        reason: text_from_sql(&reason),
        text: text_from_sql(&text),
    };
    Ok(found.into_iter().map(reject).collect())
}
