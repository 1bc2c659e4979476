-- What imports publish beside ticks, and what they leave out; and the append, which stores all of it.

-- Lines that published something else than a tick, and how many lines of which kind were left out, as JSON:
-- {"bookTicker": 28040}. The column ignored holds their sum. Kinds are escaped like the text of 0001.
ALTER TABLE runs ADD COLUMN published BIGINT NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN ignored_kinds JSONB NOT NULL DEFAULT '{}';

-- Why a line was refused, for programs: the name of an ErrorReason of the contract without its prefix.
ALTER TABLE run_rejects ADD COLUMN code TEXT NOT NULL DEFAULT 'FIELD_INVALID';

-- Days of instruments as their venues published them; one row for each key, a later import replaces it. Nothing is
-- computed from them, and they have no place in the log. Codes are the venue's own. Text is escaped like that of runs.
CREATE TABLE published_bars (
    instrument_id     BIGINT  NOT NULL,                            -- instruments.id
    day               BIGINT  NOT NULL CHECK (day >= 0),           -- of the session, in days since 1970:
                                                                   -- date '1970-01-01' + day::INTEGER
    market            BIGINT  NOT NULL CHECK (market >= 0),        -- code of the market
    term              BIGINT  NOT NULL CHECK (term >= 0),          -- of a forward, in days; 0 if there is none
    open              NUMERIC NOT NULL,                            -- first price; all prices are for one unit
    high              NUMERIC NOT NULL,                            -- highest price
    low               NUMERIC NOT NULL,                            -- lowest price
    average           NUMERIC NOT NULL,                            -- average price, as the venue rounds it
    close             NUMERIC NOT NULL,                            -- last price
    bid               NUMERIC NOT NULL,                            -- best bid at the end; 0 may mean none
    ask               NUMERIC NOT NULL,                            -- best ask at the end; 0 may mean none
    trade_count       BIGINT  NOT NULL,                            -- how many trades, as far as the venue's field reaches
    quantity          NUMERIC NOT NULL,                            -- units traded
    value             NUMERIC NOT NULL,                            -- paid for them, in the instrument's currency
    strike            NUMERIC NOT NULL,                            -- of an option, in currency; 0 if there is none
    strike_points     NUMERIC NOT NULL,                            -- of an option, in points; 0 if there is none
    expiry_day        BIGINT  NOT NULL CHECK (expiry_day >= 0),    -- in days since 1970; 9999-12-31 if nothing expires
    quote_factor      BIGINT  NOT NULL CHECK (quote_factor >= 0),  -- units that a published price was for
    board             TEXT    NOT NULL,                            -- code of the board or lot
    strike_correction TEXT    NOT NULL,                            -- code of the correction of strikes; may be empty
    distribution      TEXT    NOT NULL,                            -- number of the distribution; may be empty
    PRIMARY KEY (instrument_id, day, market, term)
);

-- What venues say about instruments: one row an instrument, of the newest day; of the same day, what was imported last.
CREATE TABLE instrument_details (
    instrument_id BIGINT NOT NULL PRIMARY KEY,          -- instruments.id
    day           BIGINT NOT NULL CHECK (day >= 0),     -- on which it was published, in days since 1970
    isin          TEXT   NOT NULL,                      -- or the venue's own code in its place; may be empty, as all below
    issuer        TEXT   NOT NULL,                      -- short name
    share_class   TEXT   NOT NULL,                      -- and its marks
    currency      TEXT   NOT NULL                       -- as the venue writes it
);

-- Stores bars and details: arrays of objects with the columns' names, no two of one key.
CREATE FUNCTION store_published(_bars JSON, _details JSON) RETURNS VOID
LANGUAGE sql
AS $$
    INSERT INTO published_bars (
            instrument_id, day, market, term,
            open, high, low, average, close, bid, ask, trade_count, quantity, value,
            strike, strike_points, expiry_day, quote_factor, board, strike_correction, distribution
        )
        SELECT
            instrument_id, day, market, term,
            open, high, low, average, close, bid, ask, trade_count, quantity, value,
            strike, strike_points, expiry_day, quote_factor, board, strike_correction, distribution
        FROM json_populate_recordset(NULL::published_bars, _bars)
        ON CONFLICT (instrument_id, day, market, term) DO UPDATE SET
            open = excluded.open, high = excluded.high, low = excluded.low, average = excluded.average,
            close = excluded.close, bid = excluded.bid, ask = excluded.ask, trade_count = excluded.trade_count,
            quantity = excluded.quantity, value = excluded.value, strike = excluded.strike,
            strike_points = excluded.strike_points, expiry_day = excluded.expiry_day,
            quote_factor = excluded.quote_factor, board = excluded.board,
            strike_correction = excluded.strike_correction, distribution = excluded.distribution;
    INSERT INTO instrument_details (instrument_id, day, isin, issuer, share_class, currency)
        SELECT instrument_id, day, isin, issuer, share_class, currency
        FROM json_populate_recordset(NULL::instrument_details, _details)
        ON CONFLICT (instrument_id) DO UPDATE SET
            day = excluded.day, isin = excluded.isin, issuer = excluded.issuer,
            share_class = excluded.share_class, currency = excluded.currency
            WHERE instrument_details.day <= excluded.day;
$$;

-- Appends a group: judges every mark as `store/marks.rs` does, and stores all of it or nothing. One call is one
-- transaction and one round trip. In this order: head, producers and run, segment.
CREATE FUNCTION append_group(
    _check_identity  BOOLEAN,
    _new_epoch       BIGINT,
    _now             BIGINT,     -- NULL for the database's clock
    _epoch           BIGINT,     -- the log that the writer believes in
    _bytes           BYTEA,
    _entry_count     BIGINT,     -- 0 writes no segment
    _tick_count      BIGINT,
    _backfill        BOOLEAN,
    _run_id          TEXT,       -- of the segment
    _producer_ids    TEXT[],     -- each producer once
    _mark_subjects   BIGINT[],   -- of each mark: the number of its producer from 1, 0 for the run, -1 for another run
    _mark_fences     BIGINT[],   -- the fence; of a run its owner
    _mark_batches    BIGINT[],
    _mark_digests    BYTEA[],    -- empty for a run's
    _mark_entries    BIGINT[],
    _run             TEXT,       -- the run of the marks, if one of them is a run's
    _lines           BIGINT,     -- what the run's batches add, all together
    _ticks           BIGINT,
    _published       BIGINT,
    _rejected        BIGINT,
    _ignored_kinds   TEXT[],
    _ignored_counts  BIGINT[],
    _reject_lines    BIGINT[],
    _reject_codes    TEXT[],
    _reject_reasons  TEXT[],
    _reject_texts    TEXT[],
    _bars            TEXT,       -- what the run publishes, for store_published; NULL for nothing
    _details         TEXT,
    OUT outcome      INTEGER,    -- 0 committed, 1 refused, 2 another epoch
    OUT log_epoch    BIGINT,
    OUT group_first  BIGINT,     -- position of the group's first entry
    OUT group_time   BIGINT,     -- the append time
    OUT group_chain  BYTEA,
    OUT verdicts     BIGINT[],   -- of each mark: 0 new, 1 duplicate, 2 out of order, 3 conflict, 4 fenced, 5 unknown
    OUT verdict_seqs BIGINT[]    -- of a duplicate its last position, out of order the number that is expected
)
LANGUAGE plpgsql
AS $$
DECLARE
    head log_head;
    states producers[];
    state producers;
    known runs;
    time_now BIGINT;
    last_seq BIGINT;
    subject BIGINT;
    batch BIGINT;
    expected BIGINT;
    place BIGINT;
    verdict BIGINT;
    verdict_seq BIGINT;
    all_new BOOLEAN := true;
BEGIN
    PERFORM check_durability();
    head := lock_head(_check_identity, _new_epoch, _now);
    log_epoch := head.epoch;
    IF head.epoch <> _epoch THEN
        outcome := 2;
        RETURN;
    END IF;

    -- Whoever changes producers holds the head, so their rows need no lock; a run may be cancelled without it.
    IF cardinality(_producer_ids) > 0 THEN
        SELECT array_agg(producers ORDER BY wanted.number) INTO states
            FROM unnest(_producer_ids) WITH ORDINALITY AS wanted (id, number)
            LEFT JOIN producers ON producers.id = wanted.id;
    END IF;
    IF _run IS NOT NULL THEN
        SELECT * INTO known
            FROM runs
            WHERE id = _run
            FOR UPDATE;
    END IF;

    verdicts := '{}';
    verdict_seqs := '{}';
    last_seq := head.position;
    FOR number IN 1 .. cardinality(_mark_subjects) LOOP
        last_seq := last_seq + _mark_entries[number];
        subject := _mark_subjects[number];
        batch := _mark_batches[number];
        verdict_seq := 0;
        IF subject > 0 THEN
            state := states[subject];
            expected := state.last_batch_seq + 1;
            IF state.id IS NULL THEN
                verdict := 5;
            ELSIF state.fence <> _mark_fences[number] THEN
                verdict := 4;
            ELSIF batch > expected THEN
                verdict := 2;
                verdict_seq := expected;
            ELSIF batch < expected THEN
                -- The window's batches are the last ones, without a hole.
                place := cardinality(state.window_digests) - (state.last_batch_seq - batch);
                IF place >= 1 AND state.window_digests[place] = _mark_digests[number] THEN
                    verdict := 1;
                    verdict_seq := state.window_last_seqs[place];
                ELSE
                    verdict := 3;
                END IF;
            ELSE
                verdict := 0;
                IF cardinality(state.window_digests) >= 8 THEN
                    state.window_last_seqs := state.window_last_seqs[2:];
                    state.window_digests := state.window_digests[2:];
                END IF;
                state.last_batch_seq := batch;
                state.window_last_seqs := state.window_last_seqs || last_seq;
                state.window_digests := state.window_digests || _mark_digests[number];
                states[subject] := state;
            END IF;
        ELSIF subject < 0 OR known.id IS NULL THEN
            verdict := 5;
        ELSE
            expected := known.last_batch + 1;
            IF known.state <> 1 OR known.owner <> _mark_fences[number] THEN
                verdict := 4;
            ELSIF batch > expected THEN
                verdict := 2;
                verdict_seq := expected;
            ELSIF batch < expected THEN
                verdict := 1;
                verdict_seq := known.last_seq;
            ELSE
                verdict := 0;
                known.last_batch := batch;
                IF _mark_entries[number] > 0 THEN
                    known.last_seq := last_seq;
                END IF;
            END IF;
        END IF;
        all_new := all_new AND verdict = 0;
        verdicts := verdicts || verdict;
        verdict_seqs := verdict_seqs || verdict_seq;
    END LOOP;
    IF NOT all_new THEN
        outcome := 1;
        RETURN;
    END IF;

    time_now := coalesce(_now, unix_nanos());
    group_first := head.position + 1;
    IF _entry_count > 0 THEN
        head.append_time := greatest(head.append_time, time_now);
        head.chain := segment_chain(
            head.chain, _epoch, group_first, _entry_count, _tick_count, head.append_time, _backfill, _bytes
        );
        UPDATE log_head
            SET position = position + _entry_count,
                chain = head.chain,
                append_time = head.append_time,
                log_bytes = log_bytes + octet_length(_bytes)
            WHERE partition = 0;
    END IF;
    IF cardinality(states) > 0 THEN
        UPDATE producers
            SET last_batch_seq = stored.last_batch_seq,
                window_last_seqs = stored.window_last_seqs,
                window_digests = stored.window_digests,
                active_time = time_now
            FROM unnest(states) AS stored
            WHERE producers.id = stored.id;
    END IF;
    IF _run IS NOT NULL THEN
        UPDATE runs
            SET last_batch = known.last_batch,
                last_seq = known.last_seq,
                lines = lines + _lines,
                ticks = ticks + _ticks,
                published = published + _published,
                rejected = rejected + _rejected
            WHERE runs.number = known.number;
        IF cardinality(_ignored_kinds) > 0 THEN
            UPDATE runs
                SET ignored = ignored + (SELECT sum(count) FROM unnest(_ignored_counts) AS added (count)),
                    ignored_kinds = ignored_kinds || (
                        SELECT jsonb_object_agg(kind, count + coalesce((ignored_kinds ->> kind)::BIGINT, 0))
                        FROM unnest(_ignored_kinds, _ignored_counts) AS added (kind, count)
                    )
                WHERE runs.number = known.number;
        END IF;
        INSERT INTO run_rejects (run, line, code, reason, text)
            SELECT known.number, line, code, reason, text
            FROM unnest(_reject_lines, _reject_codes, _reject_reasons, _reject_texts)
                AS rejected (line, code, reason, text)
            ON CONFLICT DO NOTHING;
        IF _bars IS NOT NULL THEN
            PERFORM store_published(_bars::JSON, _details::JSON);
        END IF;
    END IF;
    IF _entry_count > 0 THEN
        INSERT INTO segments
            (first_seq, epoch, entry_count, tick_count, append_time, backfill, run_id, chain, byte_count, bytes)
            VALUES (
                group_first, _epoch, _entry_count, _tick_count, head.append_time, _backfill, _run_id, head.chain,
                octet_length(_bytes), _bytes
            );
    END IF;
    PERFORM stumble('append.inside');
    PERFORM stumble('append.before_sync');
    outcome := 0;
    group_time := head.append_time;
    group_chain := head.chain;
END
$$;
