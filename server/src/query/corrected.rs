//! Views in which nothing is left to correct.
//!
//! What a query reads is what trades are at its position. For almost all instruments that is what the view holds; of the
//! others the hot ticks and the few chunks with a trade that waits for its correction are put right first.

use std::borrow::Cow;
use std::sync::Arc;

use crate::domain::chunk::Chunk;
use crate::domain::{InstrumentId, TimeRange};
use crate::tape::View;

use super::Query;
use super::cache::ChunkError;
use super::keys::Bounds;
use super::scan::{Extent, Scan};

impl Query {
    /// The view with the trades of instruments as they are at a position.
    pub(super) async fn corrected<'v>(
        &self,
        view: &'v View,
        instruments: &[InstrumentId],
        position: u64,
    ) -> Result<Cow<'v, View>, ChunkError> {
        self.corrected_inside(Bounds::of(TimeRange::ALL), view, instruments, position).await
    }

    /// The same for a question that looks at no chunk outside of bounds.
    pub(super) async fn corrected_inside<'v>(
        &self,
        bounds: Bounds,
        view: &'v View,
        instruments: &[InstrumentId],
        position: u64,
    ) -> Result<Cow<'v, View>, ChunkError> {
        if view.corrections().all == 0 {
            return Ok(Cow::Borrowed(view));
        }
        let mut corrected = Vec::new();
        for &instrument in instruments {
            let Some(mut patch) = view.holding(instrument).and_then(|holding| holding.patch(position)) else {
                continue;
            };
            let mut disputed = patch.chunks();
            disputed.retain(|header| bounds.overlaps(header));
            let mut disputed = &disputed[..];
            while !disputed.is_empty() {
                for (header, chunk) in self.chunks.load_part::<Arc<Chunk>>(instrument, &mut disputed).await? {
                    patch.take(header.id, &chunk);
                }
            }
            corrected.push((instrument, patch.finish()));
        }
        Ok(if corrected.is_empty() { Cow::Borrowed(view) } else { Cow::Owned(view.with(corrected)) })
    }

    /// A scan over trades as they are at the position of its extent.
    pub(super) async fn scan(
        &self,
        view: &View,
        instruments: &[InstrumentId],
        extent: Extent,
    ) -> Result<Scan, ChunkError> {
        let view = self.corrected_inside(extent.bounds(), view, instruments, extent.position).await?;
        Ok(Scan::new(&view, instruments, extent))
    }
}
