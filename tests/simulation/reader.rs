//! A subscriber that dies and comes back, on any replica: between two messages or after a tick in the middle of one. It
//! reads at its own pace, stalls, and writes down all it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::subscribe_ticks_request::Start;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_tests::columns::{Names, rows};
use tapefeed_tests::refusal::Refusal;
use tonic::{Code, Status, Streaming};

use super::oracle::{Wish, position};
use super::record::{Record, Seen};
use super::replica::connect;
use super::world::{Ended, Shared};

/// The heartbeat that readers ask for.
const HEARTBEAT: i64 = 1;

/// How long a stream may be silent before its reader gives it up: what was cut off sends nothing more.
const SILENCE: Duration = Duration::from_secs(4);

/// Who reads, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    pub number: usize,
    pub seed: u64,
    pub replicas: usize,
    pub wish: Wish,
    pub columns: bool,
    /// Whether it begins with a snapshot.
    pub snapshot: bool,
    /// The shortest time between rounds, of a conflated stream.
    pub conflated: Option<Duration>,
    pub if_unavailable: proto::UnavailablePolicy,
    pub slow_reader: proto::SlowReaderPolicy,
    /// How long ticks may wait for more.
    pub flush_window: Duration,
    /// HTTP/2 window in bytes.
    pub window: u32,
    /// How many of a thousand messages are the last of their life, or the last before a stall.
    pub deaths: u32,
    pub stalls: u32,
    /// The longest pause after a message.
    pub pause: Duration,
}

/// Where a life begins.
#[derive(Clone, Debug)]
enum From {
    Live,
    Snapshot,
    /// After the last message.
    Cursor(Vec<u8>),
    /// After a tick, which need not be the last of its message.
    Position(proto::StartPosition),
}

/// Reads until it has everything up to the end that the world names, and judges what it was told.
pub async fn read(plan: Plan, shared: Shared) -> turmoil::Result {
    let from = if plan.snapshot { From::Snapshot } else { From::Live };
    let record = Record::new(plan.wish.clone(), plan.conflated.is_some());
    let dice = SmallRng::seed_from_u64(plan.seed);
    let mut reader = Reader { from, record, dice, epoch: 0, plan, shared };
    while !reader.is_done() {
        let ended = reader.life().await;
        let who = format!("reader {}", reader.plan.number);
        reader.shared.note_end(&who, &ended, reader.record.reached);
        let pause = reader.dice.random_range(1..300);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    reader.shared.with(|all| {
        all.readers_done += 1;
        if let Err(problem) = reader.record.judge(&all.oracle) {
            all.failures.push(format!("reader {}: {problem}\n{:?}", reader.plan.number, reader.plan));
        }
        all.counts.add(&reader.record);
    });
    Ok(())
}

struct Reader {
    plan: Plan,
    shared: Shared,
    dice: SmallRng,
    from: From,
    record: Record,
    epoch: u64,
}

/// What becomes of the stream after a message.
enum Next {
    Go,
    End(Ended),
}

impl Reader {
    fn is_done(&self) -> bool {
        self.shared.with(|all| all.end.is_some_and(|end| self.record.reached >= end)) && !self.record.in_snapshot()
    }

    fn request(&self) -> proto::SubscribeTicksRequest {
        let span = |span: Duration| {
            Some(prost_types::Duration { seconds: span.as_secs() as i64, nanos: span.subsec_nanos() as i32 })
        };
        let start = match &self.from {
            From::Live => Start::Live(proto::StartLive {}),
            From::Snapshot => Start::Snapshot(proto::StartSnapshot {}),
            From::Cursor(cursor) => Start::Cursor(cursor.clone().into()),
            From::Position(position) => Start::Position(*position),
        };
        let conflated = self.plan.conflated;
        proto::SubscribeTicksRequest {
            selectors: self.plan.wish.selectors.clone(),
            start: Some(start),
            encoding: if self.plan.columns { proto::Encoding::Columns } else { proto::Encoding::Rows }.into(),
            delivery: if conflated.is_some() { proto::Delivery::Conflated } else { proto::Delivery::Lossless }.into(),
            min_interval: conflated.and_then(span),
            include_backfill: self.plan.wish.include_backfill,
            heartbeat_interval: span(Duration::from_secs(HEARTBEAT as u64)),
            flush_window: span(self.plan.flush_window),
            slow_reader: self.plan.slow_reader.into(),
            if_unavailable: self.plan.if_unavailable.into(),
        }
    }

    async fn life(&mut self) -> Ended {
        let replica = self.dice.random_range(0..self.plan.replicas);
        let Some(stubs) = connect(replica, self.plan.window).await else { return Ended::NoConnection };
        let mut live = stubs.live.clone();
        let mut stream = match tokio::time::timeout(SILENCE, live.subscribe_ticks(self.request())).await {
            Ok(Ok(stream)) => stream.into_inner(),
            Ok(Err(status)) => return self.refused(&status),
            Err(_) => return Ended::Silent,
        };
        match tokio::time::timeout(SILENCE, stream.message()).await {
            Ok(Ok(Some(proto::SubscribeTicksResponse { cursor, event: Some(Event::Ack(ack)) }))) => {
                self.epoch = ack.epoch;
                self.begin(&cursor);
            }
            Ok(Ok(other)) => panic!("the acknowledgement comes first, not {other:?}"),
            Ok(Err(status)) => return self.refused(&status),
            Err(_) => return Ended::Silent,
        }
        let mut names = Names::new();
        loop {
            match self.message(&mut stream, &mut names).await {
                Next::Go => (),
                Next::End(ended) => return ended,
            }
        }
    }

    /// The acknowledgement: its cursor is where the stream begins, unless a snapshot comes.
    fn begin(&mut self, cursor: &[u8]) {
        if cursor.is_empty() {
            let unavailable = self.plan.if_unavailable == proto::UnavailablePolicy::Snapshot;
            assert!(matches!(self.from, From::Snapshot) || unavailable, "only snapshots begin without a cursor");
            return;
        }
        if matches!(self.from, From::Live) {
            self.record.begin(position(cursor));
            self.from = From::Cursor(cursor.to_vec());
        }
    }

    async fn message(&mut self, stream: &mut Streaming<proto::SubscribeTicksResponse>, names: &mut Names) -> Next {
        let message = match tokio::time::timeout(SILENCE, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => panic!("a subscription does not end with OK"),
            Ok(Err(status)) => return Next::End(self.refused(&status)),
            Err(_) => return Next::End(Ended::Silent),
        };
        self.shared.note_message(self.plan.number, &message);
        let dies = self.dice.random_range(0..1_000) < self.plan.deaths && !self.shared.with(|all| all.calm);
        let proto::SubscribeTicksResponse { cursor, event } = message;
        let event = event.expect("every message has an event");
        let before = self.record.len();
        self.note(event, names, &cursor);
        if !cursor.is_empty() {
            self.record.reach(position(&cursor));
            self.from = From::Cursor(cursor.to_vec());
        }
        if dies {
            self.die_inside(before);
            return Next::End(Ended::Died);
        }
        if self.is_done() {
            return Next::End(Ended::Done);
        }
        if self.dice.random_range(0..1_000) < self.plan.stalls && !self.shared.with(|all| all.calm) {
            let stall = self.dice.random_range(300..2_500);
            tokio::time::sleep(Duration::from_millis(stall)).await;
        } else if !self.plan.pause.is_zero() {
            let pause = self.dice.random_range(0..=self.plan.pause.as_millis() as u64);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Next::Go
    }

    /// Dies after a tick in the middle of the message, as often as behind all of it: what came after that tick was never
    /// looked at, and the next life begins after it.
    fn die_inside(&mut self, before: usize) {
        let exact = !self.record.is_conflated() && !self.record.in_snapshot();
        if !exact || self.record.len() - before < 2 || self.dice.random() {
            return;
        }
        let kept = self.dice.random_range(before + 1..self.record.len());
        if let Some(log_seq) = self.record.forget_after(kept) {
            self.from = From::Position(proto::StartPosition { epoch: self.epoch, log_seq });
        }
    }

    fn note(&mut self, event: Event, names: &mut Names, cursor: &[u8]) {
        let record = &mut self.record;
        match event {
            Event::Rows(batch) => {
                assert!(!self.plan.columns);
                record.ticks(batch.ticks, &batch.merged_counts);
            }
            Event::Columns(columns) => {
                assert!(self.plan.columns);
                record.ticks(rows(&columns, names), &columns.merged_count);
            }
            Event::InstrumentDefinitions(told) => {
                assert!(self.plan.columns, "rows need no definitions");
                for definition in told.definitions {
                    let name = (definition.venue, definition.symbol);
                    assert!(names.insert(definition.instrument_id, name).is_none(), "each is defined once");
                }
            }
            Event::SourceStatus(status) => record.seen(Seen::Status(status.log_seq, status.detail)),
            Event::Progress(progress) => {
                assert_eq!(progress.log_seq, position(cursor), "complete up to its own cursor");
                record.seen(Seen::Complete(progress.log_seq));
            }
            Event::ReplayCompleted(replayed) => record.seen(Seen::Complete(replayed.log_seq)),
            Event::SnapshotBegin(begin) => record.begin_snapshot(begin.log_seq, begin.tick_count),
            Event::SnapshotEnd(end) => {
                assert_eq!(end.log_seq, position(cursor), "the snapshot's end is where live begins");
                let judged = self.shared.with(|all| record.end_snapshot(end.log_seq, &all.oracle));
                self.shared.demand(judged);
            }
            Event::StreamGap(gap) => {
                // Whatever could be re-read is no gap.
                let oldest = self.shared.with(|all| all.oracle.oldest);
                assert!(gap.to_log_seq < oldest, "{gap:?} names what is still there: {oldest}");
                record.seen(Seen::Gap(gap.from_log_seq, gap.to_log_seq));
            }
            Event::SlowConsumer(notice) => {
                record.lags += u32::from(notice.catching_up && !notice.expiring);
                record.notices += u32::from(notice.expiring);
            }
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn refused(&mut self, status: &Status) -> Ended {
        let slow = self.plan.slow_reader == proto::SlowReaderPolicy::Disconnect;
        let allowed: &[&str] = if slow { &["SLOW_CONSUMER"] } else { &[] };
        if self.shared.is_reason(status, "CURSOR_EXPIRED") {
            let refusal = Refusal::of(status);
            assert_eq!(refusal.code, Code::OutOfRange);
            assert_eq!(self.plan.if_unavailable, proto::UnavailablePolicy::Fail, "others are served");
            let oldest: u64 = refusal.metadata["oldest_log_seq"].parse().expect("a position");
            let known = self.shared.with(|all| all.oracle.oldest);
            assert!(oldest <= known && oldest > self.record.reached + 1, "{oldest} of {known}: it has not expired");
            // The reader accepts the loss, and goes on where the log begins.
            self.record.seen(Seen::Gap(self.record.reached + 1, oldest - 1));
            self.record.reach(oldest - 1);
            self.from = From::Position(proto::StartPosition { epoch: self.epoch, log_seq: oldest - 1 });
            return Ended::Refused(refusal.reason);
        }
        self.shared.judge_end(status, allowed)
    }
}

/// The greatest ticks that a reader keeps, by venue and symbol.
pub type State = BTreeMap<(String, String), proto::Tick>;
