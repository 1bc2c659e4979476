//! `WatchIngestionRun`: the progress of a run until its end.

use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::run;
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::ingest::import::{Imports, RunStatus};
use crate::store::RunId;

/// How often a run is looked at: progress comes at most four times a second.
const LOOK: Duration = Duration::from_millis(250);

/// A run that does not change is told all the same, so that a watcher knows that the stream lives.
const SILENCE: Duration = Duration::from_secs(1);

/// What a watcher has seen.
struct Watch {
    imports: Imports,
    run: RunId,
    told: RunStatus,
    told_at: Instant,
    state: Step,
}

enum Step {
    /// The first message is not sent yet.
    First,
    /// Messages follow while the run goes on.
    Following,
    /// The end was told.
    Done,
}

/// Starts to watch a run.
pub(super) async fn watch_ingestion_run(
    imports: &Imports,
    request: proto::WatchIngestionRunRequest,
) -> Result<impl Stream<Item = Result<proto::WatchIngestionRunResponse, Status>> + use<>, Refusal> {
    let id = run::run_id(&request.run_id)?;
    let told = imports.status(&id).await.map_err(|error| run::refusal(error, &id))?;
    let watch = Watch { imports: imports.clone(), run: id, told, told_at: Instant::now(), state: Step::First };
    Ok(stream::unfold(watch, |mut watch| async move {
        let response = watch.next().await?;
        Some((response.map_err(Status::from), watch))
    }))
}

impl Watch {
    async fn next(&mut self) -> Option<Result<proto::WatchIngestionRunResponse, Refusal>> {
        match self.state {
            Step::Done => return None,
            Step::First => {}
            Step::Following => {
                if let Err(refusal) = self.change().await {
                    self.state = Step::Done;
                    return Some(Err(refusal));
                }
            }
        }
        self.state = if self.told.state.is_end() { Step::Done } else { Step::Following };
        Some(Ok(proto::WatchIngestionRunResponse { run: Some(self.told.clone().into()) }))
    }

    /// Waits until there is something to tell.
    async fn change(&mut self) -> Result<(), Refusal> {
        loop {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.imports.stopping() => return Err(Refusal::shutting_down(None)),
            }
            let now = self.imports.status(&self.run).await;
            let now = now.map_err(|error| run::refusal(error, &self.run))?;
            if now != self.told || self.told_at.elapsed() >= SILENCE {
                self.told = now;
                self.told_at = Instant::now();
                return Ok(());
            }
        }
    }
}
