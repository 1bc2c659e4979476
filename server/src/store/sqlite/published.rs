//! What venues publish beside ticks: bars and details of instruments.
//!
//! A batch of lines holds thousands of them, so one statement takes many rows. That is several times faster than rows
//! made from JSON, as other writes of many rows do it: a bar has 21 columns.

use std::ops::Range;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::failure::Failure;
use super::rows::{self, from_sql, to_sql};
use crate::domain::{Decimal, InstrumentDetails, InstrumentId, Published, PublishedBar, PublishedBarKey};
use crate::store::published::{last_bars, newest_details};

/// Rows of one statement: 21 values each stay below SQLite's bound of 32,766, and full ones share their text.
const ROWS: usize = 500;

/// Stores everything, or nothing if the transaction ends otherwise.
pub(super) async fn store(
    connection: &mut SqliteConnection,
    published: &Published<InstrumentId>,
) -> Result<(), Failure> {
    let bars: Vec<_> = last_bars(published).into_iter().collect();
    for rows in bars.chunks(ROWS) {
        // Only full statements come again: the others are not worth a place in the connection's memory.
        store_bars(rows).build().persistent(rows.len() == ROWS).execute(&mut *connection).await?;
    }
    let details: Vec<_> = newest_details(published).into_iter().collect();
    for rows in details.chunks(ROWS) {
        store_details(rows).build().persistent(rows.len() == ROWS).execute(&mut *connection).await?;
    }
    Ok(())
}

const INSERT_BARS: &str = "
    INSERT INTO published_bars (
            instrument_id, day, market, term,
            open, high, low, average, close, bid, ask, trade_count, quantity, value,
            strike, strike_points, expiry_day, quote_factor, board, strike_correction, distribution
        ) ";

const REPLACE_BARS: &str = "
        ON CONFLICT DO UPDATE SET
            open = excluded.open, high = excluded.high, low = excluded.low, average = excluded.average,
            close = excluded.close, bid = excluded.bid, ask = excluded.ask, trade_count = excluded.trade_count,
            quantity = excluded.quantity, value = excluded.value, strike = excluded.strike,
            strike_points = excluded.strike_points, expiry_day = excluded.expiry_day,
            quote_factor = excluded.quote_factor, board = excluded.board,
            strike_correction = excluded.strike_correction, distribution = excluded.distribution";

/// The statement of some bars: its text depends on their number alone.
fn store_bars(bars: &[((InstrumentId, PublishedBarKey), &PublishedBar)]) -> QueryBuilder<Sqlite> {
    let mut statement = QueryBuilder::new(INSERT_BARS);
    statement.push_values(bars, |mut row, ((instrument, _), bar)| {
        let PublishedBar {
            key: PublishedBarKey { day, market, term },
            open,
            high,
            low,
            average,
            close,
            bid,
            ask,
            trade_count,
            quantity,
            value,
            strike,
            strike_points,
            expiry_day,
            quote_factor,
            board,
            strike_correction,
            distribution,
        } = bar;
        // In the order of the columns.
        for number in [i64::from(instrument.0), (*day).into(), (*market).into(), (*term).into()] {
            row.push_bind(number);
        }
        for price in [open, high, low, average, close, bid, ask] {
            row.push_bind(price.to_string());
        }
        row.push_bind(to_sql(*trade_count));
        for number in [quantity, value, strike, strike_points] {
            row.push_bind(number.to_string());
        }
        row.push_bind(i64::from(*expiry_day));
        row.push_bind(i64::from(*quote_factor));
        for code in [board, strike_correction, distribution] {
            row.push_bind(code.to_string());
        }
    });
    statement.push(REPLACE_BARS);
    statement
}

const INSERT_DETAILS: &str = "
    INSERT INTO instrument_details (instrument_id, day, isin, issuer, share_class, currency) ";

const REPLACE_DETAILS: &str = "
        ON CONFLICT DO UPDATE SET
            day = excluded.day, isin = excluded.isin, issuer = excluded.issuer,
            share_class = excluded.share_class, currency = excluded.currency
            WHERE instrument_details.day <= excluded.day";

/// The statement of some details: its text depends on their number alone.
fn store_details(details: &[(InstrumentId, &InstrumentDetails)]) -> QueryBuilder<Sqlite> {
    let mut statement = QueryBuilder::new(INSERT_DETAILS);
    statement.push_values(details, |mut row, (instrument, details)| {
        let InstrumentDetails { day, isin, issuer, share_class, currency } = details;
        // In the order of the columns.
        row.push_bind(i64::from(instrument.0));
        row.push_bind(i64::from(*day));
        for text in [isin, issuer, share_class, currency] {
            row.push_bind(text.to_string());
        }
    });
    statement.push(REPLACE_DETAILS);
    statement
}

/// A bar as a row.
#[derive(sqlx::FromRow)]
struct BarRow {
    instrument_id: i64,
    day: i64,
    market: i64,
    term: i64,
    open: String,
    high: String,
    low: String,
    average: String,
    close: String,
    bid: String,
    ask: String,
    trade_count: i64,
    quantity: String,
    value: String,
    strike: String,
    strike_points: String,
    expiry_day: i64,
    quote_factor: i64,
    board: String,
    strike_correction: String,
    distribution: String,
}

impl BarRow {
    fn into_bar(self) -> Result<PublishedBar, Failure> {
        let row = format!("{}/{}/{}/{}", self.instrument_id, self.day, self.market, self.term);
        let damaged = |problem: &str| rows::damaged("published_bars", row.as_str(), problem);
        let decimal = |text: String| text.parse::<Decimal>().map_err(|_| damaged("a text is no decimal"));
        let code = |code: i64| u16::try_from(code).map_err(|_| damaged("market or term is too large"));
        let day = |day: i64| u32::try_from(day).map_err(|_| damaged("a day is too large"));
        Ok(PublishedBar {
            key: PublishedBarKey { day: day(self.day)?, market: code(self.market)?, term: code(self.term)? },
            open: decimal(self.open)?,
            high: decimal(self.high)?,
            low: decimal(self.low)?,
            average: decimal(self.average)?,
            close: decimal(self.close)?,
            bid: decimal(self.bid)?,
            ask: decimal(self.ask)?,
            trade_count: from_sql(self.trade_count),
            quantity: decimal(self.quantity)?,
            value: decimal(self.value)?,
            strike: decimal(self.strike)?,
            strike_points: decimal(self.strike_points)?,
            expiry_day: day(self.expiry_day)?,
            quote_factor: u32::try_from(self.quote_factor).map_err(|_| damaged("quote_factor is too large"))?,
            board: self.board.into(),
            strike_correction: self.strike_correction.into(),
            distribution: self.distribution.into(),
        })
    }
}

const LIST_BARS: &str = "
    SELECT *
    FROM published_bars
    WHERE instrument_id = $1 AND day >= $2 AND day < $3 AND (day, market, term) > ($4, $5, $6)
    ORDER BY day, market, term
    LIMIT $7";

pub(super) async fn bars(
    connection: &mut SqliteConnection,
    instrument: InstrumentId,
    days: Range<u32>,
    after: Option<PublishedBarKey>,
    limit: usize,
) -> Result<Vec<PublishedBar>, Failure> {
    let (day, market, term) =
        after.map_or((-1, 0, 0), |after| (after.day.into(), after.market.into(), after.term.into()));
    let found: Vec<BarRow> = sqlx::query_as(LIST_BARS)
        .bind(i64::from(instrument.0)) // $1 instrument_id
        // A page begins where the one before it ended: the index finds that day alone.
        .bind(i64::from(days.start).max(day)) // $2 the first day
        .bind(i64::from(days.end)) // $3 the day behind the last
        .bind(day) // $4 day of the key before; -1 for none
        .bind(market) // $5 market of the key before
        .bind(term) // $6 term of the key before
        .bind(i64::try_from(limit).unwrap_or(i64::MAX)) // $7 at most
        .fetch_all(connection)
        .await?;
    found.into_iter().map(BarRow::into_bar).collect()
}

/// Details as a row.
#[derive(sqlx::FromRow)]
struct DetailsRow {
    instrument_id: i64,
    day: i64,
    isin: String,
    issuer: String,
    share_class: String,
    currency: String,
}

impl DetailsRow {
    fn into_details(self) -> Result<(InstrumentId, InstrumentDetails), Failure> {
        let row = self.instrument_id;
        let instrument = InstrumentId(rows::count_from_sql(row, "instrument_details", row)?);
        let details = InstrumentDetails {
            day: rows::count_from_sql(self.day, "instrument_details", row)?,
            isin: self.isin.into(),
            issuer: self.issuer.into(),
            share_class: self.share_class.into(),
            currency: self.currency.into(),
        };
        Ok((instrument, details))
    }
}

const LIST_DETAILS: &str = "
    SELECT instrument_id, day, isin, issuer, share_class, currency
    FROM instrument_details
    WHERE instrument_id IN (SELECT value FROM json_each($1))
    ORDER BY instrument_id";

pub(super) async fn details(
    connection: &mut SqliteConnection,
    instruments: Vec<InstrumentId>,
) -> Result<Vec<(InstrumentId, InstrumentDetails)>, Failure> {
    let ids: Vec<String> = instruments.iter().map(|id| id.0.to_string()).collect();
    let found: Vec<DetailsRow> = sqlx::query_as(LIST_DETAILS)
        .bind(format!("[{}]", ids.join(","))) // $1 ids as JSON: [instrument_id]
        .fetch_all(connection)
        .await?;
    found.into_iter().map(DetailsRow::into_details).collect()
}
