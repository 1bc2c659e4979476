//! Named cases of single calls.
