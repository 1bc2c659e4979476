-- Corrections and cancels, so that trimming the log cannot lose them.

-- One row for each, for good: what a trade is follows from all that is said of it, whenever the trade itself comes.
-- Written by commits of the manifest; those above the hot floor may be in the log alone.
CREATE TABLE corrections (
    log_seq       INTEGER NOT NULL PRIMARY KEY,
    instrument_id INTEGER NOT NULL,
    day           INTEGER NOT NULL,  -- of its trade, days since 1970
    append_time   INTEGER NOT NULL,
    standing      INTEGER NOT NULL,  -- 0 chunks are not changed by it yet, 1 they are and no trade was found, 2 they are
    bytes         BLOB    NOT NULL,  -- a segment with the entry alone
    version       INTEGER NOT NULL   -- the manifest version that changed it last
) STRICT;
CREATE INDEX corrections_by_version ON corrections (version);
CREATE INDEX corrections_by_day ON corrections (day);
