-- Final bars of single instruments, for SQL tools and dashboards. A server with --bars-table keeps them; nothing of
-- Tapefeed reads them. They follow from the ticks: DELETE FROM bars and UPDATE bars_mark SET position = NULL, while no
-- server runs, has the table filled anew.

-- One row for each bar with trades that only late ticks can still change. Numbers are exact, and therefore text: a chart
-- takes CAST (close AS REAL).
CREATE TABLE bars (
    instrument_id    INTEGER NOT NULL,                           -- instruments.id
    interval_seconds INTEGER NOT NULL,                           -- length of the bar: 60, 3600 or 86400
    start            INTEGER NOT NULL,                           -- inclusive; a whole multiple of the interval since 1970,
                                                                 -- in seconds, which Grafana takes for a time as it is;
                                                                 -- for people: datetime(start, 'unixepoch')
    open             TEXT    NOT NULL,                           -- first price
    high             TEXT    NOT NULL,                           -- highest price
    low              TEXT    NOT NULL,                           -- lowest price
    close            TEXT    NOT NULL,                           -- last price
    volume           TEXT    NOT NULL,                           -- sum of the known quantities
    notional         TEXT    NOT NULL,                           -- sum of price times quantity
    trade_count      INTEGER NOT NULL CHECK (trade_count >= 1),
    revision         INTEGER NOT NULL,                           -- greatest log_seq that contributed; other numbers raise it
    has_gap          INTEGER NOT NULL CHECK (has_gap IN (0, 1)), -- a feed lost data inside it and has not got it back
    PRIMARY KEY (instrument_id, interval_seconds, start)
) STRICT, WITHOUT ROWID;

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
    partition INTEGER NOT NULL PRIMARY KEY CHECK (partition = 0),
    version   INTEGER NOT NULL,  -- changes so far: each expects the one before
    epoch     INTEGER,           -- the log of the last change; NULL before the first
    position  INTEGER            -- everything up to this log_seq is in the table; NULL until it is filled from history
) STRICT;
INSERT INTO bars_mark (partition, version, epoch, position)
    VALUES (0, 0, NULL, NULL);
