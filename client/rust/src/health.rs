//! Health: whether the server, or one of its services, takes calls.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::{Client, Error};

/// Whether a service takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// It does.
    Serving,
    /// It does not, or not well.
    NotServing,
    /// The server does not say.
    Unknown,
}

impl Health {
    /// `serving`, `not serving` or `unknown`.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Serving => "serving",
            Health::NotServing => "not serving",
            Health::Unknown => "unknown",
        }
    }
}

impl Client {
    /// Returns the health of a service, such as `tapefeed.v1.HistoryService`; of the whole server for the empty text.
    ///
    /// # Errors
    ///
    /// NOT_FOUND for a service that the server does not know.
    pub async fn health(&self, service: &str) -> Result<Health, Error> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = self
            .call(request, |channel, request| async move { HealthClient::new(channel).check(request).await })
            .await?;
        Ok(match ServingStatus::try_from(answer.status) {
            Ok(ServingStatus::Serving) => Health::Serving,
            Ok(ServingStatus::NotServing) => Health::NotServing,
            Ok(ServingStatus::Unknown | ServingStatus::ServiceUnknown) | Err(_) => Health::Unknown,
        })
    }
}
