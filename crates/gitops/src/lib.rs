//! Git source, build, apply, prune, health.

mod apply;
mod artifacts;
mod bootstrap;
mod config;
mod desired;
mod engine;
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

pub use artifacts::{Artifact, Artifacts};
pub use bootstrap::{BootstrapSource, NAME, NAMESPACE, bootstrap};
pub use config::Config;
pub use engine::Engine;
pub use kustomizations::Kustomizations;
pub use source::GitRepositories;

/// The field manager of everything that comes from Git, as Flux calls it: make the [`apiserver::Client`] of
/// [`Kustomizations`] with it.
pub const MANAGER: &str = "kustomize-controller";
