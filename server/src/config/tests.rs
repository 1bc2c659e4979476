use super::*;

fn read(arguments: &[&str]) -> Result<ServeConfig, String> {
    let arguments = ["tapefeed-server"].iter().chain(arguments);
    let line = CommandLine::try_parse_from(arguments).map_err(|error| error.to_string())?;
    match line.resolve().map_err(|error| error.to_string())? {
        Config::Serve(serve) => Ok(*serve),
        other => panic!("expected to serve, got {other:?}"),
    }
}

#[test]
fn defaults_serve_a_local_file_for_this_machine() {
    let serve = read(&["serve"]).unwrap();
    assert_eq!(serve.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(serve.store, StoreUrl::Sqlite("./tapefeed.db".into()));
    assert_eq!(serve.spool, std::path::Path::new("./tapefeed.db.spool"));
    assert_eq!(serve.bus, BusUrl::Local);
    assert_eq!(serve.log_retention, Duration::from_secs(86_400));
    assert_eq!(serve.log_retention_bytes, 8 << 30);
    assert_eq!(serve.history_retention, None);
    assert_eq!(serve.chunk_cache_bytes, 128 << 20);
    assert_eq!(read(&["serve", "--chunk-cache", "2GiB"]).unwrap().chunk_cache_bytes, 2 << 30);
    assert_eq!(serve.header_cache_bytes, 32 << 20);
    for (given, bytes) in [("1GiB", 1 << 30), ("1KiB", 1 << 20)] {
        assert_eq!(read(&["serve", "--header-cache", given]).unwrap().header_cache_bytes, bytes);
    }
    assert_eq!(serve.demo, None);
    assert_eq!(serve.log, LogConfig::default());
    let bars = [&["serve"][..], &["serve", "--bars-table"], &["serve", "--bars-table=false"]];
    assert_eq!(bars.map(|arguments| read(arguments).unwrap().bars_table), [false, true, false]);
}

#[test]
fn the_demo_has_a_store_of_its_own_that_does_not_grow_for_ever() {
    let demo = read(&["demo", "--demo-rate", "7"]).unwrap();
    assert_eq!(demo.store, StoreUrl::Sqlite("./tapefeed-demo.db".into()));
    assert_eq!(demo.history_retention, Some(Duration::from_secs(86_400)));
    let expected = Demo { ticks_per_second: 7, seed: 1 };
    assert_eq!(demo.demo, Some(expected));
    let kept = read(&["demo", "--history-retention", "7d"]).unwrap();
    assert_eq!(kept.history_retention, Some(Duration::from_secs(604_800)));
}

#[test]
fn a_flag_is_stronger_than_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("options.toml");
    let text = "store = \"sqlite://from-file.db\"\nlog-retention = \"2h\"\nlog = \"debug\"\n";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();

    let serve = read(&["serve", "--config", path, "--log-retention", "3h"]).unwrap();
    assert_eq!(serve.store, StoreUrl::Sqlite("from-file.db".into()));
    assert_eq!(serve.log_retention, Duration::from_secs(3 * 3_600));
    assert_eq!(serve.log.filter, "debug");

    let demo = read(&["demo", "--config", path]).unwrap();
    assert_eq!(demo.store, StoreUrl::Sqlite("./tapefeed-demo.db".into()));
    assert_eq!(demo.log_retention, Duration::from_secs(2 * 3_600));
}

#[test]
fn wrong_options_say_what_to_write() {
    for (arguments, told) in [
        (["--listen", "0.0.0.0:50051"], "neither TLS nor authentication"),
        (["--listen", "localhost"], "127.0.0.1:50051"),
        (["--store", "tapefeed.db"], "sqlite://"),
        (["--bus", "nats://localhost"], "redis://"),
        (["--log-retention", "a day"], "24h"),
        (["--config", "no/such/file.toml"], "no/such/file.toml"),
    ] {
        let error = read(&["serve", arguments[0], arguments[1]]).unwrap_err();
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
}

#[test]
fn an_epoch_is_renewed_in_the_store_of_serve() {
    let line = ["tapefeed-server", "epoch", "renew", "--store", "sqlite://copy.db"];
    let config = CommandLine::try_parse_from(line).unwrap().resolve().unwrap();
    let expected = Config::RenewEpoch { store: StoreUrl::Sqlite("copy.db".into()), log: LogConfig::default() };
    assert_eq!(config, expected);
}

#[test]
fn the_password_of_a_store_is_never_shown() {
    let url = "postgres://me:secret@db.example/tape";
    let serve = read(&["serve", "--store", url]).unwrap();
    let StoreUrl::Postgres(postgres) = &serve.store else { panic!("{:?}", serve.store) };
    assert_eq!(postgres.to_string(), "postgres://me@db.example:5432/tape");
    assert!(!format!("{serve:?}").contains("secret"));
    assert_eq!(serve.spool, std::env::temp_dir());
    // What is wrong with it is found when it is opened, because a refused option is repeated.
    for url in ["postgres://me:secret@db.example:port/tape", "postgresq://me:secret@db.example/tape"] {
        let serve = read(&["serve", "--store", url]).unwrap();
        assert!(!format!("{serve:?}").contains("secret"));
    }
}

#[test]
fn a_log_filter_is_read_again_from_the_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("options.toml");
    std::fs::write(&path, "log-format = \"json\"\n").unwrap();
    let serve = read(&["serve", "--log", "warn", "--config", path.to_str().unwrap()]).unwrap();
    assert_eq!((serve.log.filter.as_str(), serve.log.format), ("warn", LogFormat::Json));
    assert_eq!(serve.log.reread().unwrap(), "warn");
    std::fs::write(&path, "log = \"info,tapefeed_server::tape=debug\"\n").unwrap();
    assert_eq!(serve.log.reread().unwrap(), "info,tapefeed_server::tape=debug");
    std::fs::write(&path, "log = 7\n").unwrap();
    assert!(serve.log.reread().is_err());
}
