//! The bare generated clients, and a status as the contract describes it.

use tapefeed_proto::v1::history_service_client::HistoryServiceClient;
use tapefeed_proto::v1::ingest_service_client::IngestServiceClient;
use tapefeed_proto::v1::instrument_service_client::InstrumentServiceClient;
use tapefeed_proto::v1::live_service_client::LiveServiceClient;
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;

/// One generated client for each service, over one connection. Nothing retries and nothing filters.
#[derive(Debug, Clone)]
pub struct Stubs {
    /// The connection itself.
    pub channel: Channel,
    /// The registry.
    pub instruments: InstrumentServiceClient<Channel>,
    /// Queries.
    pub history: HistoryServiceClient<Channel>,
    /// Subscriptions.
    pub live: LiveServiceClient<Channel>,
    /// Publishing and imports.
    pub ingest: IngestServiceClient<Channel>,
    /// Health.
    pub health: HealthClient<Channel>,
}

impl Stubs {
    /// The clients over a connection.
    pub fn over(channel: Channel) -> Self {
        Self {
            instruments: InstrumentServiceClient::new(channel.clone()),
            history: HistoryServiceClient::new(channel.clone()),
            live: LiveServiceClient::new(channel.clone()),
            ingest: IngestServiceClient::new(channel.clone()),
            health: HealthClient::new(channel.clone()),
            channel,
        }
    }
}
