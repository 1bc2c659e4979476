//! Files over a real connection: what the contract promises about refusals, progress and pages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::publish_ticks::Publishing;
use super::*;
use crate::domain::Published;
use crate::grpc::proto::import_file_request::Message;
use crate::grpc::proto::ingest_service_client::IngestServiceClient;
use crate::ingest::import::Limits;
use crate::ingest::import::tests::published::{bar, begin_run, details, submit};
use crate::ingest::import::tests::{Bench, trades};

struct Served {
    bench: Bench,
    client: IngestServiceClient<Channel>,
}

async fn serve(limits: Limits) -> Served {
    let bench = Bench::new(limits).await;
    let service = IngestService {
        publishing: Publishing {
            ingest: bench.replica.ingest.clone(),
            clock: bench.clock.clone(),
            claims: Arc::default(),
            draining: CancellationToken::new(),
        },
        imports: bench.imports.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .add_routes(service.serve(Routes::default()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let client = IngestServiceClient::connect(format!("http://{address}")).await.unwrap();
    Served { bench, client }
}

fn first(run_id: &str, options: proto::ImportOptions) -> proto::ImportStart {
    proto::ImportStart {
        run_id: run_id.to_owned(),
        file_name: "trades.csv".to_owned(),
        size_bytes: None,
        options: Some(options),
    }
}

fn message(message: Message) -> proto::ImportFileRequest {
    proto::ImportFileRequest { message: Some(message) }
}

impl Served {
    async fn import(&mut self, start: proto::ImportStart, file: &[u8]) -> Result<proto::ImportFileResponse, Status> {
        let mut messages = vec![message(Message::Start(start))];
        for piece in file.chunks(100_000) {
            messages.push(message(Message::Data(Bytes::copy_from_slice(piece))));
        }
        let response = self.client.import_file(tokio_stream::iter(messages)).await?;
        Ok(response.into_inner())
    }
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

fn metadata(status: &Status, key: &str) -> Option<String> {
    status.get_error_details().error_info()?.metadata.get(key).cloned()
}

/// Name, options, file, and the expected code, reason and fact.
type Case = (&'static str, proto::ImportOptions, Vec<u8>, Code, &'static str, Option<(&'static str, &'static str)>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_files_are_refused_by_code_reason_and_place_and_a_good_one_follows() {
    use std::io::Write as _;

    let mut served = serve(Limits::default()).await;
    let plain = trades(2_000);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&plain).unwrap();
    bomb.write_all(&vec![b'\n'; 50 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    let latin = [&plain[..], b"V,caf\xE9,1,1000,,1,1,true\n"].concat();
    let strict = proto::ImportOptions { max_rejects: Some(0), ..Default::default() };
    let formats = proto::ImportOptions { format: 17, ..Default::default() };
    let quotes = proto::ImportOptions { format: proto::ImportFormat::Cotahist.into(), ..Default::default() };
    let units = proto::ImportOptions { time_unit: 17, ..Default::default() };
    let cases: Vec<Case> = vec![
        ("empty", Default::default(), vec![], Code::InvalidArgument, "FILE_MALFORMED", None),
        (
            "truncated gzip",
            Default::default(),
            packed[..packed.len() - 9].to_vec(),
            Code::InvalidArgument,
            "FILE_MALFORMED",
            Some(("byte", "")),
        ),
        (
            "two columns",
            Default::default(),
            b"DataReferencia;CodigoInstrumento\n1;2\n".to_vec(),
            Code::InvalidArgument,
            "FILE_MALFORMED",
            Some(("line", "1")),
        ),
        ("bomb", Default::default(), bomb, Code::ResourceExhausted, "LIMIT_EXCEEDED", Some(("limit", "import_ratio"))),
        (
            "no unit",
            Default::default(),
            b"venue,symbol,time,price\n".to_vec(),
            Code::InvalidArgument,
            "FIELD_INVALID",
            None,
        ),
        (
            "bad symbol",
            strict,
            latin,
            Code::ResourceExhausted,
            "LIMIT_EXCEEDED",
            Some(("first_reject", "symbol: byte 3 is not one of A-Z a-z 0-9 . _ - : ^ = $ + /")),
        ),
        ("foreign format", formats, plain.clone(), Code::InvalidArgument, "FIELD_INVALID", None),
        ("no quotes", quotes, plain.clone(), Code::InvalidArgument, "FILE_MALFORMED", Some(("line", "1"))),
        ("foreign unit", units, plain.clone(), Code::InvalidArgument, "FIELD_INVALID", None),
    ];
    for (number, (name, options, file, code, expected, fact)) in cases.into_iter().enumerate() {
        let began = Instant::now();
        let status = served.import(first(&format!("bad-{number}"), options), &file).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{name}: {status:?}");
        if let Some((key, value)) = fact {
            let found = metadata(&status, key).unwrap_or_default();
            assert!(found.contains(value) && !found.is_empty(), "{name}: {key}={found}");
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{name}");
    }
    assert!(served.bench.ticks().await.is_empty());
    let response = served.import(first("good", Default::default()), &packed).await.unwrap();
    let run = response.run.unwrap();
    assert_eq!((run.tick_count, run.state()), (2_000, proto::IngestionRunState::Succeeded));
    assert_eq!(run.digest.len(), 64);
    assert!(served.import(first("again", Default::default()), &plain).await.unwrap().duplicate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_without_an_end_is_refused_while_it_is_sent() {
    let mut served = serve(Limits::default()).await;
    let (sender, receiver) = mpsc::channel(1);
    let began = Instant::now();
    let sending = tokio::spawn(async move {
        let start = message(Message::Start(first("endless", Default::default())));
        sender.send(start).await.unwrap();
        let junk = Bytes::from(vec![b'x'; 64 << 10]);
        // The client never ends; it stops when its call has ended.
        while sender.send(message(Message::Data(junk.clone()))).await.is_ok() {}
    });
    let status = served.client.import_file(ReceiverStream::new(receiver)).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(reason(&status), "FILE_MALFORMED", "{status:?}");
    assert_eq!(metadata(&status, "line").as_deref(), Some("1"));
    assert_eq!(metadata(&status, "byte").as_deref(), Some("65536"));
    sending.await.unwrap();
    assert!(served.import(first("good", Default::default()), &trades(10)).await.is_ok());
}

#[tokio::test]
async fn first_messages_are_checked() {
    let mut served = serve(Limits::default()).await;
    for (run_id, file_name) in [
        ("", "a.csv"),
        ("a b", "a.csv"),
        ("run", "../a.csv"),
        ("run", "/etc/passwd"),
        ("run", "a\0b"),
        ("run", "..\\a.csv"),
    ] {
        let start = proto::ImportStart { file_name: file_name.to_owned(), ..first(run_id, Default::default()) };
        let status = served.import(start, b"x").await.unwrap_err();
        assert_eq!(reason(&status), "FIELD_INVALID", "{run_id:?} {file_name:?}");
    }
    let long = proto::ImportStart { file_name: "x".repeat(256), ..first("run", Default::default()) };
    assert_eq!(reason(&served.import(long, b"x").await.unwrap_err()), "FIELD_INVALID");
    let huge = proto::ImportStart { size_bytes: Some(1 << 40), ..first("run", Default::default()) };
    assert_eq!(reason(&served.import(huge, b"x").await.unwrap_err()), "LIMIT_EXCEEDED");
    let data = tokio_stream::iter([message(Message::Data(Bytes::from_static(b"x")))]);
    assert_eq!(reason(&served.client.import_file(data).await.unwrap_err()), "FIELD_INVALID");
    let silent = Limits { idle: Duration::from_millis(50), ..Limits::default() };
    let mut served = serve(silent).await;
    let (sender, receiver) = mpsc::channel(1);
    sender.send(message(Message::Start(first("run", Default::default())))).await.unwrap();
    let status = served.client.import_file(ReceiverStream::new(receiver)).await.unwrap_err();
    assert_eq!(reason(&status), "DEADLINE_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_watched_from_its_first_message_to_its_end() {
    let mut served = serve(Limits::default()).await;
    let (sender, receiver) = mpsc::channel(1);
    let mut client = served.client.clone();
    let importing = tokio::spawn(async move { client.import_file(ReceiverStream::new(receiver)).await });
    sender.send(message(Message::Start(first("run-1", Default::default())))).await.unwrap();
    let request = proto::WatchIngestionRunRequest { run_id: "run-1".to_owned() };
    let mut watching = loop {
        match served.client.watch_ingestion_run(request.clone()).await {
            Ok(response) => break response.into_inner(),
            Err(status) => assert_eq!(reason(&status), "RUN_UNKNOWN"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let run = watching.message().await.unwrap().unwrap().run.unwrap();
    assert_eq!(run.state(), proto::IngestionRunState::Uploading);
    for piece in trades(12_000).chunks(100_000) {
        sender.send(message(Message::Data(Bytes::copy_from_slice(piece)))).await.unwrap();
    }
    drop(sender);
    let mut last = run;
    while let Some(response) = watching.message().await.unwrap() {
        last = response.run.unwrap();
    }
    assert_eq!((last.state(), last.tick_count), (proto::IngestionRunState::Succeeded, 12_000));
    let answered = importing.await.unwrap().unwrap().into_inner().run.unwrap();
    assert_eq!(answered, last);
    let request = proto::GetIngestionRunRequest { run_id: "run-1".to_owned() };
    let got = served.client.get_ingestion_run(request).await.unwrap().into_inner().run.unwrap();
    assert_eq!(got, last);
    let request = proto::CancelIngestionRunRequest { run_id: "run-1".to_owned() };
    let kept = served.client.cancel_ingestion_run(request).await.unwrap().into_inner().run.unwrap();
    assert_eq!(kept.state(), proto::IngestionRunState::Succeeded, "a run that has ended stays as it is");
    let request = proto::CancelIngestionRunRequest { run_id: "none".to_owned() };
    assert_eq!(reason(&served.client.cancel_ingestion_run(request).await.unwrap_err()), "RUN_UNKNOWN");
}

#[tokio::test]
async fn lists_come_in_pages_bound_to_their_state() {
    let mut served = serve(Limits::default()).await;
    for number in 1..=5 {
        served.bench.advance(Duration::from_secs(1));
        let start = first(&format!("run-{number}"), Default::default());
        served.import(start, &trades(number)).await.unwrap();
    }
    let mut request = proto::ListIngestionRunsRequest { page_size: 2, ..Default::default() };
    let mut names = Vec::new();
    loop {
        let page = served.client.list_ingestion_runs(request.clone()).await.unwrap().into_inner();
        names.extend(page.runs.into_iter().map(|run| run.run_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(names, ["run-5", "run-4", "run-3", "run-2", "run-1"]);
    request.state = proto::IngestionRunState::Failed.into();
    let status = served.client.list_ingestion_runs(request).await.unwrap_err();
    assert_eq!(reason(&status), "PAGE_TOKEN_INVALID");
    let negative = proto::ListIngestionRunsRequest { page_size: -1, ..Default::default() };
    assert_eq!(reason(&served.client.list_ingestion_runs(negative).await.unwrap_err()), "FIELD_INVALID");
}

#[tokio::test]
async fn rejected_lines_are_listed_in_pages_bound_to_their_run() {
    let mut served = serve(Limits::default()).await;
    begin_run(&served.bench, "r").await;
    submit(&served.bench, "r", 1, &[], Published::default(), &[3, 4, 9]).await;
    submit(&served.bench, "r", 2, &[], Published::default(), &[10_002]).await;
    let mut request = proto::ListRejectedLinesRequest { run_id: "r".to_owned(), page_size: 3, ..Default::default() };
    let first = served.client.list_rejected_lines(request.clone()).await.unwrap().into_inner();
    let invalid = proto::RejectedLine {
        line_number: 3,
        reason: proto::ErrorReason::FieldInvalid.into(),
        message: "line 3 is bad".to_owned(),
        text: "text 3".to_owned(),
    };
    assert_eq!(first.rejected_lines[0], invalid);
    assert_eq!(first.rejected_lines[1].reason(), proto::ErrorReason::ActionNotSupported);
    assert_eq!((first.reject_count, first.kept_count), (4, 4));
    request.page_token = first.next_page_token;
    let second = served.client.list_rejected_lines(request.clone()).await.unwrap().into_inner();
    let lines = |page: &[proto::RejectedLine]| page.iter().map(|line| line.line_number).collect::<Vec<_>>();
    assert_eq!(lines(&first.rejected_lines), [3, 4, 9]);
    assert_eq!((lines(&second.rejected_lines), second.next_page_token.as_str()), (vec![10_002], ""));

    begin_run(&served.bench, "s").await;
    let other = proto::ListRejectedLinesRequest { run_id: "s".to_owned(), ..request.clone() };
    let status = served.client.list_rejected_lines(other).await.unwrap_err();
    assert_eq!(reason(&status), "PAGE_TOKEN_INVALID");
    let runs = proto::ListIngestionRunsRequest { page_size: 1, ..Default::default() };
    let runs = served.client.list_ingestion_runs(runs).await.unwrap().into_inner();
    let foreign = proto::ListRejectedLinesRequest { page_token: runs.next_page_token, ..request };
    assert_eq!(reason(&served.client.list_rejected_lines(foreign).await.unwrap_err()), "PAGE_TOKEN_INVALID");
    for (run_id, page_size, expected) in [("t", 0, "RUN_UNKNOWN"), ("", 0, "FIELD_INVALID"), ("r", -1, "FIELD_INVALID")]
    {
        let request = proto::ListRejectedLinesRequest { run_id: run_id.to_owned(), page_size, ..Default::default() };
        let status = served.client.list_rejected_lines(request).await.unwrap_err();
        assert_eq!(reason(&status), expected, "{run_id:?}");
    }
    let empty = proto::ListRejectedLinesRequest { run_id: "s".to_owned(), ..Default::default() };
    let empty = served.client.list_rejected_lines(empty).await.unwrap().into_inner();
    assert_eq!(empty, proto::ListRejectedLinesResponse::default());
}

#[tokio::test]
async fn every_rejected_line_of_an_import_is_listed_and_its_first_ones_are_shown() {
    let mut served = serve(Limits::default()).await;
    let mut file = b"venue,symbol,time_s,price\n".to_vec();
    for number in 0..30 {
        file.extend_from_slice(if number % 3 == 0 { b"V,S,1,2\n" } else { b"V,S,1,NaN\n" });
    }
    let run = served.import(first("r", Default::default()), &file).await.unwrap().run.unwrap();
    assert_eq!((run.tick_count, run.reject_count, run.first_rejects.len()), (10, 20, 20));
    let request = proto::ListRejectedLinesRequest { run_id: "r".to_owned(), ..Default::default() };
    let page = served.client.list_rejected_lines(request).await.unwrap().into_inner();
    assert_eq!(page.rejected_lines, run.first_rejects);
    assert_eq!((page.reject_count, page.kept_count), (20, 20));
}

#[tokio::test]
async fn a_run_tells_what_it_published_and_what_it_ignored_by_kind() {
    let mut served = serve(Limits::default()).await;
    begin_run(&served.bench, "r").await;
    let bars = vec![(0, bar(1, 10, 0, "1")), (0, bar(2, 10, 0, "2"))];
    let published = Published { bars, details: vec![(0, details(2, "A"))] };
    submit(&served.bench, "r", 1, &[("B3", "PETR4")], published, &[]).await;
    submit(&served.bench, "r", 2, &[], Published::default(), &[]).await;
    let request = proto::GetIngestionRunRequest { run_id: "r".to_owned() };
    let run = served.client.get_ingestion_run(request).await.unwrap().into_inner().run.unwrap();
    let kinds: Vec<_> = run.ignored_lines.iter().map(|ignored| (ignored.kind.as_str(), ignored.count)).collect();
    assert_eq!(kinds, [("auction", 8), ("trailer", 2)]);
    assert_eq!((run.published_count, run.ignored_count, run.tick_count, run.line_count), (3, 10, 0, 13));
    assert!(run.cursor.is_empty(), "what is published has no position");
}
