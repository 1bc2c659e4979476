//! Messages of rows.

use std::sync::Arc;

use bytes::BytesMut;

use super::{AROUND_TICKS, MAX_MESSAGE_BYTES, Messages, ROWS};
use crate::domain::{Instrument, Tick};
use crate::grpc::convert::tick;
use crate::grpc::error::Refusal;
use crate::query::{Key, Query, Stretch};

/// The tag of `TickBatch.ticks`.
const TICKS: u32 = 1;

/// A message of rows in the making.
#[derive(Debug)]
pub(super) struct Rows {
    query: Arc<Query>,
    /// Neighbours usually share their instrument.
    named: Option<Arc<Instrument>>,
    bytes: BytesMut,
    /// The key of the last row in `bytes`.
    last: Option<Key>,
    row: BytesMut,
}

impl Rows {
    pub(super) fn new(query: Arc<Query>) -> Rows {
        Rows { query, named: None, bytes: BytesMut::new(), last: None, row: BytesMut::new() }
    }

    pub(super) fn push(&mut self, stretch: Stretch<'_>, messages: &mut Messages) -> Result<(), Refusal> {
        match stretch {
            Stretch::Chunk(chunk, range) => {
                range.map(|index| chunk.tick(index)).try_for_each(|tick| self.add(&tick, messages))
            }
            Stretch::Hot(hot) => hot.ticks().try_for_each(|tick| self.add(tick, messages)),
        }
    }

    fn add(&mut self, tick: &Tick, messages: &mut Messages) -> Result<(), Refusal> {
        let known = self.named.take().filter(|known| known.id == tick.instrument);
        let known = known.or_else(|| self.query.registry().get(tick.instrument));
        let instrument = known.ok_or_else(|| super::nameless(tick.instrument))?;
        self.row.clear();
        prost::encoding::message::encode(TICKS, &tick::row(tick, &instrument), &mut self.row);
        self.named = Some(instrument);
        if self.bytes.len() + self.row.len() > MAX_MESSAGE_BYTES - AROUND_TICKS
            && let Some(last) = self.last
        {
            messages.push(ROWS, &[&self.bytes], last);
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(&self.row);
        self.last = Some(tick.key());
        Ok(())
    }

    pub(super) fn end(&mut self, messages: &mut Messages) {
        match self.last {
            Some(last) if !self.bytes.is_empty() => messages.end(Some((ROWS, &[&self.bytes], last))),
            _ => messages.end(None),
        }
    }
}
