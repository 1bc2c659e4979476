//! The body of a request, held to the size that its method allows.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

use crate::grpc::error::Refusal;

/// Every gRPC message begins with a flag and its length.
const PREFIX_BYTES: usize = 5;

/// The length of a message that was too large, zero if none was: the body tells, the guard reads when the call failed.
pub(super) type Oversize = Arc<AtomicU64>;

/// Reads the length of each message as it passes, and ends the body where one is too large, before its bytes are kept.
#[derive(Debug)]
pub(super) struct BoundedBody {
    body: Body,
    limit: (&'static str, usize),
    oversize: Oversize,
    /// The prefix of the next message, as far as it is there.
    prefix: [u8; PREFIX_BYTES],
    prefix_length: usize,
    /// Bytes of the current message that are still to come.
    remaining: usize,
}

impl BoundedBody {
    pub(super) fn new(body: Body, limit: (&'static str, usize), oversize: Oversize) -> BoundedBody {
        BoundedBody { body, limit, oversize, prefix: [0; PREFIX_BYTES], prefix_length: 0, remaining: 0 }
    }

    /// Follows the messages through a piece of the body; the length of the first that is too large.
    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), usize> {
        while !bytes.is_empty() {
            let inside = self.remaining.min(bytes.len());
            self.remaining -= inside;
            bytes = &bytes[inside..];

            let wanted = (PREFIX_BYTES - self.prefix_length).min(bytes.len());
            self.prefix[self.prefix_length..][..wanted].copy_from_slice(&bytes[..wanted]);
            self.prefix_length += wanted;
            bytes = &bytes[wanted..];
            if self.prefix_length == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                let length = u32::from_be_bytes(length) as usize;
                if length > self.limit.1 {
                    return Err(length);
                }
                self.remaining = length;
                self.prefix_length = 0;
            }
        }
        Ok(())
    }
}

/// The refusal of a message that is too large.
pub(super) fn too_large((name, max): (&str, usize), actual: u64) -> Refusal {
    Refusal::limit_exceeded(name, max as u64, Some(actual))
}

impl http_body::Body for BoundedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(length) = self.follow(data)
        {
            self.oversize.store(length as u64, Ordering::Relaxed);
            return Poll::Ready(Some(Err(too_large(self.limit, length as u64).into())));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.resize(PREFIX_BYTES + length, 7);
        bytes
    }

    fn body() -> BoundedBody {
        BoundedBody::new(Body::empty(), ("request_bytes", 100), Oversize::default())
    }

    #[test]
    fn messages_are_measured_however_they_are_cut() {
        let sound = [message(0), message(100), message(1), message(99)].concat();
        let oversized = [sound.clone(), message(101)].concat();
        for piece in [1, 2, 3, 5, 7, 104, 1_000] {
            let mut bounded = body();
            assert!(sound.chunks(piece).all(|piece| bounded.follow(piece).is_ok()));
            let mut bounded = body();
            let refused = oversized.chunks(piece).find_map(|piece| bounded.follow(piece).err());
            assert_eq!(refused, Some(101));
        }
    }

    #[test]
    fn a_length_is_refused_before_its_bytes_come() {
        assert_eq!(body().follow(&[0, 0xff, 0xff, 0xff, 0xff]), Err(u32::MAX as usize));
    }
}
