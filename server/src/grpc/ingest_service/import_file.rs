//! `ImportFile`: passes the bytes of an upload on, and waits for the end of its run.
//!
//! The call answers as soon as the import has ended, also while the client still sends: a defect early in a large
//! file is told at once.

use tonic::{Status, Streaming};

use super::run;
use crate::grpc::error::Refusal;
use crate::grpc::proto::{self, import_file_request};
use crate::ingest::import::{ImportError, Imported, Imports};
use crate::store::RunId;

type Requests = Streaming<proto::ImportFileRequest>;

/// Runs one import.
pub(super) async fn import_file(
    imports: &Imports,
    mut requests: Requests,
) -> Result<proto::ImportFileResponse, Refusal> {
    let idle = imports.limits().idle;
    let Some(first) = next(&mut requests, idle).await? else {
        return Err(Refusal::field("start", "the first message says what the file is"));
    };
    let Some(import_file_request::Message::Start(start)) = first.message else {
        return Err(Refusal::field("start", "the first message says what the file is"));
    };
    let start = run::start(start)?;
    let run = start.run.clone();
    let mut upload = imports.begin(start).map_err(|error| run::refusal(error, &run))?;
    loop {
        let request = tokio::select! {
            biased;
            outcome = upload.outcome() => return answer(outcome, &run),
            request = next(&mut requests, idle) => request?,
        };
        let Some(request) = request else { break };
        match request.message {
            Some(import_file_request::Message::Data(data)) => {
                if !upload.push(data).await {
                    break;
                }
            }
            Some(import_file_request::Message::Start(_)) => {
                return Err(Refusal::field("start", "a call imports one file, and says so in its first message"));
            }
            None => {
                return Err(Refusal::field("data", "every message after the first holds bytes of the file"));
            }
        }
    }
    upload.complete().await;
    answer(upload.outcome().await, &run)
}

/// The next message; a client that stays silent is refused.
async fn next(requests: &mut Requests, idle: std::time::Duration) -> Result<Option<proto::ImportFileRequest>, Refusal> {
    match tokio::time::timeout(idle, requests.message()).await {
        Ok(message) => message.map_err(from_transport),
        Err(_) => Err(Refusal::deadline_exceeded(format!(
            "the upload was silent for {} s: send the file again",
            idle.as_secs()
        ))),
    }
}

fn from_transport(status: Status) -> Refusal {
    Refusal::of_transport(status.code(), status.message(), "tapefeed.v1.IngestService/ImportFile", true)
}

fn answer(outcome: Result<Imported, ImportError>, run: &RunId) -> Result<proto::ImportFileResponse, Refusal> {
    let Imported { run: status, duplicate } = outcome.map_err(|error| run::refusal(error, run))?;
    Ok(proto::ImportFileResponse { run: Some(status.into()), duplicate })
}
