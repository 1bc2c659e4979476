//! ReadTicks beside the oracle: in rows or columns, in one go or cut and taken up again.

use futures_util::StreamExt as _;
use rand::Rng as _;
use rand::rngs::SmallRng;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::history_service_server::HistoryService as _;
use tapefeed_proto::v1::read_ticks_response::Ticks;
use tapefeed_server::domain::Cursor;
use tapefeed_server::grpc::history_service::HistoryService;
use tapefeed_tests::columns;
use tapefeed_tests::values::unix_nano;
use tonic::{Request, Status};

use super::oracle::{Log, Span};
use super::questions::{Facts, facts, facts_of};

/// What was read.
#[derive(Debug)]
pub struct Read {
    request: proto::ReadTicksRequest,
    /// What goes on after the last message.
    next: proto::ReadTicksRequest,
    ticks: Vec<proto::Tick>,
    as_of: Vec<u8>,
}

/// Reads a range. Now and then it goes away in the middle, and goes on with the last token that it got.
pub async fn ask(
    history: &HistoryService,
    random: &mut SmallRng,
    request: proto::ReadTicksRequest,
) -> Result<Read, Status> {
    let mut read = Read::begin(request);
    loop {
        let patience = if random.random_bool(0.5) { usize::MAX } else { random.random_range(1..4) };
        let mut messages = history.read_ticks(Request::new(read.next.clone())).await?.into_inner().take(patience);
        while let Some(message) = messages.next().await {
            if read.take(message?) {
                return Ok(read);
            }
        }
    }
}

impl Read {
    /// Nothing is read yet.
    pub fn begin(request: proto::ReadTicksRequest) -> Read {
        Read { next: request.clone(), request, ticks: Vec::new(), as_of: Vec::new() }
    }

    /// Takes a message; true after the last one.
    pub fn take(&mut self, message: proto::ReadTicksResponse) -> bool {
        match message.ticks {
            Some(Ticks::Rows(rows)) => self.ticks.extend(rows.ticks),
            Some(Ticks::Columns(columns)) => {
                let named = |entry: &proto::ColumnInstrument| {
                    (entry.instrument_id, (entry.venue.clone(), entry.symbol.clone()))
                };
                let names = columns.instruments.iter().map(named).collect();
                self.ticks.extend(columns::rows(&columns, &names));
            }
            None => (),
        }
        self.next.page_token = message.page_token;
        self.as_of = message.as_of.to_vec();
        !self.as_of.is_empty()
    }

    /// Compares what was read with the log up to where it was read.
    pub fn check(&self, log: &Log) {
        let Read { request, ticks, as_of, .. } = self;
        let bound = |time: &Option<prost_types::Timestamp>| time.as_ref().map(unix_nano);
        let span = Span { start: bound(&request.start_time), end: bound(&request.end_time) };
        let position = Cursor::decode(as_of).expect("the server makes cursors").position;
        let mut expected = log.of(&request.venue, &request.symbol, position);
        expected.retain(|tick| span.has(tick.time));
        let expected: Vec<Facts> = expected.into_iter().map(facts).collect();
        let told: Vec<Facts> = ticks.iter().map(facts_of).collect();
        assert!(told == expected, "{request:?}: {} ticks read, {} expected", told.len(), expected.len());
    }
}
