//! Lets pages on this machine call the server from a browser.
//!
//! A browser asks first whether a page may call another origin; without an answer it does not call. Only origins on
//! the loopback get one: development servers and the dashboards of people who run the server for themselves.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tonic::body::Body;
use tower::Service;

/// What pages may send.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "content-type, x-grpc-web, x-user-agent, grpc-timeout, authorization, traceparent, tracestate",
);

/// What pages may read of an answer beside its body.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin");

/// How long a browser remembers that it may call, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Whether a browser asks before it calls.
pub fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers browsers before and beside the service inside.
#[derive(Clone, Debug)]
pub struct Cors<S> {
    inner: S,
}

impl<S> Cors<S> {
    /// Puts a service behind it.
    pub fn new(inner: S) -> Cors<S> {
        Cors { inner }
    }
}

impl<S, B> Service<Request<B>> for Cors<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let origin = allowed_origin(request.headers()).cloned();
        if is_preflight(&request) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            if let Some(origin) = origin {
                let headers = response.headers_mut();
                allow(headers, origin);
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
                headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            }
            return Box::pin(async { Ok(response) });
        }
        let answered = self.inner.call(request);
        let Some(origin) = origin else {
            return Box::pin(answered);
        };
        Box::pin(async move {
            let mut response = answered.await?;
            allow(response.headers_mut(), origin);
            response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
            Ok(response)
        })
    }
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(VARY, HeaderValue::from_static("origin"));
}

/// The origin of a request, if it lies on the loopback.
fn allowed_origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let text = origin.to_str().ok()?;
    let host_and_port = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    let host = match host_and_port.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host_and_port,
    };
    ["localhost", "127.0.0.1", "[::1]"].contains(&host).then_some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_on_this_machine_may_call() {
        let cases = [
            ("http://localhost:5173", true),
            ("https://localhost", true),
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:8080", true),
            ("http://[::1]", true),
            ("http://localhost.example.com", false),
            ("http://localhost:80@example.com", false),
            ("http://127.0.0.1.example.com:80", false),
            ("https://example.com", false),
            ("null", false),
            ("file://localhost", false),
        ];
        for (origin, allowed) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
            assert_eq!(allowed_origin(&headers).is_some(), allowed, "{origin}");
        }
    }
}
