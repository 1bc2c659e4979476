//! The first slice on SQLite: durable ingest, an average over 10 M ticks, latest prices, and stored bytes.

pub(crate) mod bytes;
pub(crate) mod ingest;
mod reads;

use std::path::Path;

use crate::process::Server;

/// Runs all parts.
pub async fn run(binary: &Path, quick: bool, sample_data: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    bytes::run(sample_data);
    let server = Server::start(binary, &folder.path().join("ingest.db")).await?;
    ingest::run(&server, folder.path(), quick).await?;
    drop(server);
    let server = Server::start(binary, &folder.path().join("reads.db")).await?;
    reads::run(&server, folder.path(), quick).await?;
    Ok(())
}
