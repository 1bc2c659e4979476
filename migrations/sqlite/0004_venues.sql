-- What the log tells of venues beside ticks, so that trimming the log cannot lose it.

-- One row for each partition, written by the commit of the manifest: how far each venue has come, and what its feeds
-- said about lost data. Only the server reads the bytes (server/src/tape/venues.rs); they have a version of their own.
CREATE TABLE venues (
    partition INTEGER PRIMARY KEY CHECK (partition = 0),
    bytes     BLOB    NOT NULL
) STRICT;
