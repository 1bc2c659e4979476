//! Files as wholes: what becomes of their lines.

use super::*;

#[tokio::test]
async fn a_file_becomes_ticks_in_its_order() {
    let bench = Bench::new(Limits::default()).await;
    let imported = bench.import(start("run-1"), &trades(25_000)).await.unwrap();
    let run = imported.run;
    assert!(!imported.duplicate);
    assert_eq!((run.state, run.lines, run.total_lines, run.ticks), (State::Succeeded, 25_000, Some(25_000), 25_000));
    assert_eq!((run.rejected, run.ignored.total(), run.last_batch), (0, 0, 3));
    assert_eq!(run.cursor.map(|cursor| cursor.position), Some(25_000));
    assert_eq!(run.options.time_unit, Some(TimeUnit::Milliseconds));
    assert_eq!(run.options.columns[&Field::Side], "buyer_is_maker");
    let ticks = bench.ticks().await;
    assert_eq!(ticks.len(), 25_000);
    for (index, tick) in ticks.iter().enumerate() {
        assert_eq!(tick.log_seq, index as u64 + 1);
        assert_eq!(tick.trade_id.to_string(), index.to_string());
    }
}

#[tokio::test]
async fn bad_lines_are_rejected_with_number_reason_and_text() {
    let bench = Bench::new(Limits::default()).await;
    let file = b"venue,symbol,time_s,price\r\nV,S,1,1.5\r\nV,S,1,NaN\r\n\r\nV,caf\xE9,1,2\r\nV,S,1,2".to_vec();
    let run = bench.import(start("run-1"), &file).await.unwrap().run;
    assert_eq!((run.lines, run.ticks, run.rejected, run.ignored.total()), (5, 2, 2, 1));
    let rejects: Vec<_> = run.first_rejects.iter().map(|reject| (reject.line, reject.text.as_str())).collect();
    assert_eq!(rejects, [(3, "V,S,1,NaN"), (5, "V,caf\\xE9,1,2")]);
    assert!(run.first_rejects[0].reason.starts_with("price: not a decimal number"));
}

#[tokio::test]
async fn too_many_bad_lines_fail_the_run_and_a_larger_bound_continues_it() {
    let bench = Bench::new(Limits::default()).await;
    let mut file = trades(15_000);
    for line in 0..30 {
        file.extend_from_slice(format!("V,S,{line},1000,,bad,1,true\n").as_bytes());
    }
    let strict = ImportStart { max_rejects: 29, ..start("strict") };
    let error = bench.import(strict.clone(), &file).await.unwrap_err();
    assert!(matches!(error, ImportError::TooManyRejects { max: 29, rejected: 30, .. }), "{error:?}");
    assert!(error.to_string().contains("line 15002 price: not a decimal number"), "{error}");
    let run = bench.imports.status(&strict.run).await.unwrap();
    assert_eq!((run.state, run.last_batch, run.ticks), (State::Failed, 1, 10_000));
    assert_eq!(run.error.map(|error| error.reason), Some("LIMIT_EXCEEDED".to_owned()));

    let lax = ImportStart { max_rejects: 30, ..start("lax") };
    let imported = bench.import(lax.clone(), &file).await.unwrap();
    assert_eq!(imported.run.id, strict.run, "the earlier run continues");
    assert_eq!((imported.run.state, imported.run.ticks, imported.run.rejected), (State::Succeeded, 15_000, 30));
    assert_eq!(imported.run.first_rejects.len(), 20);
    assert_eq!(bench.imports.status(&lax.run).await.unwrap().id, strict.run, "the new name stands for it");
    assert_eq!(bench.ticks().await.len(), 15_000);
}

#[tokio::test]
async fn a_file_of_bad_lines_alone_stores_its_rejects() {
    let bench = Bench::new(Limits::default()).await;
    let mut file = b"venue,symbol,time_s,price\n".to_vec();
    file.extend_from_slice(&b"V,S,1,x\n".repeat(900));
    let run = bench.import(start("run-1"), &file).await.unwrap().run;
    assert_eq!((run.state, run.ticks, run.rejected, run.cursor), (State::Succeeded, 0, 900, None));
}

#[tokio::test]
async fn a_defect_of_the_file_stores_nothing_and_is_remembered() {
    let bench = Bench::new(Limits::default()).await;
    let cut = &trades(20_000)[..];
    let mut file = cut.to_vec();
    file.extend_from_slice(&vec![b'x'; 70_000]);
    let error = bench.import(start("run-1"), &file).await.unwrap_err();
    assert_eq!(error.reason(), "FILE_MALFORMED");
    assert!(bench.ticks().await.is_empty());
    let run = bench.imports.status(&start("run-1").run).await.unwrap();
    assert_eq!((run.state, run.content), (State::Failed, None));
    assert_eq!(run.error.map(|error| error.reason), Some("FILE_MALFORMED".to_owned()));
    bench.clock.advance(std::time::Duration::from_secs(601));
    bench.imports.list(None, None, 10).await.unwrap();
    let gone = bench.imports.status(&start("run-1").run).await.unwrap_err();
    assert_eq!(gone.reason(), "RUN_UNKNOWN");
}

#[tokio::test]
async fn options_name_what_the_file_lacks() {
    let bench = Bench::new(Limits::default()).await;
    let file = b"when\tprice\n2024-08-08T23:54:15.342Z\t1.5\n2024-08-08T23:54:15\t1.5\n";
    let given = ImportOptions {
        venue: Some(crate::domain::Venue::new("V").unwrap()),
        symbol: Some(crate::domain::Symbol::new("S").unwrap()),
        columns: [(Field::EventTime, "when".to_owned())].into(),
        time_unit: Some(TimeUnit::Text),
        ..ImportOptions::default()
    };
    let run = bench.import(ImportStart { options: given, ..start("run-1") }, file).await.unwrap().run;
    assert_eq!((run.ticks, run.rejected), (1, 1));
    assert_eq!(run.options.delimiter, Some(b'\t'));
    let tick = &bench.ticks().await[0];
    assert_eq!(tick.event_time.nanos(), 1_723_161_255_342_000_000);
    assert_eq!(tick.receive_time, bench.clock.now(), "the server stamps what the source does not tell");
}
