//! A folder tree in, objects out. Pure: no file, no network, no clock.
//!
//! ```text
//!   Tree (a commit, a folder, memory)
//!     │  build(tree, folder, options)
//!     ▼
//!   kustomization.yaml? ──no──► every *.yaml and *.yml below ─┐
//!     │ yes                     (.sourceignore, no manifests   │
//!     ▼                          are named as skipped)         │
//!   resources, components, generators ─► patches ─► namespace, │
//!   prefix, labels, annotations, replicas, images              │
//!     ▼                                                        ▼
//!   what the Kustomization object asks for beyond the folder (Overlay)
//!     ▼
//!   hashes of generated names, references that follow ─► Build { objects in the order of the apply, skipped }
//!     │
//!     ├─► substitute(object, variables)
//!     └─► check(tree, objects, registry): every mistake with file, line, column and field
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`manifest`] | the objects of one file; bounds against bombs; errors with an excerpt |
//! | [`position`] | where a field, or a place in the text of a field, is written |
//! | [`tree`] | what is built from; paths and links that stay inside |
//! | [`ignore`] | Flux's exclusions and `.sourceignore` |
//! | [`mod@build`] | a folder to its objects |
//! | [`mod@check`] | what the API would refuse, before anything is applied |
//! | [`substitute`] | `${variables}` |
//! | [`order`] | what is applied before what |
//!
//! The result of a build is that of `kubectl kustomize`, which is the oracle of the tests, with these
//! differences: the order of objects; references of virtual machines and Flux objects follow renamed
//! ConfigMaps, Secrets and classes too; and a word such as `yes` or `on` is a boolean as it is to `kubectl apply`,
//! but text where only text can stand (labels, annotations, data, variables of containers). Fields of
//! `kustomization.yaml` that are not supported are errors that name them.

pub mod build;
pub mod check;
pub mod flux;
mod generate;
mod hash;
pub mod ignore;
mod kustomization;
pub mod manifest;
pub mod order;
mod patch;
pub mod position;
mod references;
mod resource;
mod scalar;
pub mod substitute;
mod transform;
pub mod tree;
mod yaml;

pub use build::{Build, BuildError, Options, build};
pub use check::{Checked, NotServed, check};
pub use kustomization::Overlay;
pub use manifest::{Limits, Located, ParseError, parse_manifests};
pub use patch::{Patch, PatchOptions, Target};
pub use position::{TextStart, block_scalar_start, position_of};
pub use transform::Image;
pub use tree::{Entry, MemoryTree, Tree, TreeError};
