//! `PublishTicksRequest` as it comes in.
//!
//! What a publisher sends a million times is read here: a batch with one set of columns, each of them packed and in one
//! piece, as every encoder writes it. Prost would look for its place in the buffer at each number, let arrays grow, and
//! make a text of each trade id. Whatever is written otherwise, or damaged, is left to prost.

use bytes::Buf as _;
use prost::Message as _;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::domain::varint::{Reader, unzigzag};
use crate::domain::{TradeId, TradeIdInvalid};
use crate::grpc::convert::columns::Columns;
use crate::grpc::proto;

/// What a publisher says.
#[derive(Debug)]
pub enum Incoming {
    /// A batch of columns.
    Columns {
        /// Its number.
        batch_seq: u64,
        /// Its ticks.
        columns: Columns,
    },
    /// Anything, also columns.
    Other(proto::PublishTicksRequest),
}

type Prost = ProstCodec<proto::PublishTicksResponse, proto::PublishTicksRequest>;

/// Protobuf, with columns read by ourselves.
#[derive(Debug, Default)]
pub struct IncomingCodec(Prost);

impl Codec for IncomingCodec {
    type Encode = proto::PublishTicksResponse;
    type Decode = Incoming;
    type Encoder = ProstEncoder<proto::PublishTicksResponse>;
    type Decoder = IncomingDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> IncomingDecoder {
        IncomingDecoder(self.0.decoder())
    }
}

/// The half that reads.
#[derive(Debug)]
pub struct IncomingDecoder(ProstDecoder<proto::PublishTicksRequest>);

impl Decoder for IncomingDecoder {
    type Item = Incoming;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Incoming>, Status> {
        let length = source.remaining();
        let whole = Some(source.chunk()).filter(|chunk| chunk.len() == length);
        if let Some(incoming) = whole.and_then(request) {
            source.advance(length);
            return Ok(Some(incoming));
        }
        Ok(self.0.decode(source)?.map(Incoming::Other))
    }
}

/// The wire types of Protobuf.
const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;

/// A field's number and wire type, as they stand before it.
const fn tag(field: u64, wire_type: u64) -> u64 {
    field << 3 | wire_type
}

/// A request that is nothing but a batch of columns; `None` leaves it to prost.
fn request(message: &[u8]) -> Option<Incoming> {
    const BATCH: u64 = tag(2, LENGTH_DELIMITED);
    const BATCH_SEQ: u64 = tag(1, VARINT);
    const COLUMNS: u64 = tag(3, LENGTH_DELIMITED);
    let mut reader = Reader::new(message);
    let mut batch = (reader.varint()? == BATCH).then(|| delimited(&mut reader))?.map(Reader::new)?;
    let (mut batch_seq, mut found) = (0, None);
    while !batch.is_empty() {
        match batch.varint()? {
            BATCH_SEQ => batch_seq = batch.varint()?,
            COLUMNS if found.is_none() => found = Some(columns(delimited(&mut batch)?)?),
            _ => return None,
        }
    }
    let columns = found.filter(|_| reader.is_empty())?;
    Some(Incoming::Columns { batch_seq, columns })
}

fn columns(message: &[u8]) -> Option<Columns> {
    const INSTRUMENTS: u64 = tag(1, LENGTH_DELIMITED);
    const INSTRUMENT_INDEX: u64 = tag(2, LENGTH_DELIMITED);
    const EVENT_TIME: u64 = tag(3, LENGTH_DELIMITED);
    const RECEIVE_TIME: u64 = tag(4, LENGTH_DELIMITED);
    const PRICE: u64 = tag(5, LENGTH_DELIMITED);
    const QUANTITY: u64 = tag(6, LENGTH_DELIMITED);
    const SIDE: u64 = tag(7, LENGTH_DELIMITED);
    const TRADE_ID: u64 = tag(8, LENGTH_DELIMITED);
    const ACTION: u64 = tag(11, LENGTH_DELIMITED);
    let mut arrays = proto::TickColumns::default();
    let mut trade_ids = Vec::new();
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        match reader.varint()? {
            INSTRUMENTS => arrays.instruments.push(proto::ColumnInstrument::decode(delimited(&mut reader)?).ok()?),
            INSTRUMENT_INDEX => packed(&mut reader, &mut arrays.instrument_index, |value| value as u32)?,
            EVENT_TIME => packed(&mut reader, &mut arrays.event_time_unix_nano_delta, unzigzag)?,
            RECEIVE_TIME => packed(&mut reader, &mut arrays.receive_time_unix_nano_delta, unzigzag)?,
            PRICE => packed(&mut reader, &mut arrays.price_mantissa, unzigzag)?,
            QUANTITY => packed(&mut reader, &mut arrays.quantity, |value| value)?,
            SIDE => packed(&mut reader, &mut arrays.side, |value| value as i32)?,
            TRADE_ID => {
                if trade_ids.is_empty() {
                    trade_ids.reserve(arrays.instrument_index.len());
                }
                trade_ids.push(trade_id(delimited(&mut reader)?)?);
            }
            ACTION => packed(&mut reader, &mut arrays.action, |value| value as i32)?,
            _ => return None,
        }
    }
    Some(Columns { arrays, trade_ids })
}

/// The bytes of a field that says its length.
#[inline]
fn delimited<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = reader.length(reader.rest().len())?;
    reader.bytes(length)
}

/// Reads all elements of an array, which come at once or not at all.
fn packed<T>(reader: &mut Reader<'_>, array: &mut Vec<T>, element: impl Fn(u64) -> T) -> Option<()> {
    let bytes = delimited(reader)?;
    if !array.is_empty() {
        return None;
    }
    // Each number ends with the only byte of it that is below 128.
    array.reserve_exact(bytes.iter().filter(|byte| **byte < 0x80).count());
    let mut elements = Reader::new(bytes);
    while !elements.is_empty() {
        array.push(element(elements.varint()?));
    }
    Some(())
}

/// A trade id; `None` if it is no text.
#[inline]
fn trade_id(bytes: &[u8]) -> Option<Result<TradeId, TradeIdInvalid>> {
    match TradeId::number(bytes) {
        Some(number) => Some(Ok(number)),
        None => std::str::from_utf8(bytes).ok().map(TradeId::new),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;
    use proto::publish_batch::Content;
    use proto::publish_ticks_request::Message;

    use super::*;

    fn batch(batch_seq: u64, content: Content) -> proto::PublishTicksRequest {
        let batch = proto::PublishBatch { batch_seq, content: Some(content) };
        proto::PublishTicksRequest { message: Some(Message::Batch(batch)) }
    }

    /// What prost makes of a message, in the form of what is read here.
    fn by_prost(message: &[u8]) -> Option<(u64, Columns)> {
        match proto::PublishTicksRequest::decode(message).ok()?.message? {
            Message::Batch(proto::PublishBatch { batch_seq, content: Some(Content::Columns(columns)) }) => {
                Some((batch_seq, columns.into()))
            }
            _ => None,
        }
    }

    fn by_us(message: &[u8]) -> Option<(u64, Columns)> {
        match request(message)? {
            Incoming::Columns { batch_seq, columns } => Some((batch_seq, columns)),
            Incoming::Other(other) => panic!("only columns are read here, not {other:?}"),
        }
    }

    fn same(one: (u64, Columns), other: (u64, Columns)) -> bool {
        one.0 == other.0 && one.1.arrays == other.1.arrays && one.1.trade_ids == other.1.trade_ids
    }

    fn instrument() -> impl Strategy<Value = proto::ColumnInstrument> {
        (any::<u32>(), ".{0,8}", ".{0,8}", any::<i32>(), any::<i32>()).prop_map(
            |(instrument_id, venue, symbol, price_exponent, quantity_exponent)| proto::ColumnInstrument {
                instrument_id,
                venue,
                symbol,
                price_exponent,
                quantity_exponent,
            },
        )
    }

    /// Numbers of every length.
    fn number() -> impl Strategy<Value = i64> {
        (any::<i64>(), 0u32..64).prop_map(|(value, shift)| value >> shift)
    }

    prop_compose! {
        fn published()(
            instruments in prop::collection::vec(instrument(), 0..4),
            instrument_index in prop::collection::vec(any::<u32>(), 0..20),
            event_time_unix_nano_delta in prop::collection::vec(number(), 0..20),
            receive_time_unix_nano_delta in prop::collection::vec(number(), 0..20),
            price_mantissa in prop::collection::vec(number(), 0..20),
            quantity in prop::collection::vec(any::<u64>(), 0..20),
            side in prop::collection::vec(any::<i32>(), 0..20),
            trade_id in prop::collection::vec("[0-9]{0,21}|.{0,66}", 0..20),
            action in prop::collection::vec(-1i32..5, 0..20),
        ) -> proto::TickColumns {
            proto::TickColumns {
                instruments,
                instrument_index,
                event_time_unix_nano_delta,
                receive_time_unix_nano_delta,
                price_mantissa,
                quantity,
                side,
                trade_id,
                action,
                ..proto::TickColumns::default()
            }
        }
    }

    proptest! {
        #[test]
        fn columns_are_read_as_prost_reads_them(columns in published(), batch_seq: u64) {
            let message = batch(batch_seq, Content::Columns(columns)).encode_to_vec();
            let (ours, prosts) = (by_us(&message), by_prost(&message));
            prop_assert!(same(ours.expect("every encoder writes it so"), prosts.expect("it is a batch of columns")));
        }

        /// Whatever is read here of damaged bytes, prost reads too, and the same.
        #[test]
        fn damage_is_never_read_otherwise(
            columns in published(),
            changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
            cut in prop::option::of(any::<Index>()),
        ) {
            let mut message = batch(7, Content::Columns(columns)).encode_to_vec();
            for (at, byte) in changes {
                let at = at.index(message.len());
                message[at] = byte;
            }
            if let Some(cut) = cut {
                message.truncate(cut.index(message.len()));
            }
            if let Some(ours) = by_us(&message) {
                prop_assert!(by_prost(&message).is_some_and(|prosts| same(ours, prosts)));
            }
        }
    }

    #[test]
    fn what_is_written_otherwise_is_left_to_prost() {
        let plain = proto::TickColumns { instrument_index: vec![0, 0], ..proto::TickColumns::default() };
        let columns = batch(1, Content::Columns(plain.clone())).encode_to_vec();
        assert!(by_us(&columns).is_some());
        let rows = batch(1, Content::Rows(proto::TickBatch::default())).encode_to_vec();
        let claim = Message::Claim(proto::ProducerClaim { producer_id: "feed".into(), backfill: false, held_fence: 0 });
        let claim = proto::PublishTicksRequest { message: Some(claim) }.encode_to_vec();
        let numbered = proto::TickColumns { log_seq_delta: vec![1, 1], ..plain };
        let numbered = batch(1, Content::Columns(numbered)).encode_to_vec();
        for message in [
            &[][..],
            &rows,
            &claim,
            &numbered,
            &[&columns[..], &columns].concat(),
            &[&columns[..], &[0x18, 1]].concat(),
        ] {
            assert!(by_us(message).is_none(), "{message:?}");
        }
    }
}
