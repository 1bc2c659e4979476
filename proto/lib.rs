//! The contract of Tapefeed: `proto/tapefeed/v1` compiled for Rust, with clients and servers.
//!
//! It holds wire types only and must not know what they mean: the server's `grpc` floor and the clients turn them into
//! values of their own. Start reading at `proto/tapefeed/v1/history_service.proto` and `live_service.proto`.

/// The package `tapefeed.v1`.
#[allow(clippy::all, clippy::unwrap_used, missing_debug_implementations, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("tapefeed.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of the contract with comments, its imports, and the `google.rpc`
/// messages of error details; for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tapefeed.bin"));

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::FILE_DESCRIPTOR_SET;

    fn descriptors() -> FileDescriptorSet {
        FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the build script encoded it")
    }

    #[test]
    fn descriptor_set_holds_the_services_and_the_error_details() {
        let mut names = Vec::new();
        for file in descriptors().file {
            let package = file.package().to_owned();
            names.extend(file.service.iter().map(|s| format!("{package}.{}", s.name())));
            names.extend(file.message_type.iter().map(|m| format!("{package}.{}", m.name())));
        }
        for expected in [
            "tapefeed.v1.InstrumentService",
            "tapefeed.v1.HistoryService",
            "tapefeed.v1.LiveService",
            "tapefeed.v1.IngestService",
            "google.protobuf.Timestamp",
            "google.rpc.ErrorInfo",
            "google.rpc.Status",
        ] {
            assert!(names.iter().any(|name| name == expected), "{expected} is missing");
        }
    }

    #[test]
    fn descriptor_set_has_each_file_once_and_every_import() {
        let files = descriptors().file;
        let mut names: Vec<&str> = files.iter().map(|file| file.name()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "a file is there twice");
        for file in &files {
            for import in &file.dependency {
                assert!(names.binary_search(&import.as_str()).is_ok(), "{import} is missing");
            }
        }
    }
}
