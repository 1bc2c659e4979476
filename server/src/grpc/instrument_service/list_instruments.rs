//! ListInstruments: pages of instruments.

use crate::grpc::convert::{cursor, name, page};
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::query::{InstrumentPage, InstrumentsRequest, Query, Selector};

pub(super) async fn list_instruments(
    query: &Query,
    request: proto::ListInstrumentsRequest,
) -> Result<proto::ListInstrumentsResponse, Refusal> {
    let request = InstrumentsRequest::try_from(request)?;
    let InstrumentPage { instruments, next_page_token, as_of } = query.list_instruments(&request).await?;
    Ok(proto::ListInstrumentsResponse {
        instruments: instruments.into_iter().map(Into::into).collect(),
        next_page_token: next_page_token.unwrap_or_default(),
        as_of: as_of.into(),
    })
}

impl TryFrom<proto::ListInstrumentsRequest> for InstrumentsRequest {
    type Error = Refusal;

    fn try_from(request: proto::ListInstrumentsRequest) -> Result<InstrumentsRequest, Refusal> {
        let proto::ListInstrumentsRequest { venue, symbol, page_size, page_token, min_cursor } = request;
        // Here, unlike in a selector, an empty symbol means all.
        let symbol = if symbol.is_empty() { "*" } else { &symbol };
        let mut violations = Violations::default();
        let venue = violations.take("venue", name::venue_or_all(&venue));
        let symbol = violations.take("symbol", name::symbol_or_all(symbol));
        let page_size = violations.take("page_size", page::size(page_size));
        let min_cursor = cursor::optional("min_cursor", &min_cursor)?;
        let (Some(venue), Some(symbol), Some(page_size)) = (venue, symbol, page_size) else {
            return Err(violations.refuse());
        };
        Ok(InstrumentsRequest {
            selector: Selector { venue, symbol },
            page_size,
            page_token: Some(page_token).filter(|token| !token.is_empty()),
            min_cursor,
        })
    }
}
