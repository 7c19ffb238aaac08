//! What all answers have in common.
pub(crate) mod body;
pub(crate) mod conditional;
pub(crate) mod headers;
pub(crate) mod page;
pub(crate) mod problem;
