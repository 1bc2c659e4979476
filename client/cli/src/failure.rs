//! What ends a subcommand early, and what a person can do about it.

use std::io;

use tapefeed_client::{Code, Error, ErrorReason};

#[derive(Debug)]
pub(crate) enum Failure {
    /// A call failed.
    Call(Error),
    /// Output could not be written, or input not be read.
    Io(io::Error),
    /// Everything was said already, or is said by this sentence.
    Message(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Call(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

impl Failure {
    pub(crate) fn message(message: impl Into<String>) -> Failure {
        Failure::Message(message.into())
    }

    /// Whoever read the output has stopped: no reason to complain.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Failure::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What happened, and what to do.
    pub(crate) fn explain(&self, server: &str) -> String {
        match self {
            Failure::Call(error) => {
                let hint = hint(error, server);
                let separator = if hint.is_empty() { "" } else { "\n  " };
                format!("{error}{separator}{hint}")
            }
            Failure::Io(error) => error.to_string(),
            Failure::Message(message) => message.clone(),
        }
    }
}

/// What to do about an error, as far as its message does not say it.
fn hint(error: &Error, server: &str) -> String {
    if matches!(error, Error::Transport(_)) {
        return format!(
            "is a server running at {server}? Start one with `tapefeed-server demo`, or give its address with --server or TAPEFEED_SERVER"
        );
    }
    match error.reason() {
        ErrorReason::InstrumentUnknown => {
            "`tapefeed instruments` lists what the server has; names are case-sensitive".into()
        }
        ErrorReason::CursorExpired => match error.metadata("oldest_cursor") {
            Some(cursor) => format!("the oldest that the server can replay: --from-cursor {cursor}"),
            None => "start without --from-cursor, and read the time between with `tapefeed history`".into(),
        },
        ErrorReason::EpochChanged => {
            "the server's log was restored or failed over: start without --from-cursor, and read the time between with `tapefeed history`".into()
        }
        ErrorReason::CursorInvalid => "give the cursor exactly as it was printed".into(),
        ErrorReason::ProducerFenced => {
            "another publisher took this --producer: give each its own".into()
        }
        ErrorReason::ImportConflict => match error.metadata("run_id") {
            Some(run) => format!(
                "`tapefeed runs show {run}` tells more; --again imports the same bytes with other options"
            ),
            None => String::new(),
        },
        ErrorReason::NotServed | ErrorReason::MethodUnknown => {
            "this server does not serve that; a newer version may".into()
        }
        ErrorReason::Unspecified if error.code() == Some(Code::Unimplemented) => {
            format!("is {server} a Tapefeed server?")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_not_there_is_explained() {
        let failure = Failure::from(Error::Transport("Connection refused (os error 111)".into()));
        let text = failure.explain("http://127.0.0.1:50051");
        assert!(text.contains("Connection refused"));
        assert!(text.contains("http://127.0.0.1:50051"));
        assert!(text.contains("--server"));
    }

    #[test]
    fn broken_pipes_are_quiet() {
        assert!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_broken_pipe());
        assert!(!Failure::message("no").is_broken_pipe());
    }
}
