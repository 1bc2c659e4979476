//! ReadTicks: a range in bulk.
//!
//! Reading and encoding happen in a task of their own, a few messages ahead of the connection, which takes them as its
//! reader does. A reader that goes away drops the body, and with it the task at its next step; one that is slow makes
//! the task let go of what it holds.

mod columns;
mod rows;
#[cfg(test)]
mod tests;
mod varint;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tracing::Instrument as _;

use columns::Columns;
use rows::Rows;

use crate::domain::{Cursor, InstrumentId, UnixNanos};
use crate::grpc::convert::{cursor, subject};
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::query::{Bookmark, Key, Query, ReadRequest, Reading, Stretch};

/// The largest message of the stream.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// What a message has beside its ticks at most: their tag and length, token, cursor and time.
const AROUND_TICKS: usize = 192;

/// Messages that are made before they are wanted.
const MESSAGES_AHEAD: usize = 4;

/// How long a reader may take nothing before the task lets go of view, chunks and bytes.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tags of `ReadTicksResponse`: rows, columns, token, cursor, now. All are length-delimited.
const ROWS: u8 = 1 << 3 | 2;
const COLUMNS: u8 = 2 << 3 | 2;
const PAGE_TOKEN: u8 = 3 << 3 | 2;
const AS_OF: u8 = 4 << 3 | 2;
const NOW: u8 = 5 << 3 | 2;

/// Begins a stream: its messages, framed for the wire.
pub(super) async fn read_ticks(
    query: Arc<Query>,
    request: proto::ReadTicksRequest,
) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + use<>, Refusal> {
    let (request, encoding) = parse(request)?;
    let reading = query.read(&request).await?;
    let writer = match encoding {
        Encoding::Rows => Writer::Rows(Rows::new(query)),
        Encoding::Columns => Writer::Columns(Box::new(Columns::new(query))),
    };
    let (sender, receiver) = mpsc::channel(MESSAGES_AHEAD);
    let span = tracing::Span::current();
    let task = AbortOnDropHandle::new(tokio::spawn(run(reading, writer, sender).instrument(span.clone())));
    Ok(futures_util::stream::unfold(Some((receiver, task, span)), |state| async {
        let (mut receiver, task, span) = state?;
        if let Some(message) = receiver.recv().await {
            return Some((Ok(message), Some((receiver, task, span))));
        }
        let refusal = match task.await {
            Ok(Ok(())) => return None,
            Ok(Err(refusal)) => refusal,
            Err(error) => Refusal::internal(error),
        };
        Some((Err(span.in_scope(|| refusal.into())), None))
    }))
}

/// Makes messages until the end, or until nobody wants them.
async fn run(mut reading: Reading, mut writer: Writer, sender: mpsc::Sender<Bytes>) -> Result<(), Refusal> {
    let mut messages = Messages { ready: VecDeque::new(), after: reading.after(), bookmark: reading.bookmark() };
    loop {
        messages.bookmark = reading.bookmark();
        let ended = match reading.next().await? {
            Some(stretch) => {
                writer.push(stretch, &mut messages)?;
                false
            }
            None => {
                writer.end(&mut messages);
                true
            }
        };
        while let Some(message) = messages.ready.pop_front() {
            let mut place = tokio::time::timeout(PATIENCE, sender.reserve()).await;
            if place.is_err() {
                reading.pause();
                place = Ok(sender.reserve().await);
            }
            match place {
                Ok(Ok(place)) => place.send(message),
                _ => return Ok(()),
            }
        }
        if ended {
            return Ok(());
        }
    }
}

/// Messages that are complete.
#[derive(Debug)]
struct Messages {
    ready: VecDeque<Bytes>,
    /// The last tick in them.
    after: Option<Key>,
    bookmark: Bookmark,
}

impl Messages {
    /// Completes a message: `ticks` are the pieces of its rows or columns, the last of which is `last`.
    fn push(&mut self, tag: u8, ticks: &[&[u8]], last: Key) {
        self.after = Some(last);
        self.put(Some((tag, ticks)), None);
    }

    /// Completes the last message of the stream, with ticks or without.
    fn end(&mut self, ticks: Option<(u8, &[&[u8]], Key)>) {
        self.after = ticks.map(|(.., last)| last).or(self.after);
        let end = (self.bookmark.as_of, self.bookmark.now);
        self.put(ticks.map(|(tag, ticks, _)| (tag, ticks)), Some(end));
    }

    fn put(&mut self, ticks: Option<(u8, &[&[u8]])>, end: Option<(Cursor, UnixNanos)>) {
        let token = self.bookmark.page_token(self.after);
        let cursor = end.map(|(as_of, _)| as_of.encode());
        let now = end.map(|(_, now)| prost_types::Timestamp::from(now));
        let now = now.map(|now| prost::Message::encode_to_vec(&now));
        let length = ticks.map(|(_, pieces)| pieces.iter().map(|piece| piece.len()).sum::<usize>());
        let field = |length: usize| 1 + encoded_len_varint(length as u64) + length;
        let total = length.map_or(0, field)
            + field(token.len())
            + cursor.map_or(0, |cursor| field(cursor.len()))
            + now.as_ref().map_or(0, |now| field(now.len()));
        let mut out = BytesMut::with_capacity(total + 5);
        // Not compressed.
        out.put_u8(0);
        out.put_u32(u32::try_from(total).expect("messages are bounded"));
        if let (Some((tag, pieces)), Some(length)) = (ticks, length) {
            out.put_u8(tag);
            encode_varint(length as u64, &mut out);
            pieces.iter().for_each(|piece| out.put_slice(piece));
        }
        let mut put = |tag: u8, bytes: &[u8]| {
            out.put_u8(tag);
            encode_varint(bytes.len() as u64, &mut out);
            out.put_slice(bytes);
        };
        put(PAGE_TOKEN, token.as_bytes());
        if let Some(cursor) = &cursor {
            put(AS_OF, cursor);
        }
        if let Some(now) = &now {
            put(NOW, now);
        }
        self.ready.push_back(out.freeze());
    }
}

/// A message in the making.
#[derive(Debug)]
enum Writer {
    Rows(Rows),
    Columns(Box<Columns>),
}

impl Writer {
    fn push(&mut self, stretch: Stretch<'_>, messages: &mut Messages) -> Result<(), Refusal> {
        match self {
            Writer::Rows(rows) => rows.push(stretch, messages),
            Writer::Columns(columns) => columns.push(stretch, messages),
        }
    }

    fn end(&mut self, messages: &mut Messages) {
        match self {
            Writer::Rows(rows) => rows.end(messages),
            Writer::Columns(columns) => columns.end(messages),
        }
    }
}

/// How ticks are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Rows,
    Columns,
}

/// A tick whose instrument nobody registered.
fn nameless(InstrumentId(id): InstrumentId) -> Refusal {
    Refusal::internal(format_args!("instrument {id} has ticks and no name"))
}

fn parse(request: proto::ReadTicksRequest) -> Result<(ReadRequest, Encoding), Refusal> {
    let proto::ReadTicksRequest { venue, symbol, start_time, end_time, period, min_cursor, encoding, page_token } =
        request;
    let mut violations = Violations::default();
    let subject = subject::subject(&mut violations, &venue, &symbol);
    let span = subject::span(&mut violations, start_time, end_time, period)?;
    let encoding = violations.take("encoding", to_encoding(encoding));
    let min_cursor = cursor::optional("min_cursor", &min_cursor)?;
    let (Some(subject), Some(span), Some(encoding)) = (subject, span, encoding) else {
        return Err(violations.refuse());
    };
    let page_token = Some(page_token).filter(|token| !token.is_empty());
    Ok((ReadRequest { subject, span, page_token, min_cursor }, encoding))
}

fn to_encoding(wire: i32) -> Result<Encoding, &'static str> {
    match proto::Encoding::try_from(wire) {
        Ok(proto::Encoding::Unspecified | proto::Encoding::Rows) => Ok(Encoding::Rows),
        Ok(proto::Encoding::Columns) => Ok(Encoding::Columns),
        Err(_) => Err("not a value of Encoding"),
    }
}
