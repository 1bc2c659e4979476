//! Named cases of pages.
