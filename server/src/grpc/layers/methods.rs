//! Every method that the server knows, read from the descriptors that reflection serves, so that they cannot drift.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message as _;
use prost_types::FileDescriptorSet;

use crate::grpc::limits::{
    HISTORY_DEADLINE, MAX_INGEST_MESSAGE_BYTES, MAX_SELECTOR_REQUEST_BYTES, MAX_UNARY_REQUEST_BYTES, UNARY_DEADLINE,
};

/// One method, and what its calls are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The full name, as in `tapefeed.v1.HistoryService/ListTicks`.
    pub name: &'static str,
    /// How long a call may take if it does not say; `None` for streams.
    pub deadline: Option<Duration>,
    /// The largest message of a request: the limit's name, and bytes.
    pub request_limit: (&'static str, usize),
    /// Whether calls are still served while the server stops.
    pub while_draining: bool,
}

/// The methods by path.
#[derive(Debug)]
pub struct Methods(HashMap<String, Method>);

impl Methods {
    /// Reads encoded descriptor sets.
    ///
    /// # Errors
    ///
    /// Bytes that are not a descriptor set.
    pub fn read(descriptor_sets: &[&[u8]]) -> Result<Methods, prost::DecodeError> {
        let mut methods = HashMap::new();
        for set in descriptor_sets {
            for file in FileDescriptorSet::decode(*set)?.file {
                for service in &file.service {
                    for method in &service.method {
                        let service = format!("{}.{}", file.package(), service.name());
                        // The set of names is fixed when the server is built, and they live as long as it does.
                        let name: &'static str = format!("{service}/{}", method.name()).leak();
                        let streams = method.client_streaming() || method.server_streaming();
                        methods.insert(format!("/{name}"), Method::new(name, streams));
                    }
                }
            }
        }
        Ok(Methods(methods))
    }

    /// The method of a path, if there is one.
    pub fn find(&self, path: &str) -> Option<&Method> {
        self.0.get(path)
    }
}

impl Method {
    fn new(name: &'static str, streams: bool) -> Method {
        let short = name.rsplit('/').next().unwrap_or(name);
        let deadline = match short {
            _ if streams => None,
            "ListTicks" | "ListBars" | "ListPublishedBars" | "ListMovingAverages" => Some(HISTORY_DEADLINE),
            _ => Some(UNARY_DEADLINE),
        };
        let request_limit = match short {
            "PublishTicks" | "ImportFile" => ("ingest_message_bytes", MAX_INGEST_MESSAGE_BYTES),
            "ListLatestTicks" | "SubscribeTicks" | "SubscribeBars" => {
                ("selector_request_bytes", MAX_SELECTOR_REQUEST_BYTES)
            }
            _ => ("request_bytes", MAX_UNARY_REQUEST_BYTES),
        };
        Method { name, deadline, request_limit, while_draining: name.starts_with("grpc.health.") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_contract() {
        let methods = Methods::read(&[tapefeed_proto::FILE_DESCRIPTOR_SET]).unwrap();
        let find = |path: &str| *methods.find(&format!("/tapefeed.v1.{path}")).unwrap();
        let kib = |path: &str| find(path).request_limit.1 / 1024;
        assert_eq!(kib("HistoryService/ListTicks"), 64);
        assert_eq!(kib("HistoryService/ListLatestTicks"), 1_024);
        assert_eq!(kib("LiveService/SubscribeTicks"), 1_024);
        assert_eq!(kib("IngestService/PublishTicks"), 1_024);
        assert_eq!(kib("IngestService/GetIngestionRun"), 64);
        let deadline = |path: &str| find(path).deadline.map(|deadline| deadline.as_secs());
        assert_eq!(deadline("HistoryService/ListTicks"), Some(30));
        assert_eq!(deadline("HistoryService/ListPublishedBars"), Some(30));
        assert_eq!(deadline("HistoryService/GetAveragePrice"), Some(10));
        assert_eq!(deadline("IngestService/ListRejectedLines"), Some(10));
        assert_eq!(deadline("HistoryService/ReadTicks"), None);
        assert_eq!(deadline("IngestService/ImportFile"), None);
        assert_eq!(deadline("IngestService/PublishTicks"), None);
        assert_eq!(methods.find("/tapefeed.v1.HistoryService/Nope"), None);
    }
}
