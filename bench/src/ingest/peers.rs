//! The plain ways to store the same trades in Postgres: rows with an index, by `COPY BINARY` and by `INSERT`.

use std::time::Instant;

use sqlx::postgres::PgConnection;
use sqlx::{Postgres, QueryBuilder};

use super::cluster::Cluster;
use super::load::micros;
use crate::ticks::{Trade, symbol};

type Problem = Box<dyn std::error::Error>;

/// How rows get into Postgres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Peer {
    /// `COPY BINARY` of instrument, time, position, price and quantity, so many rows a commit; index on (instrument,
    /// time).
    Copy(usize),
    /// The same with all that a tick has: receive time, side and trade id too.
    CopyAll(usize),
    /// The earlier schema (symbol, exchange and price as text and numeric, time; index on symbol and time), so many rows
    /// a statement.
    Insert(usize),
}

/// What came of it.
#[derive(Debug)]
pub struct Stored {
    /// From the first row to the last commit.
    pub seconds: f64,
    /// Each commit, in microseconds.
    pub latencies: Vec<f64>,
    /// Bytes of the table and its indexes.
    pub disk: f64,
}

const NARROW: &str = "
    CREATE TABLE ticks (instrument_id INTEGER, event_time BIGINT, log_seq BIGINT, price BIGINT, quantity BIGINT);
    CREATE INDEX ticks_by_time ON ticks (instrument_id, event_time)";
const WIDE: &str = "
    CREATE TABLE ticks (
        instrument_id INTEGER, event_time BIGINT, log_seq BIGINT, price BIGINT, quantity BIGINT,
        receive_time BIGINT, side SMALLINT, trade_id BIGINT
    );
    CREATE INDEX ticks_by_time ON ticks (instrument_id, event_time)";
const EARLIER: &str = "
    CREATE TABLE ticks (
        symbol VARCHAR(32), exchange VARCHAR(32), price NUMERIC, quantity NUMERIC, event_time TIMESTAMPTZ
    );
    CREATE INDEX ticks_by_time ON ticks (symbol, event_time DESC)";
const COPY: &str = "COPY ticks FROM STDIN (FORMAT binary)";

/// Stores trades as rows of a new table.
pub async fn store(cluster: &Cluster, url: &str, peer: Peer, trades: &[Trade]) -> Result<Stored, Problem> {
    let mut connection = cluster.connect(url).await?;
    let (table, rows) = match peer {
        Peer::Copy(rows) => (NARROW, rows),
        Peer::CopyAll(rows) => (WIDE, rows),
        Peer::Insert(rows) => (EARLIER, rows),
    };
    sqlx::raw_sql("DROP TABLE IF EXISTS ticks").execute(&mut connection).await?;
    sqlx::raw_sql(table).execute(&mut connection).await?;
    let begun = Instant::now();
    let mut latencies = Vec::with_capacity(trades.len() / rows + 1);
    for (index, part) in trades.chunks(rows).enumerate() {
        let begun = Instant::now();
        match peer {
            Peer::Copy(_) => copy(&mut connection, part, index * rows, false).await?,
            Peer::CopyAll(_) => copy(&mut connection, part, index * rows, true).await?,
            Peer::Insert(_) => insert(&mut connection, part).await?,
        }
        latencies.push(micros(begun.elapsed()));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let size = "SELECT pg_total_relation_size('ticks')::DOUBLE PRECISION";
    let disk = sqlx::query_scalar(size).fetch_one(&mut connection).await?;
    Ok(Stored { seconds, latencies, disk })
}

/// One COPY is one commit.
async fn copy(connection: &mut PgConnection, trades: &[Trade], from: usize, all: bool) -> Result<(), Problem> {
    let mut bytes = Vec::with_capacity(21 + trades.len() * 100);
    bytes.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    let field = |bytes: &mut Vec<u8>, value: &[u8]| {
        bytes.extend_from_slice(&(value.len() as i32).to_be_bytes());
        bytes.extend_from_slice(value);
    };
    for (index, trade) in trades.iter().enumerate() {
        bytes.extend_from_slice(&(if all { 8i16 } else { 5 }).to_be_bytes());
        field(&mut bytes, &(trade.instrument as i32).to_be_bytes());
        field(&mut bytes, &trade.event_time.to_be_bytes());
        field(&mut bytes, &((from + index) as i64).to_be_bytes());
        field(&mut bytes, &trade.price.to_be_bytes());
        field(&mut bytes, &(trade.quantity as i64).to_be_bytes());
        if all {
            field(&mut bytes, &(trade.event_time + 700_000).to_be_bytes());
            field(&mut bytes, &i16::from(trade.buy).to_be_bytes());
            field(&mut bytes, &(trade.id as i64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&(-1i16).to_be_bytes());
    let mut copy = connection.copy_in_raw(COPY).await?;
    copy.send(bytes).await?;
    copy.finish().await?;
    Ok(())
}

/// One prepared INSERT is one commit. Numbers go as text, which is how money is kept exact without a decimal type.
async fn insert(connection: &mut PgConnection, trades: &[Trade]) -> Result<(), Problem> {
    let mut query: QueryBuilder<Postgres> =
        QueryBuilder::new("INSERT INTO ticks (symbol, exchange, price, quantity, event_time) ");
    query.push_values(trades, |mut row, trade| {
        row.push_bind(symbol(trade.instrument)).push_bind("BENCH");
        row.push_bind(format!("{}.{:02}", trade.price / 100, trade.price % 100)).push_unseparated("::NUMERIC");
        row.push_bind(format!("{}.{:03}", trade.quantity / 1_000, trade.quantity % 1_000))
            .push_unseparated("::NUMERIC");
        row.push("to_timestamp(").push_bind_unseparated(trade.event_time as f64 / 1e9).push_unseparated(")");
    });
    query.build().execute(connection).await?;
    Ok(())
}
