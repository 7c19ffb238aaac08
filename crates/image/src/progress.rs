//! How far an image is.

use std::fmt;

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Asking the server.
    #[default]
    Connecting,
    /// Bytes are coming in.
    Downloading,
    /// Checksums are being computed.
    Verifying,
    /// A disk is being unpacked or converted.
    Converting,
}

/// How far an image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes done of this phase.
    pub done: u64,
    /// Bytes of this phase, if known.
    pub total: Option<u64>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.phase {
            Phase::Connecting => return f.write_str("connecting"),
            Phase::Downloading => "downloading",
            Phase::Verifying => "verifying checksums",
            Phase::Converting => "converting",
        };
        match self.total.filter(|&total| total > 0) {
            Some(total) => {
                let percent = u128::from(self.done.min(total)) * 100 / u128::from(total);
                write!(f, "{word}: {percent} % of {} MiB", total >> 20)
            }
            None => write!(f, "{word}: {} MiB", self.done >> 20),
        }
    }
}

/// Where progress is told. Cheap to call: it is called for every piece.
pub(crate) type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);
