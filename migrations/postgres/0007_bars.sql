-- Final bars of single instruments, for SQL tools and dashboards. A server with --bars-table keeps them; nothing of
-- Tapefeed reads them. They follow from the ticks: DELETE FROM bars and UPDATE bars_mark SET position = NULL, while no
-- server runs, has the table filled anew.

-- One row for each bar with trades that only late ticks can still change. Numbers are exact.
CREATE TABLE bars (
    instrument_id    BIGINT      NOT NULL,                       -- instruments.id
    interval_seconds BIGINT      NOT NULL,                       -- length of the bar: 60, 3600 or 86400
    start            TIMESTAMPTZ NOT NULL,                       -- inclusive; a whole multiple of the interval since 1970
    open             NUMERIC     NOT NULL,                       -- first price
    high             NUMERIC     NOT NULL,                       -- highest price
    low              NUMERIC     NOT NULL,                       -- lowest price
    close            NUMERIC     NOT NULL,                       -- last price
    volume           NUMERIC     NOT NULL,                       -- sum of the known quantities
    notional         NUMERIC     NOT NULL,                       -- sum of price times quantity
    trade_count      BIGINT      NOT NULL CHECK (trade_count >= 1),
    revision         BIGINT      NOT NULL,                       -- greatest log_seq that contributed; other numbers raise it
    has_gap          BOOLEAN     NOT NULL,                       -- a feed lost data inside it and has not got it back
    PRIMARY KEY (instrument_id, interval_seconds, start)
);
-- What lies above a fork.
CREATE INDEX bars_by_revision ON bars (revision);

-- The same under the names of instruments.
CREATE VIEW named_bars AS
    SELECT
        instruments.venue, instruments.symbol, bars.interval_seconds, bars.start,
        bars.open, bars.high, bars.low, bars.close, bars.volume, bars.notional, bars.trade_count,
        bars.revision, bars.has_gap
    FROM bars
    JOIN instruments ON instruments.id = bars.instrument_id;

-- Where the table stands. One row, written with the bars that it covers.
CREATE TABLE bars_mark (
    partition BIGINT NOT NULL PRIMARY KEY CHECK (partition = 0),
    version   BIGINT NOT NULL,  -- changes so far: each expects the one before, so that of several servers one writes
    epoch     BIGINT,           -- the log of the last change; NULL before the first
    position  BIGINT            -- everything up to this log_seq is in the table; NULL until it is filled from history
);
INSERT INTO bars_mark (partition, version, epoch, position)
    VALUES (0, 0, NULL, NULL);

-- Changes the table unless another server has since. It locks the head only where a new epoch is due: appends must not
-- wait for bars.
CREATE FUNCTION record_bars(
    _check_identity  BOOLEAN,
    _new_epoch       BIGINT,
    _now             BIGINT,    -- NULL for the database's clock
    _epoch           BIGINT,    -- the log that the bars are of
    _version         BIGINT,    -- that is expected
    _position        BIGINT,    -- of the mark
    _above           BIGINT,    -- rows of a greater revision go first; NULL for none
    _gone_ids        BIGINT[],  -- instrument_id, interval_seconds and start of rows that go
    _gone_intervals  BIGINT[],
    _gone_starts     BIGINT[],  -- in seconds since 1970
    _rows            TEXT,      -- array of objects with the columns' names, start in seconds, no two of one key
    OUT outcome      INTEGER,   -- 0 done, 1 another version, 2 another epoch
    OUT log_epoch    BIGINT
)
LANGUAGE plpgsql
AS $$
DECLARE
    head log_head;
BEGIN
    SELECT * INTO STRICT head
        FROM log_head
        WHERE partition = 0;
    IF _check_identity AND (
        SELECT (here.system_identifier, here.timeline) IS DISTINCT FROM (head.system_identifier, head.timeline)
        FROM log_identity() AS here
    ) THEN
        head := lock_head(_check_identity, _new_epoch, _now);
    END IF;
    log_epoch := head.epoch;
    IF head.epoch <> _epoch THEN
        outcome := 2;
        RETURN;
    END IF;
    UPDATE bars_mark
        SET version = version + 1, epoch = _epoch, position = _position
        WHERE partition = 0 AND version = _version;
    IF NOT FOUND THEN
        outcome := 1;
        RETURN;
    END IF;
    IF _above = 0 THEN
        -- However large it is: a statement has a few seconds.
        TRUNCATE bars;
    ELSIF _above IS NOT NULL THEN
        DELETE FROM bars
            WHERE revision > _above;
    END IF;
    DELETE FROM bars
        USING unnest(_gone_ids, _gone_intervals, _gone_starts) AS gone (instrument_id, interval_seconds, start)
        WHERE bars.instrument_id = gone.instrument_id
            AND bars.interval_seconds = gone.interval_seconds
            AND bars.start = to_timestamp(gone.start);
    INSERT INTO bars (
            instrument_id, interval_seconds, start, open, high, low, close, volume, notional, trade_count,
            revision, has_gap
        )
        SELECT
            instrument_id, interval_seconds, to_timestamp(start), open, high, low, close, volume, notional,
            trade_count, revision, has_gap
        FROM json_to_recordset(_rows::JSON) AS bar (
            instrument_id BIGINT, interval_seconds BIGINT, start BIGINT,
            open NUMERIC, high NUMERIC, low NUMERIC, close NUMERIC, volume NUMERIC, notional NUMERIC,
            trade_count BIGINT, revision BIGINT, has_gap BOOLEAN
        )
        ON CONFLICT (instrument_id, interval_seconds, start) DO UPDATE SET
            open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
            volume = excluded.volume, notional = excluded.notional, trade_count = excluded.trade_count,
            revision = excluded.revision, has_gap = excluded.has_gap
            WHERE bars.revision <= excluded.revision;
    outcome := 0;
END
$$;
