-- What a run that failed has rejected in the batch in which it did.

-- Lines refused in that batch, which is not stored: rejected does not count them. 0 once the run is continued. Those of
-- them that are kept stand behind the others in run_rejects, until then.
ALTER TABLE runs ADD COLUMN unstored_rejected BIGINT NOT NULL DEFAULT 0;

-- Begins a run, continues one, or says why not: the rules of `store/marks.rs`. One at a time, by the head.
CREATE OR REPLACE FUNCTION begin_run(
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
            SET state = 1, owner = _owner, lease_until = _lease_until, unstored_rejected = 0,
                error_reason = NULL, error_message = NULL, finish_time = NULL
            WHERE number = run.number
            RETURNING * INTO STRICT run;
        -- The rejects of stored batches are the first ones, and as many as were counted with them unless fewer are kept.
        DELETE FROM run_rejects
            WHERE run_rejects.run = run.number AND run_rejects.line IN (
                SELECT kept.line
                FROM run_rejects AS kept
                WHERE kept.run = run.number
                ORDER BY kept.line
                OFFSET run.rejected
            );
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
