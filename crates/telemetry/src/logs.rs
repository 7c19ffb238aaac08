//! The tracing subscriber of a process.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

/// How log lines are written to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line of text; colour only on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the subscriber. `SELVEDGE_LOG` overrides `filter` (the syntax of `tracing`'s `EnvFilter`).
/// A second call changes nothing.
pub fn init(format: Format, filter: &str) {
    let filter = EnvFilter::try_from_env("SELVEDGE_LOG").unwrap_or_else(|_| EnvFilter::new(filter));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().try_init(),
    };
}
