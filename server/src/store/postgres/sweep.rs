//! Forgetting, in portions: each is one call, so that it is whole, and short, so that appends are not held up.

use std::time::Duration;

use sqlx::PgConnection;

use super::failure::Failure;
use super::rows::{from_sql, to_sql_at_most};
use super::stumble;
use super::terms::Terms;
use crate::store::faults::{self, Faults};
use crate::store::{Retention, Swept};

/// How many rows of each table one portion may take. Chunks have some 20 KiB each.
const PORTION: i64 = 128;

/// How many bytes of segments one portion may take, but at least one segment.
const PORTION_BYTES: i64 = 16 * 1024 * 1024;

/// The places inside the function.
const INSIDE: [&str; 1] = [faults::SWEEP_INSIDE];

/// What one portion removed, and whether it was the last.
#[derive(Debug)]
pub(super) struct Portion {
    pub(super) swept: Swept,
    pub(super) done: bool,
}

const SWEEP: &str = "
    SELECT segments_gone, chunks_gone, producers_gone, done
    FROM sweep_portion_and_corrections($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

pub(super) async fn portion(
    connection: &mut PgConnection,
    retention: Retention,
    terms: Terms,
    faults: Faults,
) -> Result<Portion, Failure> {
    let Retention { log_before, log_bytes, history_before, chunk_grace, producer_idle } = retention;
    let armed = stumble::arm(connection, &faults, &INSIDE).await?;
    let (segments, chunks, producers, done): (i64, i64, i64, bool) = sqlx::query_as(SWEEP)
        .bind(terms.check_identity) // $1 whether the database's identity is checked
        .bind(terms.new_epoch) // $2 name of an epoch that would begin
        .bind(terms.now) // $3 the time, or NULL
        .bind(log_before.nanos()) // $4 the first append_time that stays
        .bind(to_sql_at_most(log_bytes)) // $5 bytes of segments that may stay
        .bind(history_before.map(|before| i64::from(before.day()))) // $6 the first day that has not ended, or NULL
        .bind(nanos(chunk_grace)) // $7 how long dropped chunks stay
        .bind(nanos(producer_idle)) // $8 how long idle producers stay
        .bind(PORTION) // $9 rows at most
        .bind(PORTION_BYTES) // $10 bytes of segments at most
        .fetch_one(&mut *connection)
        .await?;
    if armed {
        stumble::disarm(connection, &INSIDE).await?;
    }
    let swept = Swept { segments: from_sql(segments), chunks: from_sql(chunks), producers: from_sql(producers) };
    Ok(Portion { swept, done })
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}
