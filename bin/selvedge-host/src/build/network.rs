//! The host's configuration and its switches.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use apiserver::Client;
use hostconfig::{GitServers, HostConfig};
use kinds::{
    gvr,
    network::{PortGroups, PortRequest},
};
use reconcile::{Driver, Options, Queue, Wake, queue, section::Section};
use serde_json::{Value, json};
use telemetry::{Clock, Metrics, chain};
use tokio::{sync::watch, task::JoinSet, time::sleep};
use vswitch::VSwitch;

use super::Parts;

/// The host is compared with its profile at least this often; events are seen at once.
const PERIOD: Duration = Duration::from_secs(60);

/// How long to wait before asking again for the base layer.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Connects to the switch and starts the reconciler of the host's configuration. The switch need not be up
/// yet: the API does not wait for it.
pub(super) async fn start(
    parts: &Parts,
    tasks: &mut JoinSet<()>,
    ports: watch::Receiver<Arc<Vec<PortRequest>>>,
    groups: watch::Sender<Arc<PortGroups>>,
) -> anyhow::Result<Arc<VSwitch>> {
    let (network, paths) = (&parts.config.network, &parts.config.paths);
    let config = vswitch::Config {
        db_socket: network.ovs_db.clone(),
        datapath_type: network.datapath.clone(),
        ..vswitch::Config::new(
            &network.ovs_rundir,
            &paths.state,
            &paths.run,
            &parts.config.host.name,
        )
    };
    let (signal, queue) = queue();
    let metrics = parts.metrics.prefixed("vswitch");
    let switch = VSwitch::start(config, &metrics, ports, groups, signal)
        .await
        .context("can't watch the network")?;
    let switch = Arc::new(switch);
    let client = Client::new(parts.api.clone(), "hostconfig");
    let driver = Prepared {
        switch: switch.clone(),
        manage_nics: network.manage_nics,
        state: paths.state.clone(),
        client,
        queue,
        metrics: parts.metrics.clone(),
        clock: parts.clock.clone(),
    };
    let stop = parts.stop.clone();
    tasks.spawn(async move {
        let waiting = stop.clone();
        let Some(driver) = waiting.run_until_cancelled(driver.ready()).await else {
            return;
        };
        driver.run(stop.cancelled_owned()).await;
    });
    Ok(switch)
}

/// What the reconciler needs beside the base layer.
struct Prepared {
    switch: Arc<VSwitch>,
    manage_nics: bool,
    state: PathBuf,
    client: Client,
    queue: Queue,
    metrics: Metrics,
    clock: Clock,
}

impl Prepared {
    /// Waits for the switch, reads what the host is like, and gives the driver.
    async fn ready(self) -> Driver {
        self.switch.ready().await;
        let base = if self.manage_nics {
            self.base().await
        } else {
            json!({"esx": {}})
        };
        let sections: Vec<Arc<dyn Section>> = vec![self.switch];
        let reachable = Arc::new(GitServers::new(self.client.clone()));
        let reconciler =
            HostConfig::new(self.client.clone(), sections, base, self.state).with_connectivity(reachable);
        let options = Options {
            period: PERIOD,
            workers: 1,
            ..Options::default()
        };
        Driver::new(
            Arc::new(reconciler),
            self.queue,
            options,
            &self.metrics,
            self.clock,
        )
        .watches(&self.client, gvr::host_configurations(), |_| {
            Wake::Keys(vec![HostConfig::key()])
        })
    }

    async fn base(&self) -> Value {
        loop {
            match self.switch.base_profile().await {
                Ok(base) => return base,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "can't read the host's network; asking again");
                }
            }
            sleep(ASK_AGAIN).await;
        }
    }
}
