//! The guard before a service that misbehaves in every way, without sockets.

use std::pin::Pin;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use prost::Message;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;
use tower::{Service as _, ServiceExt as _};

use super::guard::{Ends, Guard};
use super::methods::Methods;
use crate::grpc::proto;
use crate::grpc::proto::live_service_server::{LiveService, LiveServiceServer};

/// Does what the metadata `do` says.
#[derive(Debug)]
struct Misbehaving;

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn wish<T>(request: &tonic::Request<T>) -> &str {
    let wish = request.metadata().get("do").and_then(|value| value.to_str().ok());
    wish.unwrap_or_default()
}

#[tonic::async_trait]
impl LiveService for Misbehaving {
    type SubscribeTicksStream = ResponseStream<proto::SubscribeTicksResponse>;
    type SubscribeBarsStream = ResponseStream<proto::SubscribeBarsResponse>;

    async fn subscribe_ticks(
        &self,
        request: tonic::Request<proto::SubscribeTicksRequest>,
    ) -> Result<Response<Self::SubscribeTicksStream>, Status> {
        let first = tokio_stream::once(Ok(proto::SubscribeTicksResponse::default()));
        let rest: Self::SubscribeTicksStream = match wish(&request) {
            "panic" => Box::pin(futures_util::stream::poll_fn(|_| panic!("in a stream"))),
            "fail" => Box::pin(tokio_stream::once(Err(Status::unknown("a secret")))),
            "hang before" => std::future::pending().await,
            _ => Box::pin(tokio_stream::pending()),
        };
        Ok(Response::new(Box::pin(tokio_stream::StreamExt::chain(first, rest))))
    }

    async fn subscribe_bars(
        &self,
        _: tonic::Request<proto::SubscribeBarsRequest>,
    ) -> Result<Response<Self::SubscribeBarsStream>, Status> {
        Err(Status::unimplemented("in a service's own words"))
    }

    async fn get_replay_window(
        &self,
        request: tonic::Request<proto::GetReplayWindowRequest>,
    ) -> Result<Response<proto::GetReplayWindowResponse>, Status> {
        match wish(&request) {
            "panic" => panic!("in a call"),
            "hang" => std::future::pending().await,
            "fail" => Err(Status::internal("a secret")),
            _ => Ok(Response::new(proto::GetReplayWindowResponse::default())),
        }
    }
}

/// What a call came to: messages and a status.
struct Outcome {
    messages: usize,
    status: Status,
    took: Duration,
}

impl Outcome {
    fn reason(&self) -> String {
        let details = self.status.get_error_details();
        details.error_info().map(|info| info.reason.clone()).unwrap_or_default()
    }
}

fn guard(ends: Ends) -> Guard {
    let routes = Routes::new(LiveServiceServer::new(Misbehaving));
    Guard::new(routes, Methods::read(&[tapefeed_proto::FILE_DESCRIPTOR_SET]).unwrap().into(), ends)
}

/// A message in its frame.
fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

async fn call(ends: Ends, path: &str, headers: &[(&str, &str)], body: Bytes) -> Outcome {
    let mut request =
        Request::post(format!("http://tapefeed/tapefeed.v1.{path}")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::new(http_body_util::Full::new(body))).unwrap();
    let start = Instant::now();
    let response = guard(ends).ready().await.unwrap().call(request).await.unwrap();
    let (parts, mut body) = response.into_parts();
    let mut messages = 0;
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_trailers() {
            Ok(told) => trailers = told,
            Err(_) => messages += 1,
        }
    }
    let status = Status::from_header_map(&parts.headers)
        .or_else(|| Status::from_header_map(&trailers))
        .expect("every call ends with a status");
    Outcome { messages, status, took: start.elapsed() }
}

async fn window(headers: &[(&str, &str)]) -> Outcome {
    let request = framed(&proto::GetReplayWindowRequest::default());
    call(Ends::default(), "LiveService/GetReplayWindow", headers, request).await
}

async fn subscribe(ends: Ends, wish: &str) -> Outcome {
    let request = framed(&proto::SubscribeTicksRequest::default());
    call(ends, "LiveService/SubscribeTicks", &[("do", wish)], request).await
}

#[tokio::test]
async fn a_sound_call_passes() {
    let outcome = window(&[]).await;
    assert_eq!((outcome.status.code(), outcome.messages), (Code::Ok, 1));
}

#[tokio::test]
async fn a_panic_is_an_internal_error_with_an_id() {
    for outcome in [window(&[("do", "panic")]).await, subscribe(Ends::default(), "panic").await] {
        assert_eq!(outcome.status.code(), Code::Internal);
        assert_eq!(outcome.reason(), "INTERNAL");
        assert!(!outcome.status.message().contains("in a"), "{}", outcome.status.message());
    }
}

#[tokio::test]
async fn statuses_without_a_reason_get_one_and_lose_their_words() {
    for outcome in [window(&[("do", "fail")]).await, subscribe(Ends::default(), "fail").await] {
        assert_eq!(outcome.reason(), "INTERNAL");
        assert!(!outcome.status.message().contains("secret"));
    }
    let request = framed(&proto::SubscribeBarsRequest::default());
    let outcome = call(Ends::default(), "LiveService/SubscribeBars", &[], request.clone()).await;
    assert_eq!(outcome.reason(), "NOT_SERVED");
    let outcome = call(Ends::default(), "HistoryService/ListBars", &[], request.clone()).await;
    assert_eq!(outcome.reason(), "NOT_SERVED", "the contract knows it, nobody serves it");
    let outcome = call(Ends::default(), "LiveService/Nope", &[], request).await;
    assert_eq!(outcome.reason(), "METHOD_UNKNOWN");
}

#[tokio::test(start_paused = true)]
async fn unary_calls_have_a_deadline_and_may_shorten_or_stretch_it() {
    for (asked, seconds) in [(None, 10), (Some("3S"), 3), (Some("45S"), 45), (Some("2H"), 60)] {
        let mut headers = vec![("do", "hang")];
        headers.extend(asked.map(|asked| ("grpc-timeout", asked)));
        let outcome = window(&headers).await;
        assert_eq!(outcome.reason(), "DEADLINE_EXCEEDED", "{asked:?}");
        assert_eq!(outcome.took.as_secs(), seconds, "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_have_no_deadline_and_end_with_the_server() {
    for (wish, messages) in [("hang", 1), ("hang before", 0)] {
        let ends = Ends::default();
        let ending = ends.ending.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(86_400)).await;
            ending.cancel();
        });
        let outcome = subscribe(ends, wish).await;
        assert_eq!(outcome.status.code(), Code::Unavailable);
        assert_eq!(outcome.reason(), "SHUTTING_DOWN");
        assert_eq!((outcome.messages, outcome.took.as_secs()), (messages, 86_400));
    }
}

#[tokio::test]
async fn a_server_that_stops_takes_no_new_calls() {
    let ends = Ends::default();
    ends.draining.cancel();
    let outcome = subscribe(ends, "").await;
    assert_eq!(outcome.reason(), "SHUTTING_DOWN");
    assert!(outcome.status.get_error_details().retry_info().is_some());
}

#[tokio::test]
async fn limits_are_named() {
    let metadata = |outcome: &Outcome, key: &str| {
        let details = outcome.status.get_error_details();
        details.error_info().unwrap().metadata[key].clone()
    };
    let long = "x".repeat(9 * 1024);
    let outcome = window(&[("x-long", &long)]).await;
    assert_eq!(outcome.status.code(), Code::ResourceExhausted);
    assert_eq!(metadata(&outcome, "limit"), "metadata_bytes");

    let request =
        framed(&proto::GetInstrumentRequest { symbol: "A".repeat(70_000), ..proto::GetInstrumentRequest::default() });
    let outcome = call(Ends::default(), "LiveService/GetReplayWindow", &[], request).await;
    assert_eq!(outcome.status.code(), Code::ResourceExhausted);
    assert_eq!(outcome.reason(), "LIMIT_EXCEEDED");
    assert_eq!(metadata(&outcome, "limit"), "request_bytes");
    assert_eq!(metadata(&outcome, "max"), "65536");
    assert_eq!(metadata(&outcome, "actual"), "70004");
    assert!(outcome.status.get_error_details().quota_failure().is_some());
}

#[tokio::test]
async fn what_cannot_be_decoded_is_malformed() {
    // A selector whose symbol is Latin-1; a message that is cut off; a frame without a body; nothing at all.
    let latin1: &[u8] = &[0, 0, 0, 0, 7, 0x0a, 5, 0x12, 3, b'C', 0xe9, b'D'];
    let cut: &[u8] = &[0, 0, 0, 0, 2, 0x0a, 5];
    let short: &[u8] = &[0, 0, 0, 0, 9, 0x0a];
    let flagged: &[u8] = &[7, 0, 0, 0, 0];
    for body in [latin1, cut, short, flagged, &[]] {
        let body = Bytes::from_static(body);
        let outcome = call(Ends::default(), "LiveService/SubscribeTicks", &[], body.clone()).await;
        assert_eq!(outcome.status.code(), Code::InvalidArgument, "{body:?}");
        assert_eq!(outcome.reason(), "MESSAGE_MALFORMED", "{body:?}");
    }
    let compressed = Bytes::from_static(&[1, 0, 0, 0, 1, 0]);
    let headers = [("grpc-encoding", "gzip")];
    let outcome = call(Ends::default(), "LiveService/SubscribeTicks", &headers, compressed).await;
    assert_eq!(outcome.reason(), "NOT_SERVED");
}
