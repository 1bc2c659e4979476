//! InstrumentService: which symbols on which venues have ticks. One file for each call.

mod get_instrument;
mod list_instruments;

use tonic::{Request, Response, Status};

use super::proto;
use crate::query::Query;
use crate::tape::Current;

/// The service over one [`Query`].
#[derive(Clone, Debug)]
pub struct InstrumentService {
    query: Current<Query>,
}

impl InstrumentService {
    /// Answers from `query`.
    pub fn new(query: impl Into<Current<Query>>) -> InstrumentService {
        InstrumentService { query: query.into() }
    }
}

#[tonic::async_trait]
impl proto::instrument_service_server::InstrumentService for InstrumentService {
    async fn get_instrument(
        &self,
        request: Request<proto::GetInstrumentRequest>,
    ) -> Result<Response<proto::GetInstrumentResponse>, Status> {
        let response = get_instrument::get_instrument(&self.query.get(), request.into_inner()).await?;
        Ok(Response::new(response))
    }

    async fn list_instruments(
        &self,
        request: Request<proto::ListInstrumentsRequest>,
    ) -> Result<Response<proto::ListInstrumentsResponse>, Status> {
        let request = request.into_inner();
        let response = list_instruments::list_instruments(&self.query.get(), request).await?;
        Ok(Response::new(response))
    }
}

#[cfg(test)]
mod tests;
