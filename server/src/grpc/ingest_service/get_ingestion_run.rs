//! `GetIngestionRun`: one run as it is.

use super::run;
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::ingest::import::Imports;

/// Returns one run.
pub(super) async fn get_ingestion_run(
    imports: &Imports,
    request: proto::GetIngestionRunRequest,
) -> Result<proto::GetIngestionRunResponse, Refusal> {
    let id = run::run_id(&request.run_id)?;
    let status = imports.status(&id).await.map_err(|error| run::refusal(error, &id))?;
    Ok(proto::GetIngestionRunResponse { run: Some(status.into()) })
}
