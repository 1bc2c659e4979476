-- The log, the history, the registry and the ingestion runs of a store in Postgres, and the functions that write them.
--
-- Reading these tables while servers run is safe. Writing to them is not: every write of a server is one call of one of
-- the functions below, committed by itself, so that a replica that freezes never holds a lock.
--
-- Whoever needs more than one row locks them in this order: the head, producers or the run, the rest. What is only
-- deleted once it is out of use (dropped chunks, old segments) may be deleted before the head is locked.
--
-- Times are UTC nanoseconds since 1970. Unsigned 64-bit numbers are stored as signed ones with the same bits; only
-- epochs, owners and holders, which are random, are ever negative. Parameters begin with an underscore.

-- Where the log stands. One row.
CREATE TABLE log_head (
    partition         BIGINT NOT NULL PRIMARY KEY CHECK (partition = 0),
    epoch             BIGINT NOT NULL,                                 -- names the log; random
    position          BIGINT NOT NULL CHECK (position >= 0),           -- last log_seq; 0 while the log is empty
    chain             BYTEA  NOT NULL CHECK (octet_length(chain) = 16), -- of the last segment; zeros while empty
    append_time       BIGINT NOT NULL CHECK (append_time >= 0),        -- of the last segment; never goes back
    oldest            BIGINT NOT NULL CHECK (oldest >= 1),             -- first log_seq still in segments, or position + 1
    hot_floor         BIGINT NOT NULL CHECK (hot_floor >= 1),          -- smallest log_seq not in chunks, or position + 1
    log_bytes         BIGINT NOT NULL CHECK (log_bytes >= 0),          -- sum of segments.byte_count
    manifest_version  BIGINT NOT NULL CHECK (manifest_version >= 0),   -- of the last change of chunks; 0 before the first
    manifest_floor    BIGINT NOT NULL CHECK (manifest_floor >= 0),     -- greatest dropped_version of a row that is gone
    last_chunk_id     BIGINT NOT NULL CHECK (last_chunk_id >= 0),      -- the last id given to a chunk: none is used again
    fence             BIGINT NOT NULL CHECK (fence >= 0),              -- the last fence handed to a producer
    system_identifier BIGINT,                                          -- the database that the epoch belongs to, and its
    timeline          BIGINT                                           -- timeline; NULL where they cannot be read
);

-- Every epoch that this log has had, the newest last.
CREATE TABLE epochs (
    number     BIGINT NOT NULL PRIMARY KEY,  -- 1, 2, 3 ...
    epoch      BIGINT NOT NULL UNIQUE,
    parent     BIGINT,                       -- the epoch before it; NULL for the first
    fork       BIGINT NOT NULL,              -- last position that it shares with its parent
    start_time BIGINT NOT NULL
);

-- Who compacts and sweeps, of several servers. One row, or none before the first.
CREATE TABLE upkeep (
    partition   BIGINT NOT NULL PRIMARY KEY CHECK (partition = 0),
    holder      BIGINT NOT NULL,  -- names a replica for as long as its process lives; random
    taken_time  BIGINT NOT NULL,  -- when it took or prolonged the lease last
    lease_until BIGINT NOT NULL   -- from then on others may take it
);

-- The log: one row is one commit. Consecutive: first_seq is the predecessor's first_seq + entry_count.
CREATE TABLE segments (
    first_seq   BIGINT  NOT NULL PRIMARY KEY,                       -- log_seq of the first entry
    epoch       BIGINT  NOT NULL,                                   -- the log's name when it was appended
    entry_count BIGINT  NOT NULL CHECK (entry_count >= 1),          -- ticks and control entries
    tick_count  BIGINT  NOT NULL CHECK (tick_count >= 0),           -- ticks among them
    append_time BIGINT  NOT NULL CHECK (append_time >= 0),          -- ascends with first_seq
    backfill    BOOLEAN NOT NULL,
    run_id      TEXT    COLLATE "C",                                -- runs.id, if a file import wrote it
    chain       BYTEA   NOT NULL CHECK (octet_length(chain) = 16),  -- hash over the predecessor's chain and this row
    byte_count  BIGINT  NOT NULL,                                   -- length of bytes
    bytes       BYTEA   NOT NULL                                    -- the entries: compressed, with a checksum
);
-- Compressed already: Postgres need not try.
ALTER TABLE segments ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Who publishes, and the end of what each has published. Forgotten after idling. There is no index over active_time:
-- each append would have to write it, and a sweep reads some thousand rows at most.
CREATE TABLE producers (
    id               TEXT     COLLATE "C" NOT NULL PRIMARY KEY,
    fence            BIGINT   NOT NULL,  -- of the newest claim; older claims are refused
    last_batch_seq   BIGINT   NOT NULL,  -- number of the last stored batch; 0 before the first
    window_last_seqs BIGINT[] NOT NULL,  -- last log_seq of each of the last 8 batches at most, oldest first
    window_digests   BYTEA[]  NOT NULL,  -- their digests
    active_time      BIGINT   NOT NULL,  -- of the last claim or batch
    CHECK (cardinality(window_last_seqs) = cardinality(window_digests) AND cardinality(window_digests) <= 8)
) WITH (fillfactor = 50);

-- The registry: a number for each venue and symbol, dense from 1, never changed.
CREATE TABLE instruments (
    id          BIGINT NOT NULL PRIMARY KEY,
    venue       TEXT   COLLATE "C" NOT NULL,
    symbol      TEXT   COLLATE "C" NOT NULL,
    create_time BIGINT NOT NULL,
    UNIQUE (venue, symbol)
);

-- The history: one row is one chunk, the ticks of one instrument inside one UTC day, or some of them.
CREATE TABLE chunks (
    id              BIGINT  NOT NULL PRIMARY KEY,           -- from log_head.last_chunk_id: never used again
    instrument_id   BIGINT  NOT NULL,
    day             BIGINT  NOT NULL,                       -- days since 1970
    late            BOOLEAN NOT NULL,                       -- its ticks came after a chunk of a later time
    tick_count      BIGINT  NOT NULL CHECK (tick_count >= 1),
    first_time      BIGINT  NOT NULL,                       -- event time of the first tick
    last_time       BIGINT  NOT NULL,                       -- event time of the last tick
    min_seq         BIGINT  NOT NULL,                       -- smallest log_seq among its ticks
    max_seq         BIGINT  NOT NULL,                       -- greatest log_seq among its ticks
    byte_count      BIGINT  NOT NULL,                       -- length of its chunk_bytes.bytes
    statistics      BYTEA   NOT NULL,                       -- counts, extremes and exact sums; its first byte is a version
    created_version BIGINT  NOT NULL,                       -- the manifest version that brought it
    dropped_version BIGINT,                                 -- the manifest version that dropped it; NULL while live
    dropped_time    BIGINT                                  -- when; the row and its bytes go after a grace
);
CREATE INDEX chunks_by_created_version ON chunks (created_version);
CREATE INDEX chunks_by_dropped_version ON chunks (dropped_version) WHERE dropped_version IS NOT NULL;
CREATE INDEX chunks_by_day ON chunks (day);

-- The ticks of a chunk: columns, compressed, with a checksum. Apart, so that reading rows does not read them.
CREATE TABLE chunk_bytes (
    chunk_id BIGINT NOT NULL PRIMARY KEY,  -- chunks.id
    bytes    BYTEA  NOT NULL
);
ALTER TABLE chunk_bytes ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Up to which position each instrument's ticks are in chunks. An instrument without a row has none there.
CREATE TABLE compactions (
    instrument_id BIGINT NOT NULL PRIMARY KEY,
    position      BIGINT NOT NULL,  -- log_seq, inclusive
    version       BIGINT NOT NULL   -- the manifest version that moved it last
);
CREATE INDEX compactions_by_version ON compactions (version);

-- File imports. Never forgotten. Text in Postgres holds no U+0000: text that clients made is escaped, \0 for U+0000
-- and \\ for a backslash.
CREATE TABLE runs (
    number         BIGINT  NOT NULL PRIMARY KEY,                        -- ascends with the beginning
    id             TEXT    COLLATE "C" NOT NULL UNIQUE,                 -- made by the client
    identity       BYTEA   NOT NULL UNIQUE CHECK (octet_length(identity) = 32), -- SHA-256 of content, options, parser version
    content        BYTEA   NOT NULL CHECK (octet_length(content) = 32), -- SHA-256 of the uncompressed bytes
    parser_version BIGINT  NOT NULL,
    options        BYTEA   NOT NULL,                                    -- encoded message
    file_name      TEXT    NOT NULL,                                    -- as the client gave it; not a path of ours; escaped
    size_bytes     BIGINT  NOT NULL,
    total_lines    BIGINT  NOT NULL,
    trace_id       TEXT    NOT NULL,                                    -- escaped
    again          BOOLEAN NOT NULL,                                    -- same content under other options, on request
    state          BIGINT  NOT NULL,                                    -- 1 running, 2 succeeded, 3 failed, 4 cancelled
    owner          BIGINT  NOT NULL,                                    -- who works on it, or last did; random
    lease_until    BIGINT  NOT NULL,                                    -- until when others keep off
    last_batch     BIGINT  NOT NULL,                                    -- last committed batch of lines; 0 before the first
    lines          BIGINT  NOT NULL,                                    -- read so far
    ticks          BIGINT  NOT NULL,                                    -- stored so far
    ignored        BIGINT  NOT NULL,                                    -- lines left out: no ticks
    rejected       BIGINT  NOT NULL,                                    -- lines refused, more than run_rejects may hold
    last_seq       BIGINT  NOT NULL,                                    -- log_seq of the last tick; 0 before the first
    error_reason   TEXT,                                                -- both NULL, or both set; escaped
    error_message  TEXT,
    create_time    BIGINT  NOT NULL,
    finish_time    BIGINT                                               -- NULL while running
) WITH (fillfactor = 70);
CREATE INDEX runs_by_content ON runs (content);

-- The first lines that each run refused.
CREATE TABLE run_rejects (
    run    BIGINT NOT NULL,  -- runs.number
    line   BIGINT NOT NULL,  -- from 1, the header included
    reason TEXT   NOT NULL,  -- escaped
    text   TEXT   NOT NULL,  -- the line's first bytes; escaped
    PRIMARY KEY (run, line)
);

-- The database's clock. It counts microseconds.
CREATE FUNCTION unix_nanos() RETURNS BIGINT
LANGUAGE sql VOLATILE
AS $$
    SELECT (extract(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT * 1000
$$;

-- Eight bytes, the lowest first.
CREATE FUNCTION little_endian(_number BIGINT) RETURNS BYTEA
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT substring(big FROM 8 FOR 1) || substring(big FROM 7 FOR 1)
        || substring(big FROM 6 FOR 1) || substring(big FROM 5 FOR 1)
        || substring(big FROM 4 FOR 1) || substring(big FROM 3 FOR 1)
        || substring(big FROM 2 FOR 1) || substring(big FROM 1 FOR 1)
    FROM (SELECT int8send(_number) AS big) AS number
$$;

-- The chain value of a segment, over the same bytes as `domain::segment::chain`: both must change together, and never.
CREATE FUNCTION segment_chain(
    _previous    BYTEA,
    _epoch       BIGINT,
    _first_seq   BIGINT,
    _entry_count BIGINT,
    _tick_count  BIGINT,
    _append_time BIGINT,
    _backfill    BOOLEAN,
    _bytes       BYTEA
) RETURNS BYTEA
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT substring(
        sha256(
            _previous
                || little_endian(_epoch)
                || little_endian(_first_seq)
                || substring(little_endian(_entry_count) FROM 1 FOR 4)
                || substring(little_endian(_tick_count) FROM 1 FOR 4)
                || little_endian(_append_time)
                || CASE WHEN _backfill THEN '\x01'::BYTEA ELSE '\x00'::BYTEA END
                || _bytes
        )
        FROM 1 FOR 16
    )
$$;

-- Which database this is, and on which timeline: a standby that was promoted, or a backup that was restored up to a
-- point in time, has another. The timeline is that of the WAL file that is written now: the last checkpoint's, which
-- pg_control_checkpoint() tells, lags behind a promotion.
CREATE FUNCTION log_identity(OUT system_identifier BIGINT, OUT timeline BIGINT)
LANGUAGE sql VOLATILE
AS $$
    SELECT
        control.system_identifier,
        ('x' || substring(pg_walfile_name(pg_current_wal_lsn()) FROM 1 FOR 8))::BIT(32)::BIGINT
    FROM pg_control_system() AS control
$$;

-- A place at which tests make a transaction stumble, by a setting of their session.
CREATE FUNCTION stumble(_point TEXT) RETURNS VOID
LANGUAGE plpgsql
AS $$
DECLARE
    action TEXT := current_setting('tapefeed.' || _point, true);
BEGIN
    IF action IS NULL OR action = '' THEN
        RETURN;
    ELSIF action = 'fail' THEN
        RAISE EXCEPTION 'a fault was injected at %', _point USING ERRCODE = 'disk_full';
    END IF;
    PERFORM pg_sleep(action::DOUBLE PRECISION);
END
$$;

-- Refuses to go on where a commit would not be durable: each of the three can be changed while servers run.
CREATE FUNCTION check_durability() RETURNS VOID
LANGUAGE plpgsql
AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off'
        OR current_setting('fsync') = 'off'
        OR current_setting('full_page_writes') = 'off'
    THEN
        RAISE EXCEPTION 'synchronous_commit, fsync or full_page_writes is off'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END
$$;

-- Begins an epoch that shares with the current one what lies at or below a position, or all of it. The caller has locked
-- the head. Every claim of a producer ends.
CREATE FUNCTION begin_epoch(_epoch BIGINT, _fork BIGINT, _now BIGINT) RETURNS log_head
LANGUAGE plpgsql
AS $$
DECLARE
    head log_head;
BEGIN
    INSERT INTO epochs (number, epoch, parent, fork, start_time)
        SELECT
            (SELECT max(number) + 1 FROM epochs), _epoch, log_head.epoch, least(_fork, position),
            coalesce(_now, unix_nanos())
        FROM log_head
        WHERE partition = 0;
    UPDATE log_head
        SET epoch = _epoch, fence = fence + 1
        WHERE partition = 0
        RETURNING * INTO STRICT head;
    UPDATE producers
        SET fence = head.fence;
    RETURN head;
END
$$;

-- Locks the head and returns it. A database that is not the one, or not on the timeline, that the epoch belongs to has
-- lost the end of that log, or may have: a new epoch begins before anything else is written.
CREATE FUNCTION lock_head(_check_identity BOOLEAN, _new_epoch BIGINT, _now BIGINT) RETURNS log_head
LANGUAGE plpgsql
AS $$
DECLARE
    head log_head;
    here RECORD;
BEGIN
    SELECT * INTO STRICT head
        FROM log_head
        WHERE partition = 0
        FOR UPDATE;
    IF NOT _check_identity THEN
        RETURN head;
    END IF;
    SELECT * INTO STRICT here
        FROM log_identity();
    IF head.system_identifier = here.system_identifier AND head.timeline = here.timeline THEN
        RETURN head;
    END IF;
    IF head.system_identifier IS NOT NULL THEN
        PERFORM begin_epoch(_new_epoch, NULL, _now);
    END IF;
    UPDATE log_head
        SET system_identifier = here.system_identifier, timeline = here.timeline
        WHERE partition = 0
        RETURNING * INTO STRICT head;
    RETURN head;
END
$$;

-- Gives an empty store its head and its first epoch. A store that has an epoch keeps both.
CREATE FUNCTION start_log(_epoch BIGINT, _now BIGINT) RETURNS VOID
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO epochs (number, epoch, parent, fork, start_time)
        VALUES (1, _epoch, NULL, 0, coalesce(_now, unix_nanos()))
        ON CONFLICT DO NOTHING;
    IF FOUND THEN
        INSERT INTO log_head (
                partition, epoch, position, chain, append_time, oldest, hot_floor,
                log_bytes, manifest_version, manifest_floor, last_chunk_id, fence
            )
            VALUES (0, _epoch, 0, decode(repeat('00', 16), 'hex'), 0, 1, 1, 0, 0, 0, 0, 0);
    END IF;
END
$$;

-- Begins an epoch by request, unless it is the current one.
CREATE FUNCTION renew_epoch(_check_identity BOOLEAN, _epoch BIGINT, _now BIGINT) RETURNS log_head
LANGUAGE plpgsql
AS $$
DECLARE
    head log_head;
BEGIN
    head := lock_head(_check_identity, _epoch, _now);
    IF head.epoch <> _epoch THEN
        head := begin_epoch(_epoch, NULL, _now);
    END IF;
    RETURN head;
END
$$;

-- Begins an epoch because followers of another saw what the log has not, unless that one is no longer current.
CREATE FUNCTION fork_epoch(
    _check_identity  BOOLEAN,
    _epoch           BIGINT,
    _now             BIGINT,
    _common_epoch    BIGINT,  -- that of the followers
    _common_position BIGINT   -- up to here they agree with the log
) RETURNS log_head
LANGUAGE plpgsql
AS $$
DECLARE
    head log_head;
BEGIN
    head := lock_head(_check_identity, _epoch, _now);
    IF head.epoch = _common_epoch AND head.epoch <> _epoch THEN
        head := begin_epoch(_epoch, _common_position, _now);
    END IF;
    -- The database's identity may have begun the same epoch just now: it cannot know of what followers agree on.
    UPDATE epochs
        SET fork = _common_position
        WHERE epoch = _epoch AND parent = _common_epoch AND fork > _common_position;
    RETURN head;
END
$$;

-- Takes or prolongs the lease of the upkeep: whether it is the holder's now. Its end is compared by the database's clock;
-- a clock that was set back ends it, so that it does not outlast its time.
CREATE FUNCTION lead_upkeep(_now BIGINT, _holder BIGINT, _lease BIGINT) RETURNS BOOLEAN
LANGUAGE plpgsql
AS $$
DECLARE
    time_now BIGINT := coalesce(_now, unix_nanos());
BEGIN
    INSERT INTO upkeep (partition, holder, taken_time, lease_until)
        VALUES (0, _holder, time_now, time_now + _lease)
        ON CONFLICT (partition) DO UPDATE
            SET holder = excluded.holder, taken_time = excluded.taken_time, lease_until = excluded.lease_until
            WHERE upkeep.holder = excluded.holder
                OR upkeep.lease_until <= time_now
                OR upkeep.taken_time > time_now;
    RETURN FOUND;
END
$$;

-- Adds the instruments that are not known, in the order of their first mention, and returns the id of each.
CREATE FUNCTION register_instruments(
    _check_identity BOOLEAN,
    _new_epoch      BIGINT,
    _now            BIGINT,
    _venues         TEXT[],
    _symbols        TEXT[]
) RETURNS BIGINT[]
LANGUAGE plpgsql
AS $$
DECLARE
    ids BIGINT[];
BEGIN
    PERFORM lock_head(_check_identity, _new_epoch, _now);
    INSERT INTO instruments (id, venue, symbol, create_time)
        SELECT
            (SELECT coalesce(max(id), 0) FROM instruments) + row_number() OVER (ORDER BY wanted.number),
            wanted.venue, wanted.symbol, coalesce(_now, unix_nanos())
        FROM (
            SELECT min(number) AS number, venue, symbol
            FROM unnest(_venues, _symbols) WITH ORDINALITY AS named (venue, symbol, number)
            GROUP BY venue, symbol
        ) AS wanted
        WHERE NOT EXISTS (
            SELECT 1
            FROM instruments
            WHERE instruments.venue = wanted.venue AND instruments.symbol = wanted.symbol
        );
    SELECT array_agg(instruments.id ORDER BY wanted.number) INTO ids
        FROM unnest(_venues, _symbols) WITH ORDINALITY AS wanted (venue, symbol, number)
        JOIN instruments ON instruments.venue = wanted.venue AND instruments.symbol = wanted.symbol;
    RETURN coalesce(ids, '{}');
END
$$;

-- Raises a producer's fence above every earlier one, and creates the producer if it is new.
CREATE FUNCTION claim_producer(
    _check_identity    BOOLEAN,
    _new_epoch         BIGINT,
    _now               BIGINT,
    _id                TEXT,
    OUT granted_fence  BIGINT,
    OUT granted_after  BIGINT  -- number of the last stored batch
)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM lock_head(_check_identity, _new_epoch, _now);
    UPDATE log_head
        SET fence = fence + 1
        WHERE partition = 0
        RETURNING fence INTO STRICT granted_fence;
    INSERT INTO producers (id, fence, last_batch_seq, window_last_seqs, window_digests, active_time)
        VALUES (_id, granted_fence, 0, '{}', '{}', coalesce(_now, unix_nanos()))
        ON CONFLICT (id) DO UPDATE SET fence = excluded.fence, active_time = excluded.active_time
        RETURNING last_batch_seq INTO STRICT granted_after;
END
$$;

-- Commits a change of the set of chunks, if nobody has changed it since `_expected_version`.
--
-- The new chunks are written before the head is locked, because that takes most of the time and appends wait for the
-- head. Of two changes of one version the second finds the first one's ids taken, or the version moved.
CREATE FUNCTION commit_manifest(
    _check_identity         BOOLEAN,
    _new_epoch              BIGINT,
    _now                    BIGINT,
    _epoch                  BIGINT,    -- the log that the change was computed from; NULL for whichever it is
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
    OUT outcome             INTEGER,   -- 0 committed, 1 another version, 2 another epoch, 3 a dropped chunk is not live
    OUT current_version     BIGINT,
    OUT current_epoch       BIGINT,
    OUT not_live            BIGINT     -- the chunk
)
LANGUAGE plpgsql
AS $$
DECLARE
    head log_head;
    last_id BIGINT;
    new_version BIGINT;
BEGIN
    outcome := 0;
    SELECT log_head.epoch, manifest_version, last_chunk_id INTO STRICT current_epoch, current_version, last_id
        FROM log_head
        WHERE partition = 0;
    IF current_version <> _expected_version THEN
        outcome := 1;
        RETURN;
    END IF;
    new_version := _expected_version + 1;
    BEGIN
        INSERT INTO chunks (
                id, instrument_id, day, late, tick_count, first_time, last_time,
                min_seq, max_seq, byte_count, statistics, created_version
            )
            SELECT
                last_id + number, instrument_id, day, late, tick_count, first_time, last_time,
                min_seq, max_seq, byte_count, statistics, new_version
            FROM unnest(
                _instrument_ids, _days, _lates, _tick_counts, _first_times, _last_times,
                _min_seqs, _max_seqs, _byte_counts, _statistics
            ) WITH ORDINALITY AS added (
                instrument_id, day, late, tick_count, first_time, last_time,
                min_seq, max_seq, byte_count, statistics, number
            )
            ORDER BY number;
        INSERT INTO chunk_bytes (chunk_id, bytes)
            SELECT last_id + number, bytes
            FROM unnest(_bytes) WITH ORDINALITY AS added (bytes, number);
        head := lock_head(_check_identity, _new_epoch, _now);
        SELECT wanted.id INTO not_live
            FROM unnest(_dropped) AS wanted (id)
            LEFT JOIN chunks
                ON chunks.id = wanted.id AND dropped_version IS NULL AND created_version < new_version
            WHERE chunks.id IS NULL
            LIMIT 1;
        IF head.epoch <> _epoch OR head.manifest_version <> _expected_version OR not_live IS NOT NULL THEN
            RAISE EXCEPTION 'the change is undone' USING ERRCODE = 'TF001';
        END IF;
        UPDATE chunks
            SET dropped_version = new_version, dropped_time = coalesce(_now, unix_nanos())
            WHERE id = ANY (_dropped);
        INSERT INTO compactions (instrument_id, position, version)
            SELECT compacted.instrument_id, compacted.position, new_version
            FROM unnest(_compacted_instruments, _compacted_positions) AS compacted (instrument_id, position)
            ON CONFLICT (instrument_id) DO UPDATE SET position = excluded.position, version = excluded.version;
        UPDATE log_head
            SET manifest_version = new_version,
                hot_floor = _hot_floor,
                last_chunk_id = last_id + cardinality(_bytes)
            WHERE partition = 0;
        PERFORM stumble('manifest.inside');
        current_version := new_version;
    EXCEPTION
        WHEN unique_violation OR SQLSTATE 'TF001' THEN
            head := lock_head(_check_identity, _new_epoch, _now);
            current_version := head.manifest_version;
            current_epoch := head.epoch;
            outcome := CASE
                WHEN head.epoch <> _epoch THEN 2
                WHEN head.manifest_version <> _expected_version THEN 1
                ELSE 3
            END;
    END;
END
$$;

-- Forgets a portion of what may be forgotten.
CREATE FUNCTION sweep_portion(
    _check_identity BOOLEAN,
    _new_epoch      BIGINT,
    _now            BIGINT,
    _log_before     BIGINT,   -- segments appended before it may go
    _log_bytes      BIGINT,   -- how many bytes of segments may stay
    _history_day    BIGINT,   -- live chunks of earlier days may go; NULL keeps all
    _chunk_grace    BIGINT,   -- how long dropped chunks stay, nanoseconds
    _producer_idle  BIGINT,   -- how long idle producers stay, nanoseconds
    _rows           BIGINT,   -- of each table, at most
    _bytes          BIGINT,   -- of segments, at most, but at least one segment
    OUT segments_gone  BIGINT,
    OUT chunks_gone    BIGINT,
    OUT producers_gone BIGINT,
    OUT done           BOOLEAN
)
LANGUAGE plpgsql
AS $$
DECLARE
    head log_head;
    time_now BIGINT := coalesce(_now, unix_nanos());
    aged RECORD;
    chunks_floor BIGINT;
    left_bytes BIGINT;
    portion BIGINT := 0;
    taken BIGINT := 0;
    first_taken BIGINT := 0;
    last_taken BIGINT := 0;
    bytes_gone BIGINT;
    history_gone BIGINT := 0;
    more BOOLEAN := false;
BEGIN
    -- What needs no head first: appends wait for it.
    WITH old AS (
        SELECT id
        FROM chunks
        WHERE dropped_version IS NOT NULL AND dropped_time < time_now - _chunk_grace
        ORDER BY dropped_version, id
        LIMIT _rows
        FOR UPDATE SKIP LOCKED
    ), without_bytes AS (
        DELETE FROM chunk_bytes
        USING old
        WHERE chunk_id = old.id
    ), gone AS (
        DELETE FROM chunks
        USING old
        WHERE chunks.id = old.id
        RETURNING dropped_version
    )
    SELECT count(*), coalesce(max(dropped_version), 0) INTO chunks_gone, chunks_floor
        FROM gone;

    -- The rule of `store/retention.rs`, over one state of head and segments. Who sweeps meanwhile takes the same ones.
    FOR aged IN
        SELECT
            first_seq, first_seq + entry_count - 1 AS last_seq, segments.append_time, byte_count,
            hot_floor, log_bytes
        FROM log_head
        JOIN segments ON first_seq >= oldest
        WHERE partition = 0
        ORDER BY first_seq
        LIMIT _rows
    LOOP
        portion := portion + aged.byte_count;
        more := portion > _bytes AND taken > 0;
        EXIT WHEN more;
        left_bytes := coalesce(left_bytes, aged.log_bytes);
        EXIT WHEN aged.last_seq >= aged.hot_floor
            OR (aged.append_time >= _log_before AND left_bytes <= _log_bytes);
        left_bytes := left_bytes - aged.byte_count;
        first_taken := CASE WHEN taken = 0 THEN aged.first_seq ELSE first_taken END;
        last_taken := aged.last_seq;
        taken := taken + 1;
    END LOOP;
    more := more OR taken >= _rows;
    WITH gone AS (
        DELETE FROM segments
        WHERE first_seq BETWEEN first_taken AND last_taken
        RETURNING byte_count
    )
    SELECT count(*), coalesce(sum(byte_count), 0) INTO segments_gone, bytes_gone
        FROM gone;

    head := lock_head(_check_identity, _new_epoch, _now);
    IF _history_day IS NOT NULL THEN
        UPDATE chunks
            SET dropped_version = head.manifest_version + 1, dropped_time = time_now
            WHERE id IN (
                SELECT id
                FROM chunks
                WHERE day < _history_day AND dropped_version IS NULL
                LIMIT _rows
            );
        GET DIAGNOSTICS history_gone = ROW_COUNT;
    END IF;
    DELETE FROM producers
        WHERE id IN (
            SELECT id
            FROM producers
            WHERE active_time < time_now - _producer_idle
            LIMIT _rows
        );
    GET DIAGNOSTICS producers_gone = ROW_COUNT;
    UPDATE log_head
        SET oldest = greatest(oldest, last_taken + 1),
            log_bytes = log_bytes - bytes_gone,
            manifest_version = manifest_version + CASE WHEN history_gone > 0 THEN 1 ELSE 0 END,
            manifest_floor = greatest(manifest_floor, chunks_floor)
        WHERE partition = 0;
    PERFORM stumble('sweep.inside');
    done := NOT more AND greatest(chunks_gone, producers_gone, history_gone) < _rows;
END
$$;

-- Begins a run, continues one, or says why not: the rules of `store/marks.rs`. One at a time, by the head.
CREATE FUNCTION begin_run(
    _check_identity BOOLEAN,
    _new_epoch      BIGINT,
    _now            BIGINT,
    _id             TEXT,
    _identity       BYTEA,
    _content        BYTEA,
    _parser_version BIGINT,
    _options        BYTEA,
    _file_name      TEXT,
    _size_bytes     BIGINT,
    _total_lines    BIGINT,
    _trace_id       TEXT,
    _again          BOOLEAN,
    _owner          BIGINT,
    _lease_now      BIGINT,   -- the lease's own time: leases are compared by their owners' clocks
    _lease_until    BIGINT,
    OUT claim       INTEGER,  -- 0 yours, 1 leased, 2 done, 3 other options, 4 other parser, 5 the id is taken
    OUT run         runs
)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM lock_head(_check_identity, _new_epoch, _now);
    SELECT * INTO run
        FROM runs
        WHERE identity = _identity
        FOR UPDATE;
    IF FOUND THEN
        IF run.state = 2 THEN
            claim := 2;
            RETURN;
        END IF;
        IF run.state = 1 AND run.lease_until > _lease_now THEN
            claim := 1;
            RETURN;
        END IF;
        UPDATE runs
            SET state = 1, owner = _owner, lease_until = _lease_until,
                error_reason = NULL, error_message = NULL, finish_time = NULL
            WHERE number = run.number
            RETURNING * INTO STRICT run;
        claim := 0;
        RETURN;
    END IF;
    SELECT * INTO run
        FROM runs
        WHERE content = _content AND parser_version <> _parser_version AND state <> 2
        ORDER BY number DESC
        LIMIT 1;
    IF FOUND THEN
        claim := 4;
        RETURN;
    END IF;
    IF NOT _again THEN
        SELECT * INTO run
            FROM runs
            WHERE content = _content
            ORDER BY number DESC
            LIMIT 1;
        IF FOUND THEN
            claim := 3;
            RETURN;
        END IF;
    END IF;
    SELECT * INTO run
        FROM runs
        WHERE id = _id;
    IF FOUND THEN
        claim := 5;
        RETURN;
    END IF;
    INSERT INTO runs (
            number, id, identity, content, parser_version, options, file_name, size_bytes, total_lines, trace_id, again,
            state, owner, lease_until, last_batch, lines, ticks, ignored, rejected, last_seq, create_time
        )
        SELECT
            coalesce(max(number), 0) + 1, _id, _identity, _content, _parser_version, _options, _file_name, _size_bytes,
            _total_lines, _trace_id, _again,
            1, _owner, _lease_until, 0, 0, 0, 0, 0, 0, _lease_now
        FROM runs
        RETURNING * INTO STRICT run;
    claim := 0;
END
$$;

-- Cancels a run if it is running, and returns it; nothing if it is not known.
CREATE FUNCTION cancel_run(_now BIGINT, _id TEXT) RETURNS SETOF runs
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE runs
        SET state = 4, finish_time = coalesce(_now, unix_nanos())
        WHERE id = _id AND state = 1;
    RETURN QUERY
        SELECT *
        FROM runs
        WHERE id = _id;
END
$$;
