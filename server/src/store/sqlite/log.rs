//! The log: appending a group, reading a stretch.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sqlx::{Row as _, SqliteConnection};

use super::failure::Failure;
use super::rows::{self, Head, blob, from_sql, to_sql};
use super::writer::Writer;
use super::{producers, published, rejects, runs};
use crate::domain::segment::{self, Link};
use crate::domain::{Epoch, UnixNanos};
use crate::store::faults;
use crate::store::marks::{self, Standing};
use crate::store::{
    Appended, Group, LogEdge, LogHead, LogPage, Mark, PAGE_SEGMENTS, RunId, Segment, StoreError, Verdict,
};

/// Begins the transaction and writes segment, head and producers at once: every statement sent on its own costs two
/// changes of thread. A group without entries writes no segment. Answers with a row for the head and one for each
/// producer, if they were as the writer remembers them.
const APPEND_SEGMENT: &str = "
    BEGIN IMMEDIATE;
    INSERT INTO segments
        (first_seq, epoch, entry_count, tick_count, append_time, backfill, run_id, chain, byte_count, bytes)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
        WHERE $3 > 0;
    UPDATE log_head
        SET position = $11, chain = $8, append_time = $5, log_bytes = log_bytes + $9
        WHERE partition = 0 AND epoch = $2 AND position = $12
        RETURNING position;
    UPDATE producers
        SET last_batch_seq = stored.value ->> 'last', window = unhex(stored.value ->> 'window'), active_time = $14
        FROM json_each($13) AS stored
        WHERE producers.id = stored.value ->> 'id'
            AND fence = stored.value ->> 'fence'
            AND last_batch_seq < stored.value ->> 'last'
        RETURNING last_batch_seq";

impl Writer {
    /// Appends a group, or says why not.
    pub(super) async fn append(&mut self, group: Group) -> Result<Appended, StoreError> {
        self.faults.hit(faults::APPEND_BEFORE).await?;
        let (head, standing) = match self.judge(&group).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(verdicts)) => return Ok(Appended::Refused(verdicts)),
            Err(failure) => return Err(self.undo(failure).await),
        };
        let written = self.write_group(&group, head, &standing).await;
        let head = self.end(written).await?;
        self.remember(head, standing);
        self.faults.hit(faults::APPEND_AFTER).await?;
        let first_seq = head.log.position + 1 - u64::from(group.entry_count);
        Ok(Appended::Committed { first_seq, append_time: head.log.append_time, chain: head.log.chain })
    }

    /// Where the log stands, and what has to be stored beside the segment; or the verdicts that refuse the group.
    async fn judge(&mut self, group: &Group) -> Result<Result<(Head, Standing), Vec<Verdict>>, Failure> {
        let head = self.head().await?;
        if head.log.epoch != group.epoch {
            return Err(StoreError::EpochChanged(head.log.epoch).into());
        }
        let mut standing = Standing::default();
        for mark in &group.marks {
            match mark {
                Mark::Producer { producer, .. } if !standing.producers.contains_key(producer) => {
                    let known = self.producer(producer).await?;
                    standing.producers.insert(producer.clone(), known);
                }
                Mark::Run { run, .. } if standing.run.is_none() => {
                    standing.run = runs::by_id(self.connection().await?, run).await?;
                }
                _ => (),
            }
        }
        let verdicts = marks::judge(group, head.log.position, &mut standing);
        if verdicts.iter().all(|verdict| *verdict == Verdict::New) {
            Ok(Ok((head, standing)))
        } else {
            Ok(Err(verdicts))
        }
    }

    /// Writes everything, up to but without the commit. Returns the head to be.
    async fn write_group(&mut self, group: &Group, head: Head, standing: &Standing) -> Result<Head, Failure> {
        let now = self.clock.now();
        let next = Head { log: extend(&head.log, group, now), ..head };
        self.write_segment(group, &head.log, &next.log, standing, now).await?;
        self.faults.hit(faults::APPEND_INSIDE).await?;
        if let Some(run) = &standing.run {
            runs::store_progress(self.connection().await?, run).await?;
            for mark in &group.marks {
                if let Mark::Run { progress, published, .. } = mark {
                    let connection = self.connection().await?;
                    rejects::store(connection, &run.run.id, &progress.rejects).await?;
                    published::store(connection, published).await?;
                }
            }
        }
        self.faults.hit(faults::APPEND_BEFORE_SYNC).await?;
        Ok(next)
    }

    async fn write_segment(
        &mut self,
        group: &Group,
        before: &LogHead,
        after: &LogHead,
        standing: &Standing,
        now: UnixNanos,
    ) -> Result<(), Failure> {
        let (producers, count) = producers::to_json(standing);
        let append = sqlx::query(APPEND_SEGMENT)
            .bind(to_sql(before.position + 1)) // $1 first_seq
            .bind(to_sql(group.epoch.0)) // $2 epoch
            .bind(i64::from(group.entry_count)) // $3 entry_count
            .bind(i64::from(group.tick_count)) // $4 tick_count
            .bind(after.append_time.nanos()) // $5 append_time
            .bind(group.backfill) // $6 backfill
            .bind(group.run_id.as_ref().map(|run| run.as_str().to_owned())) // $7 run_id
            .bind(after.chain.to_vec()) // $8 chain
            .bind(to_sql(group.bytes.len() as u64)) // $9 byte_count
            .bind(blob(&group.bytes)) // $10 bytes
            .bind(to_sql(after.position)) // $11 the new position
            .bind(to_sql(before.position)) // $12 the position as remembered
            .bind(producers) // $13 producers as JSON: [{id, fence, last, window}]
            .bind(now.nanos()); // $14 active_time
        let found = append.fetch_all(self.connection().await?).await?;
        if found.len() != 1 + count {
            return Err(written_by_another());
        }
        Ok(())
    }

    fn remember(&mut self, head: Head, standing: Standing) {
        self.head = Some(head);
        for (producer, state) in standing.producers {
            if let Some(state) = state {
                self.remember_producer(producer, state);
            }
        }
    }
}

/// Somebody changed rows that only this task writes.
pub(super) fn written_by_another() -> Failure {
    StoreError::Unavailable("another program wrote to the store".to_owned()).into()
}

/// The head after a group was appended.
fn extend(head: &LogHead, group: &Group, now: UnixNanos) -> LogHead {
    if group.entry_count == 0 {
        return *head;
    }
    let append_time = head.append_time.max(now);
    let link = Link {
        epoch: group.epoch,
        first_seq: head.position + 1,
        entry_count: group.entry_count,
        tick_count: group.tick_count,
        append_time: append_time.nanos(),
        backfill: group.backfill,
        bytes: &group.bytes,
    };
    LogHead {
        position: head.position + u64::from(group.entry_count),
        chain: segment::chain(&head.chain, link),
        append_time,
        log_bytes: head.log_bytes + group.bytes.len() as u64,
        ..*head
    }
}

/// Sizes of the segments from the one that holds a position, without their bytes.
const READ_SIZES: &str = "
    SELECT first_seq, byte_count
    FROM segments
    WHERE first_seq >= (SELECT max(first_seq) FROM segments WHERE first_seq <= $1)
    ORDER BY first_seq
    LIMIT $2";

const READ_SEGMENTS: &str = "
    SELECT first_seq, epoch, entry_count, tick_count, append_time, backfill, run_id, chain, byte_count, bytes
    FROM segments
    WHERE first_seq BETWEEN $1 AND $2
    ORDER BY first_seq";

#[derive(sqlx::FromRow)]
struct SegmentRow {
    first_seq: i64,
    epoch: i64,
    entry_count: i64,
    tick_count: i64,
    append_time: i64,
    backfill: bool,
    run_id: Option<String>,
    chain: Vec<u8>,
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
            epoch: Epoch(from_sql(self.epoch)),
            first_seq: from_sql(row),
            entry_count: rows::count_from_sql(self.entry_count, "segments", row)?,
            tick_count: rows::count_from_sql(self.tick_count, "segments", row)?,
            append_time: rows::time_from_sql(self.append_time, "segments", row)?,
            backfill: self.backfill,
            run_id: self.run_id.map(|run| RunId::new(&run).map_err(invalid_run)).transpose()?,
            chain: rows::array_from_sql(self.chain, "segments", row)?,
            bytes: Bytes::from(self.bytes),
        })
    }
}

/// The head, and consecutive segments from the one that holds `after + 1`.
pub(super) async fn page(connection: &mut SqliteConnection, after: u64, max_bytes: usize) -> Result<LogPage, Failure> {
    rows::begin_reading(connection).await?;
    let head = rows::read_head(connection).await?.log;
    let mut page = LogPage { head, segments: Vec::new() };
    if after < head.position && after + 1 >= head.oldest {
        let (first, last) = stretch(connection, after + 1, max_bytes).await?;
        let found: Vec<SegmentRow> = sqlx::query_as(READ_SEGMENTS)
            .bind(first) // $1 first_seq of the first
            .bind(last) // $2 first_seq of the last
            .fetch_all(&mut *connection)
            .await?;
        let mut expected = None;
        for row in found {
            let segment = row.into_segment()?;
            if expected.is_some_and(|expected| expected != segment.first_seq) {
                return Err(rows::damaged(
                    "segments",
                    segment.first_seq.to_string(),
                    "does not follow its predecessor",
                ));
            }
            expected = Some(segment.last_seq() + 1);
            page.segments.push(segment);
        }
        if page.segments.first().is_none_or(|segment| !(segment.first_seq..=segment.last_seq()).contains(&(after + 1)))
        {
            return Err(rows::damaged("segments", (after + 1).to_string(), "the position is in no segment"));
        }
    }
    rows::end_reading(connection).await?;
    Ok(page)
}

const READ_EDGES: &str = "
    SELECT min(first_seq), max(first_seq)
    FROM segments";

const READ_EDGE_BEFORE: &str = "
    SELECT first_seq, entry_count, append_time
    FROM segments
    WHERE first_seq <= $1
    ORDER BY first_seq DESC
    LIMIT 1";

/// The first segment appended at or after a time. Append times ascend with positions, so halving finds it with some
/// twenty look-ups, and appends need no further index.
pub(super) async fn position_at(
    connection: &mut SqliteConnection,
    append_time: UnixNanos,
) -> Result<Option<LogEdge>, Failure> {
    rows::begin_reading(connection).await?;
    let (low, high): (Option<i64>, Option<i64>) = sqlx::query_as(READ_EDGES).fetch_one(&mut *connection).await?;
    let mut found = None;
    // An empty log has no edges, and with these nothing to look at.
    let (mut low, mut high) = (low.unwrap_or(1), high.unwrap_or(0));
    while low <= high {
        let (first_seq, entry_count, time): (i64, i64, i64) = sqlx::query_as(READ_EDGE_BEFORE)
            .bind(low + (high - low) / 2) // $1 a position in the middle
            .fetch_one(&mut *connection)
            .await?;
        let time = rows::time_from_sql(time, "segments", first_seq)?;
        if time >= append_time {
            found = Some(LogEdge { first_seq: from_sql(first_seq), append_time: time });
            high = first_seq - 1;
        } else {
            low = first_seq + entry_count;
        }
    }
    rows::end_reading(connection).await?;
    Ok(found)
}

/// The first_seq of the segment that holds a position, and of the last one that fits with it into `max_bytes`.
async fn stretch(connection: &mut SqliteConnection, position: u64, max_bytes: usize) -> Result<(i64, i64), Failure> {
    let mut sizes = sqlx::query(READ_SIZES)
        .bind(to_sql(position)) // $1 the position
        .bind(PAGE_SEGMENTS as i64) // $2 at most
        .fetch(connection);
    let mut found: Option<(i64, i64)> = None;
    let mut bytes = 0_u64;
    while let Some(row) = sizes.try_next().await? {
        let first_seq: i64 = row.try_get(0)?;
        bytes = bytes.saturating_add(from_sql(row.try_get(1)?));
        found = match found {
            None => Some((first_seq, first_seq)),
            Some(_) if bytes > max_bytes as u64 => break,
            Some((first, _)) => Some((first, first_seq)),
        };
    }
    found.ok_or_else(|| rows::damaged("segments", position.to_string(), "the position is in no segment"))
}
