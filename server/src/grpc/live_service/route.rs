//! The route of SubscribeTicks, beside tonic's: its request is read by tonic, its answer is a body of our own.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codec::Codec as _;
use tonic::service::Routes;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::{LiveService, subscribe_ticks};
use crate::grpc::layers::guard::Connection;
use crate::grpc::limits::MAX_RESPONSE_BYTES;
use crate::grpc::proto;
use crate::grpc::proto::live_service_server::LiveServiceServer;

/// Where SubscribeTicks is called.
const PATH: &str = "/tapefeed.v1.LiveService/SubscribeTicks";

/// The bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

type Codec = ProstCodec<proto::SubscribeTicksResponse, proto::SubscribeTicksRequest>;

impl LiveService {
    /// Adds the service to others.
    pub fn serve(self, routes: Routes) -> Routes {
        let ticks = self.clone();
        let service = LiveServiceServer::new(self).max_encoding_message_size(MAX_RESPONSE_BYTES);
        let own = tower::service_fn(move |request: Request<axum::body::Body>| {
            let service = ticks.clone();
            async move { Ok::<_, Infallible>(answer(&service, request).await) }
        });
        Routes::from(routes.add_service(service).into_axum_router().route_service(PATH, own))
    }
}

async fn answer(service: &LiveService, request: Request<axum::body::Body>) -> Response<Body> {
    match pieces(service, request).await {
        Ok(pieces) => {
            let body = StreamBody::new(pieces.map(|bytes| bytes.map(Frame::data)));
            let mut response = Response::new(Body::new(body));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(status) => status.into_http(),
    }
}

async fn pieces(
    service: &LiveService,
    request: Request<axum::body::Body>,
) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + use<>, Status> {
    let aging = Connection::aging(request.extensions());
    let mut requests = Streaming::new_request(Codec::default().decoder(), request.into_body(), None, None);
    let request = requests.message().await?.ok_or_else(|| Status::internal("Missing request message."))?;
    Ok(subscribe_ticks::subscribe_ticks(service, request, aging).await?)
}

/// The messages of pieces that hold whole ones.
pub(super) fn messages(
    pieces: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
) -> impl Stream<Item = Result<proto::SubscribeTicksResponse, Status>> + Send {
    pieces.flat_map(|piece| {
        let decoded: Vec<_> = match piece {
            Ok(bytes) => split(bytes),
            Err(status) => vec![Err(status)],
        };
        futures_util::stream::iter(decoded)
    })
}

pub(super) fn split(mut bytes: Bytes) -> Vec<Result<proto::SubscribeTicksResponse, Status>> {
    let mut messages = Vec::new();
    while let Some((_, length)) = bytes.first_chunk::<PREFIX_BYTES>().and_then(|prefix| prefix.split_first_chunk::<1>())
    {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let message = bytes.split_to(PREFIX_BYTES + length).split_off(PREFIX_BYTES);
        let decoded = proto::SubscribeTicksResponse::decode(message);
        messages.push(decoded.map_err(|error| Status::internal(error.to_string())));
    }
    messages
}
