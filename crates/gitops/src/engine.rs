//! The parts put together: two reconcilers, their drivers, and the guard.

use std::{future::Future, sync::Arc};

use apiserver::{Api, Client, Status};
use reconcile::{Driver, Signal};
use telemetry::{Clock, Metrics};
use tokio::sync::watch;

use crate::{Artifacts, BootstrapSource, Config, GitRepositories, Kustomizations, MANAGER, bootstrap};

/// GitOps of a host, ready to run.
pub struct Engine {
    sources: Driver,
    kustomizations: Driver,
    guard: Arc<Kustomizations>,
    source: Signal,
    client: Client,
}

impl Engine {
    /// Puts the parts together; nothing runs yet.
    #[must_use]
    pub fn new(api: &Api, config: Config, metrics: &Metrics, clock: Clock) -> Self {
        let artifacts = Artifacts::new(&config);
        let (source, source_queue) = reconcile::queue();
        let (signal, queue) = reconcile::queue();
        let repositories = Arc::new(GitRepositories::new(
            Client::new(api.clone(), "source-controller"),
            config.clone(),
            artifacts.clone(),
            clock.clone(),
            signal.clone(),
        ));
        let client = Client::new(api.clone(), MANAGER);
        let kustomizations = Arc::new(Kustomizations::new(client, config, artifacts, clock, signal));
        Self {
            sources: repositories.driver(source_queue, metrics),
            kustomizations: kustomizations.clone().driver(queue, metrics),
            guard: kustomizations,
            source,
            client: Client::new(api.clone(), "selvedge-bootstrap"),
        }
    }

    /// Makes the host look at its repositories at once: `all()` for a webhook, `key()` for one of them.
    #[must_use]
    pub fn source_signal(&self) -> Signal {
        self.source.clone()
    }

    /// Makes the host's own source from `host.toml`; see [`bootstrap()`].
    ///
    /// # Errors
    /// What the API refused.
    pub async fn bootstrap(&self, source: &BootstrapSource) -> Result<(), Status> {
        bootstrap(&self.client, source).await.map(drop)
    }

    /// Runs until `shutdown` is ready, then lets the runs under way end.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let (stop, stopped) = watch::channel(false);
        let until = |mut stopped: watch::Receiver<bool>| async move {
            // An error means that the sender is gone, which is the same.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let guard = async {
            tokio::select! {
                () = self.guard.guard() => {}
                () = until(stopped.clone()) => {}
            }
        };
        let stopper = async {
            shutdown.await;
            stop.send_replace(true);
        };
        tokio::join!(
            stopper,
            guard,
            self.sources.run(until(stopped.clone())),
            self.kustomizations.run(until(stopped.clone())),
        );
    }
}
