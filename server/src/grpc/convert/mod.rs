//! The door: wire values in, domain values out, and the way back.
//!
//! One file for each noun. What comes in is checked here and nowhere else; past this module no value can be invalid.
//! What breaks a rule is collected as [`super::violation::Violations`] under the path of its field. What goes out is
//! destructured, so that a new field of the domain breaks the build until the contract has it.
//! Start with [`rows`]: it meets every other noun.

pub mod bar;
pub mod columns;
pub mod cursor;
pub mod decimal;
pub mod instrument;
pub mod name;
pub mod page;
pub mod published;
pub mod range;
pub mod rows;
pub mod source;
pub mod subject;
pub mod sums;
pub mod tick;
pub mod time;
