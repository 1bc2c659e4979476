//! Reading a range in bulk, over as many connections as it takes.

use futures_util::{Stream, stream};
use tapefeed_proto::v1 as proto;

use super::Query;
use crate::backoff::Backoff;
use crate::client::{READ_ATTEMPTS, history_service};
use crate::columns::{self, Definitions};
use crate::time::duration_to_wire;
use crate::{Client, Cursor, Error, Tick, UnixNanos};

/// Some ticks of a range, one after the other by (`event_time`, `log_seq`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadBatch {
    /// The ticks. The last batch may have none.
    pub ticks: Vec<Tick>,
    /// What goes on right after this batch, in [`ReadQuery::page_token`]. It lives 10 minutes.
    pub page_token: String,
    /// The cursor at which the whole range was read. Subscribe after it to go on live. `None` in all batches but the
    /// last.
    pub as_of: Option<Cursor>,
    /// The server's now that a `period` looked back from. `None` in all batches but the last.
    pub now: Option<UnixNanos>,
}

/// Which ticks to read in bulk.
#[derive(Clone, Debug, Default)]
pub struct ReadQuery {
    query: Query,
    page_token: String,
}

impl ReadQuery {
    /// Goes on after the batch that had this token. All else must be as it was.
    pub fn page_token(mut self, token: impl Into<String>) -> ReadQuery {
        self.page_token = token.into();
        self
    }
}

impl From<Query> for ReadQuery {
    fn from(query: Query) -> ReadQuery {
        ReadQuery { query, page_token: String::new() }
    }
}

impl Client {
    /// Reads all ticks of a range, the oldest first, at full speed and at one position of the log.
    ///
    /// Batches have some thousand ticks; nothing is read ahead of the consumer but what the network holds. After a cut
    /// the stream goes on by itself where it was; it ends with the error after four attempts without a batch.
    ///
    /// # Errors
    ///
    /// `INSTRUMENT_UNKNOWN`, `RANGE_INVERTED`, `PAGE_TOKEN_INVALID`; an empty range is one batch without ticks.
    pub fn read_ticks(
        &self,
        query: impl Into<ReadQuery>,
    ) -> impl Stream<Item = Result<ReadBatch, Error>> + Send + 'static {
        let ReadQuery { query, page_token } = query.into();
        let request = proto::ReadTicksRequest {
            min_cursor: query.min_cursor_to_wire(),
            venue: query.venue,
            symbol: query.symbol,
            start_time: query.start.map(UnixNanos::to_wire),
            end_time: query.end.map(UnixNanos::to_wire),
            period: query.period.map(duration_to_wire),
            encoding: proto::Encoding::Columns.into(),
            page_token,
        };
        let backoff = self.stream_backoff();
        let reading = Reading { client: self.clone(), request, messages: None, backoff, failures: 0, ended: false };
        stream::try_unfold(reading, |mut reading| async move {
            if reading.ended {
                return Ok(None);
            }
            let batch = reading.next().await?;
            reading.ended = batch.as_of.is_some();
            Ok(Some((batch, reading)))
        })
    }
}

/// Where a reading is.
struct Reading {
    client: Client,
    /// Its token says where to go on.
    request: proto::ReadTicksRequest,
    messages: Option<tonic::Streaming<proto::ReadTicksResponse>>,
    backoff: Backoff,
    /// Attempts since the last batch.
    failures: u32,
    ended: bool,
}

impl Reading {
    async fn next(&mut self) -> Result<ReadBatch, Error> {
        loop {
            let error = match self.message().await {
                Ok(message) => {
                    self.failures = 0;
                    self.backoff.reset();
                    self.request.page_token.clone_from(&message.page_token);
                    return read(message);
                }
                Err(error) => error,
            };
            self.messages = None;
            self.failures += 1;
            if !error.is_retryable() || self.failures == READ_ATTEMPTS {
                return Err(error);
            }
            let delay = self.backoff.next(error.retry_delay());
            tracing::debug!(%error, ?delay, "reading was cut");
            tokio::time::sleep(delay).await;
        }
    }

    async fn message(&mut self) -> Result<proto::ReadTicksResponse, Error> {
        let messages = match &mut self.messages {
            Some(messages) => messages,
            None => {
                // A connection of its own for each attempt: a consumer that is slow must not hold up calls.
                let mut service = history_service(self.client.stream_channel());
                let answer = service.read_ticks(self.request.clone()).await.map_err(Error::from_status)?;
                self.messages.insert(answer.into_inner())
            }
        };
        let message = messages.message().await.map_err(Error::from_status)?;
        message.ok_or_else(|| Error::Transport("the server ended the stream before its last message".to_owned()))
    }
}

fn read(message: proto::ReadTicksResponse) -> Result<ReadBatch, Error> {
    use proto::read_ticks_response::Ticks;
    let ticks = match message.ticks {
        Some(Ticks::Rows(rows)) => Tick::from_rows(rows)?,
        Some(Ticks::Columns(columns)) => columns::decode(columns, &Definitions::default())?,
        None => Vec::new(),
    };
    Ok(ReadBatch {
        ticks,
        page_token: message.page_token,
        as_of: Cursor::from_bytes(message.as_of),
        now: UnixNanos::from_wire_optional(message.now, "now")?,
    })
}
