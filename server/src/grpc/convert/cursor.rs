//! Cursors on the wire: opaque bytes.

use bytes::Bytes;

use crate::domain::Cursor;
use crate::grpc::error::Refusal;

/// The cursor of a field that must have one.
pub fn required(field: &str, bytes: &[u8]) -> Result<Cursor, Refusal> {
    Cursor::decode(bytes).map_err(|_| Refusal::cursor_invalid(field))
}

/// The cursor of a field that may be empty.
pub fn optional(field: &str, bytes: &[u8]) -> Result<Option<Cursor>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    required(field, bytes).map(Some)
}

impl From<Cursor> for Bytes {
    fn from(cursor: Cursor) -> Bytes {
        Bytes::copy_from_slice(&cursor.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Epoch;
    use crate::grpc::proto::ErrorReason;

    #[test]
    fn cursors_come_back_or_are_refused() {
        let cursor = Cursor { epoch: Epoch(7), position: 42 };
        let bytes = Bytes::from(cursor);
        assert_eq!(required("cursor", &bytes).unwrap(), cursor);
        assert_eq!(optional("min_cursor", &[]).unwrap(), None);
        for broken in [&b"x"[..], &bytes[..19], &[0; 20], &[0; 64]] {
            let refusal = optional("min_cursor", broken).unwrap_err();
            assert_eq!(refusal.reason(), ErrorReason::CursorInvalid);
            assert!(refusal.message().starts_with("min_cursor: "));
        }
        assert_eq!(required("cursor", &[]).unwrap_err().reason(), ErrorReason::CursorInvalid);
    }
}
