//! Symbols and venues: short names from a fixed alphabet, case-sensitive.

use std::fmt;
use std::sync::Arc;

/// Longest symbol in bytes.
pub const MAX_SYMBOL_BYTES: usize = 64;

/// Longest venue in bytes.
pub const MAX_VENUE_BYTES: usize = 32;

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameInvalid {
    /// No characters.
    #[error("must not be empty")]
    Empty,
    /// More bytes than the limit.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// A byte outside the alphabet.
    #[error("byte {position} is not one of A-Z a-z 0-9 . _ - : ^ = $ +{}", if *.slash { " /" } else { "" })]
    Character {
        /// Offset of the first refused byte.
        position: usize,
        /// Whether the alphabet has a slash (symbols do, venues do not).
        slash: bool,
    },
}

fn check(text: &[u8], longest: usize, slash: bool) -> Result<(), NameInvalid> {
    if text.is_empty() {
        return Err(NameInvalid::Empty);
    }
    if text.len() > longest {
        return Err(NameInvalid::TooLong(longest));
    }
    for (position, byte) in text.iter().enumerate() {
        let allowed = byte.is_ascii_alphanumeric() || b"._-:^=$+".contains(byte) || (slash && *byte == b'/');
        if !allowed {
            return Err(NameInvalid::Character { position, slash });
        }
    }
    Ok(())
}

/// What is traded, as its venue names it: 1 to 64 bytes of `A-Z a-z 0-9 . _ - / : ^ = $ +`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(Arc<str>);

/// Where it is traded: 1 to 32 bytes of the alphabet of symbols without the slash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Venue(Arc<str>);

impl Symbol {
    /// Checks length and alphabet.
    pub fn new(text: &str) -> Result<Symbol, NameInvalid> {
        check(text.as_bytes(), MAX_SYMBOL_BYTES, true)?;
        Ok(Symbol(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Venue {
    /// Checks length and alphabet.
    pub fn new(text: &str) -> Result<Venue, NameInvalid> {
        check(text.as_bytes(), MAX_VENUE_BYTES, false)?;
        Ok(Venue(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Display for Venue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Venue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet_and_length() {
        assert!(Symbol::new("BRK.B/x:^=$+_-9").is_ok());
        assert_eq!(Symbol::new(""), Err(NameInvalid::Empty));
        assert_eq!(Symbol::new(&"A".repeat(64)).map(|symbol| symbol.as_str().len()), Ok(64));
        assert_eq!(Symbol::new(&"A".repeat(65)), Err(NameInvalid::TooLong(64)));
        assert_eq!(Symbol::new("A B"), Err(NameInvalid::Character { position: 1, slash: true }));
        assert_eq!(Symbol::new("caf\u{e9}"), Err(NameInvalid::Character { position: 3, slash: true }));
        assert_eq!(Symbol::new("*"), Err(NameInvalid::Character { position: 0, slash: true }));
        assert_eq!(Venue::new("A/B"), Err(NameInvalid::Character { position: 1, slash: false }));
        assert_eq!(Venue::new(&"V".repeat(33)), Err(NameInvalid::TooLong(32)));
    }
}
