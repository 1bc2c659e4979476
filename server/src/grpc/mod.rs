//! Floor 3: the services of the contract.
//!
//! The only module that speaks `tapefeed_proto`; its types are written `proto::Tick`. Requests come in through
//! [`convert`], every refusal goes out through [`error`], and [`limits`] bounds both. [`stack`] puts the services
//! behind their [`layers`].

pub mod convert;
pub mod error;
pub mod health;
pub mod history_service;
pub mod ingest_service;
pub mod instrument_service;
pub mod layers;
pub mod limits;
pub mod live_service;
pub mod violation;

pub use tapefeed_proto::v1 as proto;

use std::convert::Infallible;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, Service};

use layers::cors::{Cors, is_preflight};
use layers::guard::{Ends, Guard};
use layers::measure::Measure;
use layers::methods::Methods;

use crate::metrics::RpcMetrics;

/// Descriptors that are built into the program do not decode.
#[derive(Debug, thiserror::Error)]
#[error("the built-in descriptors do not decode: {0}")]
pub struct DescriptorsBroken(String);

/// The given services, health and reflection, behind their layers: answers gRPC over HTTP/2, and gRPC-Web over both.
///
/// Methods of the contract that none of `services` serves are answered with NOT_SERVED.
pub fn stack<B>(
    services: Routes,
    health: HealthServer<impl HealthService>,
    ends: Ends,
    metrics: Arc<RpcMetrics>,
) -> Result<
    impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    DescriptorsBroken,
>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError> + std::fmt::Display,
{
    let described: [&[u8]; 4] = [
        tapefeed_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let broken = |error: &dyn std::error::Error| DescriptorsBroken(error.to_string());
    let reflected = || {
        described.iter().fold(tonic_reflection::server::Builder::configure(), |builder, set| {
            builder.register_encoded_file_descriptor_set(set)
        })
    };
    let reflection = reflected().build_v1().map_err(|error| broken(&error))?;
    let reflection_alpha = reflected().build_v1alpha().map_err(|error| broken(&error))?;
    let methods = Arc::new(Methods::read(&described).map_err(|error| broken(&error))?);

    let routes = services.add_service(health).add_service(reflection).add_service(reflection_alpha);
    let guard = Guard::new(routes, methods.clone(), ends);
    Ok(Cors::new(GrpcWebLayer::new().layer(Measure::new(guard, methods, metrics))))
}

/// Whether a request is for [`stack`]: gRPC, gRPC-Web, or a browser that asks before it calls.
pub fn is_call<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    is_preflight(request) || content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
