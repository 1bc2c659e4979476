//! A codec for answers with thousands of items.
//!
//! Tonic's buffer takes an answer byte by byte, each with a check for room and growing as it goes, which costs more than
//! everything else about a page. Here an answer is written into memory of its own length, and handed on in one piece.

use std::marker::PhantomData;

use bytes::BufMut as _;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// Protobuf, answers in one piece.
#[derive(Debug)]
pub(super) struct Whole<Answer, Question>(PhantomData<(Answer, Question)>);

impl<Answer, Question> Default for Whole<Answer, Question> {
    fn default() -> Self {
        Whole(PhantomData)
    }
}

impl<Answer, Question> Codec for Whole<Answer, Question>
where
    Answer: Message + Send + 'static,
    Question: Message + Default + Send + 'static,
{
    type Encode = Answer;
    type Decode = Question;
    type Encoder = WholeEncoder<Answer>;
    type Decoder = ProstDecoder<Question>;

    fn encoder(&mut self) -> WholeEncoder<Answer> {
        WholeEncoder(PhantomData)
    }

    fn decoder(&mut self) -> ProstDecoder<Question> {
        ProstCodec::<Answer, Question>::default().decoder()
    }
}

/// The half that writes.
#[derive(Debug)]
pub(super) struct WholeEncoder<Answer>(PhantomData<Answer>);

impl<Answer: Message + Send + 'static> Encoder for WholeEncoder<Answer> {
    type Item = Answer;
    type Error = Status;

    fn encode(&mut self, answer: Answer, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let bytes = answer.encode_to_vec();
        out.reserve(bytes.len());
        out.put_slice(&bytes);
        Ok(())
    }
}
