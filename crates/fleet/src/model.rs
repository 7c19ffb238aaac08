//! What the API shows: one type for each thing, as JSON has it.
//!
//! Names are camelCase, times RFC 3339 in UTC, ids UUIDs of version 7. Types here carry no secret but in the one
//! answer that makes it (`secret` of a [`Token`], `key` of an [`ActivationKey`]).

mod fleet;
mod people;
mod specs;
mod steering;
mod time;

pub use fleet::*;
pub use people::*;
pub use specs::*;
pub use steering::*;
pub use time::Time;
