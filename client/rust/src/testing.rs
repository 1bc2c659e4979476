//! In-process servers for tests: real connections, scripted behaviour.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::history_service_server::{HistoryService, HistoryServiceServer};
use tapefeed_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use tapefeed_proto::v1::live_service_server::{LiveService, LiveServiceServer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{Client, ClientBuilder, UnixNanos};

pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A status as the server makes it.
pub(crate) fn refusal(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata = metadata.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    let metadata: HashMap<String, String> = metadata.collect();
    let details = ErrorDetails::with_error_info(reason, "tapefeed", metadata);
    Status::with_error_details(code, reason, details)
}

/// A client that reconnects fast.
pub(crate) fn builder(address: &str) -> ClientBuilder {
    Client::builder(address).reconnect_delays(Duration::from_millis(1), Duration::from_millis(10))
}

pub(crate) async fn serve_live(live: impl LiveService) -> String {
    let (listener, address) = listen().await;
    let router = tonic::transport::Server::builder().add_service(LiveServiceServer::new(live));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

pub(crate) async fn serve_ingest(ingest: impl IngestService) -> String {
    let (listener, address) = listen().await;
    let router = tonic::transport::Server::builder().add_service(IngestServiceServer::new(ingest));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

pub(crate) async fn serve_history(history: impl HistoryService) -> String {
    let (listener, address) = listen().await;
    let router =
        tonic::transport::Server::builder().add_service(HistoryServiceServer::new(history));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address)
}

/// A proxy in front of a server whose connections can be cut without a word.
pub(crate) struct Proxy {
    pub(crate) address: String,
    generation: watch::Sender<u64>,
}

impl Proxy {
    pub(crate) async fn start(server: &str) -> Proxy {
        let (listener, address) = listen().await;
        let server = server.strip_prefix("http://").unwrap().to_owned();
        let (generation, seen) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                let (server, mut seen) = (server.clone(), seen.clone());
                seen.borrow_and_update();
                tokio::spawn(async move {
                    let mut outside = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {}
                        _ = seen.changed() => {}
                    }
                });
            }
        });
        Proxy {
            address,
            generation,
        }
    }

    pub(crate) fn cut(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }
}

// === live ===

/// What a fake subscription does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Box<proto::SubscribeTicksResponse>),
    Fail(Status),
    /// Ends the stream as if all were well, which the contract forbids.
    End,
    /// Says nothing for ever.
    Hang,
}

/// Plays one list of steps for each subscription, and keeps what was asked.
#[derive(Clone, Default)]
pub(crate) struct FakeLive {
    pub(crate) connections: Arc<Mutex<VecDeque<Vec<Step>>>>,
    pub(crate) requests: Arc<Mutex<Vec<proto::SubscribeTicksRequest>>>,
}

impl FakeLive {
    pub(crate) fn new(connections: impl IntoIterator<Item = Vec<Step>>) -> FakeLive {
        FakeLive {
            connections: Arc::new(Mutex::new(connections.into_iter().collect())),
            requests: Arc::default(),
        }
    }

    pub(crate) fn requests(&self) -> Vec<proto::SubscribeTicksRequest> {
        self.requests.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl LiveService for FakeLive {
    type SubscribeTicksStream = Answers<proto::SubscribeTicksResponse>;
    type SubscribeBarsStream = Answers<proto::SubscribeBarsResponse>;

    async fn subscribe_ticks(
        &self,
        request: Request<proto::SubscribeTicksRequest>,
    ) -> Result<Response<Self::SubscribeTicksStream>, Status> {
        self.requests.lock().unwrap().push(request.into_inner());
        let steps = self.connections.lock().unwrap().pop_front();
        let steps = steps.unwrap_or_else(|| vec![Step::Hang]);
        if let [Step::Fail(status)] = &steps[..] {
            return Err(status.clone());
        }
        let steps = stream::iter(steps).take_while(|step| {
            let ends = matches!(step, Step::End);
            async move { !ends }
        });
        Ok(Response::new(Box::pin(steps.then(|step| async {
            match step {
                Step::Send(message) => Ok(*message),
                Step::Fail(status) => Err(status),
                Step::End | Step::Hang => std::future::pending().await,
            }
        }))))
    }

    async fn subscribe_bars(
        &self,
        _: Request<proto::SubscribeBarsRequest>,
    ) -> Result<Response<Self::SubscribeBarsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_replay_window(
        &self,
        _: Request<proto::GetReplayWindowRequest>,
    ) -> Result<Response<proto::GetReplayWindowResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A tick of a log, at position `log_seq`.
pub(crate) fn wire_tick(log_seq: u64) -> proto::Tick {
    proto::Tick {
        venue: "X".into(),
        symbol: "A".into(),
        instrument_id: 1,
        event_time: Some(UnixNanos(log_seq as i64).to_wire()),
        receive_time: Some(UnixNanos(log_seq as i64).to_wire()),
        price: Some(proto::Decimal {
            mantissa: 1,
            exponent: 0,
        }),
        log_seq,
        ..proto::Tick::default()
    }
}

// === history ===

/// Answers ListTicks from a list; everything else is not served.
#[derive(Clone, Default)]
pub(crate) struct FakeHistory {
    pub(crate) answers: Arc<Mutex<VecDeque<Result<proto::ListTicksResponse, Status>>>>,
    pub(crate) requests: Arc<Mutex<Vec<proto::ListTicksRequest>>>,
}

#[tonic::async_trait]
impl HistoryService for FakeHistory {
    type ReadTicksStream = Answers<proto::ReadTicksResponse>;

    async fn list_ticks(
        &self,
        request: Request<proto::ListTicksRequest>,
    ) -> Result<Response<proto::ListTicksResponse>, Status> {
        self.requests.lock().unwrap().push(request.into_inner());
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            Some(answer) => answer.map(Response::new),
            None => std::future::pending().await,
        }
    }

    async fn read_ticks(
        &self,
        _: Request<proto::ReadTicksRequest>,
    ) -> Result<Response<Self::ReadTicksStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_latest_ticks(
        &self,
        _: Request<proto::ListLatestTicksRequest>,
    ) -> Result<Response<proto::ListLatestTicksResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_average_price(
        &self,
        _: Request<proto::GetAveragePriceRequest>,
    ) -> Result<Response<proto::GetAveragePriceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_price_statistics(
        &self,
        _: Request<proto::GetPriceStatisticsRequest>,
    ) -> Result<Response<proto::GetPriceStatisticsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_bars(
        &self,
        _: Request<proto::ListBarsRequest>,
    ) -> Result<Response<proto::ListBarsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_moving_averages(
        &self,
        _: Request<proto::ListMovingAveragesRequest>,
    ) -> Result<Response<proto::ListMovingAveragesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

// === ingest ===

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
        Content::Rows(rows) => rows
            .ticks
            .iter()
            .map(|tick| tick.trade_id.clone())
            .collect(),
        Content::Columns(columns) => columns.trade_id.clone(),
        Content::SourceStatus(_) | Content::SourceGap(_) | Content::SourceGapFilled(_) => {
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
                    let mut details =
                        ErrorDetails::with_error_info("BATCH_INVALID", "tapefeed", metadata);
                    details
                        .add_bad_request_violation(format!("batch.columns.trade_id[{at}]"), "bad");
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
            let answer = |message| proto::PublishTicksResponse {
                message: Some(message),
            };
            let mut unacknowledged = VecDeque::new();
            loop {
                let (delay, never_ack, credit_batches, credit_bytes) = {
                    let state = state.lock().unwrap();
                    (
                        state.ack_delay.unwrap_or_default(),
                        state.never_ack,
                        state.credit_batches,
                        state.credit_bytes,
                    )
                };
                tokio::select! {
                    biased;
                    said = requests.message() => match said {
                        Ok(Some(proto::PublishTicksRequest { message: Some(Said::Claim(_)) })) => {
                            let outcome = {
                                let mut state = state.lock().unwrap();
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
        Ok(Response::new(proto::ImportFileResponse {
            run: Some(run),
            duplicate,
        }))
    }

    async fn get_ingestion_run(
        &self,
        request: Request<proto::GetIngestionRunRequest>,
    ) -> Result<Response<proto::GetIngestionRunResponse>, Status> {
        let run = proto::IngestionRun {
            run_id: request.into_inner().run_id,
            state: proto::IngestionRunState::Succeeded.into(),
            tick_count: 7,
            ..proto::IngestionRun::default()
        };
        Ok(Response::new(proto::GetIngestionRunResponse {
            run: Some(run),
        }))
    }

    async fn list_ingestion_runs(
        &self,
        _: Request<proto::ListIngestionRunsRequest>,
    ) -> Result<Response<proto::ListIngestionRunsResponse>, Status> {
        Err(Status::unimplemented(""))
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
