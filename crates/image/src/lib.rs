//! VM images: found, fetched, checked, converted and kept, so that a virtual machine boots from the host's own disk.
//!
//! Input is an image name from a manifest ([`ImageRef`]); output are read-only disks ([`CachedImage`]) that rest in the
//! cache's directory and that machines put copy-on-write disks on. One task per image that is on its way; nothing runs
//! otherwise. What is ready is found without network and without any task, also after a restart.
//!
//! ```text
//!  ImageRef ── library dir, file:// ───────────────┐
//!     └─ https, http ─ fetch ─► .partial/<key> ────┤      (cut, restarted: goes on by Range)
//!                                                  ▼
//!            probe: what is it, does it refer to other files?
//!             ├─ tar ─► archive, ovf, manifest (checksums) ─► each disk: probe again
//!             ├─ gzip ─► unpacked, probe again
//!             ├─ vmdk ─► convert (qemu-img under limits) ─► qcow2
//!             └─ qcow2, raw ─► as it is
//!                                                  ▼
//!                        .work/<key>/ ── fsync, rename ──► <key>/index.json, disk-0.qcow2 …
//! ```
//!
//! | module | what it is | does I/O |
//! |---|---|---|
//! | [`cache`] | [`Cache`]: who asks gets the image, once fetched for all; [`cache::evict`] plans what to remove | yes |
//! | [`probe`] | headers of qcow2 and VMDK, and what else a file can be | no |
//! | [`archive`] | the members of an OVA | reads |
//! | [`ovf`] | the description in an OVA | no |
//! | [`manifest`] | the checksums in an OVA | no |
//!
//! Nothing of a foreign file is trusted: every size has a bound ([`Limits`]), names are never used as paths, disks that
//! refer to other files are refused before any tool opens them, and `qemu-img` runs under resource limits.
//!
//! The process has to install a rustls crypto provider before the first download.

pub mod archive;
pub mod cache;
mod convert;
mod error;
mod fetch;
mod files;
mod import;
pub mod manifest;
pub mod ovf;
pub mod probe;
mod progress;
mod reference;

pub use cache::{Cache, CachedImage, Disk, DiskFormat};
pub use error::Error;
pub use fetch::{HttpOptions, Validator};
pub use ovf::{Firmware, OvfInfo};
pub use progress::{Phase, Progress};
pub use reference::{ImageRef, Library};

/// How large an image may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a download.
    pub download: u64,
    /// Bytes that a guest sees of one disk.
    pub virtual_size: u64,
}

impl Default for Limits {
    /// 1 TiB to fetch, 64 TiB to see.
    fn default() -> Self {
        Self {
            download: 1 << 40,
            virtual_size: 64 << 40,
        }
    }
}
