//! Exact arithmetic for oracles: decimals as whole numbers of 10^-9 in an `i128`.
//!
//! It shares nothing with the server, on purpose, and is as plain as can be. Nine decimals and values far below the
//! limits of an `i128` are enough for every file and workload of the tests; what does not fit panics.

use tapefeed_proto::v1 as proto;

/// Decimals that a unit stands for.
pub const DECIMALS: u32 = 9;

/// One, in units.
pub const ONE: i128 = 10i128.pow(DECIMALS);

/// Reads a decimal text.
pub fn units(text: &str) -> i128 {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    assert!(fraction.len() <= DECIMALS as usize, "{text} has more decimals than the oracle");
    let digits = format!("{whole}{fraction:0<width$}", width = DECIMALS as usize);
    sign * digits.parse::<i128>().expect("the text holds digits")
}

/// Writes units without trailing zeros.
pub fn text(units: i128) -> String {
    text_at(units, DECIMALS)
}

/// Writes a whole number of 10^-`decimals` without trailing zeros.
pub fn text_at(value: i128, decimals: u32) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let one = 10u128.pow(decimals);
    let (whole, fraction) = (value.unsigned_abs() / one, value.unsigned_abs() % one);
    plain(&format!("{sign}{whole}.{fraction:0width$}", width = decimals as usize))
}

/// A decimal text without trailing zeros after the point: the form in which texts are compared.
pub fn plain(text: &str) -> String {
    if !text.contains('.') {
        return text.to_owned();
    }
    let trimmed = text.trim_end_matches('0').trim_end_matches('.');
    if trimmed == "-0" { "0".to_owned() } else { trimmed.to_owned() }
}

/// Reads a decimal of the contract.
pub fn of_decimal(decimal: &proto::Decimal) -> i128 {
    let shift = DECIMALS as i32 + decimal.exponent;
    let shift = u32::try_from(shift).expect("the decimal has no more decimals than the oracle");
    i128::from(decimal.mantissa) * 10i128.pow(shift)
}

/// A decimal of the contract from units, in canonical form.
pub fn to_decimal(units: i128) -> proto::Decimal {
    let (mut mantissa, mut exponent) = (units, -(DECIMALS as i32));
    while mantissa != 0 && mantissa % 10 == 0 {
        mantissa /= 10;
        exponent += 1;
    }
    if mantissa == 0 {
        exponent = 0;
    }
    let mantissa = i64::try_from(mantissa).expect("the value fits a mantissa");
    proto::Decimal { mantissa, exponent }
}

/// The quotient, rounded to the nearest whole number, ties to the even one.
pub fn half_even(numerator: i128, denominator: i128) -> i128 {
    assert!(denominator > 0, "a mean of nothing");
    let floor = numerator.div_euclid(denominator);
    let twice = 2 * numerator.rem_euclid(denominator);
    let up = twice > denominator || (twice == denominator && floor % 2 != 0);
    floor + i128::from(up)
}

/// Sums over ticks, one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// How many ticks.
    pub count: u64,
    /// The sum of prices, in units.
    pub price: i128,
    /// The sum of quantities, in units.
    pub volume: i128,
    /// The sum of price times quantity, in units of 10^-18.
    pub notional: i128,
    /// The lowest price.
    pub low: Option<i128>,
    /// The highest price.
    pub high: Option<i128>,
}

impl Sums {
    /// Adds one tick.
    pub fn add(&mut self, price: i128, quantity: Option<i128>) {
        self.count += 1;
        self.price += price;
        if let Some(quantity) = quantity {
            self.volume += quantity;
            self.notional += price * quantity;
        }
        self.low = Some(self.low.map_or(price, |low| low.min(price)));
        self.high = Some(self.high.map_or(price, |high| high.max(price)));
    }

    /// The mean price to nine decimals.
    pub fn mean(&self) -> Option<String> {
        (self.count > 0).then(|| text(half_even(self.price, i128::from(self.count))))
    }

    /// The volume-weighted mean price to nine decimals.
    pub fn vwap(&self) -> Option<String> {
        (self.volume > 0).then(|| text(half_even(self.notional, self.volume)))
    }

    /// The row of a reference table: count, mean, VWAP, low, high, volume.
    pub fn row(&self) -> [String; 6] {
        let price = |units: Option<i128>| units.map(text).unwrap_or_default();
        [
            self.count.to_string(),
            self.mean().unwrap_or_default(),
            self.vwap().unwrap_or_default(),
            price(self.low),
            price(self.high),
            text(self.volume),
        ]
    }
}

/// The same row from an answer of the server.
pub fn row_of(answer: &proto::GetPriceStatisticsResponse) -> [String; 6] {
    let price = |point: &Option<proto::PricePoint>| {
        let decimal = point.as_ref().and_then(|point| point.price.as_ref());
        decimal.map(|decimal| text(of_decimal(decimal))).unwrap_or_default()
    };
    [
        answer.tick_count.to_string(),
        plain(answer.mean.as_deref().unwrap_or_default()),
        plain(answer.vwap.as_deref().unwrap_or_default()),
        price(&answer.lowest),
        price(&answer.highest),
        plain(&answer.volume),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_units_agree() {
        for (written, read, plainly) in [
            ("1", ONE, "1"),
            ("61837.63000000", 61_837_630_000_000, "61837.63"),
            ("-0.5", -ONE / 2, "-0.5"),
            ("0.000000001", 1, "0.000000001"),
            ("0", 0, "0"),
            ("100", 100 * ONE, "100"),
        ] {
            assert_eq!(units(written), read, "{written}");
            assert_eq!(text(read), plainly);
            assert_eq!(plain(written), plainly);
            assert_eq!(of_decimal(&to_decimal(read)), read);
        }
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        for (numerator, denominator, quotient) in
            [(5, 2, 2), (7, 2, 4), (-5, 2, -2), (-7, 2, -4), (8, 3, 3), (-8, 3, -3), (7, 3, 2), (6, 3, 2)]
        {
            assert_eq!(half_even(numerator, denominator), quotient, "{numerator}/{denominator}");
        }
    }

    #[test]
    fn means_of_three_ticks() {
        let mut sums = Sums::default();
        sums.add(units("1"), Some(units("2")));
        sums.add(units("2"), None);
        sums.add(units("2"), Some(units("1")));
        let row = ["3", "1.666666667", "1.333333333", "1", "2", "3"];
        assert_eq!(sums.row(), row.map(str::to_owned));
    }
}
