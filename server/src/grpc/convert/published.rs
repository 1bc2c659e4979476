//! What venues publish, on its way out. Values that stand for nothing are left out: the contract knows no sentinel.

use crate::domain::date::{Date, LAST_DAY};
use crate::domain::{Decimal, InstrumentDetails, PublishedBar, PublishedBarKey};
use crate::grpc::proto;

impl From<PublishedBar> for proto::PublishedBar {
    fn from(bar: PublishedBar) -> proto::PublishedBar {
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
        let unless_zero = |value: Decimal| (value != Decimal::ZERO).then(|| value.into());
        proto::PublishedBar {
            date: Date(day).to_string(),
            market: market.into(),
            term_days: (term != 0).then_some(term.into()),
            board: board.into(),
            open_price: Some(open.into()),
            high_price: Some(high.into()),
            low_price: Some(low.into()),
            average_price: Some(average.into()),
            close_price: Some(close.into()),
            bid_price: unless_zero(bid),
            ask_price: unless_zero(ask),
            trade_count,
            quantity: Some(quantity.into()),
            value: Some(value.into()),
            quote_factor,
            strike_price: unless_zero(strike),
            strike_points: unless_zero(strike_points),
            expiry_date: (expiry_day < LAST_DAY).then(|| Date(expiry_day).to_string()),
            strike_correction: strike_correction.into(),
            distribution: distribution.into(),
        }
    }
}

impl From<InstrumentDetails> for proto::InstrumentDetails {
    fn from(details: InstrumentDetails) -> proto::InstrumentDetails {
        let InstrumentDetails { day, isin, issuer, share_class, currency } = details;
        proto::InstrumentDetails {
            isin: isin.into(),
            issuer: issuer.into(),
            share_class: share_class.into(),
            currency: currency.into(),
            as_of_date: Date(day).to_string(),
        }
    }
}
