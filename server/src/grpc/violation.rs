//! Fields that break their rule, collected over a whole request before it is refused.

use std::fmt::{self, Display};

use super::error::Refusal;

/// How many violations a refusal names; the rest is only counted.
pub const MAX_VIOLATIONS: usize = 20;

/// A field path or a description is cut here, so that twenty of them fit the 4 KiB of details.
const MAX_TEXT_BYTES: usize = 200;

/// A field that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path from the request, as in `rows.ticks[17].price`.
    pub field: String,
    /// What the rule is, in words.
    pub description: String,
}

/// The first violations of a request, and how many there are.
///
/// Values pass through [`Violations::take`], so that one look finds all that is wrong:
///
/// ```text
/// let symbol = violations.take("symbol", Symbol::new(&request.symbol));
/// let limit = violations.take("page_size", page::size(request.page_size));
/// let (Some(symbol), Some(limit)) = (symbol, limit) else {
///     return Err(violations.refuse());
/// };
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    first: Vec<Violation>,
    total: u64,
}

impl Violations {
    /// Counts a violation, and keeps it if it is among the first.
    pub fn add(&mut self, field: impl Display, description: impl Display) {
        self.total += 1;
        if self.first.len() < MAX_VIOLATIONS {
            self.first.push(Violation { field: cut(field.to_string()), description: cut(description.to_string()) });
        }
    }

    /// The value, or `None` and a violation.
    #[inline]
    pub fn take<T, E: Display>(&mut self, field: impl Display, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(field, error);
                None
            }
        }
    }

    /// Whether every field keeps its rule so far.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// How many there are, also beyond those that are kept.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The first [`MAX_VIOLATIONS`].
    pub fn first(&self) -> &[Violation] {
        &self.first
    }

    /// Refuses the call, INVALID_ARGUMENT with reason FIELD_INVALID.
    pub fn refuse(self) -> Refusal {
        Refusal::fields(self)
    }

    /// Refuses the call if there is any violation.
    pub fn check(self) -> Result<(), Refusal> {
        if self.is_empty() { Ok(()) } else { Err(self.refuse()) }
    }

    /// Gives up the last one that is kept, to save space; false if none is left.
    pub(super) fn drop_last(&mut self) -> bool {
        self.first.pop().is_some()
    }
}

/// The first violation in words, and how many others there are.
impl Display for Violations {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Violation { field, description }) = self.first.first() else {
            return out.write_str("no field breaks its rule");
        };
        write!(out, "{field}: {description}")?;
        match self.total - 1 {
            0 => Ok(()),
            others => write!(out, " (and {others} more)"),
        }
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}
