//! The real captures, where they are at hand.

use std::path::PathBuf;

use super::*;

fn folder() -> Option<PathBuf> {
    std::env::var_os("TAPEFEED_SAMPLE_DATA").map(PathBuf::from)
}

#[tokio::test]
async fn real_trades_are_all_imported() {
    let Some(folder) = folder() else {
        eprintln!("skipped: TAPEFEED_SAMPLE_DATA does not name the folder of real files");
        return;
    };
    let bench = Bench::new(Limits::default()).await;
    for (file, count) in
        [("spot_btcusdt", 9_757), ("spot_ethusdt", 6_106), ("usdm_btcusdt", 21_313), ("usdm_ethusdt", 14_076)]
    {
        let path = folder.join(format!("binance/{file}_2024-08-08_trades.csv.gz"));
        let run = bench.import(start(file), &std::fs::read(path).unwrap()).await.unwrap().run;
        assert_eq!((run.ticks, run.rejected, run.ignored.total()), (count, 0, 0), "{file}");
    }
    let volume = |ticks: &[Tick], range: std::ops::Range<usize>| -> i128 {
        ticks[range].iter().map(|tick| tick.quantity.unwrap().units_e18()).sum()
    };
    let ticks = bench.ticks().await;
    let e18 = 10i128.pow(18);
    assert_eq!(volume(&ticks, 0..9_757), 21_203_315 * e18 / 100_000);
    assert_eq!(volume(&ticks, 9_757..15_863), 22_613_149 * e18 / 10_000);
}

/// A real file, or `None` where there are none.
fn file(name: &str) -> Option<Vec<u8>> {
    let Some(folder) = folder() else {
        eprintln!("skipped: TAPEFEED_SAMPLE_DATA does not name the folder of real files");
        return None;
    };
    Some(std::fs::read(folder.join(name)).unwrap())
}

/// The text of a field of a record, by its positions from 1.
fn at(record: &[u8], first: usize, last: usize) -> &str {
    std::str::from_utf8(&record[first - 1..last]).unwrap()
}

/// Reads a real file without a server.
fn read(bytes: &[u8]) -> Vec<LineContent> {
    let folder = tempfile::tempdir().unwrap();
    let reader = FileReader::read(bytes, ImportOptions::default(), folder.path().to_owned()).unwrap();
    reader.map(|line| line.unwrap().content).collect()
}

#[test]
fn raw_captures_hold_the_same_ticks_as_their_columns() {
    for name in ["spot_btcusdt", "spot_ethusdt"] {
        let Some(raw) = file(&format!("binance/{name}_2024-08-08.jsonl.gz")) else { return };
        let Some(columns) = file(&format!("binance/{name}_2024-08-08_trades.csv.gz")) else { return };
        let mut lines = read(&raw);
        lines.retain(|line| matches!(line, LineContent::Tick { .. }));
        assert_eq!(lines, read(&columns), "{name}");
    }
}

#[test]
fn the_session_of_2003_is_published_as_its_bytes_say() {
    let Some(bytes) = file("b3/COTAHIST_D12022003.TXT") else { return };
    let records: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|record| record.starts_with(b"01")).collect();
    let lines = read(&bytes);
    assert_eq!((records.len(), lines.len()), (551, 551));
    let mut thousands = 0;
    for (record, line) in records.iter().zip(&lines) {
        let LineContent::Published(published) = line else { panic!("{line:?}") };
        let [((venue, symbol), bar)] = &published.bars[..] else { panic!("{published:?}") };
        let [(_, details)] = &published.details[..] else { panic!("{published:?}") };
        assert_eq!((venue.as_str(), symbol.as_str()), ("B3", at(record, 13, 24).trim_end()));
        let factor: i128 = at(record, 211, 217).parse().unwrap();
        thousands += u32::from(factor == 1_000);
        // What a price says for `factor` units, in units of 10^-18.
        for (price, first) in [
            (bar.open, 57),
            (bar.high, 70),
            (bar.low, 83),
            (bar.average, 96),
            (bar.close, 109),
            (bar.bid, 122),
            (bar.ask, 135),
            (bar.strike, 189),
        ] {
            let written: i128 = at(record, first, first + 12).parse().unwrap();
            assert_eq!(price.units_e18() * factor, written * 10i128.pow(16), "{symbol} at {first}");
        }
        assert_eq!(bar.trade_count, at(record, 148, 152).parse::<u64>().unwrap());
        assert_eq!(bar.quantity.units_e18(), at(record, 153, 170).parse::<i128>().unwrap() * 10i128.pow(18));
        assert_eq!(bar.value.units_e18(), at(record, 171, 188).parse::<i128>().unwrap() * 10i128.pow(16));
        assert_eq!(bar.strike_points.units_e18(), at(record, 218, 230).parse::<i128>().unwrap() * 10i128.pow(12));
        assert_eq!((bar.key.day, bar.key.market), (12_095, at(record, 25, 27).parse().unwrap()));
        assert_eq!(bar.key.term, at(record, 50, 52).trim().parse().unwrap_or(0));
        assert_eq!((&*bar.board, &*bar.distribution), (at(record, 11, 12), at(record, 243, 245)));
        assert_eq!((&*details.issuer, &*details.isin), (at(record, 28, 39).trim_end(), at(record, 231, 242)));
    }
    assert_eq!(thousands, 378, "prices for a thousand units");
}

#[tokio::test]
async fn real_files_with_defects_are_refused_and_store_nothing() {
    let bench = Bench::new(Limits::default()).await;
    for (name, expected) in [
        ("b3/invalid_NEGOCIOSAVISTA.txt.zip", &["lacks columns of B3's trades: AcaoAtualizacao, PrecoNegocio"][..]),
        ("b3/COTAHIST_D04012016_truncated.TXT", &["counts 1,745 records", "the file has 506", "line 506"]),
    ] {
        let Some(bytes) = file(name) else { return };
        let error = bench.import(start("run-1"), &bytes).await.unwrap_err();
        assert_eq!(error.reason(), "FILE_MALFORMED", "{name}: {error}");
        for part in expected {
            assert!(error.to_string().contains(part), "{name}: {error}");
        }
        assert_eq!(bench.imports.status(&start("run-1").run).await.unwrap().content, None);
    }
    assert!(bench.ticks().await.is_empty());
}

#[tokio::test]
async fn the_trades_of_b3_are_exact_and_at_their_instant() {
    let Some(bytes) = file("b3/29-04-2025_NEGOCIOSAVISTA.txt.zip") else { return };
    let bench = Bench::new(Limits::default()).await;
    let run = bench.import(start("run-1"), &bytes).await.unwrap().run;
    assert_eq!((run.ticks, run.rejected, run.options.format), (2, 0, Some(FileFormat::B3Trades)));
    let ticks = bench.ticks().await;
    let prices: Vec<String> = ticks.iter().map(|tick| tick.price.to_string()).collect();
    assert_eq!(prices, ["5.97", "5.9"]);
    // 2025-04-28T02:48:10.098-03:00.
    assert!(ticks.iter().all(|tick| tick.event_time.nanos() == 1_745_819_290_098_000_000));
    assert_ne!(ticks[0].instrument, ticks[1].instrument, "one number, two instruments: two trades");
    assert_eq!(ticks[0].trade_id, ticks[1].trade_id);
}
