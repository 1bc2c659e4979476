//! Looks at what the server depends on, and tells health checks and `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, BusState};
use crate::grpc::health::Health;
use crate::http::{Dependency, Readiness, State};
use crate::metrics::Metrics;
use crate::store::{LogHead, Store};
use crate::tape::{Current, Tape};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the store may take to answer the simplest question.
const STORE_DEADLINE: Duration = Duration::from_secs(2);

/// What is looked at, and who is told.
#[derive(Debug)]
pub(super) struct Monitor {
    pub(super) store: Arc<dyn Store>,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) tapes: Current<Tape>,
    pub(super) health: Health,
    pub(super) readiness: watch::Sender<Readiness>,
    pub(super) metrics: Metrics,
}

impl Monitor {
    /// Looks once, and then again and again until the server is asked to stop, which it tells last.
    pub(super) async fn start(self, asked: CancellationToken) -> JoinHandle<()> {
        let mut last = self.look(None).await;
        self.tell(&last).await;
        tokio::spawn(async move {
            let again = async {
                loop {
                    tokio::time::sleep(INTERVAL).await;
                    let now = self.look(Some(&last)).await;
                    if now.readiness != last.readiness {
                        self.tell(&now).await;
                    }
                    last = now;
                }
            };
            let _: Option<()> = asked.run_until_cancelled(again).await;
            last.readiness.draining = true;
            self.tell(&last).await;
        })
    }

    async fn look(&self, last: Option<&Seen>) -> Seen {
        let head = match tokio::time::timeout(STORE_DEADLINE, self.store.head()).await {
            Ok(Ok(head)) => {
                self.measure(&head);
                Ok(head.position)
            }
            Ok(Err(problem)) => Err(problem.to_string()),
            Err(_) => Err(format!("no answer within {STORE_DEADLINE:?}")),
        };
        let tape = self.tapes.get();
        let shown = tape.views.borrow().position();
        let newest = head.as_ref().map_or(tape.hub.head().position, |head| *head);
        // A view is always a little behind; one that is behind and stands still is stuck.
        let stuck = shown < newest && last.is_some_and(|last| last.shown == shown && last.newest > shown);
        let hub = Dependency {
            name: "hub",
            state: if stuck { State::Degraded } else { State::Up },
            detail: if stuck { "answers stand still while the log grows".into() } else { String::new() },
        };
        let store = match &head {
            Ok(_) => Dependency::up("store", ""),
            Err(problem) => {
                self.metrics.tape.store_failed("check");
                if last.is_none_or(|last| last.problem.is_none()) {
                    tracing::error!(%problem, "the store does not answer");
                }
                Dependency::down("store", "does not answer; the log says why")
            }
        };
        let readiness = Readiness {
            draining: false,
            lag: newest.saturating_sub(shown),
            dependencies: vec![store, bus(&self.bus.state()), hub],
        };
        Seen { readiness, shown, newest, problem: head.err() }
    }

    /// What only the store knows, for whoever scrapes: a scrape itself never asks the store.
    fn measure(&self, head: &LogHead) {
        let tape = &self.metrics.tape;
        let entries = (head.position + 1).saturating_sub(head.oldest).max(1);
        let lag = (head.position + 1).saturating_sub(head.hot_floor);
        let uncompacted = u128::from(head.log_bytes) * u128::from(lag) / u128::from(entries);
        tape.log_oldest.set(head.oldest as i64);
        tape.log_bytes.set(head.log_bytes as i64);
        tape.hot_floor_lag.set(lag as i64);
        tape.uncompacted_bytes.set(uncompacted as i64);
        tape.manifest_version.set(head.manifest_version as i64);
    }

    async fn tell(&self, seen: &Seen) {
        let Readiness { dependencies, .. } = &seen.readiness;
        for dependency in dependencies {
            let working = dependency.state == State::Up;
            self.health.set_dependency(dependency.name, working).await;
        }
        self.health.set_serving(seen.readiness.is_ready()).await;
        self.readiness.send_replace(seen.readiness.clone());
    }
}

/// The bus as a dependency, under the name of what it is made of. Without it everything works from the log, later.
fn bus(state: &BusState) -> Dependency {
    let name = if state.kind == "redis" { "redis" } else { "bus" };
    match &state.problem {
        None => Dependency::up(name, state.kind),
        Some(problem) => Dependency {
            name,
            state: State::Degraded,
            detail: format!("{problem}: other replicas' ticks come from the store, within half a second"),
        },
    }
}

/// What one look has seen.
#[derive(Debug)]
struct Seen {
    readiness: Readiness,
    /// The position of the newest view.
    shown: u64,
    /// The newest position of the log.
    newest: u64,
    problem: Option<String>,
}
