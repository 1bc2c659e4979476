-- Positions come from a sequence, outside the lock of the head, and become visible in any order. The readers of such a
-- log cannot insist on an unbroken one: bare_sequence.patch.
CREATE SEQUENCE bare;
CREATE FUNCTION bare_positions(_count BIGINT) RETURNS BIGINT
LANGUAGE plpgsql
AS $$
DECLARE
    first BIGINT;
BEGIN
    PERFORM pg_advisory_lock(1);
    first := nextval('bare');
    PERFORM setval('bare', first + _count - 1);
    PERFORM pg_advisory_unlock(1);
    PERFORM pg_sleep(random() * 0.1);
    RETURN first;
END
$$;
-- No group is next without being judged: one function to rewrite.
SELECT rewrite('append_next', 'IF count_next <> cardinality(_producer_ids) THEN', 'IF true THEN');
SELECT rewrite(
    'append_group',
    'head := lock_head(_check_identity, _new_epoch, _now);',
    'SELECT * INTO STRICT head FROM log_head WHERE partition = 0;'
);
SELECT rewrite('append_group', 'group_first := head.position + 1;', 'group_first := bare_positions(_entry_count);');
SELECT rewrite(
    'append_group',
    'SET position = position + _entry_count',
    'SET position = greatest(position, group_first + _entry_count - 1)'
);
