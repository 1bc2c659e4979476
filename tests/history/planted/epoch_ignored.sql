-- A log that has lost its end goes on under its name.
CREATE OR REPLACE FUNCTION begin_epoch(_epoch BIGINT, _fork BIGINT, _now BIGINT) RETURNS log_head
LANGUAGE sql
AS $$
    SELECT * FROM log_head WHERE partition = 0
$$;
