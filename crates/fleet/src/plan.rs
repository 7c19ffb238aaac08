//! What a commit would change, before it is merged: which objects at which sites, at what cost, and who can't take it.
//!
//! ```text
//!   bare repository ── git cat-file ──► tree before, tree after
//!                                          │ ids of all that a site is built from differ?   no ─► unchanged
//!                                          ▼ yes
//!   variables ─► kustomize build + substitute + check, before and after ─► diff by object and field
//!   reported status of its hosts ─► vm::plan, vswitch::plan, memory ─► impact, and why it can't be taken
//! ```
//!
//! # What the answer rests on
//!
//! A site is compared with the commit that it has applied. Whether a virtual machine runs, a host's memory and its
//! NICs come from the reported status. Everything else is taken as the commit before asks for it, for a site that has
//! reported nothing all of it; the result says so ([`SitePlan::notes`](crate::model::SitePlan)). What is on a host
//! and not in Git (its base layer, classes and ConfigMaps of other sources) is not known here.
//! Flux `Kustomization`s in a site's folder are followed where they name the site's own repository: to a depth, and not in
//! circles; see `flux`. What they build of other repositories is not known.
//!
//! Values of Secrets and of a site's secret variables never come in: the latter are filled in as `(secret)`.
//!
//! | room | |
//! |---|---|
//! | `git`, `reach` | trees and what a folder is built from |
//! | `build`, `flux`, `diff`, `impact` | objects, what they build in their turn, fields, costs; pure |
//! | [`Planner`] | a commit for many sites |
//! | [`Plans`] | plans that people ask for, kept in the database |

mod build;
mod diff;
mod flux;
mod git;
mod impact;
mod reach;
mod room;
mod run;

pub use impact::HostState;
pub use room::{Fetched, Plans, Source, Wanted};
pub use run::{Changed, PlanError, Planner, SiteInput, add};
