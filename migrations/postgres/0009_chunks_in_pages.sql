-- No table changes: chunk_bytes.bytes may be of version 2 from here on (server/src/domain/chunk/codec.rs), which servers
-- before cannot read, so that these refuse to start. What is of version 1 is read as before.
COMMENT ON COLUMN chunk_bytes.bytes IS 'a version (1 or 2), columns, CRC32C: server/src/domain/chunk/codec.rs';
