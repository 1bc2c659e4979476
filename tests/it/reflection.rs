//! Health, and reflection in both versions that tools speak: the contract, its comments, and the messages of error details.

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
const SYMBOLS: [&str; 5] = [
    "tapefeed.v1.HistoryService",
    "tapefeed.v1.Tick",
    "tapefeed.v1.ErrorReason",
    "google.protobuf.Timestamp",
    "google.rpc.ErrorInfo",
];

fn assert_services(mut found: Vec<String>) {
    found.sort();
    for service in SERVICES {
        assert!(found.iter().any(|name| name == service), "{service} is missing in {found:?}");
    }
}

/// The symbol is defined in one of the files: a message, an enum or a service at the top of its package.
fn assert_defined(symbol: &str, encoded: &[Vec<u8>]) {
    let (package, name) = symbol.rsplit_once('.').expect("a full name");
    let defined = encoded.iter().any(|bytes| {
        let file = FileDescriptorProto::decode(bytes.as_slice()).expect("a descriptor");
        let messages = file.message_type.iter().map(|message| message.name());
        let enums = file.enum_type.iter().map(|declared| declared.name());
        let services = file.service.iter().map(|service| service.name());
        let mut names = messages.chain(enums).chain(services);
        file.package() == package && names.any(|found| found == name)
    });
    assert!(defined, "{symbol} is not in what it resolves to");
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
            let symbols = SYMBOLS.map(|symbol| MessageRequest::FileContainingSymbol(symbol.to_owned()));
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
            for symbol in SYMBOLS {
                let MessageResponse::FileDescriptorResponse(files) = next().await else {
                    panic!("{symbol} does not resolve");
                };
                assert_defined(symbol, &files.file_descriptor_proto);
            }
            let refused = answers.message().await.expect_err("there is no such symbol");
            assert_eq!(refused.code(), tonic::Code::NotFound, "{refused:?}");
        }
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_each_service_and_refuses_one_that_does_not_exist() {
    let server = Server::start(Options::serve()).await;
    let mut health = server.stubs().await.health;
    let mut check = async |service: &str| {
        let request = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await?;
        Ok::<_, tonic::Status>(answer.into_inner().status())
    };
    for service in SERVICES.iter().filter(|name| name.starts_with("tapefeed")).chain([&""]) {
        let status = check(service).await.expect("a service of ours");
        assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving);
    }
    let refused = check("tapefeed.v1.Nothing").await.expect_err("there is no such service");
    assert_eq!(refused.code(), tonic::Code::NotFound, "{refused:?}");
}

reflection!(reflection_v1_resolves_the_contract_and_the_error_details, v1);
reflection!(reflection_v1alpha_resolves_the_contract_and_the_error_details, v1alpha);
