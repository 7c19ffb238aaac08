//! JSON, merge and strategic patches, and server-side apply with managedFields. Pure.

pub mod apply;
mod error;
pub mod json;
pub mod managed;
mod schema;
pub mod strategic;
mod typed;

pub use error::Error;
