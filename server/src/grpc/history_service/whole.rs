//! A codec for answers with thousands of items.
//!
//! Tonic's buffer takes an answer byte by byte, each with a check for room and growing as it goes, which costs more than
//! everything else about a page. Here an answer comes as its bytes, in one piece.

use std::marker::PhantomData;

use bytes::BufMut as _;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// Protobuf: questions are read, answers are the bytes of their messages.
#[derive(Debug)]
pub(super) struct Whole<Question>(PhantomData<Question>);

impl<Question> Default for Whole<Question> {
    fn default() -> Self {
        Whole(PhantomData)
    }
}

impl<Question: Message + Default + Send + 'static> Codec for Whole<Question> {
    type Encode = Vec<u8>;
    type Decode = Question;
    type Encoder = WholeEncoder;
    type Decoder = ProstDecoder<Question>;

    fn encoder(&mut self) -> WholeEncoder {
        WholeEncoder
    }

    fn decoder(&mut self) -> ProstDecoder<Question> {
        ProstCodec::<(), Question>::default().decoder()
    }
}

/// The half that writes.
#[derive(Debug)]
pub(super) struct WholeEncoder;

impl Encoder for WholeEncoder {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, answer: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(answer.len());
        out.put_slice(&answer);
        Ok(())
    }
}
