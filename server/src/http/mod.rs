//! Floor 3: what a browser, a probe or Prometheus asks for: a page, `/healthz`, `/readyz` and `/metrics`.
//!
//! It shares its port with gRPC and knows nothing of it: what is no page here and looks like a call goes to the
//! service it is given, and anything else is not found.

mod readiness;

pub use readiness::{Dependency, Readiness, State};

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, StatusCode};
use tokio::sync::watch;
use tower::{Service, ServiceExt as _};

use crate::metrics::{Format, Metrics};

/// The page at `/`: self-contained, with the address still to be filled in.
const PAGE: &str = include_str!("page.html");

/// The page runs no script and loads nothing.
const PAGE_HEADERS: [(HeaderName, &str); 2] =
    [(CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];

/// Headers of JSON answers.
const JSON: [(HeaderName, &str); 2] = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];

/// Pages and probes, with `calls` behind them for requests that `is_call` recognises.
pub fn router<S>(
    address: SocketAddr,
    readiness: watch::Receiver<Readiness>,
    metrics: Metrics,
    is_call: fn(&Request) -> bool,
    calls: S,
) -> Router
where
    S: Service<Request, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
{
    let page = PAGE.replace("{{address}}", &address.to_string()).replace("{{version}}", env!("CARGO_PKG_VERSION"));
    Router::new()
        .route("/", get(move || async move { (PAGE_HEADERS, Html(page.clone())) }))
        .route("/healthz", get(alive))
        .route("/readyz", get(move || ready(readiness.clone())))
        .route("/metrics", get(move |headers: HeaderMap| measured(metrics.clone(), headers)))
        .fallback(move |request: Request| {
            let calls = calls.clone();
            async move {
                if !is_call(&request) {
                    return not_found(&request);
                }
                match calls.oneshot(request).await {
                    Ok(response) => response.into_response(),
                    Err(never) => match never {},
                }
            }
        })
}

/// The process runs and answers.
async fn alive() -> impl IntoResponse {
    (JSON, "{\"status\":\"alive\"}\n")
}

/// Whether calls are served, with the state of each dependency; 503 if they are not.
async fn ready(readiness: watch::Receiver<Readiness>) -> Response {
    let readiness = readiness.borrow().clone();
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, JSON, readiness.to_json()).into_response()
}

/// All metrics, in the format that is asked for. Written on a blocking thread: what is served here waits for nobody
/// who scrapes.
async fn measured(metrics: Metrics, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    match tokio::task::spawn_blocking(move || metrics.text(format)).await {
        Ok(text) => ([(CONTENT_TYPE, format.content_type()), (CACHE_CONTROL, "no-store")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn not_found(request: &Request) -> Response<Body> {
    let body = serde_json::json!({
        "error": "not found",
        "path": request.uri().path(),
        "hint": "/ has a page; calls are gRPC or gRPC-Web, with their content-type",
    });
    (StatusCode::NOT_FOUND, JSON, format!("{body}\n")).into_response()
}
