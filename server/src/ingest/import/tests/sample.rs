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

#[tokio::test]
async fn real_files_of_other_kinds_are_refused_with_their_columns() {
    let Some(folder) = folder() else {
        eprintln!("skipped: TAPEFEED_SAMPLE_DATA does not name the folder of real files");
        return;
    };
    let bench = Bench::new(Limits::default()).await;
    for (file, expected) in [
        ("b3/29-04-2025_NEGOCIOSAVISTA.txt.zip", "no column for event_time, price, venue, symbol"),
        ("b3/invalid_NEGOCIOSAVISTA.txt.zip", "\"DataReferencia\", \"CodigoInstrumento\""),
        ("b3/COTAHIST_D12022003.TXT", "no column for event_time"),
        ("binance/spot_btcusdt_2024-08-08.jsonl.gz", "looks like lines of JSON"),
    ] {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let error = bench.import(start("run-1"), &bytes).await.unwrap_err();
        assert_eq!(error.reason(), "FILE_MALFORMED", "{file}: {error}");
        assert!(error.to_string().contains(expected), "{file}: {error}");
    }
}
