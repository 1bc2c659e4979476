//! How much of a disk the database takes.

use sqlx::PgConnection;

use super::failure::Failure;

/// What a database takes on the disk of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUse {
    /// Bytes of tables, indexes and what belongs to them.
    pub bytes: u64,
    /// Bytes of the whole server's write-ahead log; `None` where this user may not look at it.
    pub wal_bytes: Option<u64>,
}

const DATABASE: &str = "
    SELECT pg_database_size(current_database()), has_function_privilege('pg_ls_waldir()', 'EXECUTE')";

const WAL: &str = "
    SELECT coalesce(sum(size), 0)::BIGINT
    FROM pg_ls_waldir()";

pub(super) async fn read(connection: &mut PgConnection) -> Result<DiskUse, Failure> {
    let (bytes, may_look): (i64, bool) = sqlx::query_as(DATABASE).fetch_one(&mut *connection).await?;
    let wal_bytes: Option<i64> =
        if may_look { Some(sqlx::query_scalar(WAL).fetch_one(connection).await?) } else { None };
    Ok(DiskUse { bytes: bytes.cast_unsigned(), wal_bytes: wal_bytes.map(i64::cast_unsigned) })
}
