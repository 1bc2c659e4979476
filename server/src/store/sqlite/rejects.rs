//! The lines that runs refused.

use sqlx::SqliteConnection;

use super::failure::Failure;
use super::rows::{from_sql, to_sql};
use crate::store::{Reject, Run, RunId};

const STORE: &str = "
    INSERT INTO run_rejects (run, line, code, reason, text)
        SELECT number, $2, $3, $4, $5
        FROM runs
        WHERE id = $1
        ON CONFLICT DO NOTHING";

pub(super) async fn store(connection: &mut SqliteConnection, run: &RunId, rejects: &[Reject]) -> Result<(), Failure> {
    for Reject { line, code, reason, text } in rejects {
        sqlx::query(STORE)
            .bind(run.as_str().to_owned()) // $1 id
            .bind(to_sql(*line)) // $2 line
            .bind(code.clone().into_owned()) // $3 code
            .bind(reason.clone()) // $4 reason
            .bind(text.clone()) // $5 text
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The rejects of stored batches are the first ones, and as many as were counted with them unless fewer are kept.
const FORGET_UNSTORED: &str = "
    DELETE FROM run_rejects
    WHERE (run, line) IN (
        SELECT run, line
        FROM run_rejects
        WHERE run = (SELECT number FROM runs WHERE id = $1)
        ORDER BY line
        LIMIT -1 OFFSET $2
    )";

/// Forgets the rejects of a batch that is not stored.
pub(super) async fn forget_unstored(connection: &mut SqliteConnection, run: &Run) -> Result<(), Failure> {
    sqlx::query(FORGET_UNSTORED)
        .bind(run.run.id.as_str().to_owned()) // $1 id
        .bind(to_sql(run.progress.rejected)) // $2 lines rejected in stored batches
        .execute(connection)
        .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct RejectRow {
    line: i64,
    code: String,
    reason: String,
    text: String,
}

const LIST: &str = "
    SELECT line, code, reason, text
    FROM run_rejects
    WHERE run = (SELECT number FROM runs WHERE id = $1) AND line > $2
    ORDER BY line
    LIMIT $3";

pub(super) async fn list(
    connection: &mut SqliteConnection,
    run: RunId,
    after_line: u64,
    limit: usize,
) -> Result<Vec<Reject>, Failure> {
    let found: Vec<RejectRow> = sqlx::query_as(LIST)
        .bind(run.as_str().to_owned()) // $1 id
        .bind(i64::try_from(after_line).unwrap_or(i64::MAX)) // $2 line
        .bind(i64::try_from(limit).unwrap_or(i64::MAX)) // $3 at most
        .fetch_all(connection)
        .await?;
    let reject =
        |RejectRow { line, code, reason, text }| Reject { line: from_sql(line), code: code.into(), reason, text };
    Ok(found.into_iter().map(reject).collect())
}
