//! The registry of instruments.

use sqlx::SqliteConnection;

use super::failure::Failure;
use super::rows;
use super::writer::Writer;
use crate::domain::{Instrument, InstrumentId, Symbol, Venue};
use crate::store::StoreError;

/// Adds those of `$1` that are not known, in the order of their first mention, and answers with every one's id.
const REGISTER: &str = "
    INSERT INTO instruments (id, venue, symbol, create_time)
        SELECT
            (SELECT ifnull(max(id), 0) FROM instruments) + row_number() OVER (ORDER BY wanted.number),
            wanted.venue, wanted.symbol, $2
        FROM (
            SELECT min(key) AS number, value ->> 0 AS venue, value ->> 1 AS symbol
            FROM json_each($1)
            GROUP BY 2, 3
        ) AS wanted
        WHERE NOT EXISTS (
            SELECT 1
            FROM instruments
            WHERE instruments.venue = wanted.venue AND instruments.symbol = wanted.symbol
        );
    SELECT instruments.id
        FROM json_each($1) AS wanted
        JOIN instruments
            ON instruments.venue = wanted.value ->> 0 AND instruments.symbol = wanted.value ->> 1
        ORDER BY wanted.key";

impl Writer {
    pub(super) async fn register(&mut self, wanted: Vec<(Venue, Symbol)>) -> Result<Vec<Instrument>, StoreError> {
        self.begin().await?;
        let registered = self.register_all(wanted).await;
        self.end(registered).await
    }

    async fn register_all(&mut self, wanted: Vec<(Venue, Symbol)>) -> Result<Vec<Instrument>, Failure> {
        let now = self.clock.now();
        let mut names = String::from("[");
        for (venue, symbol) in &wanted {
            // The alphabets of names have nothing to escape.
            let comma = if names.len() > 1 { "," } else { "" };
            names.push_str(&format!(r#"{comma}["{venue}","{symbol}"]"#));
        }
        names.push(']');
        let ids: Vec<i64> = sqlx::query_scalar(REGISTER)
            .bind(names) // $1 names as JSON: [[venue, symbol]]
            .bind(now.nanos()) // $2 create_time
            .fetch_all(self.connection().await?)
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

pub(super) async fn list(connection: &mut SqliteConnection, after: InstrumentId) -> Result<Vec<Instrument>, Failure> {
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
