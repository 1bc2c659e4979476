//! `tapefeed.v1.LiveService`: what happens from now on.
//!
//! SubscribeTicks does not go through tonic's encoder, which would make every message anew for every reader: its route
//! answers with a body of [`frames`] that readers share. Through the trait the same bytes come as messages.

mod encoder;
mod frames;
mod get_replay_window;
mod route;
mod subscribe_bars;
mod subscribe_ticks;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::layers::guard::Connection;
use super::proto;
use crate::live::Live;
use crate::tape::Current;

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
        let aging = Connection::aging(request.extensions());
        let pieces = subscribe_ticks::subscribe_ticks(self, request.into_inner(), aging).await?;
        Ok(Response::new(Box::pin(route::messages(pieces))))
    }

    async fn subscribe_bars(
        &self,
        request: Request<proto::SubscribeBarsRequest>,
    ) -> Result<Response<Self::SubscribeBarsStream>, Status> {
        let aging = Connection::aging(request.extensions());
        let messages = subscribe_bars::subscribe_bars(self, request.into_inner(), aging).await?;
        Ok(Response::new(Box::pin(messages)))
    }

    async fn get_replay_window(
        &self,
        _: Request<proto::GetReplayWindowRequest>,
    ) -> Result<Response<proto::GetReplayWindowResponse>, Status> {
        Ok(Response::new(get_replay_window::get_replay_window(self).await?))
    }
}
