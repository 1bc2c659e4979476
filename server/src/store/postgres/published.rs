//! What venues publish beside ticks: bars and details of instruments. They are written by the append.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::failure::Failure;
use super::rows::{self, from_sql, text_from_sql, text_to_sql, to_sql};
use crate::domain::{Decimal, InstrumentDetails, InstrumentId, PublishedBar, PublishedBarKey};

/// Bars for `store_published`. Decimals are strings, which the database reads exactly.
pub(super) fn bars_to_json(bars: BTreeMap<(InstrumentId, PublishedBarKey), &PublishedBar>) -> String {
    let bar = |((instrument, _), bar): ((InstrumentId, PublishedBarKey), &PublishedBar)| {
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
        json!({
            "instrument_id": instrument.0,
            "day": day,
            "market": market,
            "term": term,
            "open": open.to_string(),
            "high": high.to_string(),
            "low": low.to_string(),
            "average": average.to_string(),
            "close": close.to_string(),
            "bid": bid.to_string(),
            "ask": ask.to_string(),
            "trade_count": to_sql(*trade_count),
            "quantity": quantity.to_string(),
            "value": value.to_string(),
            "strike": strike.to_string(),
            "strike_points": strike_points.to_string(),
            "expiry_day": expiry_day,
            "quote_factor": quote_factor,
            "board": text_to_sql(board),
            "strike_correction": text_to_sql(strike_correction),
            "distribution": text_to_sql(distribution),
        })
    };
    Value::Array(bars.into_iter().map(bar).collect()).to_string()
}

/// Details for `store_published`.
pub(super) fn details_to_json(details: BTreeMap<InstrumentId, &InstrumentDetails>) -> String {
    let row = |(instrument, details): (InstrumentId, &InstrumentDetails)| {
        let InstrumentDetails { day, isin, issuer, share_class, currency } = details;
        json!({
            "instrument_id": instrument.0,
            "day": day,
            "isin": text_to_sql(isin),
            "issuer": text_to_sql(issuer),
            "share_class": text_to_sql(share_class),
            "currency": text_to_sql(currency),
        })
    };
    Value::Array(details.into_iter().map(row).collect()).to_string()
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
            board: text_from_sql(&self.board).into(),
            strike_correction: text_from_sql(&self.strike_correction).into(),
            distribution: text_from_sql(&self.distribution).into(),
        })
    }
}

const LIST_BARS: &str = "
    SELECT
        instrument_id, day, market, term,
        open::TEXT, high::TEXT, low::TEXT, average::TEXT, close::TEXT, bid::TEXT, ask::TEXT, trade_count,
        quantity::TEXT, value::TEXT, strike::TEXT, strike_points::TEXT, expiry_day, quote_factor,
        board, strike_correction, distribution
    FROM published_bars
    WHERE instrument_id = $1 AND day >= $2 AND day < $3 AND (day, market, term) > ($4, $5, $6)
    ORDER BY day, market, term
    LIMIT $7";

pub(super) async fn bars(
    connection: &mut PgConnection,
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
            isin: text_from_sql(&self.isin).into(),
            issuer: text_from_sql(&self.issuer).into(),
            share_class: text_from_sql(&self.share_class).into(),
            currency: text_from_sql(&self.currency).into(),
        };
        Ok((instrument, details))
    }
}

const LIST_DETAILS: &str = "
    SELECT instrument_id, day, isin, issuer, share_class, currency
    FROM instrument_details
    WHERE instrument_id = ANY ($1)
    ORDER BY instrument_id";

pub(super) async fn details(
    connection: &mut PgConnection,
    instruments: Vec<InstrumentId>,
) -> Result<Vec<(InstrumentId, InstrumentDetails)>, Failure> {
    let ids: Vec<i64> = instruments.iter().map(|id| i64::from(id.0)).collect();
    let found: Vec<DetailsRow> = sqlx::query_as(LIST_DETAILS)
        .bind(ids) // $1 instrument_id
        .fetch_all(connection)
        .await?;
    found.into_iter().map(DetailsRow::into_details).collect()
}
