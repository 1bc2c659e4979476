//! A publisher that has a number of batches to get in, whatever happens: it comes back, claims again, and sends again
//! what was not acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::publish_ticks_request::Message as Said;
use tapefeed_proto::v1::publish_ticks_response::Message as Heard;
use tapefeed_tests::values::timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::oracle::Content;
use super::replica::{NOON, connect};
use super::world::{Ended, SYMBOLS, Shared, VENUES};

/// How long an answer may take before the publisher gives the connection up.
const ANSWER: Duration = Duration::from_secs(3);

/// Batches on the way at most: below the credit.
const WINDOW: u64 = 5;

/// What one publisher has to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub number: usize,
    pub seed: u64,
    pub batches: u64,
    pub backfill: bool,
    /// The longest pause between two batches.
    pub pause: Duration,
    pub replicas: usize,
}

/// Publishes everything. Returns when all of it is acknowledged.
pub async fn publish(plan: Plan, shared: Shared) -> turmoil::Result {
    let mut publisher =
        Publisher { dice: SmallRng::seed_from_u64(plan.seed), made: BTreeMap::new(), settled: 0, plan, shared };
    while publisher.settled < publisher.plan.batches {
        let ended = publisher.life().await;
        let who = format!("publisher {}", publisher.plan.number);
        publisher.shared.note_end(&who, &ended, publisher.settled);
        let pause = publisher.dice.random_range(1..200);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    publisher.shared.publisher_is_done();
    Ok(())
}

struct Publisher {
    plan: Plan,
    shared: Shared,
    dice: SmallRng,
    /// What was sent and is not known to be stored.
    made: BTreeMap<u64, Content>,
    /// All batches up to here are stored.
    settled: u64,
}

impl Publisher {
    async fn life(&mut self) -> Ended {
        let replica = self.dice.random_range(0..self.plan.replicas);
        let Some(stubs) = connect(replica, 65_535).await else { return Ended::NoConnection };
        let (requests, outgoing) = mpsc::channel(64);
        let claim = proto::ProducerClaim {
            producer_id: format!("p{}", self.plan.number),
            backfill: self.plan.backfill,
            held_fence: 0,
        };
        requests.try_send(request(Said::Claim(claim))).expect("there is room");
        let mut ingest = stubs.ingest.clone();
        let call = ingest.publish_ticks(ReceiverStream::new(outgoing));
        let mut answers = match tokio::time::timeout(ANSWER, call).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return self.refused(&status),
            Err(_) => return Ended::Silent,
        };
        let granted = match tokio::time::timeout(ANSWER, answers.message()).await {
            Ok(Ok(Some(proto::PublishTicksResponse { message: Some(Heard::Grant(grant)) }))) => grant,
            Ok(Err(status)) => return self.refused(&status),
            Ok(other) => panic!("the first answer is the grant, not {other:?}"),
            Err(_) => return Ended::Silent,
        };
        assert!(granted.last_batch_seq >= self.settled, "what was acknowledged is not forgotten");
        self.settle(granted.last_batch_seq);
        let mut sent = self.settled;
        while self.settled < self.plan.batches {
            while sent < self.plan.batches && sent < self.settled + WINDOW {
                sent += 1;
                let content = self.content(sent);
                let batch = proto::PublishBatch { batch_seq: sent, content: Some(content) };
                if requests.try_send(request(Said::Batch(batch))).is_err() {
                    break;
                }
                let pause = self.dice.random_range(0..=self.plan.pause.as_millis() as u64);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            match tokio::time::timeout(ANSWER, answers.message()).await {
                Ok(Ok(Some(proto::PublishTicksResponse { message: Some(Heard::Ack(ack)) }))) => {
                    assert_eq!(ack.batch_seq, self.settled + 1, "acknowledgements come in order");
                    self.shared.with(|all| all.oracle.acknowledge(self.plan.number, ack.batch_seq, &ack.cursor));
                    self.settle(ack.batch_seq);
                }
                Ok(Err(status)) => return self.refused(&status),
                Ok(other) => panic!("an acknowledgement was due, not {other:?}"),
                Err(_) => return Ended::Silent,
            }
        }
        Ended::Done
    }

    fn settle(&mut self, batch_seq: u64) {
        self.settled = batch_seq;
        self.made = self.made.split_off(&(batch_seq + 1));
    }

    fn refused(&self, status: &tonic::Status) -> Ended {
        self.shared.judge_end(status, &["PRODUCER_FENCED"])
    }

    /// The content of a batch: the same whenever it is sent.
    fn content(&mut self, batch_seq: u64) -> proto::publish_batch::Content {
        if !self.made.contains_key(&batch_seq) {
            let content = self.make(batch_seq);
            self.shared.with(|all| all.oracle.publish(self.plan.number, batch_seq, &content));
            self.made.insert(batch_seq, content);
        }
        match self.made[&batch_seq].clone() {
            Content::Ticks(ticks) => {
                proto::publish_batch::Content::Rows(proto::TickBatch { ticks, merged_counts: Vec::new() })
            }
            Content::Status(status) => proto::publish_batch::Content::SourceStatus(status),
        }
    }

    fn make(&mut self, batch_seq: u64) -> Content {
        let Plan { number, .. } = self.plan;
        let dice = &mut self.dice;
        if dice.random_ratio(1, 8) {
            let symbols = SYMBOLS[..dice.random_range(0..3)].iter().map(|symbol| (*symbol).to_owned()).collect();
            return Content::Status(proto::SourceStatus {
                source: "feed".to_owned(),
                venue: VENUES[dice.random_range(0..VENUES.len())].to_owned(),
                symbols,
                state: dice.random_range(1..3),
                detail: format!("{number}-{batch_seq}"),
                ..proto::SourceStatus::default()
            });
        }
        let count = dice.random_range(1..40);
        // New instruments appear as the run goes on.
        let known = (2 + batch_seq as usize / 4).min(SYMBOLS.len());
        let tick = |index: u64| proto::Tick {
            venue: VENUES[dice.random_range(0..VENUES.len())].to_owned(),
            symbol: SYMBOLS[dice.random_range(0..known)].to_owned(),
            event_time: Some(timestamp(NOON - dice.random_range(0..20) * 1_000_000_000)),
            price: Some(proto::Decimal { mantissa: dice.random_range(1..9) * 10 + 1, exponent: -2 }),
            quantity: dice.random_bool(0.7).then_some(proto::Decimal { mantissa: 3, exponent: 0 }),
            side: dice.random_range(0..3),
            trade_id: format!("{number}-{batch_seq}-{index}"),
            ..proto::Tick::default()
        };
        Content::Ticks((0..count).map(tick).collect())
    }
}

fn request(said: Said) -> proto::PublishTicksRequest {
    proto::PublishTicksRequest { message: Some(said) }
}
