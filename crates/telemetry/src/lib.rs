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
//! | [`init`], [`init_kept`] | the tracing subscriber of a process |
//! | [`LogRing`] | the last lines of the log, in memory |

mod clock;
mod errors;
mod logs;
mod metrics;
mod ring;

pub use clock::Clock;
pub use errors::{Chain, chain};
pub use logs::{Format, init, init_kept};
pub use metrics::Metrics;
pub use ring::{LogLine, LogRing, LogTail};
