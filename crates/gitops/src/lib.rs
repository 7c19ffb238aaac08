//! Git is the only writer: fetches repositories, builds their folders, applies the objects, deletes what is
//! gone, keeps it so, and says how it went. `GitRepository` and `Kustomization` are Flux's kinds, in v1 and
//! in the old beta versions.
//!
//! ```text
//!   GitRepository ─► GitRepositories ─► <state>/git/<namespace>_<name>.git   (bare, one commit deep)
//!    interval,         git program      <state>/git/<namespace>_<name>.json  (revision; fsync, rename)
//!    request, webhook       │ signal: a new commit
//!                           ▼
//!   Kustomization ──► Kustomizations ─► desired ─► observe ─► plan ─► apply ─► report ─► status, Events
//!    interval,             ▲
//!    request               │ signal: somebody else wrote an object that Git owns
//!                        guard (a watch on every kind)
//! ```
//!
//! | module | what it is | may |
//! |---|---|---|
//! | `desired` | the objects of a folder at a commit, filled in, checked and marked | pure |
//! | `observe` | what the API has of them now | read |
//! | `plan` | which to apply and why, which to delete, which to let go | pure |
//! | `apply` | carries a plan out, stage by stage; `revert` takes back what people added | write |
//! | `report` | status and conditions; `health` judges objects | pure |
//! | `source`, `git` | the commit, and the program that gets it | write |
//! | `kustomizations` | a run from end to end | |
//! | `owned` | what is remembered of applied objects; the guard | |
//!
//! A Kustomization, seen by its `Ready` condition:
//!
//! ```text
//!   ArtifactFailed ──commit fetched──► DependencyNotReady ──dependencies ready──┐
//!                                                                              ▼
//!   BuildFailed ◄──a mistake in any file: nothing is applied── build ──► ReconciliationFailed (what the API
//!        │                                                       │        refused; nothing is deleted)
//!        └──────────── next commit ──────────────────────────────┤
//!                                                                ▼
//!                   ReconciliationSucceeded ◄──healthy── Progressing ──too late──► HealthCheckFailed
//! ```
//!
//! What holds at all times:
//!
//! * The last good state stays. A fetch that fails, a commit that does not build, a host without network: the
//!   objects in the store and the commit on disk stay in force. A repository that a power cut damaged is
//!   fetched anew.
//! * An object is left alone when what Git says of it and what it looks like are both as they were after it
//!   was last applied. So an unchanged run writes nothing.
//! * Nothing is deleted before everything is applied, nor without this Kustomization's mark on it.
//! * Credentials are in the environment of one `git` process and in files under `<run>/gitops`, which nobody
//!   else may enter and which go with the fetch; never on a command line or in a repository's configuration.
//!
//! Not there yet: signatures (`spec.verify`), proxies, submodules, encrypted files (a GitRepository or
//! Kustomization that asks for one of the first two or the last is refused, not run without), and the revert
//! of a commit whose objects turn unhealthy: it is reported, and stays in force (see `health`).

mod apply;
mod artifacts;
mod bootstrap;
mod config;
mod desired;
mod engine;
#[cfg(fuzzing)]
pub mod fuzzing;
mod git;
mod health;
mod kustomizations;
mod observe;
mod owned;
mod plan;
mod report;
mod revert;
mod seen;
mod source;
mod unsupported;

pub use artifacts::{Artifact, Artifacts};
pub use bootstrap::{
    BootstrapSource, NAME, NAMESPACE, Origin, VARIABLES, bootstrap, check_url, is_variable, same_repository,
    suspend,
};
pub use config::Config;
pub use engine::Engine;
pub use kustomizations::Kustomizations;
pub use source::GitRepositories;
pub use unsupported::{Unsupported, unsupported};

/// The field manager of everything that comes from Git, as Flux calls it: make the [`apiserver::Client`] of
/// [`Kustomizations`] with it.
pub const MANAGER: &str = "kustomize-controller";
