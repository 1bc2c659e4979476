//! GetInstrument: one instrument by name.

use crate::domain::Venue;
use crate::grpc::convert::{cursor, name};
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::query::Query;

pub(super) async fn get_instrument(
    query: &Query,
    request: proto::GetInstrumentRequest,
) -> Result<proto::GetInstrumentResponse, Refusal> {
    let proto::GetInstrumentRequest { venue, symbol, min_cursor } = request;
    let mut violations = Violations::default();
    let venue = violations.take("venue", Venue::new(&venue));
    let symbol = violations.take("symbol", name::symbol(&symbol));
    let min_cursor = cursor::optional("min_cursor", &min_cursor)?;
    let (Some(venue), Some(symbol)) = (venue, symbol) else {
        return Err(violations.refuse());
    };
    let (facts, as_of) = query.instrument(venue, symbol, min_cursor).await?;
    Ok(proto::GetInstrumentResponse { instrument: Some(facts.into()), as_of: as_of.into() })
}
