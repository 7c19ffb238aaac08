//! Virtual machines: what `VirtualMachine` objects ask for becomes QEMU processes on this host.
//!
//! ```text
//!   VirtualMachine ─┐                                                     ┌─▶ QEMU (own session, own control group)
//!   class ──────────┤                    ┌────────── again ───────────┐   ├─▶ disks, CD        <state>/vms/<ns>/<name>/
//!   ConfigMap,      ├─▶ desired ─▶ observe ─▶ plan ─▶ apply ──────────┴───┼─▶ taps, ports      watch of PortRequests
//!   Secret ─────────┤                 ▲                                   └─▶ sockets          <run>/vm/<hash>/
//!   port groups ────┘                 │
//!                        monitor: QMP events, guest agent, addresses seen, probe ──▶ report ─▶ status, events
//! ```
//!
//! | room | what it is |
//! |---|---|
//! | [`desired`] | the objects in this domain's words. Pure |
//! | `observe` | record, image, QEMU, taps, CD as they are |
//! | [`plan`] | the steps from the one to the other, each with a reason. Pure |
//! | `apply` | carries steps out; each can be repeated and cut off anywhere |
//! | `report` | status and conditions. Pure |
//! | [`driver`] | [`Vms`], the reconciler that calls them |
//!
//! and beside them [`qemu`] (the command line), `process` (start, find, end), `monitor` (what a running guest
//! tells by itself), [`packet`] (addresses from frames), [`accelerator`] (is KVM of use), [`record`] (what is on
//! disk), [`images`] (what is wanted of the image cache), [`classes`] (predefined ones), `cgroup`, `sys`.
//!
//! # Tasks
//! The driver's workers run [`Vms`], one virtual machine at a time each, never the same twice. For each running
//! QEMU there is one monitor with a task for each card, the agent, the probe and the console's log; for each
//! image that is being fetched there is one. They decide nothing: they set a level and wake the reconciler.
//!
//! # What survives what
//! QEMU outlives this process: it has a session of its own and its QMP socket stays connectable for exactly as
//! long as it lives. A new process finds it there and adopts it. (With systemd the daemon's unit needs
//! `KillMode=process`, and `Delegate=yes` for control groups.) After a restart of the host the run directory is
//! empty, and everything that is to run is started from its disks.
//!
//! # States of one virtual machine
//! ```text
//!  new ─▶ remembered ─▶ image ─▶ disks ─▶ off ─▶ running ⇄ (suspended to its first disk, off)
//!                                          ▲        │ ended by itself: back-off 1 s … 5 min, Event
//!                                          └────────┘
//!  deleted: powered off by its mode ─▶ ports, taps, sockets, files ─▶ finalizer released
//! ```
//!
//! Console of a virtual machine: [`console_socket`]. Screen: [`vnc_socket`].

pub mod accelerator;
mod apply;
mod cgroup;
pub mod classes;
pub mod desired;
pub mod driver;
pub mod images;
mod machine;
mod monitor;
mod objects;
mod observe;
pub mod packet;
pub mod plan;
mod process;
pub mod qemu;
pub mod record;
mod report;
mod sys;

use std::path::{Path, PathBuf};

pub use driver::{Config, FINALIZER, Vms};
pub use images::{Image, ImageDisk, ImageError, Images};
pub use record::images_in_use;

/// The socket of a virtual machine's serial console: bytes both ways, one client at a time. It exists while the
/// virtual machine runs. `None` for names that can't be.
#[must_use]
pub fn console_socket(run_dir: &Path, namespace: &str, name: &str) -> Option<PathBuf> {
    paths(run_dir, namespace, name).map(|paths| paths.console())
}

/// The socket of a virtual machine's screen (VNC).
#[must_use]
pub fn vnc_socket(run_dir: &Path, namespace: &str, name: &str) -> Option<PathBuf> {
    paths(run_dir, namespace, name).map(|paths| paths.vnc())
}

/// What a virtual machine's serial console said: the last part before, and what came since.
#[must_use]
pub fn console_logs(state_dir: &Path, namespace: &str, name: &str) -> Option<[PathBuf; 2]> {
    let key = reconcile::Key::new(namespace, name);
    let log = record::Paths::new(state_dir, Path::new(""), &key)?.console_log();
    Some([log.with_extension("log.1"), log])
}

fn paths(run_dir: &Path, namespace: &str, name: &str) -> Option<record::Paths> {
    record::Paths::new(Path::new(""), run_dir, &reconcile::Key::new(namespace, name))
}
