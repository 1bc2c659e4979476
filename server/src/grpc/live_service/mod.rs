//! `tapefeed.v1.LiveService`: what happens from now on.

mod subscribe_ticks;

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::error::Refusal;
use super::proto;
use crate::live::Live;
use crate::tape::Current;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The service over one replica's hub.
#[derive(Clone, Debug)]
pub struct LiveService {
    /// Where subscriptions come from, and the names of instruments.
    pub live: Current<Live>,
    /// What this server calls itself in acknowledgements.
    pub server_name: Arc<str>,
    /// The id of the next stream. Starts at a random number, so that two starts of a server do not share ids.
    pub next_stream: Arc<AtomicU64>,
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl proto::live_service_server::LiveService for LiveService {
    type SubscribeTicksStream = ResponseStream<proto::SubscribeTicksResponse>;
    type SubscribeBarsStream = ResponseStream<proto::SubscribeBarsResponse>;

    async fn subscribe_ticks(
        &self,
        request: Request<proto::SubscribeTicksRequest>,
    ) -> Result<Response<Self::SubscribeTicksStream>, Status> {
        let responses = subscribe_ticks::subscribe_ticks(self, request.into_inner()).await?;
        Ok(Response::new(Box::pin(responses)))
    }

    async fn subscribe_bars(
        &self,
        _: Request<proto::SubscribeBarsRequest>,
    ) -> Result<Response<Self::SubscribeBarsStream>, Status> {
        Err(Refusal::not_served("SubscribeBars").into())
    }

    async fn get_replay_window(
        &self,
        _: Request<proto::GetReplayWindowRequest>,
    ) -> Result<Response<proto::GetReplayWindowResponse>, Status> {
        Err(Refusal::not_served("GetReplayWindow").into())
    }
}
