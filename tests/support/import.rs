//! An import on the bare stub, and files to import.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use futures_util::Stream;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::import_file_request::Message as Said;
use tokio_stream::StreamExt as _;
use tonic::Status;

use crate::stubs::Stubs;
use crate::wait::within;

/// How long an import of a test's file may take, on a busy machine.
const IMPORT: Duration = Duration::from_secs(300);
/// The size of one message of the upload, as the contract recommends.
pub const PIECE_BYTES: usize = 256 * 1024;

/// Imports a file that is at hand.
pub async fn bytes(
    stubs: &Stubs,
    start: proto::ImportStart,
    file: impl Into<Bytes>,
) -> Result<proto::ImportFileResponse, Status> {
    let mut rest: Bytes = file.into();
    let pieces = std::iter::from_fn(move || {
        let count = rest.len().min(PIECE_BYTES);
        (count > 0).then(|| rest.split_to(count))
    });
    pieces_of(stubs, start, tokio_stream::iter(pieces)).await
}

/// Imports a file piece by piece.
pub async fn pieces_of(
    stubs: &Stubs,
    start: proto::ImportStart,
    pieces: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<proto::ImportFileResponse, Status> {
    let start = tokio_stream::once(Said::Start(start));
    let messages = start.chain(pieces.map(Said::Data));
    let requests = messages.map(|message| proto::ImportFileRequest { message: Some(message) });
    let mut ingest = stubs.ingest.clone();
    let answer = within("an import", IMPORT, ingest.import_file(requests)).await?;
    Ok(answer.into_inner())
}

/// The start of an import with all defaults.
pub fn start(run_id: &str) -> proto::ImportStart {
    proto::ImportStart {
        run_id: run_id.to_owned(),
        file_name: format!("{run_id}.csv"),
        size_bytes: None,
        options: None,
    }
}

/// A file in gzip.
pub fn gzip(file: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(file).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}

/// Files in a zip, by name, deflated.
pub fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut table = Vec::new();
    for (name, file) in files {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(file).expect("memory takes everything");
        let packed = encoder.finish().expect("memory takes everything");
        let mut crc = flate2::Crc::new();
        crc.update(file);

        // What an entry and its line in the table of contents have in common: version 2.0, no flags, deflate, no time,
        // checksum, sizes, the length of the name, and nothing extra.
        let mut common = vec![20, 0, 0, 0, 8, 0, 0, 0, 0, 0];
        for number in [crc.sum(), length(&packed), length(file)] {
            common.extend(number.to_le_bytes());
        }
        common.extend(u16::try_from(name.len()).expect("a short name").to_le_bytes());
        common.extend([0, 0]);

        let offset = length(&archive);
        table.extend(b"PK\x01\x02\x14\x00");
        table.extend(&common);
        // No comment, the first disk, no attributes.
        table.extend([0; 10]);
        table.extend(offset.to_le_bytes());
        table.extend(name.as_bytes());

        archive.extend(b"PK\x03\x04");
        archive.extend(&common);
        archive.extend(name.as_bytes());
        archive.extend(packed);
    }
    let count = u16::try_from(files.len()).expect("few files").to_le_bytes();
    let offset = length(&archive);
    archive.extend(&table);
    archive.extend(b"PK\x05\x06\x00\x00\x00\x00");
    archive.extend([count, count].concat());
    archive.extend(length(&table).to_le_bytes());
    archive.extend(offset.to_le_bytes());
    archive.extend([0, 0]);
    archive
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a file of a test is below 4 GiB")
}
