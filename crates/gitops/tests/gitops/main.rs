//! GitOps on a real API with a store in memory and real repositories.

mod apply;
mod common;
mod http;
mod source;
mod speed;
