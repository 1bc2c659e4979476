//! Bad input, as a table: every door, every way in, and what the caller is told.
//!
//! Each case has a server of its own. Whatever comes in, the server answers within 5 s, its peak memory grows by at
//! most 32 MiB, and a normal call works right after.

mod doors;
mod files;
mod ticks;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::IngestionRunState;
use tapefeed_tests::memory::Peak;
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::{Options, Publisher, Server, Stubs, values};
use tonic::{Code, Status};

/// The longest time between the byte that breaks a rule and the answer. Measured from the first byte, which is stricter.
const ANSWER: Duration = Duration::from_secs(5);
/// How much the peak of the server's memory may grow over one case.
const MEMORY_BYTES: u64 = 32 * 1024 * 1024;

/// The first event time of a bench: 2024-08-08T00:00:00Z.
const BEGIN: i64 = 1_723_075_200_000_000_000;
const SECOND: i64 = 1_000_000_000;

/// One line of the table.
struct Case {
    name: &'static str,
    /// The way in: an RPC, or the command line.
    door: &'static str,
    provoke: for<'a> fn(&'a Bench) -> Provoked<'a>,
    expected: Expected,
}

const fn case(
    name: &'static str,
    door: &'static str,
    provoke: for<'a> fn(&'a Bench) -> Provoked<'a>,
    expected: Expected,
) -> Case {
    Case { name, door, provoke, expected }
}

/// A case made ready: what is large is made before the clock runs.
type Provoked<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// What a caller sees.
enum Answer {
    /// The call ended with this status.
    Status(Status),
    /// The import came to this end.
    Run(Box<proto::IngestionRun>),
    /// A process ended with this code and these last words.
    Ended(i32, String),
}

#[derive(Clone, Copy)]
enum Expected {
    /// The code, the reason, and metadata that must be there.
    Refused(Code, &'static str, &'static [&'static str]),
    /// The file is stored but for this line, whose message has this word.
    Rejected(u64, &'static str),
    /// The file is stored as a whole, and has so many ticks.
    Stored(u64),
    /// The process ends with code 1, and its message has these words.
    Ended(&'static [&'static str]),
}

/// A server with five ticks of TEST/AAA and of TEST/BBB.
struct Bench {
    server: Server,
    stubs: Stubs,
}

impl Bench {
    async fn set_up() -> Self {
        let server = Server::start(Options::serve()).await;
        let stubs = server.stubs().await;
        let bench = Self { server, stubs };
        bench.publish("set-up").await;
        // What a first import or query allocates for good must not count against a case.
        let start = tapefeed_tests::import::start("set-up");
        let file = format!("{}TEST,AAA,1000,1.5\n", files::HEADER);
        let imported = tapefeed_tests::import::bytes(&bench.stubs, start, file).await;
        assert_eq!(imported.expect("a good file").run.expect("a run").tick_count, 1);
        bench.normal_call().await;
        bench
    }

    async fn publish(&self, producer_id: &str) {
        let mut publisher = Publisher::claim(&self.stubs, producer_id).await.expect("a claim");
        let mut ticks = Vec::new();
        for second in 0..5 {
            for symbol in ["AAA", "BBB"] {
                ticks.push(values::tick("TEST", symbol, BEGIN + second * SECOND, "10.25"));
            }
        }
        publisher.rows(ticks).await.expect("good ticks");
        publisher.close().await.expect("a good end");
    }

    /// A query on a new connection, and a batch that is acknowledged.
    async fn normal_call(&self) {
        let mut stubs = self.server.stubs().await;
        let request =
            proto::ListLatestTicksRequest { selectors: vec![values::selector("AAA")], min_cursor: bytes::Bytes::new() };
        let answer = stubs.history.list_latest_ticks(request).await;
        let latest = answer.expect("a normal call works").into_inner().latest_ticks;
        assert_eq!(latest.len(), 1);
        let tick = latest[0].tick.as_ref().expect("it has a tick");
        let time = tick.event_time.as_ref().expect("it has a time");
        assert_eq!(values::unix_nano(time), BEGIN + 4 * SECOND);
        self.publish("normal").await;
    }

    /// How many ticks are stored of a symbol. 0 if it is not known.
    async fn count(&self, symbol: &str) -> u64 {
        let request = proto::GetPriceStatisticsRequest { symbol: symbol.to_owned(), ..Default::default() };
        let mut history = self.stubs.history.clone();
        match history.get_price_statistics(request).await {
            Ok(answer) => answer.into_inner().tick_count,
            Err(status) if status.code() == Code::NotFound => 0,
            Err(status) => panic!("{status:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_input_is_refused_with_its_reason_and_the_server_goes_on() {
    let cases = doors::CASES.iter().chain(ticks::CASES).chain(files::CASES);
    let mut failed = Vec::new();
    let mut count = 0;
    for case in cases {
        count += 1;
        // In a task of its own, so that one failing case does not hide the next.
        if tokio::spawn(run(case)).await.is_err() {
            failed.push(format!("{} ({})", case.name, case.door));
        }
    }
    println!("{count} cases of bad input");
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

async fn run(case: &'static Case) {
    let Case { name, door, provoke, expected } = case;
    let bench = Bench::set_up().await;
    let provoked = provoke(&bench);
    let peak = Peak::begin(bench.server.pid());
    let begin = Instant::now();
    let answer = provoked.await;
    let elapsed = begin.elapsed();
    let growth = peak.growth();
    let kibibytes = growth / 1024;
    println!("{name} ({door}): {} ms, +{kibibytes} KiB", elapsed.as_millis());

    expected.check(answer);
    assert!(elapsed <= ANSWER, "{name}: answered after {elapsed:?}");
    assert!(growth <= MEMORY_BYTES, "{name}: memory grew by {kibibytes} KiB");
    bench.normal_call().await;
}

impl Expected {
    fn check(self, answer: Answer) {
        match (self, answer) {
            (Self::Refused(code, reason, keys), Answer::Status(status)) => {
                Refusal::of(&status).assert(code, reason, keys);
            }
            (Self::Rejected(line, word), Answer::Run(run)) => {
                assert_eq!(run.state(), IngestionRunState::Succeeded, "{run:?}");
                assert_eq!(run.reject_count, 1, "{run:?}");
                let reject = &run.first_rejects[0];
                assert_eq!(reject.line_number, line, "{reject:?}");
                assert!(reject.message.contains(word), "{word}: {reject:?}");
            }
            (Self::Stored(ticks), Answer::Run(run)) => {
                assert_eq!(run.state(), IngestionRunState::Succeeded, "{run:?}");
                assert_eq!((run.tick_count, run.reject_count), (ticks, 0), "{run:?}");
            }
            (Self::Ended(words), Answer::Ended(code, text)) => {
                assert_eq!(code, 1, "{text}");
                for word in words {
                    assert!(text.contains(word), "{word} is missing in {text}");
                }
            }
            (_, Answer::Status(status)) => panic!("refused: {status:?}"),
            (_, Answer::Run(run)) => panic!("taken: {run:?}"),
            (_, Answer::Ended(code, text)) => panic!("ended with {code}: {text}"),
        }
    }
}

/// The status of a call that must be refused.
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> Answer {
    match answer {
        Ok(answer) => panic!("taken: {answer:?}"),
        Err(status) => Answer::Status(status),
    }
}
