//! A server of scripted subscriptions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt as _, stream};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::live_service_server::LiveService;
use tonic::{Request, Response, Status};

use super::Answers;
use crate::UnixNanos;

/// What a fake subscription does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Box<proto::SubscribeTicksResponse>),
    Fail(Status),
    /// Ends the stream as if all were well, which the contract forbids.
    End,
    /// Says nothing for ever.
    Hang,
}

/// Plays one list of steps for each subscription, and keeps what was asked.
#[derive(Clone, Default)]
pub(crate) struct FakeLive {
    pub(crate) connections: Arc<Mutex<VecDeque<Vec<Step>>>>,
    pub(crate) requests: Arc<Mutex<Vec<proto::SubscribeTicksRequest>>>,
    /// The messages of each subscription to bars, which then is cut; without any it says nothing for ever.
    pub(crate) bars: Arc<Mutex<VecDeque<Vec<proto::SubscribeBarsResponse>>>>,
    pub(crate) bar_requests: Arc<Mutex<Vec<proto::SubscribeBarsRequest>>>,
}

impl FakeLive {
    pub(crate) fn new(connections: impl IntoIterator<Item = Vec<Step>>) -> FakeLive {
        FakeLive { connections: Arc::new(Mutex::new(connections.into_iter().collect())), ..FakeLive::default() }
    }

    pub(crate) fn requests(&self) -> Vec<proto::SubscribeTicksRequest> {
        self.requests.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl LiveService for FakeLive {
    type SubscribeTicksStream = Answers<proto::SubscribeTicksResponse>;
    type SubscribeBarsStream = Answers<proto::SubscribeBarsResponse>;

    async fn subscribe_ticks(
        &self,
        request: Request<proto::SubscribeTicksRequest>,
    ) -> Result<Response<Self::SubscribeTicksStream>, Status> {
        self.requests.lock().unwrap().push(request.into_inner());
        let steps = self.connections.lock().unwrap().pop_front();
        let steps = steps.unwrap_or_else(|| vec![Step::Hang]);
        if let [Step::Fail(status)] = &steps[..] {
            return Err(status.clone());
        }
        let steps = stream::iter(steps).take_while(|step| {
            let ends = matches!(step, Step::End);
            async move { !ends }
        });
        Ok(Response::new(Box::pin(steps.then(|step| async {
            match step {
                Step::Send(message) => Ok(*message),
                Step::Fail(status) => Err(status),
                Step::End | Step::Hang => std::future::pending().await,
            }
        }))))
    }

    async fn subscribe_bars(
        &self,
        request: Request<proto::SubscribeBarsRequest>,
    ) -> Result<Response<Self::SubscribeBarsStream>, Status> {
        self.bar_requests.lock().unwrap().push(request.into_inner());
        let Some(messages) = self.bars.lock().unwrap().pop_front() else {
            return Ok(Response::new(Box::pin(stream::pending())));
        };
        let cut = stream::iter([Err(Status::unavailable("cut"))]);
        Ok(Response::new(Box::pin(stream::iter(messages.into_iter().map(Ok)).chain(cut))))
    }

    async fn get_replay_window(
        &self,
        _: Request<proto::GetReplayWindowRequest>,
    ) -> Result<Response<proto::GetReplayWindowResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A tick of a log, at position `log_seq`.
pub(crate) fn wire_tick(log_seq: u64) -> proto::Tick {
    proto::Tick {
        venue: "X".into(),
        symbol: "A".into(),
        instrument_id: 1,
        event_time: Some(UnixNanos(log_seq as i64).to_wire()),
        receive_time: Some(UnixNanos(log_seq as i64).to_wire()),
        price: Some(proto::Decimal { mantissa: 1, exponent: 0 }),
        log_seq,
        ..proto::Tick::default()
    }
}
