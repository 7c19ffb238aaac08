//! The disk of the state folder. When it is full nothing can be stored, conditions neither: an Event, which is kept in
//! memory, and the log say so.

use std::path::PathBuf;

use apiserver::{Client, client::EventType};
use kinds::{gvr, host};
use nix::sys::statvfs::statvfs;

/// With less than this the store will soon refuse writes, if it does not yet.
const LOW: u64 = 16 << 20;
/// With more than this there is room again.
const ENOUGH: u64 = 32 << 20;

/// Looks at the disk now and then.
pub(super) struct Disk {
    client: Client,
    folder: PathBuf,
    full: bool,
}

impl Disk {
    pub(super) fn new(client: Client, folder: PathBuf) -> Self {
        Self {
            client,
            folder,
            full: false,
        }
    }

    /// Says when it gets full, and when there is room again.
    pub(super) async fn look(&mut self) {
        let folder = self.folder.display();
        let free = match statvfs(&self.folder) {
            Ok(disk) => disk.blocks_available().saturating_mul(disk.fragment_size()),
            Err(error) => {
                tracing::warn!(%folder, %error, "can't ask how full the disk is");
                return;
            }
        };
        let full = if self.full { free < ENOUGH } else { free < LOW };
        if full == self.full {
            return;
        }
        self.full = full;
        let mib = free >> 20;
        let (kind, reason, message) = if full {
            let message = format!(
                "no space left: {mib} MiB are free on the disk of {folder}. What runs goes on, changes can't be stored. \
                 Free some; what waits is then done by itself"
            );
            tracing::error!(%folder, free, "no space left");
            (EventType::Warning, "DiskFull", message)
        } else {
            tracing::info!(%folder, free, "there is room again");
            let message = format!("there is room again: {mib} MiB are free on the disk of {folder}");
            (EventType::Normal, "DiskHasRoom", message)
        };
        // The base layer is the object that stands for the host.
        let base = self
            .client
            .get(&gvr::host_configurations(), host::NAMESPACE, host::BASE_LAYER)
            .await;
        if let Ok(Some(base)) = base {
            self.client.event(&base, kind, reason, &message).await;
        }
    }
}
