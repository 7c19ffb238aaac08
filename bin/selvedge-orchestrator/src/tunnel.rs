//! Streams.
pub(crate) mod proxy;
pub(crate) mod socket;
