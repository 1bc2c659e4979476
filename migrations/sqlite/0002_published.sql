-- What imports publish beside ticks, and what they leave out.

-- Lines that published something else than a tick, and how many lines of which kind were left out, as JSON:
-- {"bookTicker": 28040}. The column ignored holds their sum.
ALTER TABLE runs ADD COLUMN published INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN ignored_kinds TEXT NOT NULL DEFAULT '{}';

-- Why a line was refused, for programs: the name of an ErrorReason of the contract without its prefix.
ALTER TABLE run_rejects ADD COLUMN code TEXT NOT NULL DEFAULT 'FIELD_INVALID';

-- Days of instruments as their venues published them; one row for each key, a later import replaces it. Nothing is
-- computed from them, and they have no place in the log. Codes are the venue's own.
-- Decimals are text, exact and without trailing zeros; CAST(close AS REAL) makes numbers of them.
CREATE TABLE published_bars (
    instrument_id     INTEGER NOT NULL,                            -- instruments.id
    day               INTEGER NOT NULL CHECK (day >= 0),           -- of the session, in days since 1970:
                                                                   -- date(day * 86400, 'unixepoch')
    market            INTEGER NOT NULL CHECK (market >= 0),        -- code of the market
    term              INTEGER NOT NULL CHECK (term >= 0),          -- of a forward, in days; 0 if there is none
    open              TEXT    NOT NULL,                            -- first price; all prices are for one unit
    high              TEXT    NOT NULL,                            -- highest price
    low               TEXT    NOT NULL,                            -- lowest price
    average           TEXT    NOT NULL,                            -- average price, as the venue rounds it
    close             TEXT    NOT NULL,                            -- last price
    bid               TEXT    NOT NULL,                            -- best bid at the end; 0 may mean none
    ask               TEXT    NOT NULL,                            -- best ask at the end; 0 may mean none
    trade_count       INTEGER NOT NULL,                            -- how many trades, as far as the venue's field reaches
    quantity          TEXT    NOT NULL,                            -- units traded
    value             TEXT    NOT NULL,                            -- paid for them, in the instrument's currency
    strike            TEXT    NOT NULL,                            -- of an option, in currency; 0 if there is none
    strike_points     TEXT    NOT NULL,                            -- of an option, in points; 0 if there is none
    expiry_day        INTEGER NOT NULL CHECK (expiry_day >= 0),    -- in days since 1970; 9999-12-31 if nothing expires
    quote_factor      INTEGER NOT NULL CHECK (quote_factor >= 0),  -- units that a published price was for
    board             TEXT    NOT NULL,                            -- code of the board or lot
    strike_correction TEXT    NOT NULL,                            -- code of the correction of strikes; may be empty
    distribution      TEXT    NOT NULL,                            -- number of the distribution; may be empty
    PRIMARY KEY (instrument_id, day, market, term)
) STRICT, WITHOUT ROWID;

-- What venues say about instruments: one row an instrument, of the newest day; of the same day, what was imported last.
CREATE TABLE instrument_details (
    instrument_id INTEGER NOT NULL PRIMARY KEY,          -- instruments.id
    day           INTEGER NOT NULL CHECK (day >= 0),     -- on which it was published, in days since 1970
    isin          TEXT    NOT NULL,                      -- or the venue's own code in its place; may be empty, as all below
    issuer        TEXT    NOT NULL,                      -- short name
    share_class   TEXT    NOT NULL,                      -- and its marks
    currency      TEXT    NOT NULL                       -- as the venue writes it
) STRICT;
