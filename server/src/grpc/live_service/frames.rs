//! Messages of ticks as bytes: a gRPC prefix, the cursor, and rows or columns.
//!
//! What everybody reads is made once for each block and shared; who reads some of it copies rows out of it. What is
//! written here by hand is exactly what prost writes for `SubscribeTicksResponse`, and tests hold it to that.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::domain::block::Rows;
use crate::domain::{Block, Cursor, Epoch, Tick};
use crate::grpc::convert::{columns, tick};
use crate::grpc::proto;
use crate::tape::Registry;

/// The largest message of a stream.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// What a message has beside its rows at most: the cursor and the lengths.
const AROUND_ROWS: usize = 64;

/// Ticks that are tried as one message of columns first.
pub(super) const COLUMN_TICKS: usize = 2_048;

/// Shared bytes shorter than this are copied: each piece costs the connection half a microsecond.
const COPIED_BYTES: usize = 4 << 10;

/// Tags of `SubscribeTicksResponse`: cursor, rows, columns; and of `TickBatch`: ticks. All are length-delimited.
const CURSOR: u8 = 1 << 3 | 2;
const ROWS: u8 = 3 << 3 | 2;
const COLUMNS: u8 = 4 << 3 | 2;
const TICKS: u32 = 1;

/// Bytes on their way to one connection: shared ones as they are, small ones together.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    ready: VecDeque<Bytes>,
    /// A short shared piece that nothing has followed so far: if nothing does, it leaves as it is.
    alone: Option<Bytes>,
    open: BytesMut,
    bytes: usize,
}

/// Bytes of a piece at least. h2 ends a connection over frames that nobody has read yet, and counts 256 bytes less its
/// length for each that is smaller than that; in the smallest window even 171 are not enough. A reader that pauses must
/// not lose its stream because little happens.
const SMALLEST_PIECE: usize = 256;

/// The field that is filler in small messages: reserved in the contract, and passed over by all who read it.
const FILLER: u32 = 15;

/// Fills a piece up to the smallest one, inside its last message.
fn fill(piece: &mut BytesMut) {
    let Some(missing) = SMALLEST_PIECE.checked_sub(piece.len()).filter(|missing| *missing > 0) else { return };
    let length_at = |at: usize| {
        let length = piece[at + 1..at + 5].try_into().expect("a piece holds whole messages");
        u32::from_be_bytes(length) as usize
    };
    let mut last = 0;
    while last + 5 + length_at(last) < piece.len() {
        last += 5 + length_at(last);
    }
    prost::encoding::encode_key(FILLER, prost::encoding::WireType::LengthDelimited, piece);
    let filler = missing.saturating_sub(2);
    prost::encoding::encode_varint(filler as u64, piece);
    piece.resize(piece.len() + filler, 0);
    let length = (piece.len() - last - 5) as u32;
    piece[last + 1..last + 5].copy_from_slice(&length.to_be_bytes());
}

impl Pieces {
    /// Where small messages are written.
    pub(super) fn open(&mut self) -> &mut BytesMut {
        if let Some(alone) = self.alone.take() {
            self.open.extend_from_slice(&alone);
        }
        &mut self.open
    }

    /// Appends bytes that others send too.
    pub(super) fn share(&mut self, bytes: &Bytes) {
        if bytes.len() < COPIED_BYTES {
            if bytes.len() >= SMALLEST_PIECE && self.open.is_empty() && self.alone.is_none() {
                self.alone = Some(bytes.clone());
            } else {
                self.open().extend_from_slice(bytes);
            }
            return;
        }
        self.close();
        self.bytes += bytes.len();
        self.ready.push_back(bytes.clone());
    }

    fn close(&mut self) {
        if let Some(alone) = self.alone.take() {
            self.bytes += alone.len();
            self.ready.push_back(alone);
        }
        if !self.open.is_empty() {
            fill(&mut self.open);
            self.bytes += self.open.len();
            self.ready.push_back(self.open.split().freeze());
        }
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.bytes + self.open.len() + self.alone.as_ref().map_or(0, Bytes::len)
    }

    /// The next bytes.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() {
            self.close();
        }
        let bytes = self.ready.pop_front()?;
        self.bytes -= bytes.len();
        Some(bytes)
    }
}

/// Appends a message with its prefix.
pub(super) fn put_message(out: &mut BytesMut, message: &proto::SubscribeTicksResponse) {
    let length = message.encoded_len();
    put_prefix(out, length);
    out.reserve(length);
    message.encode(out).expect("there is room for the message");
}

fn put_prefix(out: &mut BytesMut, length: usize) {
    // Not compressed.
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("messages are bounded"));
}

/// Appends what a message of ticks has before them: prefix, cursor, tag and length.
fn put_head(out: &mut BytesMut, cursor: Cursor, tag: u8, length: usize) {
    let cursor = cursor.encode();
    let event = 1 + encoded_len_varint(length as u64) + length;
    put_prefix(out, 2 + cursor.len() + event);
    out.put_slice(&[CURSOR, cursor.len() as u8]);
    out.put_slice(&cursor);
    out.put_u8(tag);
    encode_varint(length as u64, out);
}

/// The rows of a block, each with the tag and length that it has in a `TickBatch`.
pub(super) fn rows(block: &Block, registry: &Registry) -> Rows {
    let ticks = &block.entries.ticks;
    let (mut bytes, mut ends) = (BytesMut::with_capacity(ticks.len() * 128), Vec::with_capacity(ticks.len()));
    for tick in ticks {
        // The hub knows every instrument before it shows a tick of it.
        if let Some(instrument) = registry.get(tick.instrument) {
            prost::encoding::message::encode(TICKS, &tick::row(tick, &instrument), &mut bytes);
        }
        ends.push(bytes.len() as u32);
    }
    Rows { bytes: bytes.freeze(), ends }
}

/// Appends messages of some rows of a block. Each continues behind its last row, the last one behind `end`.
pub(super) fn put_rows(
    out: &mut BytesMut,
    block: &Block,
    rows: &Rows,
    indexes: impl ExactSizeIterator<Item = usize> + Clone,
    end: u64,
) {
    let mut rest = indexes;
    while rest.len() > 0 {
        let mut taken = rest.clone();
        let (mut length, mut count, mut position) = (0, 0, end);
        for index in rest.clone() {
            let row = rows.row(index).len();
            if count > 0 && length + row > MAX_MESSAGE_BYTES - AROUND_ROWS {
                position = block.entries.ticks[index].log_seq - 1;
                break;
            }
            (length, count) = (length + row, count + 1);
        }
        put_head(out, Cursor { epoch: block.epoch, position }, ROWS, length);
        out.reserve(length);
        for index in taken.by_ref().take(count) {
            out.put_slice(rows.row(index));
        }
        rest = taken;
    }
}

/// The messages of a block for those who read everything in rows.
pub(super) fn row_messages(block: &Block, registry: &Registry) -> Bytes {
    let made;
    let rows = match block.encodings.rows.get() {
        Some(rows) => rows,
        None => {
            made = rows(block, registry);
            &made
        }
    };
    let mut out = BytesMut::with_capacity(rows.bytes.len() + AROUND_ROWS);
    put_rows(&mut out, block, rows, 0..block.entries.ticks.len(), block.last_seq());
    out.freeze()
}

/// Appends messages of ticks of one log in columns; halves of them where the whole is too large. A tick alone always
/// fits. Each continues behind its last tick, the last one behind `end`.
pub(super) fn put_columns(out: &mut BytesMut, epoch: Epoch, ticks: &[Tick], end: u64) {
    let mut rest = ticks;
    while !rest.is_empty() {
        let (mut part, mut later) = rest.split_at(rest.len().min(COLUMN_TICKS));
        let mut message = columns::wire(part, &[]);
        while part.len() > 1 && message.encoded_len() > MAX_MESSAGE_BYTES - AROUND_ROWS {
            (part, later) = rest.split_at(part.len() / 2);
            message = columns::wire(part, &[]);
        }
        let position = later.first().map_or(end, |next| next.log_seq - 1);
        let length = message.encoded_len();
        put_head(out, Cursor { epoch, position }, COLUMNS, length);
        out.reserve(length);
        message.encode(out).expect("there is room for the message");
        rest = later;
    }
}

/// The messages of a block for those who read everything in columns.
pub(super) fn column_messages(block: &Block) -> Bytes {
    let mut out = BytesMut::with_capacity(block.entries.ticks.len() * 16 + AROUND_ROWS);
    put_columns(&mut out, block.epoch, &block.entries.ticks, block.last_seq());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::grpc::live_service::route::split;
    use crate::grpc::proto;
    use crate::grpc::proto::subscribe_ticks_response::Event;

    #[test]
    fn small_pieces_are_filled_and_say_the_same() {
        for count in 1..8 {
            let mut pieces = Pieces::default();
            let mut sent = Vec::new();
            for log_seq in 0..count {
                let event = Event::Progress(proto::Progress { log_seq: log_seq << 20, server_time: None });
                let message = proto::SubscribeTicksResponse { cursor: vec![9; 20].into(), event: Some(event) };
                let open = pieces.open();
                open.extend_from_slice(&[0]);
                open.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
                message.encode(open).unwrap();
                sent.push(message);
            }
            let bare = pieces.len();
            let piece = pieces.pop().unwrap();
            assert!(piece.len() >= SMALLEST_PIECE && piece.len() <= bare.max(SMALLEST_PIECE + 2), "{}", piece.len());
            let read: Vec<_> = split(piece).into_iter().map(Result::unwrap).collect();
            assert_eq!(read, sent);
            assert!(pieces.pop().is_none());
        }
    }

    #[test]
    fn a_shared_piece_alone_is_not_copied_and_several_leave_as_one() {
        let shared: Vec<Bytes> =
            (0..3u8).map(|value| vec![value; SMALLEST_PIECE + usize::from(value)].into()).collect();
        let mut pieces = Pieces::default();
        pieces.share(&shared[0]);
        assert_eq!(pieces.len(), shared[0].len());
        let alone = pieces.pop().unwrap();
        assert!(alone.as_ptr() == shared[0].as_ptr() && alone == shared[0] && pieces.pop().is_none());
        shared.iter().for_each(|bytes| pieces.share(bytes));
        assert_eq!((pieces.pop().unwrap(), pieces.len()), (Bytes::from(shared.concat()), 0));
        // What is long leaves as it is, behind what was before it.
        let long = Bytes::from(vec![9; COPIED_BYTES]);
        pieces.share(&shared[1]);
        pieces.share(&long);
        pieces.share(&shared[2]);
        let order = [&shared[1], &long, &shared[2]];
        assert!(order.into_iter().all(|bytes| pieces.pop().unwrap().as_ptr() == bytes.as_ptr()));
        assert!(pieces.pop().is_none());
    }
}
