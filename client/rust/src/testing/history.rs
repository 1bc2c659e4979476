//! A server of scripted history.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::history_service_server::HistoryService;
use tonic::{Request, Response, Status};

use super::Answers;

/// The messages of one ReadTicks, and how it ends.
type Reading = Vec<Result<proto::ReadTicksResponse, Status>>;

/// Answers ListTicks, ReadTicks, ListBars and ListPublishedBars from lists; everything else is not served.
#[derive(Clone, Default)]
pub(crate) struct FakeHistory {
    pub(crate) answers: Arc<Mutex<VecDeque<Result<proto::ListTicksResponse, Status>>>>,
    pub(crate) requests: Arc<Mutex<Vec<proto::ListTicksRequest>>>,
    /// For each ReadTicks its messages and how it ends.
    pub(crate) read_answers: Arc<Mutex<VecDeque<Reading>>>,
    pub(crate) read_requests: Arc<Mutex<Vec<proto::ReadTicksRequest>>>,
    pub(crate) bar_answers: Arc<Mutex<VecDeque<proto::ListBarsResponse>>>,
    pub(crate) bar_requests: Arc<Mutex<Vec<proto::ListBarsRequest>>>,
    pub(crate) published_answers: Arc<Mutex<VecDeque<proto::ListPublishedBarsResponse>>>,
    pub(crate) published_requests: Arc<Mutex<Vec<proto::ListPublishedBarsRequest>>>,
}

#[tonic::async_trait]
impl HistoryService for FakeHistory {
    type ReadTicksStream = Answers<proto::ReadTicksResponse>;

    async fn list_ticks(
        &self,
        request: Request<proto::ListTicksRequest>,
    ) -> Result<Response<proto::ListTicksResponse>, Status> {
        self.requests.lock().unwrap().push(request.into_inner());
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            Some(answer) => answer.map(Response::new),
            None => std::future::pending().await,
        }
    }

    async fn read_ticks(
        &self,
        request: Request<proto::ReadTicksRequest>,
    ) -> Result<Response<Self::ReadTicksStream>, Status> {
        self.read_requests.lock().unwrap().push(request.into_inner());
        let answers = self.read_answers.lock().unwrap().pop_front();
        let answers = answers.ok_or_else(|| Status::unavailable("no more"))?;
        Ok(Response::new(Box::pin(futures_util::stream::iter(answers))))
    }

    async fn list_latest_ticks(
        &self,
        _: Request<proto::ListLatestTicksRequest>,
    ) -> Result<Response<proto::ListLatestTicksResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_average_price(
        &self,
        _: Request<proto::GetAveragePriceRequest>,
    ) -> Result<Response<proto::GetAveragePriceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_price_statistics(
        &self,
        _: Request<proto::GetPriceStatisticsRequest>,
    ) -> Result<Response<proto::GetPriceStatisticsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_bars(
        &self,
        request: Request<proto::ListBarsRequest>,
    ) -> Result<Response<proto::ListBarsResponse>, Status> {
        self.bar_requests.lock().unwrap().push(request.into_inner());
        let answer = self.bar_answers.lock().unwrap().pop_front();
        answer.map(Response::new).ok_or_else(|| Status::unimplemented(""))
    }

    async fn list_published_bars(
        &self,
        request: Request<proto::ListPublishedBarsRequest>,
    ) -> Result<Response<proto::ListPublishedBarsResponse>, Status> {
        self.published_requests.lock().unwrap().push(request.into_inner());
        let answer = self.published_answers.lock().unwrap().pop_front();
        answer.map(Response::new).ok_or_else(|| Status::unimplemented(""))
    }

    async fn list_moving_averages(
        &self,
        _: Request<proto::ListMovingAveragesRequest>,
    ) -> Result<Response<proto::ListMovingAveragesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
