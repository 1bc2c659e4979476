//! Reading the log: its head, a stretch of it, the place of a time. Each is one statement, and so sees one state.

use bytes::Bytes;
use sqlx::{FromRow as _, PgConnection, Row as _};

use super::failure::Failure;
use super::rows::{self, HeadRow, from_sql, to_sql, to_sql_at_most};
use super::terms::Terms;
use crate::domain::{Epoch, UnixNanos};
use crate::store::{LogEdge, LogHead, LogPage, PAGE_SEGMENTS, RunId, Segment};

/// The head, and whether the database has another identity than the head's epoch.
const READ_HEAD: &str = "
    SELECT
        epoch, position, chain, append_time, oldest, hot_floor, log_bytes, manifest_version,
        CASE WHEN $1 THEN (
            SELECT (here.system_identifier, here.timeline)
                IS DISTINCT FROM (log_head.system_identifier, log_head.timeline)
            FROM log_identity() AS here
        ) ELSE false END AS moved
    FROM log_head
    WHERE partition = 0";

/// The head, and whether a new epoch is due because the database was promoted or restored.
pub(super) async fn head(connection: &mut PgConnection, check_identity: bool) -> Result<(LogHead, bool), Failure> {
    let row = sqlx::query(READ_HEAD)
        .bind(check_identity) // $1 whether the database's identity is checked
        .fetch_optional(connection)
        .await?;
    let row = row.ok_or_else(rows::head_missing)?;
    Ok((HeadRow::from_row(&row)?.into_head()?, row.try_get("moved")?))
}

const SETTLE: &str = "
    SELECT epoch, position, chain, append_time, oldest, hot_floor, log_bytes, manifest_version
    FROM lock_head($1, $2, $3)";

/// Begins the epoch that is due, unless another replica has, and returns the head.
pub(super) async fn settle(connection: &mut PgConnection, terms: Terms) -> Result<LogHead, Failure> {
    let row: HeadRow = sqlx::query_as(SETTLE)
        .bind(terms.check_identity) // $1 whether the database's identity is checked
        .bind(terms.new_epoch) // $2 name of an epoch that would begin
        .bind(terms.now) // $3 the time, or NULL
        .fetch_one(connection)
        .await?;
    row.into_head()
}

/// The head beside each segment, or alone. The log is only looked at if it holds the position.
const READ_PAGE: &str = "
    SELECT
        log_head.epoch, position, log_head.chain, log_head.append_time, oldest, hot_floor, log_bytes, manifest_version,
        page.first_seq, page.epoch AS segment_epoch, page.entry_count, page.tick_count,
        page.append_time AS segment_time, page.backfill, page.run_id, page.chain AS segment_chain,
        page.byte_count, page.bytes
    FROM log_head
    LEFT JOIN LATERAL (
        SELECT
            found.*,
            row_number() OVER (ORDER BY found.first_seq) AS number,
            sum(found.byte_count) OVER (ORDER BY found.first_seq) AS total_bytes
        FROM (
            SELECT *
            FROM segments
            WHERE first_seq >= (SELECT max(first_seq) FROM segments WHERE first_seq <= $1)
            ORDER BY first_seq
            LIMIT $3
        ) AS found
    ) AS page ON $1 BETWEEN oldest AND position AND (page.number = 1 OR page.total_bytes <= $2)
    WHERE partition = 0
    ORDER BY page.first_seq";

#[derive(sqlx::FromRow)]
struct SegmentRow {
    first_seq: i64,
    segment_epoch: i64,
    entry_count: i64,
    tick_count: i64,
    segment_time: i64,
    backfill: bool,
    run_id: Option<String>,
    segment_chain: Vec<u8>,
    byte_count: i64,
    bytes: Vec<u8>,
}

impl SegmentRow {
    fn into_segment(self) -> Result<Segment, Failure> {
        let row = self.first_seq;
        let invalid_run = |_| rows::damaged("segments", row.to_string(), "run_id is no run id");
        if u64::try_from(self.byte_count) != Ok(self.bytes.len() as u64) {
            return Err(rows::damaged("segments", row.to_string(), "bytes has another length than byte_count"));
        }
        Ok(Segment {
            epoch: Epoch(from_sql(self.segment_epoch)),
            first_seq: from_sql(row),
            entry_count: rows::count_from_sql(self.entry_count, "segments", row)?,
            tick_count: rows::count_from_sql(self.tick_count, "segments", row)?,
            append_time: rows::time_from_sql(self.segment_time, "segments", row)?,
            backfill: self.backfill,
            run_id: self.run_id.map(|run| RunId::new(&run).map_err(invalid_run)).transpose()?,
            chain: rows::array_from_sql(self.segment_chain, "segments", row)?,
            bytes: Bytes::from(self.bytes),
        })
    }
}

/// The head, and consecutive segments from the one that holds `after + 1`.
pub(super) async fn page(connection: &mut PgConnection, after: u64, max_bytes: usize) -> Result<LogPage, Failure> {
    let wanted = after.saturating_add(1);
    let found = sqlx::query(READ_PAGE)
        .bind(to_sql_at_most(wanted)) // $1 the position
        .bind(to_sql_at_most(max_bytes as u64)) // $2 bytes at most
        .bind(to_sql(PAGE_SEGMENTS as u64)) // $3 segments at most
        .fetch_all(connection)
        .await?;
    let first = found.first().ok_or_else(rows::head_missing)?;
    let head = HeadRow::from_row(first)?.into_head()?;
    let mut page = LogPage { head, segments: Vec::with_capacity(found.len()) };
    if after >= head.position || wanted < head.oldest {
        return Ok(page);
    }
    if first.try_get::<Option<i64>, _>("first_seq")?.is_none() {
        return Err(rows::damaged("segments", wanted.to_string(), "the position is in no segment"));
    }
    let mut expected = None;
    for row in &found {
        let segment = SegmentRow::from_row(row)?.into_segment()?;
        if expected.is_some_and(|expected| expected != segment.first_seq) {
            return Err(rows::damaged("segments", segment.first_seq.to_string(), "does not follow its predecessor"));
        }
        expected = Some(segment.last_seq() + 1);
        page.segments.push(segment);
    }
    if page.segments.first().is_none_or(|segment| !(segment.first_seq..=segment.last_seq()).contains(&wanted)) {
        return Err(rows::damaged("segments", wanted.to_string(), "the position is in no segment"));
    }
    Ok(page)
}

/// Append times ascend with positions, so halving finds the segment with some twenty look-ups, and appends need no further
/// index. The last one found is the first of the log.
const READ_EDGE: &str = "
    WITH RECURSIVE halving AS (
        SELECT
            min(first_seq) AS low, max(first_seq) AS high, NULL::BIGINT AS first_seq, NULL::BIGINT AS append_time
        FROM segments
        UNION ALL
        SELECT
            CASE WHEN enough THEN low ELSE middle.first_seq + middle.entry_count END,
            CASE WHEN enough THEN middle.first_seq - 1 ELSE high END,
            CASE WHEN enough THEN middle.first_seq ELSE halving.first_seq END,
            CASE WHEN enough THEN middle.append_time ELSE halving.append_time END
        FROM halving
        CROSS JOIN LATERAL (
            SELECT first_seq, entry_count, append_time, append_time >= $1 AS enough
            FROM segments
            WHERE first_seq <= low + (high - low) / 2
            ORDER BY first_seq DESC
            LIMIT 1
        ) AS middle
        WHERE low <= high
    )
    SELECT first_seq, append_time
    FROM halving
    WHERE first_seq IS NOT NULL
    ORDER BY first_seq
    LIMIT 1";

/// The first segment appended at or after a time.
pub(super) async fn position_at(
    connection: &mut PgConnection,
    append_time: UnixNanos,
) -> Result<Option<LogEdge>, Failure> {
    let found: Option<(i64, i64)> = sqlx::query_as(READ_EDGE)
        .bind(append_time.nanos()) // $1 append_time
        .fetch_optional(connection)
        .await?;
    let edge = |(first_seq, time)| {
        let append_time = rows::time_from_sql(time, "segments", first_seq)?;
        Ok(LogEdge { first_seq: from_sql(first_seq), append_time })
    };
    found.map(edge).transpose()
}
