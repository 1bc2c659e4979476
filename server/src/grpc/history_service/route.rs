//! Routes beside tonic's. ReadTicks: its request is read by tonic, its answer is a body of messages that are written
//! already. ListTicks and ListBars: tonic's in everything but the codec.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codec::Codec as _;
use tonic::server::{Grpc, UnaryService};
use tonic::service::Routes;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::whole::Whole;
use super::{HistoryService, list_bars, read_ticks};
use crate::grpc::limits::MAX_RESPONSE_BYTES;
use crate::grpc::proto;
use crate::grpc::proto::history_service_server::{HistoryService as _, HistoryServiceServer};
use crate::query::Query;

/// Where they are called.
const READ_TICKS: &str = "/tapefeed.v1.HistoryService/ReadTicks";
const LIST_TICKS: &str = "/tapefeed.v1.HistoryService/ListTicks";
const LIST_BARS: &str = "/tapefeed.v1.HistoryService/ListBars";

/// The bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

type Codec = ProstCodec<proto::ReadTicksResponse, proto::ReadTicksRequest>;

impl HistoryService {
    /// Adds the service to others.
    pub fn serve(self, routes: Routes) -> Routes {
        let query = self.query.clone();
        let read_ticks = tower::service_fn(move |request: Request<axum::body::Body>| {
            let query = query.get();
            async move { Ok::<_, Infallible>(answer(query, request).await) }
        });
        let history = self.clone();
        let list_ticks = tower::service_fn(move |request: Request<axum::body::Body>| {
            let history = history.clone();
            let call = tower::service_fn(move |request| {
                let history = history.clone();
                async move { Ok(history.list_ticks(request).await?.map(|answer| answer.encode_to_vec())) }
            });
            async move { Ok::<_, Infallible>(in_one_piece(call, request).await) }
        });
        let query = self.query.clone();
        let list_bars = tower::service_fn(move |request: Request<axum::body::Body>| {
            let query = query.clone();
            let call = tower::service_fn(move |request: tonic::Request<_>| {
                let query = query.get();
                async move { Ok(tonic::Response::new(list_bars::list_bars(&query, request.into_inner()).await?)) }
            });
            async move { Ok::<_, Infallible>(in_one_piece(call, request).await) }
        });
        let service = HistoryServiceServer::new(self).max_encoding_message_size(MAX_RESPONSE_BYTES);
        let router = routes.add_service(service).into_axum_router();
        let router = router.route_service(READ_TICKS, read_ticks);
        Routes::from(router.route_service(LIST_TICKS, list_ticks).route_service(LIST_BARS, list_bars))
    }
}

/// Answers a unary call as tonic does, with the answer in one piece.
async fn in_one_piece<Question: prost::Message + Default + Send + 'static>(
    call: impl UnaryService<Question, Response = Vec<u8>>,
    request: Request<axum::body::Body>,
) -> Response<Body> {
    let codec = Whole::<Question>::default();
    let mut grpc = Grpc::new(codec).apply_max_message_size_config(None, Some(MAX_RESPONSE_BYTES));
    grpc.unary(call, request).await
}

async fn answer(query: Arc<Query>, request: Request<axum::body::Body>) -> Response<Body> {
    match messages(query, request).await {
        Ok(messages) => {
            let end = futures_util::stream::iter([Ok(Frame::trailers(ended()))]);
            // After an error nothing is asked for any more, so the end follows messages alone.
            let body = StreamBody::new(messages.map(|message| message.map(Frame::data)).chain(end));
            let mut response = Response::new(Body::new(body));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(status) => status.into_http(),
    }
}

/// The trailers of a stream that has come to its end.
fn ended() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

async fn messages(
    query: Arc<Query>,
    request: Request<axum::body::Body>,
) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + use<>, Status> {
    let mut requests = Streaming::new_request(Codec::default().decoder(), request.into_body(), None, None);
    let request = requests.message().await?.ok_or_else(|| Status::internal("Missing request message."))?;
    Ok(read_ticks::read_ticks(query, request).await?)
}

/// A message without its prefix, read.
pub(super) fn decode(message: Result<Bytes, Status>) -> Result<proto::ReadTicksResponse, Status> {
    let message = message?.slice(PREFIX_BYTES..);
    proto::ReadTicksResponse::decode(message).map_err(|error| Status::internal(error.to_string()))
}
