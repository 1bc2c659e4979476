//! Runs: what the server keeps of each import.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::ErrorReason;
use tonic::Streaming;

use super::RejectedLine;
use crate::backoff::Backoff;
use crate::client::ingest_service;
use crate::page::{Page, pages};
use crate::{Client, Cursor, Error, UnixNanos};

/// How long opening a watch may take.
const WATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// One file on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// The client-made name of the run.
    pub run_id: String,
    /// The state of the run.
    pub state: RunState,
    /// The name of the file. May be empty.
    pub file_name: String,
    /// The size of the file as uploaded, in bytes, if known.
    pub size_bytes: Option<u64>,
    /// How many bytes were uploaded so far.
    pub uploaded_bytes: u64,
    /// How many lines were read so far, the header not: ticks, published, rejected and ignored ones together.
    pub line_count: u64,
    /// How many lines the file has, once that is known.
    pub total_line_count: Option<u64>,
    /// How many ticks are stored. They stay, however the run ends.
    pub tick_count: u64,
    /// How many lines were rejected. If the run failed on them, those of the batch in which it failed are counted.
    pub reject_count: u64,
    /// How many lines were passed over because they hold no trade.
    pub ignored_count: u64,
    /// The lines that were passed over, by what they are, ordered by kind.
    pub ignored_lines: Vec<IgnoredLines>,
    /// How many lines published something else than a tick: a daily bar, or details of an instrument.
    pub published_count: u64,
    /// Why the run failed. `None` unless it did.
    pub failure: Option<ImportFailure>,
    /// When the run began, by the server's clock.
    pub create_time: Option<UnixNanos>,
    /// When storing began. `None` before.
    pub start_time: Option<UnixNanos>,
    /// When the run ended. `None` before.
    pub finish_time: Option<UnixNanos>,
    /// The SHA-256 of the uncompressed bytes in hexadecimal. Empty until the upload is complete.
    pub digest: String,
    /// The version of the parser. Empty until the upload is complete.
    pub parser_version: String,
    /// The id of the run's trace. Empty without tracing.
    pub trace_id: String,
    /// The cursor after the run's last stored tick, for `min_cursor`. `None` if nothing is stored.
    pub cursor: Option<Cursor>,
    /// The number of the last stored batch of 10,000 lines. 0: none.
    pub last_batch_seq: u64,
    /// The first rejected lines, at most 20; [`Client::reject_pages`] has them all.
    pub first_rejects: Vec<RejectedLine>,
}

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunState {
    /// A state that this version does not know.
    Unknown,
    /// The file is being uploaded. Nothing is stored yet.
    Uploading,
    /// The file is being stored.
    Running,
    /// The file is stored.
    Succeeded,
    /// The run stopped on an error. What is stored stays; the same file again continues.
    Failed,
    /// The run was cancelled. What is stored stays; the same file again continues.
    Cancelled,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportFailure {
    /// The reason.
    pub reason: ErrorReason,
    /// A sentence that says what to change.
    pub message: String,
}

/// How many lines of one kind were passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IgnoredLines {
    /// What the lines are, in the format's own word for it, such as `bookTicker`.
    pub kind: String,
    /// How many there were.
    pub count: u64,
}

/// Which runs to list.
#[derive(Clone, Debug, Default)]
pub struct RunQuery {
    state: Option<RunState>,
    page_size: i32,
    page_token: String,
}

// === impl Run ===

impl Run {
    pub(super) fn from_wire(run: Option<proto::IngestionRun>) -> Result<Run, Error> {
        let run = run.ok_or_else(|| Error::protocol("run is missing"))?;
        let time = UnixNanos::from_wire_optional;
        let state = RunState::from_wire(run.state);
        let failure = run.error.filter(|_| state == RunState::Failed);
        let ignored = |proto::IgnoredLines { kind, count }| IgnoredLines { kind, count };
        Ok(Run {
            run_id: run.run_id,
            state,
            file_name: run.file_name,
            size_bytes: run.size_bytes,
            uploaded_bytes: run.uploaded_bytes,
            line_count: run.line_count,
            total_line_count: run.total_line_count,
            tick_count: run.tick_count,
            reject_count: run.reject_count,
            ignored_count: run.ignored_count,
            ignored_lines: run.ignored_lines.into_iter().map(ignored).collect(),
            published_count: run.published_count,
            failure: failure.map(|error| ImportFailure { reason: reason(error.reason), message: error.message }),
            create_time: time(run.create_time, "run.create_time")?,
            start_time: time(run.start_time, "run.start_time")?,
            finish_time: time(run.finish_time, "run.finish_time")?,
            digest: run.digest,
            parser_version: run.parser_version,
            trace_id: run.trace_id,
            cursor: Cursor::from_bytes(run.cursor),
            last_batch_seq: run.last_batch_seq,
            first_rejects: run.first_rejects.into_iter().map(RejectedLine::from_wire).collect(),
        })
    }
}

pub(super) fn reason(reason: i32) -> ErrorReason {
    ErrorReason::try_from(reason).unwrap_or_default()
}

impl RunState {
    /// Whether the run has ended.
    pub fn is_final(self) -> bool {
        matches!(self, RunState::Succeeded | RunState::Failed | RunState::Cancelled)
    }

    /// `uploading`, `running`, `succeeded`, `failed`, `cancelled` or `unknown`.
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Unknown => "unknown",
            RunState::Uploading => "uploading",
            RunState::Running => "running",
            RunState::Succeeded => "succeeded",
            RunState::Failed => "failed",
            RunState::Cancelled => "cancelled",
        }
    }

    fn from_wire(state: i32) -> RunState {
        match proto::IngestionRunState::try_from(state) {
            Ok(proto::IngestionRunState::Uploading) => RunState::Uploading,
            Ok(proto::IngestionRunState::Running) => RunState::Running,
            Ok(proto::IngestionRunState::Succeeded) => RunState::Succeeded,
            Ok(proto::IngestionRunState::Failed) => RunState::Failed,
            Ok(proto::IngestionRunState::Cancelled) => RunState::Cancelled,
            Ok(proto::IngestionRunState::Unspecified) | Err(_) => RunState::Unknown,
        }
    }

    fn to_wire(self) -> i32 {
        let state = match self {
            RunState::Unknown => proto::IngestionRunState::Unspecified,
            RunState::Uploading => proto::IngestionRunState::Uploading,
            RunState::Running => proto::IngestionRunState::Running,
            RunState::Succeeded => proto::IngestionRunState::Succeeded,
            RunState::Failed => proto::IngestionRunState::Failed,
            RunState::Cancelled => proto::IngestionRunState::Cancelled,
        };
        state.into()
    }
}

// === impl RunQuery ===

impl RunQuery {
    /// All runs.
    pub fn all() -> RunQuery {
        RunQuery::default()
    }

    /// Only runs in this state.
    pub fn state(mut self, state: RunState) -> RunQuery {
        self.state = Some(state);
        self
    }

    /// How many runs a page holds at most. Default 1,000; more than 10,000 counts as 10,000.
    pub fn page_size(mut self, page_size: u32) -> RunQuery {
        self.page_size = i32::try_from(page_size).unwrap_or(i32::MAX);
        self
    }

    /// Goes on after the page that had this token.
    pub fn page_token(mut self, token: impl Into<String>) -> RunQuery {
        self.page_token = token.into();
        self
    }
}

impl Client {
    /// Returns one run.
    ///
    /// # Errors
    ///
    /// `RUN_UNKNOWN` if there is none.
    pub async fn run(&self, run_id: &str) -> Result<Run, Error> {
        let request = proto::GetIngestionRunRequest { run_id: run_id.to_owned() };
        let answer = self
            .call(request, |channel, request| async move { ingest_service(channel).get_ingestion_run(request).await })
            .await?;
        Run::from_wire(answer.run)
    }

    /// Returns one page of runs, the newest first.
    ///
    /// # Errors
    ///
    /// Whatever the server refuses.
    pub async fn list_runs(&self, query: &RunQuery) -> Result<Page<Run>, Error> {
        let request = proto::ListIngestionRunsRequest {
            state: query.state.map(RunState::to_wire).unwrap_or_default(),
            page_size: query.page_size,
            page_token: query.page_token.clone(),
        };
        let answer = self
            .call(request, |channel, request| async move { ingest_service(channel).list_ingestion_runs(request).await })
            .await?;
        let runs = answer.runs.into_iter().map(|run| Run::from_wire(Some(run)));
        Ok(Page {
            items: runs.collect::<Result<_, _>>()?,
            next_page_token: answer.next_page_token,
            as_of: None,
            now: None,
        })
    }

    /// Returns all pages of runs, each asked for when the stream is polled.
    pub fn run_pages(&self, query: RunQuery) -> impl Stream<Item = Result<Page<Run>, Error>> + Send + use<> {
        let client = self.clone();
        pages(query.page_token.clone(), move |token| {
            let client = client.clone();
            let query = query.clone().page_token(token);
            async move { client.list_runs(&query).await }
        })
    }

    /// Cancels a run and returns it as it then is. What is stored stays; a run that has ended stays as it is.
    ///
    /// # Errors
    ///
    /// `RUN_UNKNOWN` if there is none.
    pub async fn cancel_run(&self, run_id: &str) -> Result<Run, Error> {
        let request = proto::CancelIngestionRunRequest { run_id: run_id.to_owned() };
        let answer =
            self.call(request, |channel, request| async move {
                ingest_service(channel).cancel_ingestion_run(request).await
            })
            .await?;
        Run::from_wire(answer.run)
    }

    /// Follows a run until it has ended: its state at once, then after changes. Connects again by itself.
    ///
    /// The stream ends after the final state, or after a fatal error such as `RUN_UNKNOWN`.
    pub fn watch_run(&self, run_id: impl Into<String>) -> Pin<Box<dyn Stream<Item = Result<Run, Error>> + Send>> {
        let watch =
            RunWatch { client: self.clone(), run_id: run_id.into(), messages: None, backoff: self.stream_backoff() };
        let states = stream::try_unfold(Some(watch), |watch| async move {
            let Some(mut watch) = watch else {
                return Ok(None);
            };
            let run = watch.next().await?;
            let next = (!run.state.is_final()).then_some(watch);
            Ok(Some((run, next)))
        });
        Box::pin(states)
    }
}

struct RunWatch {
    client: Client,
    run_id: String,
    messages: Option<Streaming<proto::WatchIngestionRunResponse>>,
    backoff: Backoff,
}

impl RunWatch {
    /// The next state of the run; the first after a cut repeats the one before it.
    async fn next(&mut self) -> Result<Run, Error> {
        loop {
            let error = match self.message().await {
                Ok(run) => {
                    self.backoff.reset();
                    return Ok(run);
                }
                Err(error) => error,
            };
            if !error.is_retryable() {
                return Err(error);
            }
            self.messages = None;
            tokio::time::sleep(self.backoff.next(error.retry_delay())).await;
        }
    }

    async fn message(&mut self) -> Result<Run, Error> {
        let messages = match &mut self.messages {
            Some(messages) => messages,
            none => none.insert(open(&self.client, &self.run_id).await?),
        };
        match messages.message().await? {
            Some(message) => Run::from_wire(message.run),
            None => Err(Error::Transport("the server ended the watch before the run".into())),
        }
    }
}

/// Opens a watch on the connection of calls: its messages are few, and always read.
async fn open(client: &Client, run_id: &str) -> Result<Streaming<proto::WatchIngestionRunResponse>, Error> {
    let request = proto::WatchIngestionRunRequest { run_id: run_id.to_owned() };
    let mut service = ingest_service(client.call_channel());
    let answer = tokio::time::timeout(WATCH_TIMEOUT, service.watch_ingestion_run(request));
    let answer = answer.await.map_err(|_| Error::Transport(format!("no watch within {WATCH_TIMEOUT:?}")))??;
    Ok(answer.into_inner())
}
