//! `tapefeed.v1.IngestService`: what comes in.

mod cancel_ingestion_run;
mod get_ingestion_run;
mod import_file;
mod incoming;
mod list_ingestion_runs;
mod list_rejected_lines;
pub mod publish_ticks;
mod route;
mod run;
#[cfg(test)]
mod tests;
mod watch_ingestion_run;

use std::pin::Pin;

use futures_util::StreamExt as _;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use self::incoming::Incoming;
use self::publish_ticks::Publishing;
use super::proto;
use crate::ingest::import::Imports;

/// The service over one replica's writer and its imports.
#[derive(Clone, Debug)]
pub struct IngestService {
    /// What publishing streams work with.
    pub publishing: Publishing,
    /// Files.
    pub imports: Imports,
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl proto::ingest_service_server::IngestService for IngestService {
    type PublishTicksStream = ResponseStream<proto::PublishTicksResponse>;
    type WatchIngestionRunStream = ResponseStream<proto::WatchIngestionRunResponse>;

    async fn publish_ticks(
        &self,
        request: Request<Streaming<proto::PublishTicksRequest>>,
    ) -> Result<Response<Self::PublishTicksStream>, Status> {
        // Its own route takes it before it comes here, see `route.rs`.
        let request = request.map(|requests| requests.map(|request| request.map(Incoming::Other)));
        let responses = publish_ticks::publish_ticks(&self.publishing, request);
        Ok(Response::new(Box::pin(responses)))
    }

    async fn import_file(
        &self,
        request: Request<Streaming<proto::ImportFileRequest>>,
    ) -> Result<Response<proto::ImportFileResponse>, Status> {
        let response = import_file::import_file(&self.imports, request.into_inner()).await?;
        Ok(Response::new(response))
    }

    async fn get_ingestion_run(
        &self,
        request: Request<proto::GetIngestionRunRequest>,
    ) -> Result<Response<proto::GetIngestionRunResponse>, Status> {
        let response = get_ingestion_run::get_ingestion_run(&self.imports, request.into_inner()).await?;
        Ok(Response::new(response))
    }

    async fn list_ingestion_runs(
        &self,
        request: Request<proto::ListIngestionRunsRequest>,
    ) -> Result<Response<proto::ListIngestionRunsResponse>, Status> {
        let response = list_ingestion_runs::list_ingestion_runs(&self.imports, request.into_inner()).await?;
        Ok(Response::new(response))
    }

    async fn list_rejected_lines(
        &self,
        request: Request<proto::ListRejectedLinesRequest>,
    ) -> Result<Response<proto::ListRejectedLinesResponse>, Status> {
        let response = list_rejected_lines::list_rejected_lines(&self.imports, request.into_inner()).await?;
        Ok(Response::new(response))
    }

    async fn cancel_ingestion_run(
        &self,
        request: Request<proto::CancelIngestionRunRequest>,
    ) -> Result<Response<proto::CancelIngestionRunResponse>, Status> {
        let response = cancel_ingestion_run::cancel_ingestion_run(&self.imports, request.into_inner()).await?;
        Ok(Response::new(response))
    }

    async fn watch_ingestion_run(
        &self,
        request: Request<proto::WatchIngestionRunRequest>,
    ) -> Result<Response<Self::WatchIngestionRunStream>, Status> {
        let responses = watch_ingestion_run::watch_ingestion_run(&self.imports, request.into_inner()).await?;
        Ok(Response::new(Box::pin(responses)))
    }
}
