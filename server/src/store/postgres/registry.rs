//! The registry of instruments, and the claims of producers.

use sqlx::PgConnection;

use super::failure::Failure;
use super::rows::{self, from_sql, to_sql_at_most};
use super::terms::Terms;
use crate::domain::{Instrument, InstrumentId, Symbol, Venue};
use crate::store::{ProducerClaim, ProducerId};

pub(super) async fn register(
    connection: &mut PgConnection,
    wanted: Vec<(Venue, Symbol)>,
    terms: Terms,
) -> Result<Vec<Instrument>, Failure> {
    let venues: Vec<&str> = wanted.iter().map(|(venue, _)| venue.as_str()).collect();
    let symbols: Vec<&str> = wanted.iter().map(|(_, symbol)| symbol.as_str()).collect();
    let ids: Vec<i64> = sqlx::query_scalar("SELECT register_instruments($1, $2, $3, $4, $5)")
        .bind(terms.check_identity) // $1 whether the database's identity is checked
        .bind(terms.new_epoch) // $2 name of an epoch that would begin
        .bind(terms.now) // $3 the time, or NULL
        .bind(venues) // $4 venue
        .bind(symbols) // $5 symbol
        .fetch_one(connection)
        .await?;
    if ids.len() != wanted.len() {
        return Err(rows::damaged("instruments", "all", "a name that was just added is missing"));
    }
    let instrument = |((venue, symbol), id)| {
        let id = InstrumentId(rows::count_from_sql(id, "instruments", id)?);
        Ok(Instrument { id, venue, symbol })
    };
    wanted.into_iter().zip(ids).map(instrument).collect()
}

#[derive(sqlx::FromRow)]
struct InstrumentRow {
    id: i64,
    venue: String,
    symbol: String,
}

const LIST: &str = "
    SELECT id, venue, symbol
    FROM instruments
    WHERE id > $1
    ORDER BY id";

pub(super) async fn list(connection: &mut PgConnection, after: InstrumentId) -> Result<Vec<Instrument>, Failure> {
    let found: Vec<InstrumentRow> = sqlx::query_as(LIST)
        .bind(i64::from(after.0)) // $1 id
        .fetch_all(connection)
        .await?;
    let instrument = |row: InstrumentRow| {
        let invalid = |_| rows::damaged("instruments", row.id.to_string(), "a name is not one of the alphabet");
        Ok(Instrument {
            id: InstrumentId(rows::count_from_sql(row.id, "instruments", row.id)?),
            venue: Venue::new(&row.venue).map_err(invalid)?,
            symbol: Symbol::new(&row.symbol).map_err(invalid)?,
        })
    };
    found.into_iter().map(instrument).collect()
}

const CLAIM: &str = "
    SELECT granted_fence, granted_after
    FROM claim_or_renew($1, $2, $3, $4, $5)";

pub(super) async fn claim_or_renew(
    connection: &mut PgConnection,
    producer: ProducerId,
    held_fence: Option<u64>,
    terms: Terms,
) -> Result<Option<ProducerClaim>, Failure> {
    let (fence, last_batch_seq): (Option<i64>, Option<i64>) = sqlx::query_as(CLAIM)
        .bind(terms.check_identity) // $1 whether the database's identity is checked
        .bind(terms.new_epoch) // $2 name of an epoch that would begin
        .bind(terms.now) // $3 the time, or NULL
        .bind(producer.as_str()) // $4 id
        .bind(held_fence.map(to_sql_at_most)) // $5 fence that is renewed, or NULL
        .fetch_one(connection)
        .await?;
    Ok(fence.zip(last_batch_seq).map(|(fence, last_batch_seq)| ProducerClaim {
        fence: from_sql(fence),
        last_batch_seq: from_sql(last_batch_seq),
    }))
}
