//! ListTicks: pages of ticks.

use crate::grpc::convert::{cursor, page, subject};
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::query::{Order, Query, TickPage, TicksRequest};

use super::rows;

pub(super) async fn list_ticks(
    query: &Query,
    request: proto::ListTicksRequest,
) -> Result<proto::ListTicksResponse, Refusal> {
    let request = TicksRequest::try_from(request)?;
    let TickPage { ticks, next_page_token, as_of, now } = query.ticks(&request).await?;
    Ok(proto::ListTicksResponse {
        ticks: rows(query, &ticks)?,
        next_page_token: next_page_token.unwrap_or_default(),
        as_of: as_of.into(),
        now: Some(now.into()),
    })
}

impl TryFrom<proto::ListTicksRequest> for TicksRequest {
    type Error = Refusal;

    fn try_from(request: proto::ListTicksRequest) -> Result<TicksRequest, Refusal> {
        let proto::ListTicksRequest {
            venue,
            symbol,
            start_time,
            end_time,
            period,
            min_cursor,
            order,
            page_size,
            page_token,
        } = request;
        let mut violations = Violations::default();
        let subject = subject::subject(&mut violations, &venue, &symbol);
        let span = subject::span(&mut violations, start_time, end_time, period)?;
        let order = violations.take("order", read_order(order));
        let page_size = violations.take("page_size", page::size(page_size));
        let min_cursor = cursor::optional("min_cursor", &min_cursor)?;
        let (Some(subject), Some(span), Some(order), Some(page_size)) = (subject, span, order, page_size) else {
            return Err(violations.refuse());
        };
        Ok(TicksRequest {
            subject,
            span,
            order,
            page_size,
            page_token: Some(page_token).filter(|token| !token.is_empty()),
            min_cursor,
        })
    }
}

fn read_order(wire: i32) -> Result<Order, &'static str> {
    match proto::Order::try_from(wire) {
        Ok(proto::Order::Unspecified | proto::Order::Ascending) => Ok(Order::Ascending),
        Ok(proto::Order::Descending) => Ok(Order::Descending),
        Err(_) => Err("not a value of Order"),
    }
}
