//! Scalars of JSON as they are written: a number stays text until it is a decimal, and is never a float.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::value;
use crate::domain::{Decimal, DecimalInvalid};

/// A value that is no object and no array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scalar<'a> {
    Text(Cow<'a, str>),
    /// As written.
    Number(&'a str),
    True,
    False,
    /// An object, an array, or text with escapes that mean nothing.
    Other,
}

impl<'a> Scalar<'a> {
    pub(super) fn of(raw: &'a RawValue) -> Scalar<'a> {
        let written = raw.get();
        match written.as_bytes().first() {
            Some(b'"') if written.contains('\\') => match serde_json::from_str::<String>(written) {
                Ok(text) => Scalar::Text(text.into()),
                Err(_) => Scalar::Other,
            },
            Some(b'"') => Scalar::Text(written[1..written.len() - 1].into()),
            Some(b'-' | b'0'..=b'9') => Scalar::Number(written),
            Some(b't') => Scalar::True,
            Some(b'f') => Scalar::False,
            _ => Scalar::Other,
        }
    }
}

/// Text of a value that must be text.
pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    match Scalar::of(raw) {
        Scalar::Text(text) => Some(text),
        _ => None,
    }
}

/// A decimal, as text or as a number.
pub(super) fn decimal(raw: &RawValue) -> Result<Decimal, DecimalInvalid> {
    match Scalar::of(raw) {
        Scalar::Text(text) => value::decimal(text.as_bytes()),
        Scalar::Number(written) => number(written),
        _ => Err(DecimalInvalid::Syntax),
    }
}

/// Numbers of JSON may have an exponent, which decimals as text may not: many programs write small ones so.
fn number(written: &str) -> Result<Decimal, DecimalInvalid> {
    let Some((digits, power)) = written.split_once(['e', 'E']) else {
        return value::decimal(written.as_bytes());
    };
    let digits = value::decimal(digits.as_bytes())?;
    let power: i32 = match power.parse() {
        Ok(power) => power,
        Err(_) if power.starts_with('-') => i32::MIN / 2,
        Err(_) => i32::MAX / 2,
    };
    Decimal::new(digits.mantissa(), i32::from(digits.exponent()).saturating_add(power))
}

/// Whole numbers and text, as identifiers are written.
pub(super) fn identifier(raw: &RawValue) -> Option<Cow<'_, str>> {
    match Scalar::of(raw) {
        Scalar::Text(text) => Some(text),
        Scalar::Number(written) if !written.contains(['.', 'e', 'E']) => Some(written.into()),
        _ => None,
    }
}

/// Reads an object. Without the look at its first byte, a list of the same values in order would do too.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    let json = json.trim_ascii_start();
    match json.first() {
        Some(b'{') => serde_json::from_slice(json).map_err(|error| error.to_string()),
        _ => Err("it does not begin with a brace".to_owned()),
    }
}

/// A line without the mark that some programs put before the first one of a file.
pub(super) fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(json: &str) -> Box<RawValue> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn decimals_are_exact_as_text_and_as_numbers() {
        for (json, expected) in [
            (r#""61837.63000000""#, Ok("61837.63")),
            ("61837.63000000", Ok("61837.63")),
            ("0.1", Ok("0.1")),
            ("123456789012345.678", Ok("123456789012345.678")),
            ("-5", Ok("-5")),
            ("1e-8", Ok("0.00000001")),
            ("1.5E+3", Ok("1500")),
            ("0e99999999999", Ok("0")),
            ("1e99999999999", Err(DecimalInvalid::TooLarge)),
            ("1e-99999999999", Err(DecimalInvalid::TooFine)),
            ("1e15", Err(DecimalInvalid::TooLarge)),
            (r#""1e5""#, Err(DecimalInvalid::Syntax)),
            (r#""1.\u0035""#, Ok("1.5")),
            (r#""""#, Err(DecimalInvalid::Syntax)),
            ("true", Err(DecimalInvalid::Syntax)),
            ("[1]", Err(DecimalInvalid::Syntax)),
            ("null", Err(DecimalInvalid::Syntax)),
        ] {
            assert_eq!(decimal(&raw(json)).map(|value| value.to_string()), expected.map(str::to_owned), "{json}");
        }
    }

    #[test]
    fn identifiers_are_text_or_whole_numbers() {
        for (json, expected) in
            [("37", Some("37")), (r#""a\"b""#, Some("a\"b")), ("1.5", None), ("1e3", None), ("{}", None)]
        {
            assert_eq!(identifier(&raw(json)).as_deref(), expected, "{json}");
        }
        assert_eq!(text(&raw(r#""\ud800""#)), None, "half a character");
    }

    proptest! {
        #[test]
        fn numbers_and_text_agree(number in "-?(0|[1-9][0-9]{0,10})(\\.[0-9]{1,10})?") {
            let as_text = format!("\"{number}\"");
            prop_assert_eq!(decimal(&raw(&number)), decimal(&raw(&as_text)));
        }
    }
}
