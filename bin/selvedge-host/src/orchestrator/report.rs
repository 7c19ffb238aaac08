//! Keeps the host's status for the orchestrator: a reconciler that reads everything when something changed, and makes
//! the sections of it. The status book knows which of them are new to the orchestrator.
//!
//! | module | sections |
//! |---|---|
//! | `objects` | `source`, `health`, `compliance`, `objects`, `vm/*`: from the API's objects |
//! | `network` | `nic/*`, `vswitch/*`: from the kernel, the switch and the host's configuration |
//! | `machine` | `inventory`, `versions`, `usage`: from firmware, sysfs, proc, programs |
//! | `quarantine` | which commits were taken back |

pub(super) mod machine;
mod network;
mod objects;
mod quarantine;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use apiserver::Client;
use async_trait::async_trait;
use identity::credentials::Credentials;
use kinds::{
    gvr,
    network::{PortGroups, PortRequest},
    object::{Gvr, Object},
};
use link::{message::Sections, status::StatusBook};
use reconcile::{Driver, Key, Options, Outcome, Queue, Reconciler, Wake};
use serde_json::{Value, json};
use telemetry::{Clock, Metrics, chain};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep_until},
};
use vswitch::{VSwitch, observe::Watcher};

use self::{
    machine::{Counters, Machine},
    network::Network,
    objects::Objects,
    quarantine::Quarantine,
};
use super::assignment::Assignments;

/// Changes that come closer together than this are told together.
const COALESCE: Duration = Duration::from_secs(1);

/// How often what sends no events is looked at.
const PERIOD: Duration = Duration::from_secs(300);

/// What the status is made from.
pub(super) struct Sources {
    pub(super) client: Client,
    pub(super) assignments: Arc<Assignments>,
    pub(super) switch: Arc<VSwitch>,
    pub(super) groups: watch::Receiver<Arc<PortGroups>>,
    pub(super) ports: watch::Receiver<Arc<Vec<PortRequest>>>,
    pub(super) machine: Machine,
    /// Serial number and UUID as the host says them.
    pub(super) serial: String,
    pub(super) uuid: String,
    pub(super) state: PathBuf,
    /// The host's key, as it is used with a certificate.
    pub(super) credentials: watch::Receiver<Option<Credentials>>,
    /// How often usage is told.
    pub(super) usage: Duration,
    pub(super) clock: Clock,
}

/// The reconciler.
pub(super) struct Reporter {
    sources: Sources,
    book: StatusBook,
    kept: Mutex<Kept>,
}

/// What is kept between runs.
struct Kept {
    last: Option<Instant>,
    /// The sections there were then.
    names: BTreeSet<String>,
    /// When usage was told last, with what was counted then.
    counted: Option<(Instant, Counters)>,
    usage: Option<Value>,
    /// Programs are asked for their versions once.
    versions: Option<Value>,
    quarantine: Quarantine,
}

impl Reporter {
    /// A reporter that writes into a book, and releases it when the first whole picture is in.
    pub(super) fn new(sources: Sources, book: StatusBook) -> Self {
        let kept = Kept {
            last: None,
            names: BTreeSet::new(),
            counted: None,
            usage: None,
            versions: None,
            quarantine: Quarantine::open(&sources.state),
        };
        Self {
            book,
            kept: Mutex::new(kept),
            sources,
        }
    }

    /// A driver for it.
    pub(super) fn driver(self: Arc<Self>, queue: Queue, metrics: &Metrics) -> Driver {
        let options = Options {
            period: PERIOD.min(self.sources.usage),
            workers: 1,
            ..Options::default()
        };
        let (client, clock) = (self.sources.client.clone(), self.sources.clock.clone());
        let mut driver = Driver::new(self, queue, options, metrics, clock);
        for gvr in watched() {
            driver = driver.watches(&client, gvr, |_| Wake::Keys(vec![key()]));
        }
        driver
    }

    /// Wakes the reporter when a link, a port, a port group or the host's certificate changes. Never returns.
    pub(super) async fn watch_host(&self, signal: reconcile::Signal) {
        let (mut groups, mut ports) = (self.sources.groups.clone(), self.sources.ports.clone());
        let mut credentials = self.sources.credentials.clone();
        let mut links = match Watcher::new() {
            Ok((_, links)) => Some(links),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "changes of links are seen late");
                None
            }
        };
        loop {
            let link = async {
                match &mut links {
                    Some(links) => links.changed().await,
                    None => std::future::pending().await,
                }
            };
            let goes_on = tokio::select! {
                () = link => true,
                changed = groups.changed() => changed.is_ok(),
                changed = ports.changed() => changed.is_ok(),
                changed = credentials.changed() => changed.is_ok(),
            };
            if !goes_on {
                std::future::pending::<()>().await;
            }
            signal.key(key());
        }
    }

    async fn list(&self, gvr: &Gvr) -> Vec<Object> {
        match self.sources.client.list(gvr, None).await {
            Ok(list) => list.items,
            Err(status) => {
                tracing::warn!(resource = %gvr, error = %status, "can't list for the status");
                Vec::new()
            }
        }
    }

    async fn look(&self, kept: &mut Kept) -> Sections {
        let sources = &self.sources;
        let objects = Objects {
            repositories: self.list(&gvr::git_repositories()).await,
            kustomizations: self.list(&gvr::kustomizations()).await,
            layers: self.list(&gvr::host_configurations()).await,
            machines: self.list(&gvr::virtual_machines()).await,
            classes: self.list(&gvr::virtual_machine_classes()).await,
        };
        let mut values = Sections::new();
        let quarantined = kept.quarantine.look(&objects.layers, &objects.attempted());
        let origin = json!(sources.assignments.origin().await);
        if let Some(source) = objects.source(origin, quarantined) {
            values.insert("source".into(), source);
        }
        values.insert("health".into(), objects.health());
        values.insert("compliance".into(), objects.compliance());
        values.insert("objects".into(), objects.counts());
        values.extend(objects.machines());

        let (nics, neighbours) = self.network().await;
        let (groups, ports) = (sources.groups.borrow().clone(), sources.ports.borrow().clone());
        let network = Network {
            nics: &nics,
            neighbours: &neighbours,
            groups: &groups,
            ports: &ports,
            layers: &objects.layers,
        };
        values.extend(network.sections());

        let in_tpm = sources
            .credentials
            .borrow()
            .as_ref()
            .is_some_and(|c| c.key().in_tpm());
        values.insert(
            "inventory".into(),
            sources.machine.inventory(&sources.serial, &sources.uuid, in_tpm),
        );
        if kept.versions.is_none() {
            kept.versions = Some(sources.machine.versions().await);
        }
        if let Some(versions) = &kept.versions {
            values.insert("versions".into(), versions.clone());
        }
        self.count(kept);
        if let Some(usage) = &kept.usage {
            values.insert("usage".into(), usage.clone());
        }
        values
    }

    async fn network(&self) -> (Vec<vswitch::observe::Nic>, Vec<vswitch::observe::Neighbour>) {
        let switch = &self.sources.switch;
        let nics = switch.nics().await.unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "can't read the NICs for the status");
            Vec::new()
        });
        let neighbours = switch.neighbours().await.unwrap_or_else(|error| {
            tracing::debug!(error = %chain(&error), "can't read the neighbours for the status");
            Vec::new()
        });
        (nics, neighbours)
    }

    /// Makes usage anew when it is time.
    fn count(&self, kept: &mut Kept) {
        let sources = &self.sources;
        let now = Instant::now();
        let counters = sources.machine.counters();
        match &kept.counted {
            // A little early is on time: the period's own runs come about then.
            Some((at, _)) if now.duration_since(*at) + COALESCE < sources.usage => return,
            Some((at, before)) => {
                let time = sources.clock.now_rfc3339();
                let mut usage = sources.machine.usage(before, &counters, &sources.state, &time);
                usage["seconds"] = now.duration_since(*at).as_secs().max(1).into();
                kept.usage = Some(usage);
            }
            None => {}
        }
        kept.counted = Some((now, counters));
    }
}

fn key() -> Key {
    Key::new("", "host")
}

fn watched() -> [Gvr; 4] {
    [
        gvr::git_repositories(),
        gvr::kustomizations(),
        gvr::host_configurations(),
        gvr::virtual_machines(),
    ]
}

#[async_trait]
impl Reconciler for Reporter {
    fn name(&self) -> &'static str {
        "status"
    }

    async fn keys(&self) -> Vec<Key> {
        vec![key()]
    }

    async fn reconcile(&self, _: &Key) -> Outcome {
        let mut kept = self.kept.lock().await;
        if let Some(last) = kept.last {
            sleep_until(last + COALESCE).await;
        }
        kept.last = Some(Instant::now());
        let sections = self.look(&mut kept).await;
        let names: BTreeSet<String> = sections.keys().cloned().collect();
        for gone in kept.names.difference(&names) {
            self.book.remove(gone);
        }
        for (name, value) in sections {
            self.book.set(&name, value);
        }
        kept.names = names;
        self.book.release();
        Outcome::Done
    }
}
