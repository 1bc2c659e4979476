//! Forgetting, in portions: each is one transaction, so that it is whole, and short, so that appends are not held up.

use sqlx::{Row as _, SqliteConnection};

use super::failure::Failure;
use super::rows::{self, Head, from_sql, to_sql};
use super::writer::Writer;
use crate::domain::UnixNanos;
use crate::store::faults;
use crate::store::retention::{self, SegmentAge};
use crate::store::{Retention, StoreError, Swept};

/// How many rows of each table one portion may take. Chunks have some 20 KiB each.
const PORTION: i64 = 128;

/// How many bytes of segments one portion may take, but at least one segment.
const PORTION_BYTES: u64 = 16 * 1024 * 1024;

/// What one portion removed, and whether it was the last.
#[derive(Debug)]
pub(super) struct Portion {
    pub(super) swept: Swept,
    pub(super) done: bool,
}

impl Writer {
    pub(super) async fn sweep_portion(&mut self, retention: Retention) -> Result<Portion, StoreError> {
        self.begin().await?;
        let swept = self.write_portion(retention).await;
        let portion = self.end(swept).await?;
        // The head and the producers have changed.
        self.head = None;
        self.producers.clear();
        Ok(portion)
    }

    async fn write_portion(&mut self, retention: Retention) -> Result<Portion, Failure> {
        let now = self.clock.now();
        let connection = self.connection().await?;
        let head = rows::read_head(connection).await?;
        let dropped = match retention.history_before {
            Some(before) => drop_history(connection, &head, before, now).await?,
            None => 0,
        };
        let chunks = remove_chunks(connection, &head, now.saturating_sub(retention.chunk_grace)).await?;
        let (segments, segments_wait) = remove_segments(connection, &head, retention).await?;
        let producers = remove_producers(connection, now.saturating_sub(retention.producer_idle)).await?;
        self.faults.hit(faults::SWEEP_INSIDE).await?;
        let full = dropped.max(chunks).max(producers) >= PORTION as u64;
        Ok(Portion { swept: Swept { segments, chunks, producers }, done: !full && !segments_wait })
    }
}

const DROP_DAYS: &str = "
    UPDATE chunks
    SET dropped_version = $1, dropped_time = $2
    WHERE id IN (
        SELECT id
        FROM chunks
        WHERE day < $3 AND dropped_version IS NULL
        LIMIT $4
    )";

const MOVE_VERSION: &str = "
    UPDATE log_head
    SET manifest_version = $1
    WHERE partition = 0";

const FORGET_CORRECTIONS: &str = "
    DELETE FROM corrections
    WHERE log_seq IN (
        SELECT log_seq
        FROM corrections
        WHERE day < $1
        LIMIT $2
    )";

/// Drops live chunks of days that ended before an instant. They leave the manifest now, their bytes after the grace.
/// Says how many rows went of the table that has most to go.
async fn drop_history(
    connection: &mut SqliteConnection,
    head: &Head,
    before: UnixNanos,
    now: UnixNanos,
) -> Result<u64, Failure> {
    let version = to_sql(head.log.manifest_version + 1);
    let dropped = sqlx::query(DROP_DAYS)
        .bind(version) // $1 dropped_version
        .bind(now.nanos()) // $2 dropped_time
        .bind(i64::from(before.day())) // $3 the first day that has not ended
        .bind(PORTION) // $4 at most
        .execute(&mut *connection)
        .await?
        .rows_affected();
    if dropped > 0 {
        sqlx::query(MOVE_VERSION)
            .bind(version) // $1 manifest_version
            .execute(&mut *connection)
            .await?;
    }
    let forgotten = sqlx::query(FORGET_CORRECTIONS)
        .bind(i64::from(before.day())) // $1 the first day that has not ended
        .bind(PORTION) // $2 at most
        .execute(connection)
        .await?
        .rows_affected();
    Ok(dropped.max(forgotten))
}

const REMOVE_CHUNKS: &str = "
    DELETE FROM chunk_bytes
    WHERE chunk_id IN (
        SELECT id
        FROM chunks
        WHERE dropped_version IS NOT NULL AND dropped_time < $1
        ORDER BY dropped_version, id
        LIMIT $2
    );
    DELETE FROM chunks
    WHERE id IN (
        SELECT id
        FROM chunks
        WHERE dropped_version IS NOT NULL AND dropped_time < $1
        ORDER BY dropped_version, id
        LIMIT $2
    )
    RETURNING dropped_version";

const MOVE_FLOOR: &str = "
    UPDATE log_head
    SET manifest_floor = $1
    WHERE partition = 0";

/// Removes chunks that were dropped before an instant.
async fn remove_chunks(connection: &mut SqliteConnection, head: &Head, before: UnixNanos) -> Result<u64, Failure> {
    let removed = sqlx::query(REMOVE_CHUNKS)
        .bind(before.nanos()) // $1 dropped_time
        .bind(PORTION) // $2 at most
        .fetch_all(&mut *connection)
        .await?;
    let mut floor = head.manifest_floor;
    for row in &removed {
        floor = floor.max(from_sql(row.try_get(0)?));
    }
    if floor > head.manifest_floor {
        sqlx::query(MOVE_FLOOR)
            .bind(to_sql(floor)) // $1 manifest_floor
            .execute(connection)
            .await?;
    }
    Ok(removed.len() as u64)
}

const OLDEST_SEGMENTS: &str = "
    SELECT first_seq + entry_count - 1, append_time, byte_count
    FROM segments
    ORDER BY first_seq
    LIMIT $1";

const REMOVE_SEGMENTS: &str = "
    DELETE FROM segments
    WHERE first_seq < $1;
    UPDATE log_head
    SET oldest = $1, log_bytes = log_bytes - $2
    WHERE partition = 0";

/// Removes the oldest segments that the retention does not keep. Says how many, and whether more may wait.
async fn remove_segments(
    connection: &mut SqliteConnection,
    head: &Head,
    retention: Retention,
) -> Result<(u64, bool), Failure> {
    let oldest: Vec<(i64, i64, i64)> = sqlx::query_as(OLDEST_SEGMENTS)
        .bind(PORTION) // $1 at most
        .fetch_all(&mut *connection)
        .await?;
    let mut ages = Vec::with_capacity(oldest.len());
    let mut bytes = 0;
    let mut more = oldest.len() as i64 == PORTION;
    for (last_seq, append_time, byte_count) in oldest {
        let append_time = rows::time_from_sql(append_time, "segments", last_seq)?;
        let age = SegmentAge { last_seq: from_sql(last_seq), append_time, byte_count: from_sql(byte_count) };
        bytes += age.byte_count;
        if bytes > PORTION_BYTES && !ages.is_empty() {
            more = true;
            break;
        }
        ages.push(age);
    }
    let floor = head.log.hot_floor;
    let count = retention::segments_to_drop(ages.iter().copied(), retention, floor, head.log.log_bytes);
    if let Some(last) = ages[..count].last() {
        let bytes: u64 = ages[..count].iter().map(|age| age.byte_count).sum();
        sqlx::query(REMOVE_SEGMENTS)
            .bind(to_sql(last.last_seq + 1)) // $1 the first position that stays
            .bind(to_sql(bytes)) // $2 bytes that go
            .execute(connection)
            .await?;
    }
    // A segment that stays ends the sweep of all that follow it.
    Ok((count as u64, more && count == ages.len()))
}

const REMOVE_PRODUCERS: &str = "
    DELETE FROM producers
    WHERE id IN (
        SELECT id
        FROM producers
        WHERE active_time < $1
        LIMIT $2
    )";

/// Forgets producers that were last active before an instant.
async fn remove_producers(connection: &mut SqliteConnection, before: UnixNanos) -> Result<u64, Failure> {
    let removed = sqlx::query(REMOVE_PRODUCERS)
        .bind(before.nanos()) // $1 active_time
        .bind(PORTION) // $2 at most
        .execute(connection)
        .await?;
    Ok(removed.rows_affected())
}
