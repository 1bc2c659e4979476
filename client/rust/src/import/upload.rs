//! Uploads: the bytes out, the server's progress in, and what to do when the connection breaks.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::ErrorReason;
use tapefeed_proto::v1::import_file_request::Message;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;

use super::{Import, ImportOptions, ImportProgress, Run};
use crate::client::ingest_service;
use crate::{Client, Error};

/// How many bytes of the file a message holds.
const CHUNK_BYTES: usize = 128 * 1024;

/// How many messages may wait for the network.
const CHUNKS_AHEAD: usize = 4;

/// How often the caller hears of bytes sent.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// How often another owner's run is looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long another owner's run may stand still before the file is uploaded again: past the server's lease of 15 s.
const STANDSTILL: Duration = Duration::from_secs(20);

/// Whether an attempt ended the import.
enum Outcome {
    Ended(Import),
    /// Another owner holds the run, or held it when its server died.
    Elsewhere(Run),
}

pub(super) async fn file(
    client: &Client,
    path: &Path,
    options: ImportOptions,
    mut progress: impl FnMut(&ImportProgress) + Send,
) -> Result<Import, Error> {
    let name = path.display().to_string();
    let read = |error: io::Error| Error::io(name.clone(), error);
    let file_name = path.file_name().unwrap_or_default();
    let file_name = file_name.to_string_lossy().into_owned();
    let mut start = start(&options, file_name);
    let mut backoff = client.stream_backoff();
    let mut state = ImportProgress { attempt: 1, sent_bytes: 0, size_bytes: None, run: None, last_error: None };
    loop {
        let file = File::open(path).await.map_err(read)?;
        let size = file.metadata().await.map_err(read)?;
        if size.is_dir() {
            return Err(read(io::ErrorKind::IsADirectory.into()));
        }
        state.size_bytes = size.is_file().then_some(size.len());
        start.size_bytes = state.size_bytes;
        let attempt = attempt(client, &start, file, &name, &mut state, &mut progress);
        let error = match attempt.await {
            Ok(Outcome::Ended(import)) => return Ok(import),
            Ok(Outcome::Elsewhere(run)) => match await_other(client, run, &mut state, &mut progress).await? {
                Some(run) => {
                    return Ok(Import { run, duplicate: true });
                }
                None => Error::Transport("the run stood still at another server".into()),
            },
            // The upload before was cut so early that the server does not know its content.
            Err(error) if error.reason() == ErrorReason::RunExists && state.attempt > 1 && options.run_id.is_none() => {
                start.run_id = random_run_id();
                error
            }
            Err(error) if error.is_retryable() => error,
            Err(error) => return Err(error),
        };
        if state.attempt >= options.attempts {
            return Err(error);
        }
        let delay = backoff.next(error.retry_delay());
        tracing::debug!(%error, attempt = state.attempt, ?delay, "import was cut, uploading again");
        state.attempt += 1;
        state.sent_bytes = 0;
        state.last_error = Some(error);
        progress(&state);
        tokio::time::sleep(delay).await;
    }
}

pub(super) async fn reader(
    client: &Client,
    reader: impl AsyncRead + Send + Unpin,
    file_name: String,
    options: ImportOptions,
    mut progress: impl FnMut(&ImportProgress) + Send,
) -> Result<Import, Error> {
    let start = start(&options, file_name.clone());
    let mut state = ImportProgress { attempt: 1, sent_bytes: 0, size_bytes: None, run: None, last_error: None };
    let attempt = attempt(client, &start, reader, &file_name, &mut state, &mut progress);
    match attempt.await? {
        Outcome::Ended(import) => Ok(import),
        Outcome::Elsewhere(run) => Ok(Import { run, duplicate: true }),
    }
}

fn start(options: &ImportOptions, file_name: String) -> proto::ImportStart {
    proto::ImportStart {
        run_id: options.run_id.clone().unwrap_or_else(random_run_id),
        file_name,
        size_bytes: None,
        options: Some(options.wire.clone()),
    }
}

fn random_run_id() -> String {
    format!("run-{:032x}", SmallRng::from_os_rng().random::<u128>())
}

/// One upload, from the first message to the answer.
async fn attempt(
    client: &Client,
    start: &proto::ImportStart,
    reader: impl AsyncRead + Send + Unpin,
    name: &str,
    state: &mut ImportProgress,
    progress: &mut (impl FnMut(&ImportProgress) + Send),
) -> Result<Outcome, Error> {
    let (requests, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let (sent, mut sent_bytes) = tokio::sync::watch::channel(0u64);
    let mut service = ingest_service(client.stream_channel());
    let call = service.import_file(ReceiverStream::new(receiver));
    let upload = upload(start.clone(), reader, requests, sent);
    tokio::pin!(call, upload);
    let mut uploading = true;
    let mut run_states = client.watch_run(start.run_id.clone());
    // The server knows the run only after it has read the first message, so the watch is opened with the first progress.
    let mut watching = false;
    let mut ticks = interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            answer = &mut call => {
                let answer = answer?.into_inner();
                let run = Run::from_wire(answer.run)?;
                state.run = Some(run.clone());
                progress(state);
                return Ok(match run.state.is_final() {
                    true => Outcome::Ended(Import { run, duplicate: answer.duplicate }),
                    false => Outcome::Elsewhere(run),
                });
            }
            // A file that cannot be read drops the call: an end of the stream would say that the file ends here.
            read = &mut upload, if uploading => {
                read.map_err(|error| Error::io(name, error))?;
                uploading = false;
            }
            _ = ticks.tick() => {
                state.sent_bytes = *sent_bytes.borrow_and_update();
                watching |= state.sent_bytes > 0;
                progress(state);
            }
            run = run_states.next(), if watching => match run {
                Some(Ok(run)) => {
                    state.run = Some(run);
                    progress(state);
                }
                Some(Err(error)) => {
                    // Not there yet; any other error only costs the progress, for the call itself tells the outcome.
                    if error.reason() == ErrorReason::RunUnknown {
                        run_states = client.watch_run(start.run_id.clone());
                    }
                    watching = false;
                }
                None => watching = false,
            },
        }
    }
}

/// Sends the start and the bytes of the file. Ends early, without an error, when the server takes no more.
async fn upload(
    start: proto::ImportStart,
    mut reader: impl AsyncRead + Send + Unpin,
    requests: mpsc::Sender<proto::ImportFileRequest>,
    sent: tokio::sync::watch::Sender<u64>,
) -> Result<(), io::Error> {
    let message = |message| proto::ImportFileRequest { message: Some(message) };
    if requests.send(message(Message::Start(start))).await.is_err() {
        return Ok(());
    }
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        // A full chunk each time: pipes yield little at once, and small frames are costly.
        while chunk.len() < CHUNK_BYTES {
            let room = (CHUNK_BYTES - chunk.len()) as u64;
            if (&mut reader).take(room).read_buf(&mut chunk).await? == 0 {
                break;
            }
        }
        if chunk.is_empty() {
            return Ok(());
        }
        let bytes = chunk.len() as u64;
        let data = Message::Data(Bytes::from(chunk));
        if requests.send(message(data)).await.is_err() {
            return Ok(());
        }
        sent.send_modify(|sent| *sent += bytes);
    }
}

/// Waits for the end of a run that another owner works on. `None` if it stands still: its owner is gone.
async fn await_other(
    client: &Client,
    mut run: Run,
    state: &mut ImportProgress,
    progress: &mut (impl FnMut(&ImportProgress) + Send),
) -> Result<Option<Run>, Error> {
    let mut moved = Instant::now();
    loop {
        if run.state.is_final() {
            return Ok(Some(run));
        }
        if moved.elapsed() >= STANDSTILL {
            return Ok(None);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        let now = match client.run(&run.run_id).await {
            Ok(now) => now,
            Err(error) if error.is_retryable() => continue,
            Err(error) => return Err(error),
        };
        if now != run {
            moved = Instant::now();
        }
        run = now;
        state.run = Some(run.clone());
        progress(state);
    }
}
