-- Since which claim one publisher has held a producer id. After a cut it renews its claim, and is refused if another has
-- claimed the id in between.

ALTER TABLE producers
    ADD COLUMN held_since BIGINT NOT NULL DEFAULT 0;  -- fence of its first claim; 0 for claims of older servers

-- Raises a producer's fence above every earlier one, and creates the producer if it is new. NULL if the claim that is
-- renewed is older than the one since which the producer is held. A fence that this log has not handed out comes from
-- one that is lost, and renews nothing.
CREATE FUNCTION claim_or_renew(
    _check_identity    BOOLEAN,
    _new_epoch         BIGINT,
    _now               BIGINT,
    _id                TEXT,
    _held_fence        BIGINT,  -- fence of the claim that is renewed; NULL: nobody's
    OUT granted_fence  BIGINT,
    OUT granted_after  BIGINT   -- number of the last stored batch
)
LANGUAGE plpgsql
AS $$
DECLARE
    next_fence BIGINT;
    renewed    BIGINT;
BEGIN
    PERFORM lock_head(_check_identity, _new_epoch, _now);
    UPDATE log_head
        SET fence = fence + 1
        WHERE partition = 0
        RETURNING fence INTO STRICT next_fence;
    IF _held_fence < next_fence THEN
        renewed := _held_fence;
    END IF;
    INSERT INTO producers (id, fence, held_since, last_batch_seq, window_last_seqs, window_digests, active_time)
        VALUES (_id, next_fence, coalesce(renewed, next_fence), 0, '{}', '{}', coalesce(_now, unix_nanos()))
        ON CONFLICT (id) DO UPDATE SET
            fence = excluded.fence,
            held_since = CASE WHEN renewed IS NULL THEN excluded.held_since ELSE producers.held_since END,
            active_time = excluded.active_time
            WHERE renewed IS NULL OR renewed >= producers.held_since
        RETURNING fence, last_batch_seq INTO granted_fence, granted_after;
END
$$;
