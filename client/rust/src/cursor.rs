//! Cursors: opaque positions of the log.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

/// Standard base64, written with padding and read with or without it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A position of the log: everything up to it has been seen.
///
/// Cursors come from answers (`as_of`), acknowledgements and streams, and go into subscriptions and `min_cursor`. What is
/// inside is the server's matter; a cursor is never empty, carries no rights, and is valid on every replica.
/// Its text form is standard base64, for example in the CLI's `--from-cursor`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cursor(Bytes);

impl Cursor {
    /// Takes the bytes of a cursor that was stored as bytes, or `None` if there are none.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Option<Cursor> {
        let bytes = bytes.into();
        (!bytes.is_empty()).then_some(Cursor(bytes))
    }

    /// The bytes, to store them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn to_wire(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&BASE64.encode(&self.0))
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Cursor({self})")
    }
}

/// A text is not the base64 of a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: give the base64 text as it was printed")]
pub struct CursorInvalid;

impl FromStr for Cursor {
    type Err = CursorInvalid;

    fn from_str(text: &str) -> Result<Cursor, CursorInvalid> {
        let bytes = BASE64.decode(text).map_err(|_| CursorInvalid)?;
        Cursor::from_bytes(bytes).ok_or(CursorInvalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_with_and_without_padding() {
        let cursor = Cursor::from_bytes(vec![1, 2, 3, 250]).unwrap();
        assert_eq!(cursor.to_string(), "AQID+g==");
        assert_eq!("AQID+g==".parse(), Ok(cursor.clone()));
        assert_eq!("AQID+g".parse(), Ok(cursor));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "!", "A", "AQ ID"] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorInvalid), "{text:?}");
        }
        assert_eq!(Cursor::from_bytes(Vec::new()), None);
    }
}
