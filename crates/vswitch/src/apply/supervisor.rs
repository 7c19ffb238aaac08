//! Keeps helper programs running.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::Command,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::plan::helpers::Helper;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The programs that run. They end with it.
#[derive(Default)]
pub struct Supervisor {
    running: BTreeMap<String, (Helper, Task)>,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        // The task owns the child, which is killed when it is dropped.
        self.0.abort();
    }
}

impl Supervisor {
    /// Ends what is not wanted or is to be another, and starts what does not run.
    ///
    /// # Errors
    /// A file can't be written; what needs it does not run.
    pub fn keep(&mut self, wanted: BTreeMap<String, Helper>) -> io::Result<()> {
        self.running
            .retain(|name, (helper, _)| wanted.get(name) == Some(helper));
        for (name, helper) in wanted {
            if self.running.contains_key(&name) {
                continue;
            }
            for (path, content) in &helper.files {
                if let Some(dir) = path.parent() {
                    fs::create_dir_all(dir)?;
                }
                fs::write(path, content)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
            }
            let mark = helper.files.first().map(|(file, _)| file.with_extension("pid"));
            let task = Task(tokio::spawn(keep_running(
                name.clone(),
                helper.command.clone(),
                mark,
            )));
            self.running.insert(name, (helper, task));
        }
        Ok(())
    }
}

/// Runs a program again and again. `mark` is the file that remembers the process, for one that outlives us: a
/// program that changes its user, as lldpd does, loses the signal that it would get at our end.
async fn keep_running(name: String, command: Vec<String>, mark: Option<PathBuf>) {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(mark) = &mark {
            end_left_over(mark);
        }
        let started = Instant::now();
        // It must not outlive us: two of them would fight.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .args(&command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let status = match child {
            Ok(mut child) => {
                if let (Some(mark), Some((pid, start))) = (&mark, child.id().and_then(identity)) {
                    // Without it, one that is left over would be in the way, as would any other.
                    let _ = fs::write(mark, format!("{pid} {start}"));
                }
                child.wait().await
            }
            Err(error) => Err(error),
        };
        tracing::warn!(name, ?status, "a helper ended and is started again");
        if started.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A process and when it began: together they are never the same for two.
fn identity(pid: u32) -> Option<(u32, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may have anything in it; what is after its end has not.
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some((pid, start.to_owned()))
}

/// Ends the process that an earlier daemon remembered, if it still runs.
fn end_left_over(mark: &Path) {
    let Ok(text) = fs::read_to_string(mark) else {
        return;
    };
    let known = text.split_once(' ').and_then(|(pid, start)| {
        let pid = pid.parse::<u32>().ok()?;
        (identity(pid)?.1 == start).then_some(pid)
    });
    if let Some(pid) = known.and_then(|pid| i32::try_from(pid).ok()) {
        // Gone meanwhile is fine too.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = fs::remove_file(mark);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_an_earlier_daemon_left_is_ended_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("helper.pid");
        let spawn = || {
            Command::new("sleep")
                .arg("1000")
                .kill_on_drop(true)
                .spawn()
                .unwrap()
        };
        let mut left = spawn();
        let (pid, start) = identity(left.id().unwrap()).unwrap();
        // A number that another process has by now.
        fs::write(&mark, format!("{pid} 1{start}")).unwrap();
        end_left_over(&mark);
        assert!(!mark.exists() && left.try_wait().unwrap().is_none());
        fs::write(&mark, format!("{pid} {start}")).unwrap();
        end_left_over(&mark);
        assert!(!left.wait().await.unwrap().success());
        for nonsense in ["", "x y", "0 0", "-1 5", "99999999999999 1"] {
            fs::write(&mark, nonsense).unwrap();
            end_left_over(&mark);
        }
    }
}
