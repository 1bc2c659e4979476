//! Page sizes.

/// Items of a page if the request does not say.
pub const DEFAULT_PAGE_SIZE: usize = 1_000;

/// Most items of a page: 10,000 rows of ticks stay below the 4 MiB that clients take.
pub const MAX_PAGE_SIZE: usize = 10_000;

/// A page size below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must not be negative: 0 asks for {DEFAULT_PAGE_SIZE}")]
pub struct PageSizeNegative;

/// How many items a page has at most: zero is the default, too many are brought down.
pub fn size(wire: i32) -> Result<usize, PageSizeNegative> {
    match usize::try_from(wire) {
        Err(_) => Err(PageSizeNegative),
        Ok(0) => Ok(DEFAULT_PAGE_SIZE),
        Ok(size) => Ok(size.min(MAX_PAGE_SIZE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_brought_into_their_bounds() {
        let cases = [
            (0, Ok(1_000)),
            (1, Ok(1)),
            (10_000, Ok(10_000)),
            (10_001, Ok(10_000)),
            (i32::MAX, Ok(10_000)),
            (-1, Err(PageSizeNegative)),
            (i32::MIN, Err(PageSizeNegative)),
        ];
        for (wire, expected) in cases {
            assert_eq!(size(wire), expected, "{wire}");
        }
    }
}
