-- An append is acknowledged before it is on disk: what Postgres has not written when it dies is lost.
ALTER SYSTEM SET wal_writer_delay = '10s';
ALTER SYSTEM SET wal_writer_flush_after = '1GB';
SELECT pg_reload_conf();
CREATE OR REPLACE FUNCTION check_durability() RETURNS VOID
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
END
$$;
