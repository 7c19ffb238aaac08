//! A folder tree in, objects out. Pure.
pub mod manifest;
pub mod position;
mod scalar;
mod yaml;

pub use manifest::{Limits, Located, ParseError, parse_manifests};
pub use position::{TextStart, block_scalar_start, position_of};
