//! A route beside tonic's: PublishTicks is tonic's in everything but the codec.

use std::convert::Infallible;

use http::Request;
use tonic::server::Grpc;
use tonic::service::Routes;
use tonic::{Response, Status};

use super::incoming::IncomingCodec;
use super::{IngestService, publish_ticks};
use crate::grpc::limits::{MAX_INGEST_MESSAGE_BYTES, MAX_RESPONSE_BYTES};
use crate::grpc::proto::ingest_service_server::IngestServiceServer;

/// Where it is called.
const PUBLISH_TICKS: &str = "/tapefeed.v1.IngestService/PublishTicks";

impl IngestService {
    /// Adds the service to others.
    pub fn serve(self, routes: Routes) -> Routes {
        let publishing = self.publishing.clone();
        let publish_ticks = tower::service_fn(move |request: Request<axum::body::Body>| {
            let publishing = publishing.clone();
            let call = tower::service_fn(move |request| {
                let responses = publish_ticks::publish_ticks(&publishing, request);
                std::future::ready(Ok::<_, Status>(Response::new(responses)))
            });
            async move {
                let mut grpc = Grpc::new(IncomingCodec::default())
                    .apply_max_message_size_config(Some(MAX_INGEST_MESSAGE_BYTES), Some(MAX_RESPONSE_BYTES));
                Ok::<_, Infallible>(grpc.streaming(call, request).await)
            }
        });
        let service = IngestServiceServer::new(self).max_encoding_message_size(MAX_RESPONSE_BYTES);
        let router = routes.add_service(service).into_axum_router();
        Routes::from(router.route_service(PUBLISH_TICKS, publish_ticks))
    }
}
