//! The newest blocks of the log, contiguous by position.
use crate::domain::Block;
use std::sync::Arc;
/// being written
#[derive(Debug)]
pub struct Hub {
    _blocks: Vec<Arc<Block>>,
}
