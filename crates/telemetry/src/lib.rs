//! Tracing, the metrics registry, the clock and the error-chain printer.
//!
//! Every process of Selvedge sets these up in `main` and hands them down; nothing here is global but the
//! tracing subscriber, which `tracing` itself makes so.
//!
//! | item | what it is |
//! |---|---|
//! | [`Clock`] | where time comes from; tests set it |
//! | [`Metrics`] | a registry handed down with a prefix |
//! | [`chain`] | an error and its sources on one line |
//! | [`init`] | the tracing subscriber of a process |

mod clock;
mod errors;
mod logs;
mod metrics;

pub use clock::Clock;
pub use errors::{Chain, chain};
pub use logs::{Format, init};
pub use metrics::Metrics;
