//! A server that stores batches and takes uploads by the contract's rules, with faults on demand.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::ingest_service_server::IngestService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{Answers, refusal};

/// A producer's log as the contract wants it, with faults on demand.
#[derive(Clone, Default)]
pub(crate) struct FakeIngest {
    pub(crate) state: Arc<Mutex<IngestState>>,
}

#[derive(Default)]
pub(crate) struct IngestState {
    /// What is stored, by number, as the content that the client sent.
    pub(crate) stored: Vec<(u64, proto::publish_batch::Content)>,
    pub(crate) claims: u64,
    pub(crate) credit_batches: u32,
    pub(crate) credit_bytes: u64,
    /// The fence that each claim renews.
    pub(crate) held_fences: Vec<u64>,
    /// Batches whose acknowledgement is lost once: stored, then cut.
    pub(crate) lose_ack_of: Vec<u64>,
    /// Batches before which the stream is cut once.
    pub(crate) cut_before: Vec<u64>,
    /// How long an acknowledgement takes; `None`: for ever.
    pub(crate) ack_delay: Option<Duration>,
    pub(crate) never_ack: bool,
    pub(crate) most_unacknowledged: usize,
    /// What the next claims are refused with.
    pub(crate) refuse_claims: VecDeque<Status>,
    /// What ends the stream at the next batch.
    pub(crate) refuse_next: Option<Status>,
    /// Uploads: how many are cut after their first data, and what was read of each.
    pub(crate) cut_uploads: u32,
    pub(crate) uploads: Vec<(proto::ImportStart, usize)>,
    /// What complete uploads answer, the last one again and again.
    pub(crate) runs: VecDeque<(proto::IngestionRunState, bool)>,
}

impl FakeIngest {
    pub(crate) fn with(change: impl FnOnce(&mut IngestState)) -> FakeIngest {
        let fake = FakeIngest::default();
        {
            let mut state = fake.state.lock().unwrap();
            state.credit_batches = 8;
            state.credit_bytes = 8 << 20;
            change(&mut state);
        }
        fake
    }

    /// The trade ids of all stored ticks in order, and an `event` for each source event.
    pub(crate) fn stored_ids(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let mut ids = Vec::new();
        for (_, content) in &state.stored {
            ids.extend(ids_of(content));
        }
        ids
    }

    pub(crate) fn stored_numbers(&self) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        state.stored.iter().map(|(number, _)| *number).collect()
    }
}

fn ids_of(content: &proto::publish_batch::Content) -> Vec<String> {
    use proto::publish_batch::Content;
    match content {
        Content::Rows(rows) => rows.ticks.iter().map(|tick| tick.trade_id.clone()).collect(),
        Content::Columns(columns) => columns.trade_id.clone(),
        Content::SourceStatus(_) | Content::SourceGap(_) | Content::SourceGapFilled(_) | Content::Watermark(_) => {
            vec!["event".to_owned()]
        }
    }
}

impl IngestState {
    /// Whether to acknowledge, and whether it is a duplicate; or how the stream ends.
    fn store(&mut self, batch: proto::PublishBatch) -> Result<bool, Status> {
        if let Some(status) = self.refuse_next.take() {
            return Err(status);
        }
        let number = batch.batch_seq;
        let content = batch.content.unwrap();
        if let Some(at) = self.cut_before.iter().position(|&cut| cut == number) {
            self.cut_before.remove(at);
            return Err(Status::unavailable("cut before"));
        }
        let expected = self.stored.last().map_or(0, |(last, _)| *last) + 1;
        let expected_text = expected.to_string();
        let metadata = [("expected_batch_seq", expected_text.as_str())];
        let known = self.stored.iter().find(|(stored, _)| *stored == number);
        let duplicate = match known {
            Some((_, stored)) if *stored == content => true,
            Some(_) => return Err(refusal(Code::AlreadyExists, "BATCH_CONFLICT", &metadata)),
            None if number != expected => {
                let code = Code::FailedPrecondition;
                return Err(refusal(code, "BATCH_OUT_OF_ORDER", &metadata));
            }
            None => {
                if let Some(at) = ids_of(&content).iter().position(|id| id == "bad") {
                    let metadata: HashMap<String, String> = [
                        ("expected_batch_seq".to_owned(), expected_text),
                        ("violation_count".to_owned(), "1".to_owned()),
                    ]
                    .into();
                    let mut details = ErrorDetails::with_error_info("BATCH_INVALID", "tapefeed", metadata);
                    details.add_bad_request_violation(format!("batch.columns.trade_id[{at}]"), "bad");
                    let code = Code::InvalidArgument;
                    return Err(Status::with_error_details(code, "a bad tick", details));
                }
                self.stored.push((number, content));
                false
            }
        };
        if let Some(at) = self.lose_ack_of.iter().position(|&lost| lost == number) {
            self.lose_ack_of.remove(at);
            return Err(Status::unavailable("acknowledgement lost"));
        }
        Ok(duplicate)
    }
}

#[tonic::async_trait]
impl IngestService for FakeIngest {
    type PublishTicksStream = Answers<proto::PublishTicksResponse>;
    type WatchIngestionRunStream = Answers<proto::WatchIngestionRunResponse>;

    async fn publish_ticks(
        &self,
        request: Request<Streaming<proto::PublishTicksRequest>>,
    ) -> Result<Response<Self::PublishTicksStream>, Status> {
        use proto::publish_ticks_request::Message as Said;
        use proto::publish_ticks_response::Message;

        let mut requests = request.into_inner();
        let (answers, receiver) = mpsc::channel(64);
        let state = self.state.clone();
        tokio::spawn(async move {
            let answer = |message| proto::PublishTicksResponse { message: Some(message) };
            let mut unacknowledged = VecDeque::new();
            loop {
                let (delay, never_ack, credit_batches, credit_bytes) = {
                    let state = state.lock().unwrap();
                    (state.ack_delay.unwrap_or_default(), state.never_ack, state.credit_batches, state.credit_bytes)
                };
                tokio::select! {
                    biased;
                    said = requests.message() => match said {
                        Ok(Some(proto::PublishTicksRequest { message: Some(Said::Claim(claim)) })) => {
                            let outcome = {
                                let mut state = state.lock().unwrap();
                                state.held_fences.push(claim.held_fence);
                                state.claims += 1;
                                match state.refuse_claims.pop_front() {
                                    Some(status) => Err(status),
                                    None => Ok(proto::ProducerGrant {
                                        last_batch_seq: state.stored.last().map_or(0, |(last, _)| *last),
                                        fence: state.claims,
                                        credit_batches,
                                        credit_bytes,
                                    }),
                                }
                            };
                            let failed = outcome.is_err();
                            let _ = answers.send(outcome.map(Message::Grant).map(answer)).await;
                            if failed {
                                return;
                            }
                        }
                        Ok(Some(proto::PublishTicksRequest { message: Some(Said::Batch(batch)) })) => {
                            let number = batch.batch_seq;
                            let outcome = state.lock().unwrap().store(batch);
                            match outcome {
                                Ok(duplicate) => unacknowledged.push_back((number, duplicate)),
                                Err(status) => {
                                    let _ = answers.send(Err(status)).await;
                                    return;
                                }
                            }
                            let mut state = state.lock().unwrap();
                            state.most_unacknowledged =
                                state.most_unacknowledged.max(unacknowledged.len());
                        }
                        _ => return,
                    },
                    () = tokio::time::sleep(delay), if !unacknowledged.is_empty() && !never_ack => {
                        if let Some((batch_seq, duplicate)) = unacknowledged.pop_front() {
                            let ack = Message::Ack(proto::PublishAck {
                                batch_seq,
                                duplicate,
                                cursor: batch_seq.to_be_bytes().to_vec().into(),
                                credit_batches,
                                credit_bytes,
                            });
                            let _ = answers.send(Ok(answer(ack))).await;
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn import_file(
        &self,
        request: Request<Streaming<proto::ImportFileRequest>>,
    ) -> Result<Response<proto::ImportFileResponse>, Status> {
        use proto::import_file_request::Message;

        let mut requests = request.into_inner();
        let mut start = proto::ImportStart::default();
        let mut bytes = 0;
        while let Some(said) = requests.message().await? {
            match said.message {
                Some(Message::Start(said)) => start = said,
                Some(Message::Data(data)) => {
                    bytes += data.len();
                    let mut state = self.state.lock().unwrap();
                    if state.cut_uploads > 0 {
                        state.cut_uploads -= 1;
                        state.uploads.push((start, bytes));
                        return Err(Status::unavailable("cut"));
                    }
                }
                None => {}
            }
        }
        let mut state = self.state.lock().unwrap();
        let (run_state, duplicate) = match state.runs.len() {
            0 => (proto::IngestionRunState::Succeeded, false),
            1 => state.runs[0],
            _ => state.runs.pop_front().unwrap(),
        };
        let run = proto::IngestionRun {
            run_id: start.run_id.clone(),
            state: run_state.into(),
            uploaded_bytes: bytes as u64,
            ..proto::IngestionRun::default()
        };
        state.uploads.push((start, bytes));
        Ok(Response::new(proto::ImportFileResponse { run: Some(run), duplicate }))
    }

    async fn get_ingestion_run(
        &self,
        request: Request<proto::GetIngestionRunRequest>,
    ) -> Result<Response<proto::GetIngestionRunResponse>, Status> {
        let run = proto::IngestionRun {
            run_id: request.into_inner().run_id,
            state: proto::IngestionRunState::Succeeded.into(),
            tick_count: 7,
            published_count: 3,
            ignored_count: 5,
            ignored_lines: [("auction", 4), ("trailer", 1)]
                .map(|(kind, count)| proto::IgnoredLines { kind: kind.to_owned(), count })
                .into(),
            ..proto::IngestionRun::default()
        };
        Ok(Response::new(proto::GetIngestionRunResponse { run: Some(run) }))
    }

    async fn list_ingestion_runs(
        &self,
        _: Request<proto::ListIngestionRunsRequest>,
    ) -> Result<Response<proto::ListIngestionRunsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    /// Three lines, one a page; the token is the number of the line.
    async fn list_rejected_lines(
        &self,
        request: Request<proto::ListRejectedLinesRequest>,
    ) -> Result<Response<proto::ListRejectedLinesResponse>, Status> {
        let after: u64 = request.into_inner().page_token.parse().unwrap_or(0);
        let line = proto::RejectedLine {
            line_number: after + 1,
            reason: proto::ErrorReason::ActionNotSupported.into(),
            message: "action: corrections are not taken yet".to_owned(),
            text: format!("line {}", after + 1),
        };
        Ok(Response::new(proto::ListRejectedLinesResponse {
            rejected_lines: vec![line],
            next_page_token: if after < 2 { (after + 1).to_string() } else { String::new() },
            reject_count: 5,
            kept_count: 3,
        }))
    }

    async fn cancel_ingestion_run(
        &self,
        _: Request<proto::CancelIngestionRunRequest>,
    ) -> Result<Response<proto::CancelIngestionRunResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    /// A run that moves one step with each connection, which ends after one message: three, and it has succeeded.
    async fn watch_ingestion_run(
        &self,
        request: Request<proto::WatchIngestionRunRequest>,
    ) -> Result<Response<Self::WatchIngestionRunStream>, Status> {
        let claims = {
            let mut state = self.state.lock().unwrap();
            state.claims += 1;
            state.claims
        };
        let state = match claims {
            1 => proto::IngestionRunState::Uploading,
            2 => proto::IngestionRunState::Running,
            _ => proto::IngestionRunState::Succeeded,
        };
        let run = proto::IngestionRun {
            run_id: request.into_inner().run_id,
            state: state.into(),
            ..proto::IngestionRun::default()
        };
        let message = proto::WatchIngestionRunResponse { run: Some(run) };
        let cut = Err(Status::unavailable("cut"));
        Ok(Response::new(Box::pin(stream::iter([Ok(message), cut]))))
    }
}
