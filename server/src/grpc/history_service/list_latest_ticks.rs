//! ListLatestTicks: the newest tick of each matching instrument.

use crate::grpc::convert::{cursor, name, tick, time};
use crate::grpc::error::Refusal;
use crate::grpc::limits::MAX_UNARY_SELECTORS;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::query::{Latest, LatestAnswer, Query, Selector};

pub(super) async fn list_latest_ticks(
    query: &Query,
    request: proto::ListLatestTicksRequest,
) -> Result<proto::ListLatestTicksResponse, Refusal> {
    let proto::ListLatestTicksRequest { selectors: asked, min_cursor } = request;
    if asked.len() > MAX_UNARY_SELECTORS {
        let (max, actual) = (MAX_UNARY_SELECTORS as u64, asked.len() as u64);
        return Err(Refusal::limit_exceeded("selectors", max, Some(actual)));
    }
    let mut violations = Violations::default();
    let Some(matches) = name::selectors(&mut violations, &asked) else {
        return Err(violations.refuse());
    };
    let min_cursor = cursor::optional("min_cursor", &min_cursor)?;
    let selectors: Vec<Selector> = matches.into_iter().map(|(venue, symbol)| Selector { venue, symbol }).collect();
    let LatestAnswer { latest, without_data, now, as_of } = query.latest(&selectors, min_cursor).await?;
    let latest = latest.iter().map(|Latest { instrument, tick }| proto::LatestTick {
        tick: Some(tick::row(tick, instrument)),
        age: Some(time::wire_age(now, tick.event_time)),
    });
    Ok(proto::ListLatestTicksResponse {
        latest_ticks: latest.collect(),
        selectors_without_data: without_data.into_iter().map(|index| asked[index].clone()).collect(),
        as_of: as_of.into(),
        now: Some(now.into()),
    })
}
