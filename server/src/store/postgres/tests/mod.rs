//! What only the Postgres store does: checks of the server, epochs by identity, several servers, lost connections.

mod epochs;
mod opening;
mod server;
mod troubles;

use std::sync::Arc;

use bytes::Bytes;
use sqlx::{AssertSqlSafe, PgConnection};

pub(crate) use server::TestServer;

use super::{PostgresOpenError, PostgresOptions, PostgresStore, PostgresUrl};
use crate::domain::Epoch;
use crate::store::faults::Faults;
use crate::store::{Group, Mark, ProducerId};

const EPOCH: Epoch = Epoch(0x8000_0000_0000_0007);

fn options() -> PostgresOptions {
    PostgresOptions { clock: None, epoch: EPOCH, seed: 7, faults: Faults::default() }
}

async fn open(url: &PostgresUrl) -> Result<Arc<PostgresStore>, PostgresOpenError> {
    PostgresStore::open(url, options()).await
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap();
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
