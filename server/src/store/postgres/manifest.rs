//! The set of chunks: committing a change, reading a delta, reading bytes.

use std::collections::HashMap;

use bytes::Bytes;
use sqlx::PgConnection;

use super::failure::Failure;
use super::rows::{self, from_sql, to_sql, to_sql_at_most};
use super::stumble;
use super::terms::Terms;
use crate::domain::correction::Standing;
use crate::domain::{Epoch, InstrumentId, UnixNanos};
use crate::store::faults::{self, Faults};
use crate::store::{ChunkId, ChunkRow, CorrectionRow, ManifestChange, ManifestCommit, ManifestDelta, StoreError};

const COMMIT: &str = "
    SELECT outcome, current_version, current_epoch, not_live
    FROM commit_manifest_and_corrections(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
        $22, $23, $24, $25, $26, $27
    )";

/// The places inside the function.
const INSIDE: [&str; 1] = [faults::MANIFEST_INSIDE];

#[derive(sqlx::FromRow)]
struct Outcome {
    outcome: i32,
    current_version: i64,
    current_epoch: i64,
    not_live: Option<i64>,
}

/// Commits a change that was computed from the log of an epoch, if one is known.
pub(super) async fn commit(
    connection: &mut PgConnection,
    change: ManifestChange,
    epoch: Option<Epoch>,
    terms: Terms,
    faults: Faults,
) -> Result<ManifestCommit, Failure> {
    faults.hit(faults::MANIFEST_BEFORE).await?;
    let armed = stumble::arm(connection, &faults, &INSIDE).await?;
    let Outcome { outcome, current_version, current_epoch, not_live } = call(connection, &change, epoch, terms).await?;
    if armed {
        stumble::disarm(connection, &INSIDE).await?;
    }
    let version = from_sql(current_version);
    match outcome {
        0 => Ok(ManifestCommit::Committed { version }),
        1 => Ok(ManifestCommit::Conflict { version }),
        2 => Err(StoreError::EpochChanged(Epoch(from_sql(current_epoch))).into()),
        _ => Err(StoreError::not_live(ChunkId(from_sql(not_live.unwrap_or_default()))).into()),
    }
}

async fn call(
    connection: &mut PgConnection,
    change: &ManifestChange,
    epoch: Option<Epoch>,
    terms: Terms,
) -> Result<Outcome, Failure> {
    let mut added = Added::default();
    for chunk in &change.added {
        added.push(&chunk.row, &chunk.bytes);
    }
    let mut corrections = Corrections::default();
    change.corrections.iter().for_each(|row| corrections.push(row));
    let (instruments, positions): (Vec<i64>, Vec<i64>) =
        change.compacted.iter().map(|(instrument, position)| (i64::from(instrument.0), to_sql(*position))).unzip();
    let outcome: Outcome = sqlx::query_as(COMMIT)
        .bind(terms.check_identity) // $1 whether the database's identity is checked
        .bind(terms.new_epoch) // $2 name of an epoch that would begin
        .bind(terms.now) // $3 the time, or NULL
        .bind(epoch.map(|epoch| to_sql(epoch.0))) // $4 the epoch that the change belongs to, or NULL
        .bind(to_sql_at_most(change.expected_version)) // $5 the version that it was computed from
        .bind(added.instruments) // $6 instrument_id
        .bind(added.days) // $7 day
        .bind(added.lates) // $8 late
        .bind(added.tick_counts) // $9 tick_count
        .bind(added.first_times) // $10 first_time
        .bind(added.last_times) // $11 last_time
        .bind(added.min_seqs) // $12 min_seq
        .bind(added.max_seqs) // $13 max_seq
        .bind(added.byte_counts) // $14 byte_count
        .bind(added.statistics) // $15 statistics
        .bind(added.bytes) // $16 bytes
        .bind(change.dropped.iter().map(|id| to_sql(id.0)).collect::<Vec<_>>()) // $17 ids that are dropped
        .bind(instruments) // $18 instruments that were compacted
        .bind(positions) // $19 up to where
        .bind(to_sql(change.hot_floor)) // $20 hot_floor
        .bind((!change.venues.is_empty()).then_some(&change.venues[..])) // $21 bytes of the venues, or NULL
        .bind(corrections.log_seqs) // $22 log_seq of corrections
        .bind(corrections.instruments) // $23 instrument_id of each
        .bind(corrections.days) // $24 day
        .bind(corrections.append_times) // $25 append_time
        .bind(corrections.standings) // $26 standing
        .bind(corrections.bytes) // $27 bytes
        .fetch_one(connection)
        .await?;
    Ok(outcome)
}

/// New chunks by columns.
#[derive(Default)]
struct Added<'c> {
    instruments: Vec<i64>,
    days: Vec<i64>,
    lates: Vec<bool>,
    tick_counts: Vec<i64>,
    first_times: Vec<i64>,
    last_times: Vec<i64>,
    min_seqs: Vec<i64>,
    max_seqs: Vec<i64>,
    byte_counts: Vec<i64>,
    statistics: Vec<&'c [u8]>,
    bytes: Vec<&'c [u8]>,
}

impl<'c> Added<'c> {
    fn push(&mut self, row: &'c ChunkRow, bytes: &'c Bytes) {
        let ChunkRow {
            id: _,
            instrument,
            day,
            late,
            tick_count,
            first_time,
            last_time,
            min_seq,
            max_seq,
            byte_count,
            statistics,
        } = row;
        self.instruments.push(i64::from(instrument.0));
        self.days.push(i64::from(*day));
        self.lates.push(*late);
        self.tick_counts.push(i64::from(*tick_count));
        self.first_times.push(first_time.nanos());
        self.last_times.push(last_time.nanos());
        self.min_seqs.push(to_sql(*min_seq));
        self.max_seqs.push(to_sql(*max_seq));
        self.byte_counts.push(i64::from(*byte_count));
        self.statistics.push(statistics);
        self.bytes.push(bytes);
    }
}

/// Corrections by columns.
#[derive(Default)]
struct Corrections<'c> {
    log_seqs: Vec<i64>,
    instruments: Vec<i64>,
    days: Vec<i64>,
    append_times: Vec<i64>,
    standings: Vec<i64>,
    bytes: Vec<&'c [u8]>,
}

impl<'c> Corrections<'c> {
    fn push(&mut self, row: &'c CorrectionRow) {
        let CorrectionRow { log_seq, instrument, day, append_time, standing, bytes } = row;
        self.log_seqs.push(to_sql(*log_seq));
        self.instruments.push(i64::from(instrument.0));
        self.days.push(i64::from(*day));
        self.append_times.push(append_time.nanos());
        self.standings.push(*standing as i64);
        self.bytes.push(bytes);
    }
}

#[derive(sqlx::FromRow)]
struct ChunkRecord {
    id: i64,
    instrument_id: i64,
    day: i64,
    late: bool,
    tick_count: i64,
    first_time: i64,
    last_time: i64,
    min_seq: i64,
    max_seq: i64,
    byte_count: i64,
    statistics: Vec<u8>,
}

impl ChunkRecord {
    fn into_row(self) -> Result<ChunkRow, Failure> {
        let id = self.id;
        let count = |count| rows::count_from_sql(count, "chunks", id);
        let time = |nanos| -> Result<UnixNanos, Failure> { rows::time_from_sql(nanos, "chunks", id) };
        Ok(ChunkRow {
            id: ChunkId(from_sql(id)),
            instrument: InstrumentId(count(self.instrument_id)?),
            day: count(self.day)?,
            late: self.late,
            tick_count: count(self.tick_count)?,
            first_time: time(self.first_time)?,
            last_time: time(self.last_time)?,
            min_seq: from_sql(self.min_seq),
            max_seq: from_sql(self.max_seq),
            byte_count: count(self.byte_count)?,
            statistics: Bytes::from(self.statistics),
        })
    }
}

#[derive(sqlx::FromRow)]
struct CorrectionRecord {
    log_seq: i64,
    instrument_id: i64,
    day: i64,
    append_time: i64,
    standing: i64,
    bytes: Vec<u8>,
}

impl CorrectionRecord {
    fn into_row(self) -> Result<CorrectionRow, Failure> {
        let row = self.log_seq;
        let standing = u8::try_from(self.standing).ok().and_then(Standing::from_code);
        Ok(CorrectionRow {
            log_seq: from_sql(row),
            instrument: InstrumentId(rows::count_from_sql(self.instrument_id, "corrections", row)?),
            day: rows::count_from_sql(self.day, "corrections", row)?,
            append_time: rows::time_from_sql(self.append_time, "corrections", row)?,
            standing: standing
                .ok_or_else(|| rows::damaged("corrections", row.to_string(), "its standing is not known"))?,
            bytes: self.bytes.into(),
        })
    }
}

const READ_VERSIONS: &str = "
    SELECT epoch, manifest_version, manifest_floor, hot_floor
    FROM log_head
    WHERE partition = 0";

const ADDED_SINCE: &str = "
    SELECT id, instrument_id, day, late, tick_count, first_time, last_time, min_seq, max_seq, byte_count, statistics
    FROM chunks
    WHERE created_version > $1 AND dropped_version IS NULL
    ORDER BY id";

const DROPPED_SINCE: &str = "
    SELECT id, instrument_id
    FROM chunks
    WHERE dropped_version > $1 AND created_version <= $1
    ORDER BY id";

const COMPACTED_SINCE: &str = "
    SELECT instrument_id, position
    FROM compactions
    WHERE version > $1
    ORDER BY instrument_id";

const READ_VENUES: &str = "
    SELECT bytes
    FROM venues
    WHERE partition = 0 AND $1 = 0::BIGINT";

const CORRECTED_SINCE: &str = "
    SELECT log_seq, instrument_id, day, append_time, standing, bytes
    FROM corrections
    WHERE version > $1
    ORDER BY log_seq";

#[derive(sqlx::FromRow)]
struct Versions {
    epoch: i64,
    manifest_version: i64,
    manifest_floor: i64,
    hot_floor: i64,
}

/// What changed since a version; everything if that version's changes are no longer all known.
pub(super) async fn delta(connection: &mut PgConnection, since: u64) -> Result<ManifestDelta, Failure> {
    rows::begin_reading(connection).await?;
    let head: Option<Versions> = sqlx::query_as(READ_VERSIONS).fetch_optional(&mut *connection).await?;
    let head = head.ok_or_else(rows::head_missing)?;
    let known = from_sql(head.manifest_floor)..=from_sql(head.manifest_version);
    let since = if known.contains(&since) { since } else { 0 };
    let added: Vec<ChunkRecord> = sqlx::query_as(ADDED_SINCE)
        .bind(to_sql(since)) // $1 version
        .fetch_all(&mut *connection)
        .await?;
    let dropped: Vec<(i64, i64)> = sqlx::query_as(DROPPED_SINCE)
        .bind(to_sql(since)) // $1 version
        .fetch_all(&mut *connection)
        .await?;
    let compacted: Vec<(i64, i64)> = sqlx::query_as(COMPACTED_SINCE)
        .bind(to_sql(since)) // $1 version
        .fetch_all(&mut *connection)
        .await?;
    let venues: Option<Vec<u8>> = sqlx::query_scalar(READ_VENUES)
        .bind(to_sql(since)) // $1 version
        .fetch_optional(&mut *connection)
        .await?;
    let corrections: Vec<CorrectionRecord> = sqlx::query_as(CORRECTED_SINCE)
        .bind(to_sql(since)) // $1 version
        .fetch_all(&mut *connection)
        .await?;
    rows::end_reading(connection).await?;
    let compaction = |(instrument, position): (i64, i64)| {
        let instrument = rows::count_from_sql(instrument, "compactions", instrument)?;
        Ok((InstrumentId(instrument), from_sql(position)))
    };
    Ok(ManifestDelta {
        epoch: Epoch(from_sql(head.epoch)),
        since,
        version: from_sql(head.manifest_version),
        hot_floor: from_sql(head.hot_floor),
        added: added.into_iter().map(ChunkRecord::into_row).collect::<Result<_, Failure>>()?,
        dropped: dropped.into_iter().map(dropped_chunk).collect::<Result<_, Failure>>()?,
        compacted: compacted.into_iter().map(compaction).collect::<Result<_, Failure>>()?,
        venues: venues.unwrap_or_default().into(),
        corrections: corrections.into_iter().map(CorrectionRecord::into_row).collect::<Result<_, Failure>>()?,
    })
}

/// The epoch stands beside each chunk, or alone.
const READ_BYTES: &str = "
    SELECT epoch, chunk_id, bytes
    FROM log_head
    LEFT JOIN chunk_bytes ON chunk_id = ANY ($1)
    WHERE partition = 0";

/// The bytes of those chunks that are still there, in the order asked. Another epoch may have other chunks under the
/// same ids.
pub(super) async fn chunk_bytes(
    connection: &mut PgConnection,
    ids: Vec<ChunkId>,
    expected: Option<Epoch>,
) -> Result<Vec<(ChunkId, Bytes)>, Failure> {
    let found: Vec<(i64, Option<i64>, Option<Vec<u8>>)> = sqlx::query_as(READ_BYTES)
        .bind(ids.iter().map(|id| to_sql(id.0)).collect::<Vec<_>>()) // $1 chunk_id
        .fetch_all(connection)
        .await?;
    let epoch = found.first().map(|(epoch, _, _)| Epoch(from_sql(*epoch))).ok_or_else(rows::head_missing)?;
    if expected.is_some_and(|expected| expected != epoch) {
        return Err(StoreError::EpochChanged(epoch).into());
    }
    let mut by_id: HashMap<ChunkId, Bytes> = HashMap::with_capacity(found.len());
    for (_, id, bytes) in found {
        by_id.extend(id.zip(bytes).map(|(id, bytes)| (ChunkId(from_sql(id)), Bytes::from(bytes))));
    }
    Ok(ids.into_iter().filter_map(|id| by_id.get(&id).map(|bytes| (id, bytes.clone()))).collect())
}

fn dropped_chunk((id, instrument): (i64, i64)) -> Result<(ChunkId, InstrumentId), Failure> {
    Ok((ChunkId(from_sql(id)), InstrumentId(rows::count_from_sql(instrument, "chunks", id)?)))
}
