//! The gRPC health service: the whole server, each service, and each dependency by name.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

/// The services of the contract.
pub const SERVICES: [&str; 4] = [
    "tapefeed.v1.InstrumentService",
    "tapefeed.v1.HistoryService",
    "tapefeed.v1.LiveService",
    "tapefeed.v1.IngestService",
];

/// Tells health checks and their watchers.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// The teller, and the service that answers. Everything serves until told otherwise.
    pub async fn new() -> (Health, HealthServer<impl HealthService>) {
        let (reporter, server) = health_reporter();
        let health = Health { reporter };
        health.set_serving(true).await;
        (health, server)
    }

    /// Tells whether the server, and with it each service, serves.
    pub async fn set_serving(&self, serving: bool) {
        for name in [""].into_iter().chain(SERVICES) {
            self.set(name, serving).await;
        }
    }

    /// Tells whether a dependency works; its name is `tapefeed.` and the dependency's.
    pub async fn set_dependency(&self, name: &str, working: bool) {
        self.set(&format!("tapefeed.{name}"), working).await;
    }

    async fn set(&self, name: &str, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(name, status).await;
    }
}
