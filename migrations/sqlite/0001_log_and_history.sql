-- The log, the history, the registry and the ingestion runs of an embedded store.
--
-- Reading this file with sqlite3 while a server runs is safe: open it read-only (`sqlite3 -readonly FILE`).
-- Writing to it is not: the server is its only writer.
--
-- Times are UTC nanoseconds since 1970. Unsigned 64-bit numbers are stored as signed ones with the same bits; only
-- epochs and owners, which are random, are ever negative.

-- 'TAPE' in ASCII: how a server, and file(1), tell a Tapefeed store from other databases.
PRAGMA application_id = 1413566533;

-- Where the log stands. One row.
CREATE TABLE log_head (
    partition        INTEGER NOT NULL PRIMARY KEY CHECK (partition = 0),
    epoch            INTEGER NOT NULL,                              -- names the log; random
    position         INTEGER NOT NULL CHECK (position >= 0),        -- last log_seq; 0 while the log is empty
    chain            BLOB    NOT NULL CHECK (length(chain) = 16),   -- of the last segment; zeros while empty
    append_time      INTEGER NOT NULL CHECK (append_time >= 0),     -- of the last segment; never goes back
    oldest           INTEGER NOT NULL CHECK (oldest >= 1),          -- first log_seq still in segments, or position + 1
    hot_floor        INTEGER NOT NULL CHECK (hot_floor >= 1),       -- smallest log_seq not in chunks, or position + 1
    log_bytes        INTEGER NOT NULL CHECK (log_bytes >= 0),       -- sum of segments.byte_count
    manifest_version INTEGER NOT NULL CHECK (manifest_version >= 0), -- of the last change of chunks; 0 before the first
    manifest_floor   INTEGER NOT NULL CHECK (manifest_floor >= 0),  -- greatest dropped_version of a row that is gone
    fence            INTEGER NOT NULL CHECK (fence >= 0)            -- the last fence handed to a producer
) STRICT;

-- Every epoch that this log has had, the newest last.
CREATE TABLE epochs (
    number     INTEGER NOT NULL PRIMARY KEY,  -- 1, 2, 3 ...
    epoch      INTEGER NOT NULL UNIQUE,
    parent     INTEGER,                       -- the epoch before it; NULL for the first
    fork       INTEGER NOT NULL,              -- last position that it shares with its parent
    start_time INTEGER NOT NULL
) STRICT;

-- The log: one row is one commit. Consecutive: first_seq is the predecessor's first_seq + entry_count.
CREATE TABLE segments (
    first_seq   INTEGER NOT NULL PRIMARY KEY,                 -- log_seq of the first entry
    epoch       INTEGER NOT NULL,                             -- the log's name when it was appended
    entry_count INTEGER NOT NULL CHECK (entry_count >= 1),    -- ticks and control entries
    tick_count  INTEGER NOT NULL CHECK (tick_count >= 0),     -- ticks among them
    append_time INTEGER NOT NULL CHECK (append_time >= 0),    -- ascends with first_seq
    backfill    INTEGER NOT NULL CHECK (backfill IN (0, 1)),
    run_id      TEXT,                                         -- runs.id, if a file import wrote it
    chain       BLOB    NOT NULL CHECK (length(chain) = 16),  -- hash over the predecessor's chain and this row
    byte_count  INTEGER NOT NULL,                             -- length of bytes
    bytes       BLOB    NOT NULL                              -- the entries: compressed, with a checksum
) STRICT;

-- Who publishes, and the end of what each has published. Forgotten after idling.
CREATE TABLE producers (
    id             TEXT    NOT NULL PRIMARY KEY,
    fence          INTEGER NOT NULL,  -- of the newest claim; older claims are refused
    last_batch_seq INTEGER NOT NULL,  -- number of the last stored batch; 0 before the first
    window         BLOB    NOT NULL,  -- up to 8 batches, oldest first, 32 bytes each: batch_seq, last log_seq
                                      -- (little-endian u64), digest (16 bytes)
    active_time    INTEGER NOT NULL   -- of the last claim or batch
) STRICT, WITHOUT ROWID;
CREATE INDEX producers_by_active_time ON producers (active_time);

-- The registry: a number for each venue and symbol, dense from 1, never changed.
CREATE TABLE instruments (
    id          INTEGER NOT NULL PRIMARY KEY,
    venue       TEXT    NOT NULL,
    symbol      TEXT    NOT NULL,
    create_time INTEGER NOT NULL,
    UNIQUE (venue, symbol)
) STRICT;

-- The history: one row is one chunk, the ticks of one instrument inside one UTC day, or some of them.
-- AUTOINCREMENT: an id is never used again.
CREATE TABLE chunks (
    id              INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    instrument_id   INTEGER NOT NULL,
    day             INTEGER NOT NULL,                       -- days since 1970
    late            INTEGER NOT NULL CHECK (late IN (0, 1)), -- its ticks came after a chunk of a later time
    tick_count      INTEGER NOT NULL CHECK (tick_count >= 1),
    first_time      INTEGER NOT NULL,                       -- event time of the first tick
    last_time       INTEGER NOT NULL,                       -- event time of the last tick
    min_seq         INTEGER NOT NULL,                       -- smallest log_seq among its ticks
    max_seq         INTEGER NOT NULL,                       -- greatest log_seq among its ticks
    byte_count      INTEGER NOT NULL,                       -- length of its chunk_bytes.bytes
    statistics      BLOB    NOT NULL,                       -- counts, extremes and exact sums; its first byte is a version
    created_version INTEGER NOT NULL,                       -- the manifest version that brought it
    dropped_version INTEGER,                                -- the manifest version that dropped it; NULL while live
    dropped_time    INTEGER                                 -- when; the row and its bytes go after a grace
) STRICT;
CREATE INDEX chunks_by_created_version ON chunks (created_version);
CREATE INDEX chunks_by_dropped_version ON chunks (dropped_version) WHERE dropped_version IS NOT NULL;
CREATE INDEX chunks_by_day ON chunks (day);

-- The ticks of a chunk: columns, compressed, with a checksum. Apart, so that reading rows does not read them.
CREATE TABLE chunk_bytes (
    chunk_id INTEGER NOT NULL PRIMARY KEY,  -- chunks.id
    bytes    BLOB    NOT NULL
) STRICT;

-- Up to which position each instrument's ticks are in chunks. An instrument without a row has none there.
CREATE TABLE compactions (
    instrument_id INTEGER NOT NULL PRIMARY KEY,
    position      INTEGER NOT NULL,  -- log_seq, inclusive
    version       INTEGER NOT NULL   -- the manifest version that moved it last
) STRICT;
CREATE INDEX compactions_by_version ON compactions (version);

-- File imports. Never forgotten.
CREATE TABLE runs (
    number         INTEGER NOT NULL PRIMARY KEY,                        -- ascends with the beginning
    id             TEXT    NOT NULL UNIQUE,                             -- made by the client
    identity       BLOB    NOT NULL UNIQUE CHECK (length(identity) = 32), -- SHA-256 of content, options, parser version
    content        BLOB    NOT NULL CHECK (length(content) = 32),       -- SHA-256 of the uncompressed bytes
    parser_version INTEGER NOT NULL,
    options        BLOB    NOT NULL,                                    -- encoded message
    file_name      TEXT    NOT NULL,                                    -- as the client gave it; not a path of ours
    size_bytes     INTEGER NOT NULL,
    total_lines    INTEGER NOT NULL,
    trace_id       TEXT    NOT NULL,
    again          INTEGER NOT NULL CHECK (again IN (0, 1)),            -- same content under other options, on request
    state          INTEGER NOT NULL,                                    -- 1 running, 2 succeeded, 3 failed, 4 cancelled
    owner          INTEGER NOT NULL,                                    -- who works on it, or last did; random
    lease_until    INTEGER NOT NULL,                                    -- until when others keep off
    last_batch     INTEGER NOT NULL,                                    -- last committed batch of lines; 0 before the first
    lines          INTEGER NOT NULL,                                    -- read so far
    ticks          INTEGER NOT NULL,                                    -- stored so far
    ignored        INTEGER NOT NULL,                                    -- lines left out: no ticks
    rejected       INTEGER NOT NULL,                                    -- lines refused, more than run_rejects may hold
    last_seq       INTEGER NOT NULL,                                    -- log_seq of the last tick; 0 before the first
    error_reason   TEXT,                                                -- both NULL, or both set
    error_message  TEXT,
    create_time    INTEGER NOT NULL,
    finish_time    INTEGER                                              -- NULL while running
) STRICT;
CREATE INDEX runs_by_content ON runs (content);

-- The first lines that each run refused.
CREATE TABLE run_rejects (
    run    INTEGER NOT NULL,  -- runs.number
    line   INTEGER NOT NULL,  -- from 1, the header included
    reason TEXT    NOT NULL,
    text   TEXT    NOT NULL,  -- the line's first bytes
    PRIMARY KEY (run, line)
) STRICT, WITHOUT ROWID;
