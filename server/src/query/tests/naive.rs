//! The oracle: answers from a list of raw ticks, in big integers, as the definitions say them.

use num_bigint::{BigInt, Sign};

use crate::domain::{Decimal, I256, InstrumentId, Tick, TimeRange, UnixNanos, ratio};

/// Ticks of instruments up to a position, by (event_time, log_seq).
pub(super) fn known(all: &[Tick], ids: &[InstrumentId], position: u64) -> Vec<Tick> {
    let mut known: Vec<Tick> =
        all.iter().filter(|tick| ids.contains(&tick.instrument) && tick.log_seq <= position).cloned().collect();
    known.sort_by_key(Tick::key);
    known
}

/// Those inside a range.
pub(super) fn inside(known: &[Tick], range: TimeRange) -> Vec<Tick> {
    let inside = known.iter().filter(|tick| range.contains(tick.event_time));
    inside.cloned().collect()
}

/// A decimal in units of 10^-18.
pub(super) fn units(value: Decimal) -> BigInt {
    BigInt::from(value.mantissa()) * BigInt::from(10).pow((value.exponent() + 18) as u32)
}

pub(super) fn big(value: I256) -> BigInt {
    ratio::fixed_point(value, 0).parse().unwrap()
}

pub(super) fn price_sum(ticks: &[Tick]) -> BigInt {
    ticks.iter().map(|tick| units(tick.price)).sum()
}

/// Count of ticks with a quantity above zero, their quantities, and price times quantity.
pub(super) fn volume(ticks: &[Tick]) -> (u64, BigInt, BigInt) {
    let (mut count, mut volume, mut notional) = (0, BigInt::ZERO, BigInt::ZERO);
    for tick in ticks {
        if let Some(quantity) = tick.quantity.filter(|quantity| quantity.is_positive()) {
            count += 1;
            volume += units(quantity);
            notional += units(quantity) * units(tick.price);
        }
    }
    (count, volume, notional)
}

/// Time and price times time over `[start, min(end, now))`, and the price where no time has weight: every price holds
/// from its tick to the next one, whichever of them lie inside the range.
pub(super) fn time_weighted(known: &[Tick], range: TimeRange, now: UnixNanos) -> Option<(BigInt, BigInt, Decimal)> {
    inside(known, range).first()?;
    let begun: Vec<&Tick> = known.iter().filter(|tick| range.end().is_none_or(|end| tick.event_time < end)).collect();
    let last = begun.last()?;
    let end = range.end().unwrap_or(last.event_time).min(now).nanos();
    let start = range.start().map_or(i64::MIN, UnixNanos::nanos);
    let (mut weight, mut sum) = (BigInt::ZERO, BigInt::ZERO);
    for (index, tick) in begun.iter().enumerate() {
        let next = begun.get(index + 1);
        let until = next.map_or(end, |next| next.event_time.nanos().min(end));
        let from = tick.event_time.nanos().max(start);
        if until > from {
            weight += until - from;
            sum += units(tick.price) * (until - from);
        }
    }
    Some((weight, sum, last.price))
}

/// `numerator / denominator * 10^-scale`, rounded half-even, as plain decimal text.
pub(super) fn quotient(numerator: &BigInt, denominator: &BigInt, scale: u32, decimals: u32) -> String {
    let ten = BigInt::from(10);
    let dividend = BigInt::from(numerator.magnitude().clone()) * ten.pow(decimals);
    let divisor = denominator * ten.pow(scale);
    let mut rounded: BigInt = &dividend / &divisor;
    let twice: BigInt = (&dividend - &rounded * &divisor) * 2;
    if twice > divisor || (twice == divisor && &rounded % 2 == BigInt::from(1)) {
        rounded += 1;
    }
    let digits = format!("{rounded:0>width$}", width = decimals as usize + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals as usize);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let negative = numerator.sign() == Sign::Minus && rounded != BigInt::ZERO;
    let sign = if negative { "-" } else { "" };
    format!("{sign}{whole}{point}{fraction}")
}
