//! Keeps helper programs running.

use std::{collections::BTreeMap, fs, io, os::unix::fs::PermissionsExt, process::Stdio, time::Duration};

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
            let task = Task(tokio::spawn(keep_running(name.clone(), helper.command.clone())));
            self.running.insert(name, (helper, task));
        }
        Ok(())
    }
}

async fn keep_running(name: String, command: Vec<String>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        // It must not outlive us: two of them would fight.
        let status = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .args(&command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await;
        tracing::warn!(name, ?status, "a helper ended and is started again");
        if started.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
