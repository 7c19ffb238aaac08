//! The task that sees reality change and puts it right.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::Inner;
use crate::observe::Watcher;

/// Runs until aborted.
pub(super) async fn run(inner: Arc<Inner>, mut events: Watcher) {
    let mut snapshots = inner.snapshots.clone();
    let mut connection = inner.client.state();
    let mut ports = inner.ports.clone();
    let mut wake = inner.wake.subscribe();
    let (sender, mut restarts) = mpsc::channel(1);
    let daemon = tokio::spawn(follow_daemon(inner.config.ovs_rundir.clone(), sender));
    let _stop = AbortOnDrop(daemon);
    let never = Duration::from_secs(3600);
    loop {
        let until = wake.borrow_and_update().unwrap_or_else(|| Instant::now() + never);
        let mut restarted = false;
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            changed = connection.changed() => if changed.is_err() { return },
            () = events.changed() => {}
            changed = ports.changed() => match changed {
                Ok(()) => inner.state.lock().await.requests_known = true,
                // Nobody will ask for ports any more; those that are there stay.
                Err(_) => std::future::pending().await,
            },
            () = sleep_until(until) => {}
            changed = wake.changed() => if changed.is_ok() { continue } else { return },
            Some(()) = restarts.recv() => restarted = true,
        }
        let mut state = inner.state.lock().await;
        if restarted {
            // A new vswitchd has no flows.
            state.installed.clear();
        }
        let told = state.untold.len();
        let problems = inner.pass(&mut state).await;
        if state.untold.len() > told || !problems.is_empty() {
            inner.tell();
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Holds a connection to vswitchd's control socket: its end is the daemon's end. Says so when a daemon is there
/// that was not there before.
async fn follow_daemon(rundir: PathBuf, restarts: mpsc::Sender<()>) {
    loop {
        if let Some(mut stream) = connect(&rundir).await {
            if restarts.send(()).await.is_err() {
                return;
            }
            let mut byte = [0];
            // Nothing is ever said on it.
            while matches!(stream.read(&mut byte).await, Ok(1)) {}
            tracing::warn!(rundir = %rundir.display(), "ovs-vswitchd ended");
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn connect(rundir: &std::path::Path) -> Option<UnixStream> {
    let pid = tokio::fs::read_to_string(rundir.join("ovs-vswitchd.pid"))
        .await
        .ok()?;
    UnixStream::connect(rundir.join(format!("ovs-vswitchd.{}.ctl", pid.trim())))
        .await
        .ok()
}
