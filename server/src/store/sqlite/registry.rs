//! The registry of instruments.

use sqlx::SqliteConnection;

use super::failure::Failure;
use super::rows;
use super::writer::Writer;
use crate::domain::{Instrument, InstrumentId, Symbol, Venue};
use crate::store::StoreError;

const FIND: &str = "
    SELECT id
    FROM instruments
    WHERE venue = $1 AND symbol = $2";

const ADD: &str = "
    INSERT INTO instruments (id, venue, symbol, create_time)
        SELECT ifnull(max(id), 0) + 1, $1, $2, $3
        FROM instruments
        RETURNING id";

impl Writer {
    pub(super) async fn register(
        &mut self,
        wanted: Vec<(Venue, Symbol)>,
    ) -> Result<Vec<Instrument>, StoreError> {
        self.begin().await?;
        let registered = self.register_each(wanted).await;
        self.end(registered).await
    }

    async fn register_each(
        &mut self,
        wanted: Vec<(Venue, Symbol)>,
    ) -> Result<Vec<Instrument>, Failure> {
        let now = self.clock.now();
        let connection = self.connection().await?;
        let mut answer = Vec::with_capacity(wanted.len());
        for (venue, symbol) in wanted {
            let known: Option<i64> = sqlx::query_scalar(FIND)
                .bind(venue.as_str().to_owned()) // $1 venue
                .bind(symbol.as_str().to_owned()) // $2 symbol
                .fetch_optional(&mut *connection)
                .await?;
            let id = match known {
                Some(id) => id,
                None => {
                    sqlx::query_scalar(ADD)
                        .bind(venue.as_str().to_owned()) // $1 venue
                        .bind(symbol.as_str().to_owned()) // $2 symbol
                        .bind(now.nanos()) // $3 create_time
                        .fetch_one(&mut *connection)
                        .await?
                }
            };
            let id = InstrumentId(rows::count_from_sql(id, "instruments", id)?);
            answer.push(Instrument { id, venue, symbol });
        }
        Ok(answer)
    }
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

pub(super) async fn list(
    connection: &mut SqliteConnection,
    after: InstrumentId,
) -> Result<Vec<Instrument>, Failure> {
    let found: Vec<InstrumentRow> = sqlx::query_as(LIST)
        .bind(i64::from(after.0)) // $1 id
        .fetch_all(connection)
        .await?;
    let instrument = |row: InstrumentRow| {
        let invalid = |_| {
            rows::damaged(
                "instruments",
                row.id.to_string(),
                "a name is not one of the alphabet",
            )
        };
        Ok(Instrument {
            id: InstrumentId(rows::count_from_sql(row.id, "instruments", row.id)?),
            venue: Venue::new(&row.venue).map_err(invalid)?,
            symbol: Symbol::new(&row.symbol).map_err(invalid)?,
        })
    };
    found.into_iter().map(instrument).collect()
}
