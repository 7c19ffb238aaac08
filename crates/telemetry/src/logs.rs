//! The tracing subscriber of a process.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, fmt,
    fmt::{MakeWriter, writer::MakeWriterExt},
};

use crate::LogRing;

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
    install(format, filter, std::io::stderr);
}

/// The same, and keeps the last lines in `ring`.
pub fn init_kept(format: Format, filter: &str, ring: &LogRing) {
    install(format, filter, std::io::stderr.and(ring.clone()));
}

fn install<W>(format: Format, filter: &str, writer: W)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_env("SELVEDGE_LOG").unwrap_or_else(|_| EnvFilter::new(filter));
    let builder = fmt().with_env_filter(filter).with_writer(writer);
    let _ = match format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().try_init(),
    };
}
