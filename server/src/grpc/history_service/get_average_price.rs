//! GetAveragePrice: MEAN, VWAP or TWAP.

use std::time::Duration;

use crate::grpc::convert::{cursor, subject, sums, time};
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::query::average::TimeWeighted;
use crate::query::{Average, AverageMethod, AverageRequest, Query};

pub(super) async fn get_average_price(
    query: &Query,
    request: proto::GetAveragePriceRequest,
) -> Result<proto::GetAveragePriceResponse, Refusal> {
    let request = AverageRequest::try_from(request)?;
    let Average { price, sums, first_event_time, last_event_time, time_weighted, now, as_of } =
        query.average(&request).await?;
    let (time_weight, time_weighted_sum) = match time_weighted {
        Some(TimeWeighted { weight, sum }) => {
            (Some(time::wire_span(Duration::from_nanos(weight))), sums::time_weighted(sum))
        }
        None => (None, String::new()),
    };
    Ok(proto::GetAveragePriceResponse {
        average_price: price,
        method: wire_method(request.method).into(),
        tick_count: sums.count,
        price_sum: sums::sum(sums.price_sum),
        volume: sums::sum(sums.volume),
        notional: sums::notional(sums.notional),
        first_event_time: first_event_time.map(Into::into),
        last_event_time: last_event_time.map(Into::into),
        time_weight,
        time_weighted_sum,
        now: Some(now.into()),
        as_of: as_of.into(),
    })
}

impl TryFrom<proto::GetAveragePriceRequest> for AverageRequest {
    type Error = Refusal;

    fn try_from(request: proto::GetAveragePriceRequest) -> Result<AverageRequest, Refusal> {
        let proto::GetAveragePriceRequest { venue, symbol, start_time, end_time, period, min_cursor, method, decimals } =
            request;
        let mut violations = Violations::default();
        let subject = subject::subject(&mut violations, &venue, &symbol);
        let span = subject::span(&mut violations, start_time, end_time, period)?;
        let method = violations.take("method", read_method(method));
        let decimals = violations.take("decimals", subject::decimals(decimals));
        let min_cursor = cursor::optional("min_cursor", &min_cursor)?;
        let (Some(subject), Some(span), Some(method), Some(decimals)) = (subject, span, method, decimals) else {
            return Err(violations.refuse());
        };
        Ok(AverageRequest { subject, span, method, decimals, min_cursor })
    }
}

fn read_method(wire: i32) -> Result<AverageMethod, &'static str> {
    use proto::AverageMethod as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::Unspecified | Wire::Mean) => Ok(AverageMethod::Mean),
        Ok(Wire::Vwap) => Ok(AverageMethod::VolumeWeighted),
        Ok(Wire::Twap) => Ok(AverageMethod::TimeWeighted),
        Err(_) => Err("not a value of AverageMethod"),
    }
}

fn wire_method(method: AverageMethod) -> proto::AverageMethod {
    match method {
        AverageMethod::Mean => proto::AverageMethod::Mean,
        AverageMethod::VolumeWeighted => proto::AverageMethod::Vwap,
        AverageMethod::TimeWeighted => proto::AverageMethod::Twap,
    }
}
