//! What only the embedded store does: files, locks, other programs, full disks, kills.

mod files;
mod kills;
mod published;
mod troubles;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};

use super::{OpenError, SqliteOptions, SqliteStore};
use crate::domain::{Clock, Epoch, UnixNanos};
use crate::store::faults::Faults;
use crate::store::{Appended, Group, Mark, ProducerId, Store};

const EPOCH: Epoch = Epoch(0x8000_0000_0000_0007);

/// A clock that stands.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> UnixNanos {
        UnixNanos::new(1_700_000_000_000_000_000).unwrap()
    }
}

fn options(faults: Faults) -> SqliteOptions {
    SqliteOptions { clock: Arc::new(Still), epoch: EPOCH, faults }
}

async fn open(path: &Path) -> Result<Arc<SqliteStore>, OpenError> {
    SqliteStore::open(path, options(Faults::default())).await
}

/// Opens a store whose last holder is about to give it back.
async fn open_soon(path: &Path) -> Arc<SqliteStore> {
    for _ in 0..500 {
        match open(path).await {
            Ok(store) => return store,
            Err(OpenError::Locked(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("still locked");
}

/// Another program's connection.
async fn outside(path: &Path, read_only: bool) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).read_only(read_only).connect().await.unwrap()
}

fn group(entry_count: u32, bytes: impl Into<Bytes>) -> Group {
    Group {
        epoch: EPOCH,
        bytes: bytes.into(),
        entry_count,
        tick_count: entry_count,
        backfill: false,
        run_id: None,
        marks: Vec::new(),
    }
}

fn producer() -> ProducerId {
    ProducerId::new("p").unwrap()
}

/// One batch of three entries.
fn batch(fence: u64, batch_seq: u64) -> Group {
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&batch_seq.to_le_bytes());
    let mark = Mark::Producer { producer: producer(), fence, batch_seq, digest, entry_count: 3 };
    Group { marks: vec![mark], ..group(3, batch_seq.to_le_bytes().to_vec()) }
}

fn is_committed(appended: &Appended) -> bool {
    matches!(appended, Appended::Committed { .. })
}
