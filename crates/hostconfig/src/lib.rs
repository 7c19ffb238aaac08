//! HostConfiguration: layers, merge, compliance; hands each domain its part.
//!
//! A host has one base layer, `esx-system/esx-base-profile`, which says what it was like when it was new, and any
//! number of incremental ones from Git. They are merged into one profile `{"esx": {…}}`, and every registered
//! [`reconcile::section::Section`] makes its part of the host so.
//!
//! ```text
//! HostConfiguration objects ─ observe ─ desired ──────────── merge ─── sections ─ verify ─ report ─ status, events
//!                               │         │ profile (JSON, positions)      │
//!                               └─ layers │ (last good content, on disk)   └ vSwitches, later storage, security, …
//!                                         └ plan ─ apply: base layer, last good content
//!
//! A layer:   unreadable ──► its last good content stays in force;  Valid=False, with line, column and path
//!            disagrees  ──► the last layer in order wins;          Valid=False on both, naming both and the path
//!            problem    ──► the rest of the host is made so;       Compliant=False on the layers that asked for it
//!            cuts off   ──► the good configuration comes back;        Compliant=False, reason Quarantined
//!            fine       ──► Ready=True; what nothing enforces yet is in status.notEnforced
//! ```
//!
//! | room | what it is |
//! |---|---|
//! | [`observe`] | the objects, and the last good content of each |
//! | [`desired`] | each layer read ([`profile`]) and all merged ([`merge`]) |
//! | [`plan`], [`apply`] | what must be written before the sections run; running them |
//! | [`report`] | conditions, lists and events |
//!
//! A change of the profile is made under a checkpoint if the daemon gives a [`Connectivity`] ([`GitServers`] is one):
//! what could be reached before must be reachable after, or the old configuration comes back.
//!
//! Layers are read and merged again only when one of them came, went or asks for something else; most runs are about the
//! host. What is true on the host the sections look at every time.
//!
//! One task runs it: the reconciler [`HostConfig`] with the one key `host`, on the driver in [`reconcile`]. It should
//! run when any HostConfiguration changes, and when a section's own listeners see that the system has changed.

pub mod apply;
mod checkpoint;
mod connectivity;
pub mod desired;
mod layers;
pub mod merge;
pub mod observe;
pub mod plan;
mod position;
pub mod profile;
mod reconciler;
pub mod report;

pub use checkpoint::{Connectivity, Enforcement, Quarantine};
pub use connectivity::{GitServers, server as git_server};
pub use layers::{LayerFiles, LayersError};
pub use merge::{Conflict, Layer, Merged, merge_layers};
pub use reconciler::{HostConfig, KEY};
