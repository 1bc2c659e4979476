//! The client: one connection for calls, one more for each stream, and the retry of reads.
//!
//! Every unary call has a deadline that covers its retries. Streams get a connection of their own, so that a stream that
//! nobody reads cannot hold up a call: HTTP/2 shares one window over all streams of a connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tapefeed_proto::v1::history_service_client::HistoryServiceClient;
use tapefeed_proto::v1::ingest_service_client::IngestServiceClient;
use tapefeed_proto::v1::instrument_service_client::InstrumentServiceClient;
use tapefeed_proto::v1::live_service_client::LiveServiceClient;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use crate::Error;
use crate::backoff::{Backoff, Delays};
use crate::connector::{self, Connector};
use crate::transport::Transport;

/// The deadline of a unary call, retries included, unless the builder says otherwise.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// How long an attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an idle connection with an open call is checked. Servers count pings that come more often as abuse.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// How long the answer to such a check may take before the connection counts as dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The HTTP/2 window of a connection. It also sets h2's budget for unread small frames: half of it.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// The HTTP/2 window of a stream: what the network may hold while a consumer is slow. Frames of 16 bytes and more, and
/// all of ours are, cannot use up the budget above within it.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;

/// The largest HTTP/2 frame that the server may send: its 64 KiB messages come whole.
const MAX_FRAME_BYTES: u32 = 256 * 1024;

/// The largest answer that is read. The server sends at most 4 MiB.
const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// How often a read is asked at most while the server is unavailable.
pub(crate) const READ_ATTEMPTS: u32 = 4;

/// The delays between those attempts.
const READ_DELAYS: Delays = Delays { first: Duration::from_millis(100), longest: Duration::from_secs(2) };

/// The delays between attempts to reconnect a stream, unless the builder says otherwise.
const STREAM_DELAYS: Delays = Delays { first: Duration::from_millis(50), longest: Duration::from_secs(5) };

/// A client of one server, or of several over one store. Clones share its connection; cloning is cheap.
///
/// Several addresses are separated by commas. Each connection goes to one of them and each new one to the next: calls and
/// streams move to another server when theirs ends. Which server answers makes no difference: cursors, producers and page
/// tokens are good on each.
///
/// ```no_run
/// # async fn example() -> Result<(), tapefeed_client::Error> {
/// use tapefeed_client::{Client, Query};
///
/// let client = Client::connect("http://127.0.0.1:50051").await?;
/// let mean = client.average(&Query::symbol("BTCUSDT"), Default::default()).await?;
/// println!("{} over {} ticks", mean.price, mean.tick_count);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    address: String,
    endpoint: Endpoint,
    connector: Option<Connector>,
    /// The connection of unary calls, and of small streams that are always read.
    calls: Channel,
    deadline: Duration,
    stream_delays: Delays,
}

/// Sets up a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    address: String,
    deadline: Duration,
    user_agent: String,
    stream_delays: Delays,
    connector: Option<Connector>,
}

// === impl ClientBuilder ===

impl ClientBuilder {
    /// The deadline of a unary call, its retries included. Default 10 s; the server takes 60 s at most.
    pub fn deadline(mut self, deadline: Duration) -> ClientBuilder {
        self.deadline = deadline;
        self
    }

    /// What the client calls itself in the server's log. Default `tapefeed-client/<version>`; the transport appends its own name.
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> ClientBuilder {
        self.user_agent = user_agent.into();
        self
    }

    /// The shortest and longest delay before a stream, publisher or import connects again. Default 50 ms to 5 s; each
    /// delay is twice the one before, less a random part of up to a half.
    pub fn reconnect_delays(mut self, first: Duration, longest: Duration) -> ClientBuilder {
        self.stream_delays = Delays { first, longest };
        self
    }

    /// Opens every connection in this way instead of over the network: for simulated networks, proxies and sockets of
    /// other kinds.
    pub fn connector(mut self, connector: Connector) -> ClientBuilder {
        self.connector = Some(connector);
        self
    }

    /// Makes the client, which connects at its first call. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the address is not a `http://host:port`, or several.
    pub fn lazy(mut self) -> Result<Client, Error> {
        let endpoint = self.endpoint()?;
        let calls = connector::open_lazy(&endpoint, self.connector.as_ref());
        Ok(self.client(endpoint, calls))
    }

    /// Connects to the server.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the address is not a `http://host:port`, or several, [`Error::Transport`] if nothing answers
    /// there.
    pub async fn connect(mut self) -> Result<Client, Error> {
        let endpoint = self.endpoint()?;
        let calls = connector::open(&endpoint, self.connector.as_ref()).await;
        let calls = calls.map_err(|error| Error::from_status(Status::from_error(Box::new(error))))?;
        Ok(self.client(endpoint, calls))
    }

    fn client(self, endpoint: Endpoint, calls: Channel) -> Client {
        Client {
            shared: Arc::new(Shared {
                address: self.address,
                endpoint,
                connector: self.connector,
                calls,
                deadline: self.deadline,
                stream_delays: self.stream_delays,
            }),
        }
    }

    /// How to connect. With several servers, the way to one of them becomes the connector.
    fn endpoint(&mut self) -> Result<Endpoint, Error> {
        let mut servers = Vec::new();
        for address in self.address.split(',') {
            servers.push(server(address.trim())?);
        }
        let endpoint = Endpoint::from(servers[0].clone());
        let endpoint = endpoint
            .user_agent(self.user_agent.clone())
            .map_err(|error| Error::Invalid(format!("{:?} is no user agent: {error}", self.user_agent)))?;
        if servers.len() > 1 {
            let first = rand::random_range(0..servers.len());
            self.connector = Some(Connector::to_any(self.connector.take(), servers, first));
        }
        Ok(endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_frame_size(MAX_FRAME_BYTES))
    }
}

/// The address of one server.
fn server(address: &str) -> Result<Uri, Error> {
    let invalid = |why: &str| {
        Error::Invalid(format!("{address:?} is not a server address: {why}; write it as http://127.0.0.1:50051"))
    };
    if address.starts_with("https://") {
        return Err(invalid("this client speaks plain HTTP/2, without TLS"));
    }
    if !address.starts_with("http://") {
        return Err(invalid("it must begin with http://"));
    }
    address.parse().map_err(|error: tonic::codegen::http::uri::InvalidUri| invalid(&error.to_string()))
}

// === impl Client ===

impl Client {
    /// Begins to set up a client of the server at `address`, such as `http://127.0.0.1:50051`, or of any of several, such
    /// as `http://10.0.0.1:50051,http://10.0.0.2:50051`.
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            address: address.into(),
            deadline: DEFAULT_DEADLINE,
            user_agent: concat!("tapefeed-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            stream_delays: STREAM_DELAYS,
            connector: None,
        }
    }

    /// Connects to the server at `address` with all defaults.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::connect`].
    pub async fn connect(address: impl Into<String>) -> Result<Client, Error> {
        Client::builder(address).connect().await
    }

    /// Makes a client with all defaults that connects at its first call. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::lazy`].
    pub fn lazy(address: impl Into<String>) -> Result<Client, Error> {
        Client::builder(address).lazy()
    }

    /// The address of the server, or of several as it was given.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.shared.deadline
    }

    /// The delays between attempts of a stream.
    pub(crate) fn stream_backoff(&self) -> Backoff {
        Backoff::new(self.shared.stream_delays)
    }

    /// A new connection for one attempt of one stream. It connects at the first call.
    pub(crate) fn stream_channel(&self) -> Transport {
        Transport::new(connector::open_lazy(&self.shared.endpoint, self.shared.connector.as_ref()))
    }

    /// The connection of unary calls.
    pub(crate) fn call_channel(&self) -> Transport {
        Transport::new(self.shared.calls.clone())
    }

    /// Makes a call that may be repeated, and repeats it while the server is unavailable. The deadline covers all of it.
    pub(crate) async fn call<Q, A, F>(&self, request: Q, call: impl Fn(Transport, Request<Q>) -> F) -> Result<A, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + self.shared.deadline;
        let mut backoff = Backoff::new(READ_DELAYS);
        let mut attempt = 1;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut timed = Request::new(request.clone());
            timed.set_timeout(left);
            let answer = tokio::time::timeout(left, call(self.call_channel(), timed)).await;
            let error = match answer {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => Error::from_status(status),
                Err(_) => Error::deadline_exceeded(self.shared.deadline),
            };
            let delay = backoff.next(error.retry_delay());
            if !error.is_unavailable() || attempt == READ_ATTEMPTS || Instant::now() + delay >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, attempt, ?delay, "call failed, trying again");
            tokio::time::sleep(delay).await;
            attempt += 1;
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Client").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

// The stubs of the four services, with the limit on answers set.

pub(crate) fn instrument_service(channel: Transport) -> InstrumentServiceClient<Transport> {
    InstrumentServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

pub(crate) fn history_service(channel: Transport) -> HistoryServiceClient<Transport> {
    HistoryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

pub(crate) fn live_service(channel: Transport) -> LiveServiceClient<Transport> {
    LiveServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

pub(crate) fn ingest_service(channel: Transport) -> IngestServiceClient<Transport> {
    IngestServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use futures_util::TryStreamExt as _;
    use tapefeed_proto::v1 as proto;
    use tonic::Code;

    use super::*;
    use crate::testing::{FakeHistory, builder, refusal, serve_history, wire_tick};
    use crate::{ErrorReason, Query, TickQuery};

    type Answer = Result<proto::ListTicksResponse, Status>;

    fn history(answers: impl IntoIterator<Item = Answer>) -> FakeHistory {
        FakeHistory {
            answers: Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>())),
            ..FakeHistory::default()
        }
    }

    async fn calls_of(answers: Vec<Answer>) -> (Result<(), Error>, usize) {
        let fake = history(answers);
        let client = builder(&serve_history(fake.clone()).await).lazy().unwrap();
        let answer = client.list_ticks(Query::symbol("A")).await.map(drop);
        let calls = fake.requests.lock().unwrap().len();
        (answer, calls)
    }

    #[tokio::test]
    async fn reads_are_repeated_only_while_the_server_is_unavailable() {
        let unavailable = || Err(Status::unavailable("later"));
        let good = || Ok(proto::ListTicksResponse::default());
        let (answer, calls) = calls_of(vec![unavailable(), unavailable(), unavailable(), good()]).await;
        assert!(answer.is_ok());
        assert_eq!(calls, 4);
        let (answer, calls) = calls_of(vec![unavailable(); 9]).await;
        assert_eq!(answer.unwrap_err().code(), Some(Code::Unavailable));
        assert_eq!(calls, 4);
        for code in [
            Code::InvalidArgument,
            Code::NotFound,
            Code::ResourceExhausted,
            Code::Internal,
            Code::Unknown,
            Code::Aborted,
            Code::DeadlineExceeded,
        ] {
            let (answer, calls) = calls_of(vec![Err(refusal(code, "NO_DATA", &[])), good()]).await;
            assert_eq!(answer.unwrap_err().code(), Some(code));
            assert_eq!(calls, 1, "{code:?}");
        }
    }

    #[tokio::test]
    async fn a_deadline_covers_all_attempts() {
        let fake = history([Err(Status::unavailable("later"))]);
        let address = serve_history(fake).await;
        let client = builder(&address).deadline(Duration::from_millis(300));
        let begun = Instant::now();
        let error = client.lazy().unwrap().list_ticks(Query::symbol("A")).await;
        let error = error.unwrap_err();
        assert_eq!(error.reason(), ErrorReason::DeadlineExceeded, "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn every_connection_goes_through_the_connector_that_was_given() {
        let address = serve_history(history([Err(Status::not_found("nothing"))])).await;
        let server = address.trim_start_matches("http://").to_owned();
        let opened = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = opened.clone();
        let connector = Connector::new(move |uri| {
            assert_eq!(uri.host(), Some("elsewhere"));
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::net::TcpStream::connect(server.clone())
        });
        let client = builder("http://elsewhere:1").connector(connector).lazy().unwrap();
        let error = client.list_ticks(Query::symbol("A")).await.unwrap_err();
        assert!(!matches!(error, Error::Transport(_)), "{error:?}");
        assert_eq!(opened.load(std::sync::atomic::Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn of_several_servers_each_connection_takes_the_next_that_accepts() {
        let answers = || history((0..12).map(|_| Ok(proto::ListTicksResponse::default())));
        let fakes = [answers(), answers()];
        let mut addresses = vec!["http://127.0.0.1:1".to_owned()];
        for fake in &fakes {
            addresses.push(serve_history(fake.clone()).await);
        }
        for _ in 0..4 {
            // A connection of its own for each: one of three is refused, and goes on to the next.
            let client = Client::builder(addresses.join(", ")).lazy().unwrap();
            for _ in 0..3 {
                let mut service = history_service(client.stream_channel());
                let _ = service.list_ticks(proto::ListTicksRequest::default()).await;
            }
        }
        let asked = fakes.each_ref().map(|fake| fake.requests.lock().unwrap().len());
        assert_eq!(asked.iter().sum::<usize>(), 12, "each call found a server: {asked:?}");
        assert!(asked.iter().all(|asked| *asked >= 4), "both were asked: {asked:?}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_transport_error() {
        let error = Client::connect("http://127.0.0.1:1").await.unwrap_err();
        let Error::Transport(text) = error else {
            panic!("{error:?}");
        };
        assert!(text.contains("refused"), "{text}");
        let lazy = builder("http://127.0.0.1:1").lazy().unwrap();
        let error = lazy.list_ticks(Query::symbol("A")).await.unwrap_err();
        assert!(matches!(error, Error::Transport(_)), "{error:?}");
    }

    #[tokio::test]
    async fn addresses_are_checked() {
        let several = "http://127.0.0.1:1,127.0.0.1:2";
        for address in ["", "127.0.0.1:50051", "https://127.0.0.1:1", "http://", "http:// x", "http://a:1,", several] {
            let client = Client::lazy(address);
            assert!(matches!(client, Err(Error::Invalid(_))), "{address:?}");
        }
    }

    #[tokio::test]
    async fn pages_follow_their_tokens_to_the_end() {
        let page = |log_seq, token: &str| {
            Ok(proto::ListTicksResponse {
                ticks: vec![wire_tick(log_seq)],
                next_page_token: token.into(),
                as_of: vec![1].into(),
                now: None,
            })
        };
        let fake = history([page(1, "a"), page(2, "b"), page(3, "")]);
        let client = builder(&serve_history(fake.clone()).await).lazy().unwrap();
        let query = TickQuery::from(Query::symbol("A").venue("X")).page_size(1);
        let pages: Vec<_> = client.tick_pages(query).try_collect().await.unwrap();
        let positions: Vec<u64> = pages.iter().map(|page| page.items[0].log_seq).collect();
        assert_eq!(positions, [1, 2, 3]);
        let requests = fake.requests.lock().unwrap();
        let tokens: Vec<&str> = requests.iter().map(|r| r.page_token.as_str()).collect();
        assert_eq!(tokens, ["", "a", "b"]);
        assert!(requests.iter().all(|r| r.venue == "X" && r.page_size == 1));
    }
    #[tokio::test]
    async fn readings_go_on_after_a_cut_where_they_were() {
        let message = |log_seq, token: &str, as_of: &[u8]| {
            let rows = proto::TickBatch { ticks: vec![wire_tick(log_seq)], merged_counts: Vec::new() };
            Ok(proto::ReadTicksResponse {
                ticks: Some(proto::read_ticks_response::Ticks::Rows(rows)),
                page_token: token.into(),
                as_of: as_of.to_vec().into(),
                now: None,
            })
        };
        let cut = || Err(Status::unavailable("later"));
        let fake = FakeHistory::default();
        fake.read_answers.lock().unwrap().extend([
            vec![cut()],
            vec![message(1, "a", &[]), message(2, "b", &[]), cut()],
            vec![],
            vec![message(3, "c", &[]), message(4, "d", &[9])],
        ]);
        let client = builder(&serve_history(fake.clone()).await).lazy().unwrap();
        let batches: Vec<_> = client.read_ticks(Query::symbol("A")).try_collect().await.unwrap();
        let positions: Vec<u64> = batches.iter().map(|batch| batch.ticks[0].log_seq).collect();
        assert_eq!(positions, [1, 2, 3, 4]);
        assert!(batches[3].as_of.is_some());
        let tokens = || -> Vec<String> {
            fake.read_requests.lock().unwrap().drain(..).map(|request| request.page_token).collect()
        };
        assert_eq!(tokens(), ["", "", "b", "b"]);
        // Four attempts without a message are the end.
        let failed: Result<Vec<_>, Error> = client.read_ticks(Query::symbol("A")).try_collect().await;
        assert!(failed.unwrap_err().is_retryable());
        assert_eq!(tokens().len(), 4);
    }
}
