-- Corrections and cancels, so that trimming the log cannot lose them.

-- One row for each, for good: what a trade is follows from all that is said of it, whenever the trade itself comes.
-- Written by commits of the manifest; those above the hot floor may be in the log alone.
CREATE TABLE corrections (
    log_seq       BIGINT PRIMARY KEY,
    instrument_id BIGINT NOT NULL,
    day           BIGINT NOT NULL,  -- of its trade, days since 1970
    append_time   BIGINT NOT NULL,
    standing      BIGINT NOT NULL,  -- 0 chunks are not changed by it yet, 1 they are and no trade was found, 2 they are
    bytes         BYTEA  NOT NULL,  -- a segment with the entry alone
    version       BIGINT NOT NULL   -- the manifest version that changed it last
);
CREATE INDEX corrections_by_version ON corrections (version);
CREATE INDEX corrections_by_day ON corrections (day);

-- Commits a change of the manifest as commit_manifest_and_venues does, and with it corrections that are new or stand
-- otherwise than before.
CREATE FUNCTION commit_manifest_and_corrections(
    _check_identity         BOOLEAN,
    _new_epoch              BIGINT,
    _now                    BIGINT,
    _epoch                  BIGINT,
    _expected_version       BIGINT,
    _instrument_ids         BIGINT[],
    _days                   BIGINT[],
    _lates                  BOOLEAN[],
    _tick_counts            BIGINT[],
    _first_times            BIGINT[],
    _last_times             BIGINT[],
    _min_seqs               BIGINT[],
    _max_seqs               BIGINT[],
    _byte_counts            BIGINT[],
    _statistics             BYTEA[],
    _bytes                  BYTEA[],
    _dropped                BIGINT[],
    _compacted_instruments  BIGINT[],
    _compacted_positions    BIGINT[],
    _hot_floor              BIGINT,
    _venues                 BYTEA,
    _corrections            BIGINT[],
    _corrected_instruments  BIGINT[],
    _corrected_days         BIGINT[],
    _correction_times       BIGINT[],
    _standings              BIGINT[],
    _correction_bytes       BYTEA[],
    OUT outcome             INTEGER,
    OUT current_version     BIGINT,
    OUT current_epoch       BIGINT,
    OUT not_live            BIGINT
)
LANGUAGE plpgsql
AS $$
BEGIN
    SELECT committed.outcome, committed.current_version, committed.current_epoch, committed.not_live
        INTO STRICT outcome, current_version, current_epoch, not_live
        FROM commit_manifest_and_venues(
            _check_identity, _new_epoch, _now, _epoch, _expected_version, _instrument_ids, _days, _lates, _tick_counts,
            _first_times, _last_times, _min_seqs, _max_seqs, _byte_counts, _statistics, _bytes, _dropped,
            _compacted_instruments, _compacted_positions, _hot_floor, _venues
        ) AS committed;
    IF outcome = 0 THEN
        INSERT INTO corrections (log_seq, instrument_id, day, append_time, standing, bytes, version)
            SELECT kept.*, _expected_version + 1
            FROM unnest(
                _corrections, _corrected_instruments, _corrected_days, _correction_times, _standings, _correction_bytes
            ) AS kept
            ON CONFLICT (log_seq) DO UPDATE SET standing = excluded.standing, version = excluded.version;
    END IF;
END
$$;

-- Forgets a portion as sweep_portion does, and corrections of trades on days that history has no more.
CREATE FUNCTION sweep_portion_and_corrections(
    _check_identity BOOLEAN,
    _new_epoch      BIGINT,
    _now            BIGINT,
    _log_before     BIGINT,
    _log_bytes      BIGINT,
    _history_day    BIGINT,
    _chunk_grace    BIGINT,
    _producer_idle  BIGINT,
    _rows           BIGINT,
    _bytes          BIGINT,
    OUT segments_gone  BIGINT,
    OUT chunks_gone    BIGINT,
    OUT producers_gone BIGINT,
    OUT done           BOOLEAN
)
LANGUAGE plpgsql
AS $$
DECLARE
    corrections_gone BIGINT;
BEGIN
    SELECT swept.segments_gone, swept.chunks_gone, swept.producers_gone, swept.done
        INTO STRICT segments_gone, chunks_gone, producers_gone, done
        FROM sweep_portion(
            _check_identity, _new_epoch, _now, _log_before, _log_bytes, _history_day, _chunk_grace, _producer_idle,
            _rows, _bytes
        ) AS swept;
    WITH old AS (
        SELECT log_seq
        FROM corrections
        WHERE day < _history_day
        LIMIT _rows
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM corrections
        USING old
        WHERE corrections.log_seq = old.log_seq;
    GET DIAGNOSTICS corrections_gone = ROW_COUNT;
    done := done AND corrections_gone < _rows;
END
$$;
