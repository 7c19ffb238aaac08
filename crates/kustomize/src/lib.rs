//! A folder tree in, objects out. Pure.
pub mod build;
pub mod check;
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
