//! The last lines of a process's own log, in memory, for those who ask the process and not its journal.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;
use tracing_subscriber::fmt::MakeWriter;

/// The last lines of the log, within a bound of bytes. Cheap to clone; clones share the lines.
#[derive(Clone, Debug)]
pub struct LogRing(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes: usize,
    lines: Mutex<Lines>,
    /// The number of the line that comes next.
    next: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<Arc<str>>,
    bytes: usize,
    next: u64,
}

impl LogRing {
    /// An empty ring that keeps about so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Shared {
            bytes,
            lines: Mutex::default(),
            next: watch::channel(0).0,
        }))
    }

    /// Adds a line.
    pub fn push(&self, line: &str) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.bytes += line.len();
        lines.kept.push_back(line.into());
        lines.next += 1;
        while lines.bytes > self.0.bytes && lines.kept.len() > 1 {
            let gone = lines.kept.pop_front().map_or(0, |line| line.len());
            lines.bytes -= gone;
        }
        let next = lines.next;
        drop(lines);
        self.0.next.send_replace(next);
    }

    /// A reader that begins with the last so many lines.
    #[must_use]
    pub fn tail(&self, count: usize) -> LogTail {
        let lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let count = count.min(lines.kept.len()) as u64;
        LogTail {
            at: lines.next - count,
            changed: self.0.next.subscribe(),
            ring: self.clone(),
        }
    }
}

/// Reads a [`LogRing`].
#[derive(Debug)]
pub struct LogTail {
    ring: LogRing,
    at: u64,
    changed: watch::Receiver<u64>,
}

impl LogTail {
    /// The lines since the last call that are still kept; empty if there are none.
    pub fn read(&mut self) -> Vec<Arc<str>> {
        let lines = self.ring.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let first = lines.next - lines.kept.len() as u64;
        let skip = usize::try_from(self.at.saturating_sub(first)).unwrap_or(usize::MAX);
        self.at = lines.next;
        lines.kept.iter().skip(skip).cloned().collect()
    }

    /// Waits until there is a line that was not read.
    pub async fn changed(&mut self) {
        let at = self.at;
        if self.changed.wait_for(|next| *next > at).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One line: the subscriber writes each event whole.
#[derive(Debug)]
pub struct LogLine(LogRing);

impl io::Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.push(text.trim_end_matches('\n'));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for LogRing {
    type Writer = LogLine;

    fn make_writer(&'w self) -> LogLine {
        LogLine(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_kept_and_followed() {
        let ring = LogRing::new(10);
        for line in ["aaaa", "bbbb", "cccc"] {
            ring.push(line);
        }
        let mut tail = ring.tail(5);
        let text = |lines: Vec<Arc<str>>| lines.join(",");
        assert_eq!(text(tail.read()), "bbbb,cccc");
        assert!(tail.read().is_empty());
        ring.push("d");
        tail.changed().await;
        assert_eq!(text(tail.read()), "d");
        assert_eq!(text(ring.tail(1).read()), "d");
        // A reader that is too slow misses what is gone.
        for line in ["eeeeeeee", "ffffffff"] {
            ring.push(line);
        }
        assert_eq!(text(tail.read()), "ffffffff");
    }
}
