//! `GetReplayWindow`: how far cursors reach.

use super::LiveService;
use crate::grpc::error::Refusal;
use crate::grpc::live_service::subscribe_ticks::refusal;
use crate::grpc::proto;
use crate::live::{Edge, ReplayWindow};

pub(super) async fn get_replay_window(service: &LiveService) -> Result<proto::GetReplayWindowResponse, Refusal> {
    let ReplayWindow { epoch, fork, oldest, newest } =
        service.live.get().window().await.map_err(|error| refusal(error, None))?;
    let edge = |Edge { cursor, append_time }: Edge| proto::ReplayEdge {
        log_seq: cursor.position,
        append_time: Some(append_time.into()),
        cursor: cursor.into(),
    };
    Ok(proto::GetReplayWindowResponse {
        epoch: epoch.0,
        parent_epoch: fork.map(|(parent, _)| parent.0),
        fork_log_seq: fork.map(|(_, log_seq)| log_seq),
        oldest: oldest.map(edge),
        newest: newest.map(edge),
    })
}
