//! The body of an answer: its status gets a reason, a panic becomes one, and a stream ends when the server does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body};

use super::guard::panic_text;
use super::methods::Method;
use super::request::{Oversize, too_large};
use super::span::CallSpan;
use crate::dormant::Dormant;
use crate::grpc::error::{Refusal, is_named};

/// What is needed to give a status its reason.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    pub(super) method: Method,
    pub(super) oversize: Oversize,
}

impl Naming {
    /// The status as it goes out: as it is if it was made by us, else with its reason.
    pub(super) fn name(&self, status: Status) -> Status {
        let oversize = self.oversize.load(Ordering::Relaxed);
        if oversize > 0 {
            too_large(self.method.request_limit, oversize).into()
        } else if status.code() == Code::Ok || is_named(&status) {
            status
        } else {
            let path = self.method.name;
            Refusal::of_transport(status.code(), status.message(), path, true).into()
        }
    }

    /// Rewrites the trailers or headers of an answer that has failed without a reason. The code that goes out.
    pub(super) fn rename(&self, headers: &mut HeaderMap) -> Option<Code> {
        let status = Status::from_header_map(headers)?;
        if status.code() == Code::Ok {
            return Some(Code::Ok);
        }
        let named = self.name(status);
        write(headers, &named);
        Some(named.code())
    }
}

/// Puts a status where another one stood.
fn write(headers: &mut HeaderMap, status: &Status) {
    for name in [Status::GRPC_STATUS, Status::GRPC_MESSAGE, Status::GRPC_STATUS_DETAILS] {
        headers.remove(name);
    }
    if status.add_header(headers).is_err() {
        // A message that is no header value: the code alone must do.
        headers.insert(Status::GRPC_STATUS, (status.code() as i32).into());
    }
}

/// The trailers of a status.
fn trailers(status: &Status) -> Frame<Bytes> {
    let mut headers = HeaderMap::new();
    write(&mut headers, status);
    Frame::trailers(headers)
}

/// Tells why a stream is ended that has not ended itself.
pub(super) type Ending = Dormant<Refusal>;

/// An answer's body on its way out. Pieces with data pass untouched.
pub(super) struct NamedBody {
    /// `None` once the end has been told.
    body: Option<Body>,
    naming: Naming,
    /// Ends a stream that has not ended itself when the server stops, or its connection; `None` for unary calls.
    ending: Option<Ending>,
    /// Lives as long as the answer, and learns its code.
    span: Option<CallSpan>,
}

impl NamedBody {
    pub(super) fn new(body: Body, naming: Naming, ending: Option<Ending>, span: CallSpan) -> NamedBody {
        NamedBody { body: Some(body), naming, ending, span: Some(span) }
    }

    /// Ends the body with a status.
    fn end(&mut self, status: impl FnOnce() -> Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.body = None;
        // Inside the span, because the status names its trace.
        let status = match &self.span {
            Some(span) => span.within(status),
            None => status(),
        };
        self.tell(status.code());
        Poll::Ready(Some(Ok(trailers(&status))))
    }

    /// The call has ended with this code.
    fn tell(&mut self, code: Code) {
        if let Some(span) = self.span.take() {
            span.end(code);
        }
    }
}

impl http_body::Body for NamedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx)));
        match polled {
            Ok(Poll::Ready(Some(Ok(frame)))) => match frame.into_trailers() {
                Ok(mut headers) => {
                    let naming = &this.naming;
                    let renamed = match &this.span {
                        Some(span) => span.within(|| naming.rename(&mut headers)),
                        None => naming.rename(&mut headers),
                    };
                    if let Some(code) = renamed {
                        this.tell(code);
                    }
                    Poll::Ready(Some(Ok(Frame::trailers(headers))))
                }
                Err(data) => Poll::Ready(Some(Ok(data))),
            },
            Ok(Poll::Ready(Some(Err(status)))) => {
                let naming = this.naming.clone();
                this.end(|| naming.name(status))
            }
            Ok(Poll::Ready(None)) => Poll::Ready(None),
            Ok(Poll::Pending) => match this.ending.as_mut().map(|ending| Pin::new(ending).poll(cx)) {
                Some(Poll::Ready(refusal)) => this.end(|| refusal.into()),
                _ => Poll::Pending,
            },
            Err(panic) => {
                let problem = format!("{} panicked: {}", this.naming.method.name, panic_text(&panic));
                this.end(|| Refusal::internal(problem).into())
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, |body| body.size_hint())
    }
}

impl std::fmt::Debug for NamedBody {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("NamedBody").field("naming", &self.naming).finish_non_exhaustive()
    }
}
