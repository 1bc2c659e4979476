//! The set of chunks: committing a change, reading a delta, reading bytes.

use bytes::Bytes;
use sqlx::SqliteConnection;

use super::failure::Failure;
use super::rows::{self, blob, from_sql, to_sql};
use super::writer::Writer;
use crate::domain::correction::Standing;
use crate::domain::{InstrumentId, UnixNanos};
use crate::store::faults;
use crate::store::{
    ChunkId, ChunkRow, CorrectionRow, ManifestChange, ManifestCommit, ManifestDelta, NewChunk, StoreError,
};

/// A chunk's row and bytes at once.
const ADD_CHUNK: &str = "
    INSERT INTO chunks (
            instrument_id, day, late, tick_count, first_time, last_time,
            min_seq, max_seq, byte_count, statistics, created_version
        )
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);
    INSERT INTO chunk_bytes (chunk_id, bytes)
        VALUES (last_insert_rowid(), $12)";

const DROP_CHUNK: &str = "
    UPDATE chunks
    SET dropped_version = $2, dropped_time = $3
    WHERE id = $1 AND dropped_version IS NULL
    RETURNING 1";

const MOVE_COMPACTION: &str = "
    INSERT INTO compactions (instrument_id, position, version)
        VALUES ($1, $2, $3)
        ON CONFLICT (instrument_id) DO UPDATE SET position = excluded.position, version = excluded.version";

const KEEP_VENUES: &str = "
    INSERT INTO venues (partition, bytes)
        VALUES (0, $1)
        ON CONFLICT (partition) DO UPDATE SET bytes = excluded.bytes";

const KEEP_CORRECTION: &str = "
    INSERT INTO corrections (log_seq, instrument_id, day, append_time, standing, bytes, version)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (log_seq) DO UPDATE SET standing = excluded.standing, version = excluded.version";

const MOVE_MANIFEST: &str = "
    UPDATE log_head
    SET manifest_version = $1, hot_floor = $2
    WHERE partition = 0";

impl Writer {
    pub(super) async fn commit_manifest(&mut self, change: ManifestChange) -> Result<ManifestCommit, StoreError> {
        self.faults.hit(faults::MANIFEST_BEFORE).await?;
        self.begin().await?;
        let written = self.write_manifest(&change).await;
        let commit = self.end(written).await?;
        if let (ManifestCommit::Committed { version }, Some(head)) = (commit, &mut self.head) {
            head.log.manifest_version = version;
            head.log.hot_floor = change.hot_floor;
        }
        self.faults.hit(faults::MANIFEST_AFTER).await?;
        Ok(commit)
    }

    async fn write_manifest(&mut self, change: &ManifestChange) -> Result<ManifestCommit, Failure> {
        let now = self.clock.now();
        let connection = self.connection().await?;
        let head = rows::read_head(connection).await?.log;
        if change.epoch.is_some_and(|epoch| epoch != head.epoch) {
            return Err(StoreError::EpochChanged(head.epoch).into());
        }
        let current = head.manifest_version;
        if change.expected_version != current {
            return Ok(ManifestCommit::Conflict { version: current });
        }
        let version = current + 1;
        for id in &change.dropped {
            let dropped = sqlx::query(DROP_CHUNK)
                .bind(to_sql(id.0)) // $1 id
                .bind(to_sql(version)) // $2 dropped_version
                .bind(now.nanos()) // $3 dropped_time
                .fetch_all(&mut *connection)
                .await?;
            if dropped.is_empty() {
                return Err(StoreError::not_live(*id).into());
            }
        }
        for chunk in &change.added {
            add_chunk(connection, chunk, version).await?;
        }
        for (instrument, position) in &change.compacted {
            sqlx::query(MOVE_COMPACTION)
                .bind(i64::from(instrument.0)) // $1 instrument_id
                .bind(to_sql(*position)) // $2 position
                .bind(to_sql(version)) // $3 version
                .execute(&mut *connection)
                .await?;
        }
        if !change.venues.is_empty() {
            sqlx::query(KEEP_VENUES)
                .bind(blob(&change.venues)) // $1 bytes
                .execute(&mut *connection)
                .await?;
        }
        for correction in &change.corrections {
            keep_correction(connection, correction, version).await?;
        }
        sqlx::query(MOVE_MANIFEST)
            .bind(to_sql(version)) // $1 manifest_version
            .bind(to_sql(change.hot_floor)) // $2 hot_floor
            .execute(connection)
            .await?;
        self.faults.hit(faults::MANIFEST_INSIDE).await?;
        Ok(ManifestCommit::Committed { version })
    }
}

async fn add_chunk(connection: &mut SqliteConnection, chunk: &NewChunk, version: u64) -> Result<(), Failure> {
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
    } = &chunk.row;
    sqlx::query(ADD_CHUNK)
        .bind(i64::from(instrument.0)) // $1 instrument_id
        .bind(i64::from(*day)) // $2 day
        .bind(*late) // $3 late
        .bind(i64::from(*tick_count)) // $4 tick_count
        .bind(first_time.nanos()) // $5 first_time
        .bind(last_time.nanos()) // $6 last_time
        .bind(to_sql(*min_seq)) // $7 min_seq
        .bind(to_sql(*max_seq)) // $8 max_seq
        .bind(i64::from(*byte_count)) // $9 byte_count
        .bind(blob(statistics)) // $10 statistics
        .bind(to_sql(version)) // $11 created_version
        .bind(blob(&chunk.bytes)) // $12 bytes
        .execute(connection)
        .await?;
    Ok(())
}

async fn keep_correction(
    connection: &mut SqliteConnection,
    correction: &CorrectionRow,
    version: u64,
) -> Result<(), Failure> {
    let CorrectionRow { log_seq, instrument, day, append_time, standing, bytes } = correction;
    sqlx::query(KEEP_CORRECTION)
        .bind(to_sql(*log_seq)) // $1 log_seq
        .bind(i64::from(instrument.0)) // $2 instrument_id
        .bind(i64::from(*day)) // $3 day
        .bind(append_time.nanos()) // $4 append_time
        .bind(*standing as i64) // $5 standing
        .bind(blob(bytes)) // $6 bytes
        .bind(to_sql(version)) // $7 version
        .execute(connection)
        .await?;
    Ok(())
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

// No ORDER BY: it makes SQLite walk the whole table instead of the index over versions. Deltas are sorted afterwards.

const ADDED_SINCE: &str = "
    SELECT id, instrument_id, day, late, tick_count, first_time, last_time, min_seq, max_seq, byte_count, statistics
    FROM chunks
    WHERE created_version > $1 AND dropped_version IS NULL";

const DROPPED_SINCE: &str = "
    SELECT id, instrument_id
    FROM chunks
    WHERE dropped_version > $1 AND created_version <= $1";

const COMPACTED_SINCE: &str = "
    SELECT instrument_id, position
    FROM compactions
    WHERE version > $1";

const READ_VENUES: &str = "
    SELECT bytes
    FROM venues
    WHERE partition = 0 AND $1 = 0";

const CORRECTED_SINCE: &str = "
    SELECT log_seq, instrument_id, day, append_time, standing, bytes
    FROM corrections
    WHERE version > $1";

/// What changed since a version; everything if that version's changes are no longer all known.
pub(super) async fn delta(connection: &mut SqliteConnection, since: u64) -> Result<ManifestDelta, Failure> {
    rows::begin_reading(connection).await?;
    let head = rows::read_head(connection).await?;
    let known = head.manifest_floor..=head.log.manifest_version;
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
    let mut delta = ManifestDelta {
        epoch: head.log.epoch,
        since,
        version: head.log.manifest_version,
        hot_floor: head.log.hot_floor,
        added: added.into_iter().map(ChunkRecord::into_row).collect::<Result<_, Failure>>()?,
        dropped: dropped.into_iter().map(dropped_chunk).collect::<Result<_, Failure>>()?,
        compacted: compacted.into_iter().map(compaction).collect::<Result<_, Failure>>()?,
        venues: venues.unwrap_or_default().into(),
        corrections: corrections.into_iter().map(CorrectionRecord::into_row).collect::<Result<_, Failure>>()?,
    };
    delta.added.sort_unstable_by_key(|row| row.id);
    delta.dropped.sort_unstable();
    delta.compacted.sort_unstable();
    delta.corrections.sort_unstable_by_key(|row| row.log_seq);
    Ok(delta)
}

const READ_BYTES: &str = "
    SELECT bytes
    FROM chunk_bytes
    WHERE chunk_id = $1";

/// The bytes of those chunks that are still there.
pub(super) async fn chunk_bytes(
    connection: &mut SqliteConnection,
    ids: Vec<ChunkId>,
) -> Result<Vec<(ChunkId, Bytes)>, Failure> {
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let bytes: Option<Vec<u8>> = sqlx::query_scalar(READ_BYTES)
            .bind(to_sql(id.0)) // $1 chunk_id
            .fetch_optional(&mut *connection)
            .await?;
        found.extend(bytes.map(|bytes| (id, Bytes::from(bytes))));
    }
    Ok(found)
}

fn dropped_chunk((id, instrument): (i64, i64)) -> Result<(ChunkId, InstrumentId), Failure> {
    Ok((ChunkId(from_sql(id)), InstrumentId(rows::count_from_sql(instrument, "chunks", id)?)))
}
