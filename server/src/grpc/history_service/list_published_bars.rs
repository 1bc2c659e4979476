//! ListPublishedBars: pages of the daily bars that a venue published.

use std::ops::Range;

use crate::domain::Venue;
use crate::domain::date::{self, LAST_DAY};
use crate::grpc::convert::{name, page};
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::query::{PublishedBarPage, PublishedBarsRequest, Query};

pub(super) async fn list_published_bars(
    query: &Query,
    request: proto::ListPublishedBarsRequest,
) -> Result<proto::ListPublishedBarsResponse, Refusal> {
    let request = PublishedBarsRequest::try_from(request)?;
    let PublishedBarPage { bars, next_page_token } = query.published_bars(&request).await?;
    Ok(proto::ListPublishedBarsResponse {
        published_bars: bars.into_iter().map(Into::into).collect(),
        next_page_token: next_page_token.unwrap_or_default(),
    })
}

impl TryFrom<proto::ListPublishedBarsRequest> for PublishedBarsRequest {
    type Error = Refusal;

    fn try_from(request: proto::ListPublishedBarsRequest) -> Result<PublishedBarsRequest, Refusal> {
        let proto::ListPublishedBarsRequest { venue, symbol, start_date, end_date, page_size, page_token } = request;
        let mut violations = Violations::default();
        let venue = violations.take("venue", Venue::new(&venue));
        let symbol = violations.take("symbol", name::symbol(&symbol));
        let days = days(&mut violations, start_date, end_date)?;
        let page_size = violations.take("page_size", page::size(page_size));
        let (Some(venue), Some(symbol), Some(days), Some(page_size)) = (venue, symbol, days, page_size) else {
            return Err(violations.refuse());
        };
        let page_token = Some(page_token).filter(|token| !token.is_empty());
        Ok(PublishedBarsRequest { venue, symbol, days, page_size, page_token })
    }
}

/// The days of a request; `None` if a violation was added.
fn days(
    violations: &mut Violations,
    start_date: Option<String>,
    end_date: Option<String>,
) -> Result<Option<Range<u32>>, Refusal> {
    let mut bound = |field: &str, text: &Option<String>, unbounded| match text {
        None => Some(unbounded),
        Some(text) => violations.take(field, date::parse(text)),
    };
    let start = bound("start_date", &start_date, 0);
    let end = bound("end_date", &end_date, LAST_DAY + 1);
    let (Some(start), Some(end)) = (start, end) else {
        return Ok(None);
    };
    if end < start {
        return Err(Refusal::dates_inverted(start, end));
    }
    Ok(Some(start..end))
}
