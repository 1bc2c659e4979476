//! The table of bars, as other programs read it.

use std::collections::BTreeSet;
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

use super::*;
use crate::domain::bar::Interval;
use crate::domain::{Cursor, Decimal, InstrumentId, Symbol, Venue};
use crate::store::{BarKey, BarsChange, BarsMark, StoreError, faults};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("bars come and go with their mark, exact, and survive a restart", changed_bars),
        case("a bar is never replaced by one of a lower revision", lower_revision),
        case("of two changes that expect the same version one is stored", outrun),
        case("a change under another epoch is refused, and rows above a fork can be forgotten", other_epoch),
        case("a full change is stored at once", full_change),
        case("a caller who goes away leaves a whole change or none", abandoned),
        case("a change that fails before it or after it can be made again", faulted),
    ]
}

fn key(instrument: u32, interval: Interval, start: i64) -> BarKey {
    BarKey { instrument: InstrumentId(instrument), interval, start: at(start * 1_000_000_000) }
}

/// A row whose numbers are all different and need every digit.
fn row(key: BarKey, revision: u64, close: &str) -> BarRow {
    let decimal = |text: &str| text.parse::<Decimal>().unwrap();
    BarRow {
        key,
        open: decimal("0.000000000000000001"),
        high: decimal("999999999999999"),
        low: decimal("-5.25"),
        close: decimal(close),
        volume: "1234567890123456789012345678.123456789012345678".to_owned(),
        notional: "-98765432109876543210987654321.123456789012345678901234567890123456".to_owned(),
        trade_count: 9_007_199_254_740_993,
        revision,
        has_gap: revision.is_multiple_of(2),
    }
}

/// A row as text and numbers.
#[derive(sqlx::FromRow)]
struct Columns {
    instrument_id: i64,
    interval_seconds: i64,
    seconds: i64,
    open: String,
    high: String,
    low: String,
    close: String,
    volume: String,
    notional: String,
    trade_count: i64,
    revision: i64,
    has_gap: bool,
}

impl Columns {
    fn row(self) -> BarRow {
        let interval = Interval::new(Duration::from_secs(self.interval_seconds as u64)).unwrap();
        BarRow {
            key: key(self.instrument_id as u32, interval, self.seconds),
            open: self.open.parse().unwrap(),
            high: self.high.parse().unwrap(),
            low: self.low.parse().unwrap(),
            close: self.close.parse().unwrap(),
            volume: self.volume,
            notional: self.notional,
            trade_count: self.trade_count as u64,
            revision: self.revision as u64,
            has_gap: self.has_gap,
        }
    }
}

/// The table of a file, by key.
pub(super) async fn in_file(path: &Path) -> Vec<BarRow> {
    let sql = "SELECT *, start AS seconds FROM bars ORDER BY instrument_id, interval_seconds, start";
    let mut connection = SqliteConnectOptions::new().filename(path).read_only(true).connect().await.unwrap();
    let rows: Vec<Columns> = sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap();
    rows.into_iter().map(Columns::row).collect()
}

/// The table of a database, by key.
pub(super) async fn in_database(connection: &mut PgConnection) -> Vec<BarRow> {
    let sql = "
        SELECT
            instrument_id, interval_seconds, extract(epoch FROM start)::BIGINT AS seconds,
            open::TEXT, high::TEXT, low::TEXT, close::TEXT, volume::TEXT, notional::TEXT,
            trade_count, revision, has_gap
        FROM bars
        ORDER BY instrument_id, interval_seconds, start";
    let rows: Vec<Columns> = sqlx::query_as(sql).fetch_all(connection).await.unwrap();
    rows.into_iter().map(Columns::row).collect()
}

/// A change of the log of every fixture that puts rows.
fn change(version: u64, rows: Vec<BarRow>) -> BarsChange {
    BarsChange { epoch: EPOCH, version, position: Some(version + 1), forget_above: None, gone: Vec::new(), rows }
}

fn mark(version: u64, position: Option<u64>) -> BarsMark {
    BarsMark { version, epoch: Some(EPOCH), position }
}

/// A store that knows two instruments.
async fn open(fixture: &Fixture) -> Arc<dyn Store> {
    let store = fixture.open().await;
    let name = |symbol| (Venue::new("V").unwrap(), Symbol::new(symbol).unwrap());
    store.register(&[name("A"), name("B")]).await.unwrap();
    store
}

async fn changed_bars(fixture: Fixture) {
    let store = open(&fixture).await;
    assert_eq!(store.bars_mark().await.unwrap(), BarsMark::default());
    let day = row(key(1, Interval::DAY, 1_699_920_000), 9, "1.5");
    let minute = row(key(2, Interval::MINUTE, 1_700_000_040), 4, "-0.1");
    let hour = row(key(2, Interval::HOUR, 0), 5, "20000000");
    let rows = vec![hour.clone(), day.clone(), minute.clone()];
    assert!(store.record_bars(change(0, rows)).await.unwrap());
    assert_eq!(store.bars_mark().await.unwrap(), mark(1, Some(1)));
    assert_eq!(fixture.backend.bars().await, [day.clone(), minute.clone(), hour.clone()]);

    // What goes may not be there; what comes replaces; the position may be taken back.
    let revised = row(minute.key, 12, "7");
    let gone = vec![hour.key, key(9, Interval::HOUR, 0)];
    let second = BarsChange { position: None, gone, ..change(1, vec![revised.clone()]) };
    assert!(store.record_bars(second).await.unwrap());
    let store = fixture.reopen(store).await;
    assert_eq!(store.bars_mark().await.unwrap(), mark(2, None));
    assert_eq!(fixture.backend.bars().await, [day, revised]);
}

async fn lower_revision(fixture: Fixture) {
    let store = open(&fixture).await;
    let minute = key(1, Interval::MINUTE, 60);
    for (version, revision, close, stands) in [(0, 5, "5", "5"), (1, 4, "4", "5"), (2, 5, "6", "6"), (3, 8, "8", "8")] {
        assert!(store.record_bars(change(version, vec![row(minute, revision, close)])).await.unwrap());
        let found = fixture.backend.bars().await;
        assert_eq!(found.iter().map(|row| row.close.to_string()).collect::<Vec<_>>(), [stands], "{revision}");
    }
}

async fn outrun(fixture: Fixture) {
    let store = open(&fixture).await;
    let one = change(0, vec![row(key(1, Interval::MINUTE, 60), 1, "1")]);
    let other = BarsChange { position: Some(77), ..change(0, vec![row(key(2, Interval::MINUTE, 60), 2, "2")]) };
    let (one, other) = tokio::join!(store.record_bars(one), store.record_bars(other));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(one != other, "{one} {other}");
    let (instrument, position) = if one { (1, 1) } else { (2, 77) };
    assert_eq!(store.bars_mark().await.unwrap(), mark(1, Some(position)));
    let found = fixture.backend.bars().await;
    assert_eq!(found.iter().map(|row| row.key.instrument.0).collect::<Vec<_>>(), [instrument]);
    for version in [0, 2] {
        assert!(!store.record_bars(change(version, Vec::new())).await.unwrap());
    }
    assert_eq!(store.bars_mark().await.unwrap(), mark(1, Some(position)));
}

async fn other_epoch(fixture: Fixture) {
    let store = open(&fixture).await;
    store.append(group(9, "nine")).await.unwrap();
    let rows = (1..=9).map(|revision| row(key(1, Interval::MINUTE, 60 * revision), revision as u64, "1")).collect();
    assert!(store.record_bars(change(0, rows)).await.unwrap());
    let next = Epoch(78);
    store.fork_epoch(next, Cursor { epoch: EPOCH, position: 5 }).await.unwrap();
    let late = store.record_bars(change(1, Vec::new())).await;
    assert!(matches!(late, Err(StoreError::EpochChanged(epoch)) if epoch == next), "{late:?}");
    assert_eq!(store.bars_mark().await.unwrap(), mark(1, Some(1)));
    let forget = BarsChange { epoch: next, position: None, forget_above: Some(5), ..change(1, Vec::new()) };
    assert!(store.record_bars(forget).await.unwrap());
    let found = fixture.backend.bars().await;
    assert_eq!(found.iter().map(|row| row.revision).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(store.bars_mark().await.unwrap(), BarsMark { epoch: Some(next), ..mark(2, None) });
    let all = BarsChange { epoch: next, position: None, forget_above: Some(0), ..change(2, Vec::new()) };
    assert!(store.record_bars(all).await.unwrap() && fixture.backend.bars().await.is_empty());
}

async fn full_change(fixture: Fixture) {
    let store = open(&fixture).await;
    let rows: Vec<BarRow> =
        (0..2_100).map(|minute| row(key(1, Interval::MINUTE, 60 * minute), minute as u64 + 1, "1.25")).collect();
    assert!(store.record_bars(change(0, rows.clone())).await.unwrap());
    assert_eq!(fixture.backend.bars().await, rows);
    let gone = rows.iter().map(|row| row.key).collect();
    assert!(store.record_bars(BarsChange { gone, ..change(1, Vec::new()) }).await.unwrap());
    assert!(fixture.backend.bars().await.is_empty());
}

async fn abandoned(fixture: Fixture) {
    let store = open(&fixture).await;
    for polls in 0..60 {
        let version = store.bars_mark().await.unwrap().version;
        let rows = (0..40).map(|minute| row(key(1, Interval::MINUTE, 60 * minute), version + 1, "1")).collect();
        let mut recording = Box::pin(store.record_bars(change(version, rows)));
        for _ in 0..polls {
            if futures_util::poll!(&mut recording).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // A write of which nobody heard may still be under way: this one waits for it, or outruns it.
    while !store.record_bars(change(store.bars_mark().await.unwrap().version, Vec::new())).await.unwrap() {}
    let found = fixture.backend.bars().await;
    let revisions: BTreeSet<u64> = found.iter().map(|row| row.revision).collect();
    assert!(found.is_empty() || found.len() == 40 && revisions.len() == 1, "{revisions:?}");
}

async fn faulted(fixture: Fixture) {
    let store = open(&fixture).await;
    let minute = key(1, Interval::MINUTE, 60);
    for (version, (point, stored)) in (0..).zip([(faults::BARS_BEFORE, false), (faults::BARS_AFTER, true)]) {
        let new = row(minute, version + 1, "1");
        fixture.faults.next(point, FaultAction::Fail);
        let failed = store.record_bars(change(version, vec![new.clone()])).await;
        assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{point}: {failed:?}");
        assert_eq!(fixture.backend.bars().await.contains(&new), stored, "{point}");
        // Who makes it again sees by the version that it is made.
        assert_eq!(store.record_bars(change(version, vec![new.clone()])).await.unwrap(), !stored, "{point}");
        assert_eq!(store.bars_mark().await.unwrap(), mark(version + 1, Some(version + 1)), "{point}");
        assert_eq!(fixture.backend.bars().await, [new], "{point}");
    }
}
