//! Reflection, in both versions that tools speak: the contract, its comments, and the messages of error details.

use prost::Message as _;
use prost_types::FileDescriptorProto;
use tapefeed_tests::{Options, Server};

/// What a tool must find: services, and the details that travel with an error.
const SERVICES: [&str; 7] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "tapefeed.v1.HistoryService",
    "tapefeed.v1.IngestService",
    "tapefeed.v1.InstrumentService",
    "tapefeed.v1.LiveService",
];
const SYMBOLS: [(&str, &str); 5] = [
    ("tapefeed.v1.HistoryService", "tapefeed/v1/history_service.proto"),
    ("tapefeed.v1.Tick", "tapefeed/v1/tick.proto"),
    ("tapefeed.v1.ErrorReason", "tapefeed/v1/error_reason.proto"),
    ("google.protobuf.Timestamp", "google/protobuf/timestamp.proto"),
    ("google.rpc.ErrorInfo", "google/rpc/error_details.proto"),
];

fn assert_services(mut found: Vec<String>) {
    found.sort();
    for service in SERVICES {
        assert!(found.iter().any(|name| name == service), "{service} is missing in {found:?}");
    }
}

fn assert_file(symbol: &str, file: &str, encoded: &[Vec<u8>]) {
    let files: Vec<FileDescriptorProto> =
        encoded.iter().map(|bytes| FileDescriptorProto::decode(bytes.as_slice()).expect("a descriptor")).collect();
    assert!(files.iter().any(|found| found.name() == file), "{symbol} is not in {file}");
}

/// The same client for both versions: their messages are alike, their types are not.
macro_rules! reflection {
    ($name:ident, $version:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

            let server = Server::start(Options::serve()).await;
            let mut client = ServerReflectionClient::new(server.channel().await);
            let symbols = SYMBOLS.map(|(symbol, _)| MessageRequest::FileContainingSymbol(symbol.to_owned()));
            let unknown = MessageRequest::FileContainingSymbol("tapefeed.v1.Nothing".to_owned());
            let asked: Vec<ServerReflectionRequest> = [MessageRequest::ListServices(String::new())]
                .into_iter()
                .chain(symbols)
                .chain([unknown])
                .map(|message| ServerReflectionRequest { host: String::new(), message_request: Some(message) })
                .collect();
            let stream = client.server_reflection_info(tokio_stream::iter(asked)).await;
            let mut answers = stream.expect("reflection is served").into_inner();
            let mut next = async || {
                let answer = answers.message().await.expect("no error").expect("an answer each");
                answer.message_response.expect("an answer says something")
            };

            let MessageResponse::ListServicesResponse(list) = next().await else {
                panic!("no list of services");
            };
            assert_services(list.service.into_iter().map(|service| service.name).collect());
            for (symbol, file) in SYMBOLS {
                let MessageResponse::FileDescriptorResponse(files) = next().await else {
                    panic!("{symbol} does not resolve");
                };
                assert_file(symbol, file, &files.file_descriptor_proto);
            }
            assert!(matches!(next().await, MessageResponse::ErrorResponse(_)));
        }
    };
}

reflection!(reflection_v1_resolves_the_contract_and_the_error_details, v1);
reflection!(reflection_v1alpha_resolves_the_contract_and_the_error_details, v1alpha);
