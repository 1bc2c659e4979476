-- Appending without judging each batch.

-- Appends a group of which every batch is the next one of its producer, as nearly all are, and says 1 of any other, which
-- append_group then judges. Judging takes a loop over the batches, this only looks at their producers. One call is one
-- transaction and one round trip. In this order: head, producers, segment.
CREATE FUNCTION append_next(
    _check_identity  BOOLEAN,
    _new_epoch       BIGINT,
    _now             BIGINT,     -- NULL for the database's clock
    _epoch           BIGINT,     -- the log that the writer believes in
    _bytes           BYTEA,
    _entry_count     BIGINT,     -- at least 1
    _tick_count      BIGINT,
    _backfill        BOOLEAN,
    _producer_ids    TEXT[],     -- each producer once
    _fences          BIGINT[],
    _first_batches   BIGINT[],   -- the number of its first batch, which the others follow without a hole
    _batch_counts    BIGINT[],
    _window_starts   BIGINT[],   -- where its last batches, eight at most, begin in the two arrays below
    _window_ends     BIGINT[],   -- and end, inclusive
    _digests         BYTEA[],
    _last_entries    BIGINT[],   -- the last entry of each batch, counted from 1 in the group
    OUT outcome      INTEGER,    -- 0 committed, 1 has to be judged, 2 another epoch
    OUT log_epoch    BIGINT,
    OUT group_first  BIGINT,     -- position of the group's first entry
    OUT group_time   BIGINT,     -- the append time
    OUT group_chain  BYTEA
)
LANGUAGE plpgsql
AS $$
DECLARE
    head log_head;
    time_now BIGINT;
    last_seqs BIGINT[];
    count_next BIGINT;
BEGIN
    PERFORM check_durability();
    head := lock_head(_check_identity, _new_epoch, _now);
    log_epoch := head.epoch;
    IF head.epoch <> _epoch THEN
        outcome := 2;
        RETURN;
    END IF;
    -- Whoever changes producers holds the head, so their rows need no lock.
    SELECT count(*) INTO count_next
        FROM unnest(_producer_ids, _fences, _first_batches) AS claimed (id, fence, first_batch)
        JOIN producers
            ON producers.id = claimed.id
            AND producers.fence = claimed.fence
            AND producers.last_batch_seq + 1 = claimed.first_batch;
    IF count_next <> cardinality(_producer_ids) THEN
        outcome := 1;
        RETURN;
    END IF;

    time_now := coalesce(_now, unix_nanos());
    group_first := head.position + 1;
    group_time := greatest(head.append_time, time_now);
    group_chain := segment_chain(
        head.chain, _epoch, group_first, _entry_count, _tick_count, group_time, _backfill, _bytes
    );
    UPDATE log_head
        SET position = position + _entry_count,
            chain = group_chain,
            append_time = group_time,
            log_bytes = log_bytes + octet_length(_bytes)
        WHERE partition = 0;
    last_seqs := ARRAY(
        SELECT head.position + entry
        FROM unnest(_last_entries) WITH ORDINALITY AS batch (entry, number)
        ORDER BY number
    );
    -- Of what a producer had and what is added, the last eight.
    UPDATE producers
        SET last_batch_seq = last_batch_seq + added.batch_count,
            window_last_seqs = (window_last_seqs || last_seqs[added.start:added.stop])[
                greatest(1, cardinality(window_last_seqs) + added.stop - added.start - 6):
            ],
            window_digests = (window_digests || _digests[added.start:added.stop])[
                greatest(1, cardinality(window_digests) + added.stop - added.start - 6):
            ],
            active_time = time_now
        FROM unnest(_producer_ids, _batch_counts, _window_starts, _window_ends)
            AS added (id, batch_count, start, stop)
        WHERE producers.id = added.id;
    INSERT INTO segments
        (first_seq, epoch, entry_count, tick_count, append_time, backfill, chain, byte_count, bytes)
        VALUES (
            group_first, _epoch, _entry_count, _tick_count, group_time, _backfill, group_chain,
            octet_length(_bytes), _bytes
        );
    PERFORM stumble('append.inside');
    PERFORM stumble('append.before_sync');
    outcome := 0;
END
$$;
