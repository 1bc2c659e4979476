//! GetPriceStatistics: count, extremes and means.

use crate::domain::Instrument;
use crate::domain::ratio;
use crate::domain::statistics::PricePoint;
use crate::grpc::convert::{cursor, instrument, subject, sums};
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::query::statistics::PointOwners;
use crate::query::{PriceStatistics, Query, StatisticsRequest};

pub(super) async fn get_price_statistics(
    query: &Query,
    request: proto::GetPriceStatisticsRequest,
) -> Result<proto::GetPriceStatisticsResponse, Refusal> {
    let (request, decimals) = read(request)?;
    let PriceStatistics { totals, owners, now, as_of } = query.price_statistics(&request).await?;
    let PointOwners { first, last, low, high } = owners;
    Ok(proto::GetPriceStatisticsResponse {
        tick_count: totals.count,
        first: point(totals.first, first.as_deref()),
        last: point(totals.last, last.as_deref()),
        highest: point(totals.high, high.as_deref()),
        lowest: point(totals.low, low.as_deref()),
        mean: ratio::mean(totals.price_sum, totals.count, decimals),
        vwap: ratio::vwap(totals.notional, totals.volume, decimals),
        price_sum: sums::sum(totals.price_sum),
        volume: sums::sum(totals.volume),
        notional: sums::notional(totals.notional),
        now: Some(now.into()),
        as_of: as_of.into(),
    })
}

fn point(point: Option<PricePoint>, owner: Option<&Instrument>) -> Option<proto::PricePoint> {
    Some(instrument::point(point?, owner?))
}

fn read(request: proto::GetPriceStatisticsRequest) -> Result<(StatisticsRequest, u8), Refusal> {
    let proto::GetPriceStatisticsRequest { venue, symbol, start_time, end_time, period, min_cursor, decimals } =
        request;
    let mut violations = Violations::default();
    let subject = subject::subject(&mut violations, &venue, &symbol);
    let span = subject::span(&mut violations, start_time, end_time, period)?;
    let decimals = violations.take("decimals", subject::decimals(decimals));
    let min_cursor = cursor::optional("min_cursor", &min_cursor)?;
    let (Some(subject), Some(span), Some(decimals)) = (subject, span, decimals) else {
        return Err(violations.refuse());
    };
    let request = StatisticsRequest { subject, span, min_cursor };
    Ok((request, decimals))
}
