//! ListMovingAverages: pages of averages over the last N ticks or bars.

use crate::grpc::convert::{bar, cursor, page, subject};
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::query::moving::MOST_WINDOW;
use crate::query::{MovingMethod, MovingPage, MovingPoint, MovingRequest, Query};

pub(super) async fn list_moving_averages(
    query: &Query,
    request: proto::ListMovingAveragesRequest,
) -> Result<proto::ListMovingAveragesResponse, Refusal> {
    let request = MovingRequest::try_from(request)?;
    let MovingPage { points, next_page_token, as_of, now } = query.moving_averages(&request).await?;
    let points = points.into_iter().map(|MovingPoint { end, log_seq, average, price }| proto::MovingAveragePoint {
        end_time: Some(end.into()),
        log_seq,
        average_price: average,
        price: Some(price.into()),
    });
    Ok(proto::ListMovingAveragesResponse {
        points: points.collect(),
        next_page_token: next_page_token.unwrap_or_default(),
        as_of: as_of.into(),
        now: Some(now.into()),
    })
}

impl TryFrom<proto::ListMovingAveragesRequest> for MovingRequest {
    type Error = Refusal;

    fn try_from(request: proto::ListMovingAveragesRequest) -> Result<MovingRequest, Refusal> {
        let proto::ListMovingAveragesRequest {
            venue,
            symbol,
            start_time,
            end_time,
            period,
            min_cursor,
            method,
            window_count,
            bar_interval,
            decimals,
            page_size,
            page_token,
        } = request;
        let mut violations = Violations::default();
        let subject = subject::subject(&mut violations, &venue, &symbol);
        let span = subject::span(&mut violations, start_time, end_time, period)?;
        let method = violations.take("method", read_method(method));
        let window = violations.take("window_count", read_window(window_count));
        let bars = match bar_interval {
            Some(wire) => bar::interval(&mut violations, "bar_interval", Some(wire)).map(Some),
            None => Some(None),
        };
        let decimals = violations.take("decimals", subject::decimals(decimals));
        let page_size = violations.take("page_size", page::size(page_size));
        let min_cursor = cursor::optional("min_cursor", &min_cursor)?;
        let (Some(subject), Some(span), Some(method), Some(window), Some(bars), Some(decimals), Some(page_size)) =
            (subject, span, method, window, bars, decimals, page_size)
        else {
            return Err(violations.refuse());
        };
        Ok(MovingRequest {
            subject,
            span,
            method,
            window,
            bars,
            decimals,
            page_size,
            page_token: Some(page_token).filter(|token| !token.is_empty()),
            min_cursor,
        })
    }
}

/// A window that cannot be averaged over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must lie in 1 to {MOST_WINDOW}")]
struct WindowInvalid;

fn read_window(wire: i32) -> Result<usize, WindowInvalid> {
    usize::try_from(wire).ok().filter(|count| (1..=MOST_WINDOW).contains(count)).ok_or(WindowInvalid)
}

fn read_method(wire: i32) -> Result<MovingMethod, &'static str> {
    use proto::MovingAverageMethod as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::Unspecified | Wire::Simple) => Ok(MovingMethod::Simple),
        Ok(Wire::Exponential) => Ok(MovingMethod::Exponential),
        Err(_) => Err("not a value of MovingAverageMethod"),
    }
}
