//! Runs that publish, as an import of a venue's file submits them.

use super::*;
use crate::domain::{Batch, InstrumentDetails, Published, PublishedBar, PublishedBarKey, Symbol, Venue};
use crate::ingest::{Receipt, Sender, Submission};
use crate::store::{Ignored, Lease, NewRun, Reject, RunClaim, RunProgress, RunRequest};

/// Begins a run in the store, owned by nobody's process.
pub(crate) async fn begin_run(bench: &Bench, name: &str) -> RunOwner {
    let owner = RunOwner(1);
    let now = bench.clock.now();
    let mut identity = [0; 32];
    identity[..name.len()].copy_from_slice(name.as_bytes());
    let run = NewRun {
        id: RunId::new(name).unwrap(),
        identity,
        content: identity,
        parser_version: 1,
        options: Vec::new(),
        file_name: "published.txt".to_owned(),
        size_bytes: 1,
        total_lines: 1,
        trace_id: String::new(),
        again: false,
    };
    let lease = Lease { owner, now, until: now };
    let claim = bench.replica.store.begin_run(RunRequest { run, lease }).await.unwrap();
    assert!(matches!(claim, RunClaim::Yours(_)));
    owner
}

/// Submits a batch of a run that holds no tick, through the door of the log.
pub(crate) async fn submit(
    bench: &Bench,
    name: &str,
    batch: u64,
    instruments: &[(&str, &str)],
    published: Published<u32>,
    rejects: &[u64],
) -> Receipt {
    let count = (published.bars.len() + published.details.len()) as u64;
    let progress = RunProgress {
        lines: count + rejects.len() as u64 + 5,
        ticks: 0,
        published: count,
        ignored: Ignored([("trailer".into(), 1), ("auction".into(), 4)].into()),
        rejected: rejects.len() as u64,
        rejects: rejects.iter().map(reject).collect(),
    };
    let named = |&(venue, symbol): &(&str, &str)| (Venue::new(venue).unwrap(), Symbol::new(symbol).unwrap());
    let submission = Submission {
        batch: Batch { instruments: instruments.iter().map(named).collect(), ..Batch::default() },
        sender: Sender::Run { run: RunId::new(name).unwrap(), owner: RunOwner(1), batch, progress, published },
        backfill: true,
    };
    bench.replica.ingest.submit(submission).await.unwrap().await.unwrap().unwrap()
}

fn reject(line: &u64) -> Reject {
    let code = if line.is_multiple_of(2) { "ACTION_NOT_SUPPORTED" } else { "FIELD_INVALID" };
    Reject { line: *line, code: code.into(), reason: format!("line {line} is bad"), text: format!("text {line}") }
}

/// A bar of a cash market.
pub(crate) fn bar(day: u32, market: u16, term: u16, close: &str) -> PublishedBar {
    let decimal = |text: &str| text.parse().unwrap();
    PublishedBar {
        key: PublishedBarKey { day, market, term },
        open: decimal("10.01"),
        high: decimal("10.5"),
        low: decimal("9.99"),
        average: decimal("10.12"),
        close: decimal(close),
        bid: decimal("10.2"),
        ask: decimal("0"),
        trade_count: 99_999,
        quantity: decimal("1200"),
        value: decimal("12144.5"),
        strike: decimal("0"),
        strike_points: decimal("0"),
        expiry_day: crate::domain::date::LAST_DAY,
        quote_factor: 1_000,
        board: "02".into(),
        strike_correction: "".into(),
        distribution: "114".into(),
    }
}

pub(crate) fn details(day: u32, isin: &str) -> InstrumentDetails {
    InstrumentDetails {
        day,
        isin: isin.into(),
        issuer: "PETROBRAS".into(),
        share_class: "PN  EJ N1".into(),
        currency: "R$".into(),
    }
}

#[tokio::test]
async fn a_batch_that_only_publishes_is_stored_once_and_the_log_stands() {
    let bench = Bench::new(Limits::default()).await;
    begin_run(&bench, "r").await;
    let names = [("B3", "PETR4"), ("B3", "VALE3")];
    let one =
        |close: &str| Published { bars: vec![(1, bar(19_000, 10, 0, close))], details: vec![(0, details(1, "A"))] };
    let receipt = submit(&bench, "r", 1, &names, one("1"), &[]).await;
    assert_eq!((receipt.cursor.position, receipt.duplicate), (0, false));
    let again = submit(&bench, "r", 1, &names, one("2"), &[]).await;
    assert!(again.duplicate);
    assert!(bench.ticks().await.is_empty());
    let instrument = |symbol: &str| {
        let symbol = Symbol::new(symbol).unwrap();
        bench.replica.tapes.get().registry.find(&Venue::new("B3").unwrap(), &symbol).unwrap()
    };
    let store = &bench.replica.store;
    let bars = store.published_bars(instrument("VALE3"), 0..u32::MAX, None, 10).await.unwrap();
    assert_eq!(bars, [bar(19_000, 10, 0, "1")]);
    assert_eq!(store.published_bars(instrument("PETR4"), 0..u32::MAX, None, 10).await.unwrap(), []);
    let told = store.instrument_details(&[instrument("PETR4"), instrument("VALE3")]).await.unwrap();
    assert_eq!(told, [(instrument("PETR4"), details(1, "A"))]);
    let status = bench.imports.status(&RunId::new("r").unwrap()).await.unwrap();
    assert_eq!((status.published, status.ignored.total(), status.lines, status.ticks), (2, 5, 7, 0));
}
