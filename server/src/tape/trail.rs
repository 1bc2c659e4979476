//! Where a hub has been: positions and the chains at them, for finding the last place that two histories share.

use std::collections::VecDeque;

use crate::store::{Chain, Store, StoreError};

/// Marks that a trail keeps at most: 24 bytes each.
const MARKS: usize = 2_048;

/// The newest marks, which are never thinned out.
const DENSE: usize = 1_024;

/// Positions with the chains at them, ascending. Dense near the head, ever sparser behind it, so that a trail of bounded
/// length reaches back to where its hub began.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    marks: VecDeque<(u64, Chain)>,
}

impl Trail {
    /// A trail that begins at a position.
    pub(super) fn beginning(position: u64, chain: Chain) -> Trail {
        Trail { marks: VecDeque::from([(position, chain)]) }
    }

    /// Goes on to a position.
    pub(super) fn push(&mut self, position: u64, chain: Chain) {
        if self.marks.len() == MARKS {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index > MARKS - DENSE || index % 2 == 1
            });
        }
        self.marks.push_back((position, chain));
    }

    /// The last of the marks that a store has too. Everything up to it is the same there, because a chain covers all
    /// that lies before it. 0 when no mark can be found any more: then nothing is known to be the same.
    pub(super) async fn shared_with(&self, store: &dyn Store) -> Result<u64, StoreError> {
        let head = store.head().await?;
        for &(position, chain) in self.marks.iter().rev().filter(|(position, _)| *position <= head.position) {
            let same = if position == head.position {
                chain == head.chain
            } else if position == 0 {
                true
            } else {
                let page = store.segments(position - 1, 1).await?;
                let segment = page.segments.first();
                segment.is_some_and(|segment| segment.last_seq() == position && segment.chain == chain)
            };
            if same {
                return Ok(position);
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_is_bounded_dense_near_its_head_and_reaches_back_to_its_beginning() {
        let mut trail = Trail::beginning(7, [0; 16]);
        for position in 8..100_000 {
            trail.push(position, [1; 16]);
        }
        assert!(trail.marks.len() <= MARKS);
        assert_eq!(trail.marks.front(), Some(&(7, [0; 16])));
        let newest: Vec<u64> = trail.marks.iter().rev().take(DENSE).map(|mark| mark.0).collect();
        assert!(newest.iter().eq((100_000 - DENSE as u64..100_000).rev().collect::<Vec<_>>().iter()));
        assert!(trail.marks.iter().zip(trail.marks.iter().skip(1)).all(|(a, b)| a.0 < b.0));
    }
}
