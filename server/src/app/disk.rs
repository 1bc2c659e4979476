//! The disk of the store, for whoever scrapes: of a file it is looked at, of a database it is what the database says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Page;
use crate::store::{DiskUse, PostgresStore};

/// How often a database is asked for its size. It walks its files then.
const INTERVAL: Duration = Duration::from_secs(15);

/// What is known of the store's disk.
#[derive(Debug)]
pub(super) enum Disk {
    /// The file of an embedded store.
    File(PathBuf),
    /// A database.
    Database {
        /// What it took when it was last asked; `None` before.
        taken: watch::Receiver<Option<DiskUse>>,
        /// What it may take, if the operator has said so.
        space: Option<u64>,
    },
}

impl Disk {
    /// A database that is asked from time to time until the server is asked to stop.
    pub(super) fn of_database(store: Arc<PostgresStore>, space: Option<u64>, asked: CancellationToken) -> Disk {
        let (sender, taken) = watch::channel(None);
        tokio::spawn(asked.run_until_cancelled_owned(async move {
            loop {
                // What does not answer has told the monitor so, and the log.
                if let Ok(now) = store.size_on_disk().await {
                    sender.send_replace(Some(now));
                }
                tokio::time::sleep(INTERVAL).await;
            }
        }));
        Disk::Database { taken, space }
    }

    /// Writes what is known.
    pub(super) fn write(&self, page: &mut Page<'_>) {
        match self {
            Disk::File(path) => file(path, page),
            Disk::Database { taken, space } => {
                if let Some(taken) = *taken.borrow() {
                    database(taken, *space, page);
                }
            }
        }
    }
}

fn file(store_path: &Path, page: &mut Page<'_>) {
    let bytes = |suffix: &str| {
        let mut path = store_path.to_owned().into_os_string();
        path.push(suffix);
        std::fs::metadata(path).map_or(0, |file| file.len())
    };
    size((bytes("") + bytes("-wal")) as f64, page);
    let folder = store_path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Ok(disk) = rustix::fs::statvfs(folder.unwrap_or(Path::new("."))) {
        let free = disk.f_bavail as f64 * disk.f_frsize as f64;
        space_of(disk.f_blocks as f64 * disk.f_frsize as f64, free, page);
    }
}

fn database(taken: DiskUse, space: Option<u64>, page: &mut Page<'_>) {
    let wal = taken.wal_bytes.unwrap_or(0);
    size(taken.bytes as f64, page);
    if taken.wal_bytes.is_some() {
        page.gauge("tapefeed_store_wal_bytes", "The write-ahead log of the database's server", wal as f64);
    }
    if let Some(space) = space {
        space_of(space as f64, space.saturating_sub(taken.bytes + wal) as f64, page);
    }
}

fn size(bytes: f64, page: &mut Page<'_>) {
    page.gauge("tapefeed_store_size_bytes", "What the store takes on disk", bytes);
}

fn space_of(size: f64, free: f64, page: &mut Page<'_>) {
    page.gauge("tapefeed_store_disk_free_bytes", "Free space on the disk of the store", free);
    page.gauge("tapefeed_store_disk_size_bytes", "Size of the disk of the store", size);
}
