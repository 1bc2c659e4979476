//! Bars and details of instruments that runs publish.

use std::ops::Range;

use super::runs::{SECOND, request, run_id, yours};
use super::*;
use crate::domain::{Decimal, InstrumentDetails, InstrumentId, Published, PublishedBar, PublishedBarKey};
use crate::store::{Appended, RunOwner, RunProgress, StoreError, Verdict, faults};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("published bars are kept whole, and a later one replaces one of its key", replaced_bars),
        case("published bars are listed by key, in pages", listed_bars),
        case("details of a newer day win, and of the same day the later", newest_details),
        case("a batch that only publishes writes no segment", no_segment),
        case("an owner who lost the run publishes nothing, and a repeat publishes nothing again", fenced),
        case("an append that fails publishes all or nothing", faulted),
        case("a full batch is published at once", full_batch),
    ]
}

/// Every day there is.
const ALL: Range<u32> = 0..u32::MAX;

fn key(day: u32, market: u16, term: u16) -> PublishedBarKey {
    PublishedBarKey { day, market, term }
}

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

/// A bar whose values are all different, `close` among them.
fn bar(key: PublishedBarKey, close: &str) -> PublishedBar {
    PublishedBar {
        key,
        open: decimal("10.01"),
        high: decimal("999999999999999"),
        low: decimal("-0.000000000000000001"),
        average: decimal("10.12"),
        close: decimal(close),
        bid: decimal("0"),
        ask: decimal("10.3"),
        trade_count: u64::MAX,
        quantity: decimal("1200"),
        value: decimal("12144.5"),
        strike: decimal("31.25"),
        strike_points: decimal("0.000001"),
        expiry_day: 2_932_896,
        quote_factor: u32::MAX,
        board: "02".into(),
        strike_correction: "\"'\\\u{e9}\0".into(),
        distribution: "".into(),
    }
}

fn details(day: u32, isin: &str) -> InstrumentDetails {
    InstrumentDetails {
        day,
        isin: isin.into(),
        issuer: "P\u{c3}O \"DE\" A\u{c7}UCAR".into(),
        share_class: "PN  EJ N1".into(),
        currency: "R$".into(),
    }
}

/// A batch of a run that publishes, with as many entries as said.
fn mark(owner: u64, batch: u64, published: Published<InstrumentId>, entry_count: u32) -> Mark {
    let count = published.bars.len() as u64;
    let progress = RunProgress { lines: count, published: count, ..RunProgress::default() };
    Mark::Run { run: run_id("r"), owner: RunOwner(owner), batch, progress, published, entry_count }
}

fn bars(of: u32, bars: Vec<PublishedBar>) -> Published<InstrumentId> {
    Published { bars: bars.into_iter().map(|bar| (InstrumentId(of), bar)).collect(), details: Vec::new() }
}

async fn begun(fixture: &Fixture) -> Arc<dyn Store> {
    let store = fixture.open().await;
    yours(store.begin_run(request("r", 1, 1, 1, 1, START)).await.unwrap());
    store
}

/// All bars of an instrument.
async fn stored(store: &dyn Store, of: u32) -> Vec<PublishedBar> {
    store.published_bars(InstrumentId(of), ALL, None, 100).await.unwrap()
}

async fn replaced_bars(fixture: Fixture) {
    let store = begun(&fixture).await;
    assert_eq!(stored(&*store, 1).await, []);
    let (cash, call) = (key(19_000, 10, 0), key(19_000, 70, 0));
    // Of one key inside a batch, the last of the file.
    let first = vec![bar(call, "1"), bar(cash, "2"), bar(cash, "3")];
    committed(store.append(marked(vec![mark(1, 1, bars(1, first), 0)])).await.unwrap());
    assert_eq!(stored(&*store, 1).await, [bar(cash, "3"), bar(call, "1")]);
    assert_eq!(stored(&*store, 2).await, []);
    // Of one key inside a group, the last batch's; and a later append's over all before.
    let group = vec![mark(1, 2, bars(1, vec![bar(call, "4")]), 0), mark(1, 3, bars(1, vec![bar(call, "5")]), 0)];
    committed(store.append(marked(group)).await.unwrap());
    let replaced = PublishedBar {
        open: decimal("20"),
        high: decimal("21"),
        low: decimal("22"),
        average: decimal("23"),
        bid: decimal("24"),
        ask: decimal("25"),
        trade_count: 26,
        quantity: decimal("27"),
        value: decimal("28"),
        strike: decimal("29"),
        strike_points: decimal("30"),
        expiry_day: 31,
        quote_factor: 32,
        board: "33".into(),
        strike_correction: "34".into(),
        distribution: "35".into(),
        ..bar(cash, "36")
    };
    committed(store.append(marked(vec![mark(1, 4, bars(1, vec![replaced.clone()]), 0)])).await.unwrap());
    let store = fixture.reopen(store).await;
    assert_eq!(stored(&*store, 1).await, [replaced, bar(call, "5")]);
    assert_eq!(store.run(&run_id("r")).await.unwrap().unwrap().progress.published, 6);
}

async fn listed_bars(fixture: Fixture) {
    let store = begun(&fixture).await;
    let keys = [key(5, 10, 0), key(5, 30, 30), key(5, 30, 60), key(6, 10, 0), key(7, 20, 1), key(2_932_896, 10, 0)];
    let backwards: Vec<PublishedBar> = keys.iter().rev().map(|key| bar(*key, "1")).collect();
    let mut published = bars(2, backwards);
    // The neighbours stay out of the answer.
    published.bars.push((InstrumentId(1), bar(key(6, 10, 0), "1")));
    published.bars.push((InstrumentId(3), bar(key(0, 0, 0), "1")));
    store.append(marked(vec![mark(1, 1, published, 0)])).await.unwrap();
    for (name, days, after, limit, expected) in [
        ("all", ALL, None, 100, &keys[..]),
        ("a page", ALL, None, 2, &keys[..2]),
        ("the page behind", ALL, Some(keys[1]), 2, &keys[2..4]),
        ("behind a key that is not there", ALL, Some(key(5, 30, 45)), 2, &keys[2..4]),
        ("behind the last", ALL, Some(keys[5]), 2, &[]),
        ("nothing", ALL, None, 0, &[]),
        ("half-open", 5..6, None, 100, &keys[..3]),
        ("from", 6..u32::MAX, None, 100, &keys[3..]),
        ("until", 0..7, None, 100, &keys[..4]),
        ("empty", 6..6, None, 100, &[]),
        ("between", 8..10_000, None, 100, &[]),
        ("behind a key before the range", 7..u32::MAX, Some(keys[0]), 100, &keys[4..]),
        ("behind a key past the range", 0..6, Some(keys[3]), 100, &[]),
    ] {
        let found = store.published_bars(InstrumentId(2), days, after, limit).await.unwrap();
        assert_eq!(found.iter().map(|bar| bar.key).collect::<Vec<_>>(), expected, "{name}");
    }
}

async fn newest_details(fixture: Fixture) {
    let store = begun(&fixture).await;
    let ids = [1, 2, 3].map(InstrumentId);
    assert_eq!(store.instrument_details(&ids).await.unwrap(), []);
    let told = |days: &[(u32, u32, &str)]| Published {
        bars: Vec::new(),
        details: days.iter().map(|(of, day, isin)| (InstrumentId(*of), details(*day, isin))).collect(),
    };
    let steps: [&[(u32, u32, &str)]; 4] = [
        &[(1, 10, "A"), (1, 12, "B"), (1, 12, "C"), (1, 11, "D"), (3, 10, "E")],
        &[(1, 11, "F"), (3, 11, "G")],
        &[(1, 12, "H"), (3, 10, "I")],
        &[(1, 9, "J")],
    ];
    let expected = [[(12, "C"), (10, "E")], [(12, "C"), (11, "G")], [(12, "H"), (11, "G")], [(12, "H"), (11, "G")]];
    for (batch, (step, [first, third])) in (1..).zip(steps.into_iter().zip(expected)) {
        store.append(marked(vec![mark(1, batch, told(step), 0)])).await.unwrap();
        let expected = [(InstrumentId(1), details(first.0, first.1)), (InstrumentId(3), details(third.0, third.1))];
        assert_eq!(store.instrument_details(&ids).await.unwrap(), expected, "step {batch}");
    }
    let store = fixture.reopen(store).await;
    let one = store.instrument_details(&[InstrumentId(3), InstrumentId(3), InstrumentId(2)]).await.unwrap();
    assert_eq!(one, [(InstrumentId(3), details(11, "G"))]);
    assert_eq!(store.instrument_details(&[]).await.unwrap(), []);
}

async fn no_segment(fixture: Fixture) {
    let store = begun(&fixture).await;
    store.append(group(2, "others")).await.unwrap();
    let before = store.head().await.unwrap();
    fixture.clock.set(START + 100);
    let only = mark(1, 1, bars(1, vec![bar(key(1, 10, 0), "1")]), 0);
    let appended = store.append(marked(vec![only])).await.unwrap();
    assert_eq!(appended, Appended::Committed { first_seq: 3, append_time: before.append_time, chain: before.chain });
    assert_eq!(store.head().await.unwrap(), before);
    let both = mark(1, 2, bars(1, vec![bar(key(2, 10, 0), "1")]), 3);
    assert_eq!(committed(store.append(marked(vec![both])).await.unwrap()), 3);
    let store = fixture.reopen(store).await;
    assert_eq!(whole_log(&*store).await.1.len(), 2);
    assert_eq!(stored(&*store, 1).await.len(), 2);
}

async fn fenced(fixture: Fixture) {
    let store = begun(&fixture).await;
    let day = |day, close: &str| bars(1, vec![bar(key(day, 10, 0), close)]);
    let refused = |appended: Appended| match appended {
        Appended::Refused(verdicts) => verdicts[0],
        Appended::Committed { .. } => panic!("stored"),
    };
    committed(store.append(marked(vec![mark(1, 1, day(1, "1"), 0)])).await.unwrap());
    // What is known is not stored again, whatever it holds.
    let again = store.append(marked(vec![mark(1, 1, day(1, "2"), 0)])).await.unwrap();
    assert_eq!(refused(again), Verdict::Duplicate { last_seq: 0 });
    let hole = store.append(marked(vec![mark(1, 3, day(1, "3"), 0)])).await.unwrap();
    assert_eq!(refused(hole), Verdict::OutOfOrder { expected: 2 });
    yours(store.begin_run(request("r", 1, 1, 1, 2, START + 15 * SECOND)).await.unwrap());
    let mut late = day(1, "4");
    late.details.push((InstrumentId(1), details(1, "A")));
    let late = store.append(marked(vec![mark(1, 2, late, 0)])).await.unwrap();
    assert_eq!(refused(late), Verdict::Fenced);
    assert_eq!(stored(&*store, 1).await, [bar(key(1, 10, 0), "1")]);
    assert_eq!(store.instrument_details(&[InstrumentId(1)]).await.unwrap(), []);
    committed(store.append(marked(vec![mark(2, 2, day(1, "5"), 0)])).await.unwrap());
    assert_eq!(stored(&*store, 1).await, [bar(key(1, 10, 0), "5")]);
}

async fn faulted(fixture: Fixture) {
    let mut store = begun(&fixture).await;
    for (batch, (point, is_stored)) in (1..).zip([
        (faults::APPEND_BEFORE, false),
        (faults::APPEND_INSIDE, false),
        (faults::APPEND_BEFORE_SYNC, false),
        (faults::APPEND_AFTER, true),
    ]) {
        let day = batch as u32;
        let mut published = bars(1, vec![bar(key(day, 10, 0), "1")]);
        published.details.push((InstrumentId(1), details(day, "A")));
        let group = marked(vec![mark(1, batch, published, 2 * (day % 2))]);
        fixture.faults.next(point, FaultAction::Fail);
        assert!(matches!(store.append(group.clone()).await, Err(StoreError::Unavailable(_))), "{point}");
        if batch % 2 == 0 {
            store = fixture.reopen(store).await;
            // A store with one server at a time ends leases when it is opened; the owner is the same.
            assert_eq!(store.run(&run_id("r")).await.unwrap().unwrap().owner, RunOwner(1));
        }
        let days = if is_stored { day } else { day - 1 };
        let found = stored(&*store, 1).await;
        assert_eq!(found.iter().map(|bar| bar.key.day).collect::<Vec<_>>(), (1..=days).collect::<Vec<_>>(), "{point}");
        let told = store.instrument_details(&[InstrumentId(1)]).await.unwrap();
        assert_eq!(told.first().map_or(0, |(_, details)| details.day), days, "{point}");
        assert_eq!(store.run(&run_id("r")).await.unwrap().unwrap().progress.published, u64::from(days), "{point}");
        match store.append(group).await.unwrap() {
            Appended::Committed { .. } => assert!(!is_stored, "{point}"),
            Appended::Refused(verdicts) => assert!(matches!(verdicts[..], [Verdict::Duplicate { .. }]), "{point}"),
        }
        assert_eq!(stored(&*store, 1).await.len(), batch as usize, "{point}");
    }
}

async fn full_batch(fixture: Fixture) {
    let store = begun(&fixture).await;
    let mut published = Published::default();
    for number in 0..10_000_u32 {
        let of = InstrumentId(1 + number % 5_000);
        published.bars.push((of, bar(key(number / 5_000, 10, 0), "1")));
        published.details.push((of, details(number / 5_000, "A")));
    }
    let began = std::time::Instant::now();
    committed(store.append(marked(vec![mark(1, 1, published, 0)])).await.unwrap());
    // Thousands of statements would take many times as long; the bound leaves room for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(stored(&*store, 5_000).await.len(), 2);
    let all: Vec<_> = (1..=5_000).map(InstrumentId).collect();
    let told = store.instrument_details(&all).await.unwrap();
    assert_eq!(told.len(), 5_000);
    assert!(told.iter().all(|(_, details)| details.day == 1));
}
