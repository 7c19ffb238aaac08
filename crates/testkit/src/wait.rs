//! Waiting for a level: a value that is there now, however it came about. Never for an edge, never for a time.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

/// How often a level is looked at.
const TICK_MS: u16 = 20;

/// Asks `level` until it gives a value, and returns that with the time it took. What the level last said, or
/// an error it last had, is in the error when `timeout` passes: `Ok(Err(text))` means "not yet, because".
///
/// # Errors
/// When the time is over, or `level` fails in a way that waiting cannot cure (`Err`).
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut level: impl FnMut() -> Result<Result<T, String>>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        let last = match level().with_context(|| format!("while waiting for {what}"))? {
            Ok(value) => return Ok((value, start.elapsed())),
            Err(because) => because,
        };
        if start.elapsed() >= timeout {
            bail!("{what}: not within {:.1} s: {last}", timeout.as_secs_f64());
        }
        tick();
    }
}

/// [`wait_for`] a condition without a value.
///
/// # Errors
/// When the time is over.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) -> Result<Duration> {
    wait_for(what, timeout, || {
        Ok(if condition() {
            Ok(())
        } else {
            Err("it is not so".to_owned())
        })
    })
    .map(|((), took)| took)
}

/// Lets time pass. Only for tests whose subject is the moment at which something happens.
pub fn pass(time: Duration) {
    let _ = wait_until("time", time, || false);
}

/// Lets one period pass between two looks.
fn tick() {
    // A poll of nothing is a wait that needs no runtime; an interruption only shortens it.
    let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(TICK_MS));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_comes_is_returned_with_its_time() {
        let mut looks = 0;
        let (value, took) = wait_for("three looks", Duration::from_secs(5), || {
            looks += 1;
            Ok(if looks == 3 {
                Ok(looks)
            } else {
                Err(format!("{looks} looks"))
            })
        })
        .unwrap();
        assert_eq!(value, 3);
        assert!(took >= Duration::from_millis(20), "{took:?}");
    }

    #[test]
    fn a_level_that_does_not_come_says_what_it_last_was() {
        let error = wait_for("the moon", Duration::from_millis(1), || {
            Ok(Err::<(), _>("half".to_owned()))
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "the moon: not within 0.0 s: half");
    }
}
