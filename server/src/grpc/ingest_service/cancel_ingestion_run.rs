//! `CancelIngestionRun`: ends a run; what it has stored stays.

use super::run;
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::ingest::import::Imports;

/// Cancels one run.
pub(super) async fn cancel_ingestion_run(
    imports: &Imports,
    request: proto::CancelIngestionRunRequest,
) -> Result<proto::CancelIngestionRunResponse, Refusal> {
    let id = run::run_id(&request.run_id)?;
    let status = imports.cancel(&id).await.map_err(|error| run::refusal(error, &id))?;
    Ok(proto::CancelIngestionRunResponse { run: Some(status.into()) })
}
