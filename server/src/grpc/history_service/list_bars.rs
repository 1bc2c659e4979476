//! ListBars: pages of bars.

use prost::Message as _;

use crate::grpc::convert::bar::{self, BarWriter};
use crate::grpc::convert::{cursor, page, subject};
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::query::bars::MOST_LAST;
use crate::query::{BarPage, BarsRequest, Query};

/// Field number of `ListBarsResponse.bars`.
const BARS: u8 = 1;

/// What a bar takes with short names and the numbers of most venues.
const USUAL_BAR_BYTES: usize = 176;

/// The bytes of a `ListBarsResponse`.
pub(super) async fn list_bars(query: &Query, request: proto::ListBarsRequest) -> Result<Vec<u8>, Refusal> {
    let (request, decimals) = read(request)?;
    let BarPage { bars, instrument, next_page_token, as_of, now } = query.bars(&request).await?;
    let around = proto::ListBarsResponse {
        bars: Vec::new(),
        next_page_token: next_page_token.unwrap_or_default(),
        as_of: as_of.into(),
        now: Some(now.into()),
    };
    let mut writer = BarWriter::new(&request.subject.symbol, instrument.as_deref(), decimals);
    let mut bytes = Vec::with_capacity(bars.len() * USUAL_BAR_BYTES + around.encoded_len());
    bars.iter().for_each(|bar| writer.put(BARS, bar, &mut bytes));
    around.encode_raw(&mut bytes);
    Ok(bytes)
}

fn read(request: proto::ListBarsRequest) -> Result<(BarsRequest, u8), Refusal> {
    let proto::ListBarsRequest {
        venue,
        symbol,
        start_time,
        end_time,
        period,
        min_cursor,
        interval,
        last_count,
        include_forming,
        fill,
        decimals,
        page_size,
        page_token,
    } = request;
    let mut violations = Violations::default();
    let subject = subject::subject(&mut violations, &venue, &symbol);
    let span = subject::span(&mut violations, start_time, end_time, period)?;
    let interval = bar::interval(&mut violations, "interval", interval);
    let last_count = violations.take("last_count", read_last_count(last_count));
    let fill = violations.take("fill", bar::fill(fill));
    let decimals = violations.take("decimals", subject::decimals(decimals));
    let page_size = violations.take("page_size", page::size(page_size));
    let min_cursor = cursor::optional("min_cursor", &min_cursor)?;
    let (Some(subject), Some(span), Some(interval), Some(last_count), Some(fill), Some(decimals), Some(page_size)) =
        (subject, span, interval, last_count, fill, decimals, page_size)
    else {
        return Err(violations.refuse());
    };
    let request = BarsRequest {
        subject,
        span,
        interval,
        last_count,
        include_forming,
        fill,
        page_size,
        page_token: Some(page_token).filter(|token| !token.is_empty()),
        min_cursor,
    };
    Ok((request, decimals))
}

/// A count that cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must lie in 0 to {MOST_LAST}; 0 asks for all of the range")]
struct LastCountInvalid;

fn read_last_count(wire: i32) -> Result<Option<usize>, LastCountInvalid> {
    match usize::try_from(wire) {
        Ok(0) => Ok(None),
        Ok(count) if count <= MOST_LAST => Ok(Some(count)),
        _ => Err(LastCountInvalid),
    }
}
