//! Statuses that tonic made: they carry a code and words, but no reason.

use tonic::{Code, Status};

use super::Refusal;
use crate::grpc::limits::MAX_RESPONSE_BYTES;
use crate::grpc::proto::ErrorReason;

impl Refusal {
    /// Names a status that the transport made, and whose words only the transport knows.
    ///
    /// `known` says whether the contract has the method. A status with details is one of ours and stays as it is:
    /// check with [`is_named`] first.
    pub(in crate::grpc) fn of_transport(code: Code, message: &str, path: &str, known: bool) -> Refusal {
        match code {
            Code::Unimplemented if message.contains("compressed") => Refusal::not_served("this message compression"),
            Code::Unimplemented if known => Refusal::not_served(path),
            Code::Unimplemented => Refusal::method_unknown(path),
            Code::Cancelled => Refusal::cancelled(),
            Code::DeadlineExceeded => Refusal::deadline_exceeded("the call took too long"),
            Code::OutOfRange | Code::ResourceExhausted => {
                Refusal::limit_exceeded("response_bytes", MAX_RESPONSE_BYTES as u64, None)
            }
            Code::InvalidArgument => Refusal::message_malformed(message),
            // Health and reflection say so of a service or symbol that the caller made up.
            Code::NotFound => Refusal::new(code, ErrorReason::FieldInvalid, message),
            // tonic answers INTERNAL where the caller's bytes are at fault.
            Code::Internal if is_decode_problem(message) => Refusal::message_malformed(
                "it is cut off, or not the message that the method takes, or its text is not UTF-8",
            ),
            code => Refusal::internal(format_args!("{code:?} from the transport: {message}")),
        }
    }
}

/// Whether tonic's words say that a message of the caller's could not be read.
fn is_decode_problem(message: &str) -> bool {
    const PROBLEMS: [&str; 5] = [
        "failed to decode",
        "invalid compression flag",
        "Unexpected EOF",
        "Missing request message",
        "message, but compression",
    ];
    PROBLEMS.iter().any(|problem| message.contains(problem))
}

/// Whether a status carries details, which means that it was made here.
pub(in crate::grpc) fn is_named(status: &Status) -> bool {
    !status.details().is_empty()
}
