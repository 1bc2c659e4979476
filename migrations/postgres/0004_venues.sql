-- What the log tells of venues beside ticks, so that trimming the log cannot lose it.

-- One row for each partition, written by the commit of the manifest: how far each venue has come, and what its feeds
-- said about lost data. Only the server reads the bytes (server/src/tape/venues.rs); they have a version of their own.
CREATE TABLE venues (
    partition SMALLINT PRIMARY KEY CHECK (partition = 0),
    bytes     BYTEA    NOT NULL
);

-- Commits a change of the manifest as commit_manifest does, and with it what is known of venues; NULL leaves that as it
-- was.
CREATE FUNCTION commit_manifest_and_venues(
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
        FROM commit_manifest(
            _check_identity, _new_epoch, _now, _epoch, _expected_version, _instrument_ids, _days, _lates, _tick_counts,
            _first_times, _last_times, _min_seqs, _max_seqs, _byte_counts, _statistics, _bytes, _dropped,
            _compacted_instruments, _compacted_positions, _hot_floor
        ) AS committed;
    IF outcome = 0 AND _venues IS NOT NULL THEN
        INSERT INTO venues (partition, bytes)
            VALUES (0, _venues)
            ON CONFLICT (partition) DO UPDATE SET bytes = excluded.bytes;
    END IF;
END
$$;
