//! Imports against a fake that cuts uploads.

use std::io::Write as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use tapefeed_proto::v1::IngestionRunState as WireState;

use super::*;
use crate::testing::{FakeIngest, builder, serve_ingest};

fn file_of(bytes: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![b'x'; bytes]).unwrap();
    file
}

async fn client_of(fake: &FakeIngest) -> Client {
    builder(&serve_ingest(fake.clone()).await).lazy().unwrap()
}

#[tokio::test]
async fn a_file_arrives_whole_with_its_size_and_options() {
    let fake = FakeIngest::with(|_| {});
    let client = client_of(&fake).await;
    let file = file_of(1_000_000);
    let options = ImportOptions::new().venue("X").map(TickField::Price, "px").run_id("mine");
    let mut last = 0;
    let import = client.import_file(file.path(), options, |progress| last = progress.sent_bytes).await.unwrap();
    assert_eq!(import.run.state, RunState::Succeeded);
    assert_eq!(import.run.uploaded_bytes, 1_000_000);
    assert!(!import.duplicate);
    let state = fake.state.lock().unwrap();
    let (start, bytes) = &state.uploads[0];
    assert_eq!((*bytes, start.size_bytes), (1_000_000, Some(1_000_000)));
    assert_eq!(start.run_id, "mine");
    let sent = start.options.clone().unwrap();
    assert_eq!((sent.venue.as_str(), sent.max_rejects), ("X", None));
    assert_eq!(sent.column_mappings[0].field, "price");
}

#[tokio::test]
async fn a_cut_upload_is_sent_again_under_the_same_name() {
    let fake = FakeIngest::with(|state| state.cut_uploads = 3);
    let client = client_of(&fake).await;
    let file = file_of(500_000);
    let mut attempts = Vec::new();
    let import = client
        .import_file(file.path(), ImportOptions::new(), |progress| {
            attempts.push(progress.attempt);
        })
        .await
        .unwrap();
    assert_eq!(import.run.state, RunState::Succeeded);
    attempts.dedup();
    assert_eq!(attempts.last(), Some(&4));
    let state = fake.state.lock().unwrap();
    assert_eq!(state.uploads.len(), 4);
    let name = &state.uploads[0].0.run_id;
    assert!(state.uploads.iter().all(|(start, _)| start.run_id == *name));
}

#[tokio::test]
async fn attempts_are_bounded() {
    let fake = FakeIngest::with(|state| state.cut_uploads = 100);
    let client = client_of(&fake).await;
    let file = file_of(10);
    let options = ImportOptions::new().attempts(2);
    let error = client.import_file(file.path(), options, |_| {}).await;
    assert!(error.unwrap_err().is_retryable());
    assert_eq!(fake.state.lock().unwrap().uploads.len(), 2);
}

#[tokio::test]
async fn a_run_of_another_owner_is_waited_for() {
    let fake = FakeIngest::with(|state| state.runs.push_back((WireState::Running, true)));
    let client = client_of(&fake).await;
    let file = file_of(10);
    let import = client.import_file(file.path(), ImportOptions::new(), |_| {});
    let import = import.await.unwrap();
    assert!(import.duplicate);
    assert_eq!(import.run.state, RunState::Succeeded);
    assert_eq!(import.run.tick_count, 7);
}

#[tokio::test]
async fn files_that_cannot_be_read_are_named() {
    let client = builder("http://127.0.0.1:1").lazy().unwrap();
    for path in ["/nowhere/at/all.csv", "/"] {
        let import = client.import_file(path, ImportOptions::new(), |_| {});
        match import.await.unwrap_err() {
            Error::Io { path: named, .. } => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_reader_is_sent_once() {
    let fake = FakeIngest::with(|_| {});
    let client = client_of(&fake).await;
    let bytes = vec![b'x'; 300_000];
    let import = client.import_reader(&bytes[..], "a.csv", ImportOptions::new(), |_| {}).await.unwrap();
    assert_eq!(import.run.uploaded_bytes, 300_000);
    let cutting = FakeIngest::with(|state| state.cut_uploads = 1);
    let client = client_of(&cutting).await;
    let import = client.import_reader(&bytes[..], "a.csv", ImportOptions::new(), |_| {});
    assert!(import.await.unwrap_err().is_retryable());
}

#[tokio::test]
async fn a_reader_that_fails_does_not_look_like_the_end_of_the_file() {
    let fake = FakeIngest::with(|_| {});
    let client = client_of(&fake).await;
    let reader = tokio_stream::iter([Ok(&b"half"[..]), Err(std::io::Error::other("broken"))]);
    let reader = tokio_util::io::StreamReader::new(reader);
    let import = client.import_reader(reader, "a.csv", ImportOptions::new(), |_| {});
    assert!(matches!(import.await, Err(Error::Io { .. })));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(fake.state.lock().unwrap().uploads.is_empty());
}

#[tokio::test]
async fn a_watch_goes_on_over_cuts_to_the_end_of_the_run() {
    let fake = FakeIngest::with(|_| {});
    let client = client_of(&fake).await;
    let states: Vec<RunState> = client.watch_run("run-1").map(|run| run.unwrap().state).collect().await;
    assert_eq!(states, [RunState::Uploading, RunState::Running, RunState::Succeeded]);
}

#[tokio::test]
async fn rejected_lines_come_in_pages_with_their_counts() {
    let client = client_of(&FakeIngest::with(|_| {})).await;
    let pages: Vec<_> = client.reject_pages(RejectQuery::of("run-1").page_size(1)).collect().await;
    let pages: Vec<RejectPage> = pages.into_iter().map(Result::unwrap).collect();
    let lines: Vec<u64> = pages.iter().flat_map(|page| &page.lines).map(|line| line.line_number).collect();
    assert_eq!(lines, [1, 2, 3]);
    assert!(pages.iter().all(|page| (page.reject_count, page.kept_count) == (5, 3)));
    assert_eq!(pages[2].lines[0].reason, crate::ErrorReason::ActionNotSupported);
    assert_eq!(pages[2].lines[0].text, "line 3");
}

#[tokio::test]
async fn a_run_tells_what_it_published_and_ignored() {
    let client = client_of(&FakeIngest::with(|_| {})).await;
    let run = client.run("run-1").await.unwrap();
    assert_eq!((run.published_count, run.ignored_count), (3, 5));
    let kinds: Vec<_> = run.ignored_lines.iter().map(|ignored| (ignored.kind.as_str(), ignored.count)).collect();
    assert_eq!(kinds, [("auction", 4), ("trailer", 1)]);
}
