//! What a process uses, from `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// Bytes of memory, now and at its highest.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// The part of it that is the process's own; the rest is pages of files, such as its program.
    pub(crate) own: u64,
    pub(crate) peak: u64,
}

/// The memory of a process.
pub(crate) fn memory(pid: i32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    let read = |name: &str| -> Result<u64> {
        let text = status.lines().find_map(|line| line.strip_prefix(name));
        let text = text.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let text = text.with_context(|| format!("process {pid} has no {name}"))?;
        Ok(text.trim().parse::<u64>()? * 1024)
    };
    Ok(Memory {
        resident: read("VmRSS:")?,
        own: read("RssAnon:")?,
        peak: read("VmHWM:")?,
    })
}

/// Processor time of a process: its own, and of its children that have ended.
pub(crate) fn processor(pid: i32) -> Result<(Duration, Duration)> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    // The name, in parentheses, may contain anything; what follows are plain fields, from the 3rd on.
    let fields = stat.rsplit_once(')').context("/proc/PID/stat has no name")?.1;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [user, system, children_user, children_system] = ticks[..] else {
        anyhow::bail!("/proc/{pid}/stat is too short");
    };
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the kernel has no clock tick")?;
    let per_second = u64::try_from(per_second).context("the clock tick is negative")?;
    let time = |ticks: u64| Duration::from_millis(ticks * 1000 / per_second);
    Ok((time(user + system), time(children_user + children_system)))
}

/// How many processes of the whole machine wanted to run in the last minute, on average.
pub(crate) fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("can't read the load")?;
    let first = text.split_whitespace().next().context("the load is empty")?;
    Ok(first.parse()?)
}

/// Bytes that went over the loopback interface.
pub(crate) fn loopback() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/dev").context("can't read the interfaces")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = line.and_then(|counters| counters.split_whitespace().next());
    Ok(bytes.context("there is no loopback interface")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let me = std::process::id().cast_signed();
        let memory = memory(me).unwrap();
        assert!(memory.resident > 100_000 && memory.peak >= memory.resident);
        processor(me).unwrap();
        assert!(load().unwrap() >= 0.0);
    }
}
