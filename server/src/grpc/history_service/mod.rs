//! HistoryService: questions about stored ticks, and what venues published. One file for each call; what the answers mean
//! stands in [`crate::query`].
//!
//! ReadTicks does not go through tonic's encoder: its route answers with messages that are written from columns. ListTicks
//! and ListBars have a codec that takes bytes, and bars are written as such. Through the trait the same bytes come as
//! messages.

mod get_average_price;
mod get_price_statistics;
mod list_bars;
mod list_latest_ticks;
mod list_moving_averages;
mod list_published_bars;
mod list_ticks;
mod read_ticks;
mod route;
mod whole;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use prost::Message as _;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::convert::tick;
use super::error::Refusal;
use super::proto;
use crate::domain::{Instrument, Tick};
use crate::query::Query;
use crate::tape::Current;

/// The service over one [`Query`].
#[derive(Clone, Debug)]
pub struct HistoryService {
    query: Current<Query>,
}

impl HistoryService {
    /// Answers from `query`.
    pub fn new(query: impl Into<Current<Query>>) -> HistoryService {
        HistoryService { query: query.into() }
    }
}

#[tonic::async_trait]
impl proto::history_service_server::HistoryService for HistoryService {
    type ReadTicksStream = Pin<Box<dyn Stream<Item = Result<proto::ReadTicksResponse, Status>> + Send>>;

    async fn list_ticks(
        &self,
        request: Request<proto::ListTicksRequest>,
    ) -> Result<Response<proto::ListTicksResponse>, Status> {
        let response = list_ticks::list_ticks(&self.query.get(), request.into_inner()).await?;
        Ok(Response::new(response))
    }

    async fn list_latest_ticks(
        &self,
        request: Request<proto::ListLatestTicksRequest>,
    ) -> Result<Response<proto::ListLatestTicksResponse>, Status> {
        let request = request.into_inner();
        let response = list_latest_ticks::list_latest_ticks(&self.query.get(), request).await?;
        Ok(Response::new(response))
    }

    async fn get_average_price(
        &self,
        request: Request<proto::GetAveragePriceRequest>,
    ) -> Result<Response<proto::GetAveragePriceResponse>, Status> {
        let request = request.into_inner();
        let response = get_average_price::get_average_price(&self.query.get(), request).await?;
        Ok(Response::new(response))
    }

    async fn get_price_statistics(
        &self,
        request: Request<proto::GetPriceStatisticsRequest>,
    ) -> Result<Response<proto::GetPriceStatisticsResponse>, Status> {
        let request = request.into_inner();
        let response = get_price_statistics::get_price_statistics(&self.query.get(), request).await?;
        Ok(Response::new(response))
    }

    async fn read_ticks(
        &self,
        request: Request<proto::ReadTicksRequest>,
    ) -> Result<Response<Self::ReadTicksStream>, Status> {
        let messages = read_ticks::read_ticks(self.query.get(), request.into_inner()).await?;
        Ok(Response::new(Box::pin(messages.map(route::decode))))
    }

    async fn list_bars(
        &self,
        request: Request<proto::ListBarsRequest>,
    ) -> Result<Response<proto::ListBarsResponse>, Status> {
        let bytes = list_bars::list_bars(&self.query.get(), request.into_inner()).await?;
        let response = proto::ListBarsResponse::decode(&*bytes);
        Ok(Response::new(response.map_err(|error| Status::internal(error.to_string()))?))
    }

    async fn list_published_bars(
        &self,
        request: Request<proto::ListPublishedBarsRequest>,
    ) -> Result<Response<proto::ListPublishedBarsResponse>, Status> {
        let request = request.into_inner();
        let response = list_published_bars::list_published_bars(&self.query.get(), request).await?;
        Ok(Response::new(response))
    }

    async fn list_moving_averages(
        &self,
        request: Request<proto::ListMovingAveragesRequest>,
    ) -> Result<Response<proto::ListMovingAveragesResponse>, Status> {
        let request = request.into_inner();
        let response = list_moving_averages::list_moving_averages(&self.query.get(), request).await?;
        Ok(Response::new(response))
    }
}

/// Ticks as rows, under the names of their instruments.
fn rows(query: &Query, ticks: &[Tick]) -> Result<Vec<proto::Tick>, Refusal> {
    let mut rows = Vec::with_capacity(ticks.len());
    // Neighbours usually share their instrument.
    let mut named: Option<Arc<Instrument>> = None;
    for tick in ticks {
        let known = named.take().filter(|known| known.id == tick.instrument);
        let found = known.or_else(|| query.registry().get(tick.instrument));
        let Some(instrument) = found else {
            let id = tick.instrument.0;
            let problem = format_args!("instrument {id} has ticks and no name");
            return Err(Refusal::internal(problem));
        };
        rows.push(tick::row(tick, &instrument));
        named = Some(instrument);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod published_tests;
