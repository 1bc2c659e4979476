-- Changes one place of a function, and fails where that place is no more.
CREATE OR REPLACE FUNCTION rewrite(_function TEXT, _from TEXT, _to TEXT) RETURNS VOID
LANGUAGE plpgsql
AS $$
DECLARE
    known TEXT := pg_get_functiondef(_function::REGPROC);
BEGIN
    IF strpos(known, _from) = 0 THEN
        RAISE EXCEPTION '% has no longer: %', _function, _from;
    END IF;
    EXECUTE replace(known, _from, _to);
END
$$;
