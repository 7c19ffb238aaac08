//! The task that sees reality change and puts it right.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reconcile::section::Applied;
use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{Inner, State};
use crate::{apply::OpenFlow, observe::Watcher, plan::flows::file};

/// How long to wait before looking again for a daemon or a bridge that went away.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs until aborted.
pub(super) async fn run(inner: Arc<Inner>, mut events: Watcher) {
    let mut snapshots = inner.snapshots.clone();
    let mut connection = inner.client.state();
    let mut ports = inner.ports.clone();
    let mut wake = inner.wake.subscribe();
    let (sender, mut restarts) = mpsc::channel(1);
    let _daemon = Task(tokio::spawn(follow_daemon(
        inner.config.ovs_rundir.clone(),
        sender,
    )));
    // One waiting word for each bridge is enough; a full queue is looked at soon.
    let (flow_sender, mut flow_events) = mpsc::channel(64);
    let mut followed: BTreeMap<String, Task> = BTreeMap::new();
    let never = Duration::from_secs(3600);
    loop {
        let until = wake.borrow_and_update().unwrap_or_else(|| Instant::now() + never);
        let mut cause = Cause::Reality;
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
            Some(()) = restarts.recv() => cause = Cause::NewDaemon,
            Some(bridge) = flow_events.recv() => cause = Cause::Flows([bridge].into()),
        }
        let mut state = inner.state.lock().await;
        match cause {
            Cause::Reality => {}
            Cause::NewDaemon => state.installed.clear(),
            Cause::Flows(mut bridges) => {
                // One change of ours is many events.
                while let Ok(bridge) = flow_events.try_recv() {
                    bridges.insert(bridge);
                }
                let mut lost = false;
                for bridge in bridges {
                    lost |= inner.flows_are_lost(&mut state, &bridge).await;
                }
                if !lost {
                    continue;
                }
            }
        }
        let told = state.untold.len();
        let problems = inner.pass(&mut state).await;
        if state.untold.len() > told || !problems.is_empty() {
            inner.tell();
        }
        followed.retain(|bridge, _| state.installed.contains_key(bridge));
        for bridge in state.installed.keys() {
            let follow = || follow_flows(inner.openflow.clone(), bridge.clone(), flow_sender.clone());
            followed
                .entry(bridge.clone())
                .or_insert_with(|| Task(tokio::spawn(follow())));
        }
    }
}

enum Cause {
    Reality,
    /// A new vswitchd has no flows.
    NewDaemon,
    /// The flows of these bridges changed, by us or by others.
    Flows(BTreeSet<String>),
}

impl Inner {
    /// Whether a bridge has other flows than we gave it. Then they are to be given again.
    async fn flows_are_lost(&self, state: &mut State, bridge: &str) -> bool {
        let Some(installed) = state.installed.get(bridge) else {
            return false;
        };
        if !matches!(
            self.openflow.differs(bridge, &file(&installed.flows)).await,
            Ok(true)
        ) {
            return false;
        }
        // The lanes stay: what carries a port does not change because somebody deleted flows.
        if let Some(installed) = state.installed.get_mut(bridge) {
            installed.lost = true;
        }
        let message = format!("put back the flows of bridge {bridge}: somebody changed them");
        state.untold.push(Applied { message, drift: true });
        self.tell();
        true
    }
}

struct Task(JoinHandle<()>);

impl Drop for Task {
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
        sleep(PAUSE).await;
    }
}

async fn connect(rundir: &Path) -> Option<UnixStream> {
    let pid = tokio::fs::read_to_string(rundir.join("ovs-vswitchd.pid"))
        .await
        .ok()?;
    UnixStream::connect(rundir.join(format!("ovs-vswitchd.{}.ctl", pid.trim())))
        .await
        .ok()
}

/// Says so when the flows of a bridge change.
async fn follow_flows(openflow: OpenFlow, bridge: String, changes: mpsc::Sender<String>) {
    loop {
        match openflow.monitor(&bridge) {
            Ok(mut events) => {
                while events.changed().await {
                    // A full queue is being worked on; what comes later in it covers this change.
                    if let Err(mpsc::error::TrySendError::Closed(_)) = changes.try_send(bridge.clone()) {
                        return;
                    }
                }
            }
            Err(error) => tracing::debug!(bridge, error = %telemetry::chain(&error), "flows are not watched"),
        }
        sleep(PAUSE).await;
    }
}
