//! Printing an error with its sources, once each.

use std::{error::Error, fmt};

/// Shows an error and its sources on one line, joined by `: `. Our errors never repeat their source in their
/// own text, so this is the only place that joins them.
pub struct Chain<'a>(&'a (dyn Error + 'static));

/// An error with its sources on one line.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> Chain<'a> {
    Chain(error)
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
