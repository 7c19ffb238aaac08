//! What comes from the site's folder: the pull from Git, and the virtual machines.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use apiserver::Client;
use gitops::{Artifacts, BootstrapSource, GitRepositories, Kustomizations};
use image::{Cache, HttpOptions, Library, Limits};
use kinds::{
    flux::GitRef,
    network::{PortGroups, PortRequest},
};
use reconcile::{Signal, queue};
use telemetry::chain;
use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::interval,
};
use vm::{Vms, accelerator::Choice, qemu::Installation};

use super::Parts;
use crate::{
    config::{Config, Source},
    orchestrator::assignment::Assignments,
    webhook,
};

/// Starts the reconciler of the virtual machines.
pub(super) fn machines(
    parts: &Parts,
    tasks: &mut JoinSet<()>,
    ports: watch::Sender<Arc<Vec<PortRequest>>>,
    groups: watch::Receiver<Arc<PortGroups>>,
) -> anyhow::Result<()> {
    let Config { paths, host, .. } = &parts.config;
    let accelerator = Choice::of(&parts.config.vm.accelerator);
    let installation = Installation {
        offload: parts.config.network.datapath != "netdev",
        ..Installation::default()
    };
    let config = vm::Config {
        accelerator,
        installation,
        ..vm::Config::new(&paths.state, &paths.run, &host.name)
    };
    let (signal, queue) = queue();
    let client = Client::new(parts.api.clone(), "vm");
    let images = Arc::new(cache(parts)?);
    let keep = parts.config.images.keep_gib.saturating_mul(1 << 30);
    let tidy = tidy_images(images.clone(), paths.state.clone(), keep);
    let stop = parts.stop.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(tidy).await;
    });
    let machines = Vms::new(
        config,
        client.clone(),
        images,
        groups,
        ports,
        parts.clock.clone(),
        signal,
    );
    let driver = machines.driver(queue, &client, &parts.metrics);
    tasks.spawn(driver.run(parts.stop.clone().cancelled_owned()));
    Ok(())
}

/// How often images that no disk rests on are looked at.
const TIDY: Duration = Duration::from_secs(3600);

/// Keeps the cache within bounds, for ever. Images in use are never removed.
async fn tidy_images(images: Arc<Cache>, state: PathBuf, keep: u64) {
    let mut ticks = interval(TIDY);
    // The first tick is at once, when machines may still be about to take their images.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (images, state) = (images.clone(), state.clone());
        let removed = spawn_blocking(move || images.evict(&vm::images_in_use(&state), keep)).await;
        match removed {
            Ok(Ok(removed)) => {
                for image in removed {
                    tracing::info!(image = image.image, "removed an image that is not used");
                }
            }
            Ok(Err(error)) => tracing::warn!(error = %chain(&error), "can't tidy the image cache"),
            Err(error) => tracing::error!(%error, "tidying the image cache broke off"),
        }
    }
}

fn cache(parts: &Parts) -> anyhow::Result<Cache> {
    let images = &parts.config.images;
    let libraries: Result<Vec<Library>, _> =
        images.libraries.iter().map(|text| Library::parse(text)).collect();
    let http = HttpOptions {
        ca_file: images.ca_file.clone(),
        ..HttpOptions::default()
    };
    Cache::new(
        parts.config.paths.state.join("images"),
        libraries.context("images.libraries")?,
        http,
        Limits::default(),
        parts.clock.clone(),
    )
    .context("can't open the image cache")
}

/// What others need of the reconcilers of Git.
pub(super) struct Git {
    /// Wakes the reconciler of GitRepositories.
    pub(super) fetch: Signal,
    /// Wakes the reconciler of Kustomizations.
    pub(super) kustomize: Signal,
    /// The host's own source.
    pub(super) assignments: Arc<Assignments>,
}

/// Makes the host's own source and starts the reconcilers of Git, and the webhook.
pub(super) async fn git(parts: &Parts, tasks: &mut JoinSet<()>) -> anyhow::Result<Git> {
    let paths = &parts.config.paths;
    let client = Client::new(parts.api.clone(), gitops::MANAGER);
    let proxies = parts.config.orchestrator.iter().filter_map(|orchestrator| {
        // It is also where the repositories are that it hosts.
        let url = format!("{}/", orchestrator.url.trim_end_matches('/'));
        let proxy = orchestrator.proxy.as_deref()?;
        let proxy = proxy.strip_prefix("http://").unwrap_or(proxy);
        Some((url, format!("http://{proxy}")))
    });
    let config = gitops::Config {
        proxies: proxies.collect(),
        ..gitops::Config::new(&paths.state, &paths.run)
    };
    let artifacts = Artifacts::new(&config);
    let (kustomize, kustomize_queue) = queue();
    let (fetch, fetch_queue) = queue();
    let clock = parts.clock.clone();
    let repositories = Arc::new(GitRepositories::new(
        client.clone(),
        config.clone(),
        artifacts.clone(),
        clock.clone(),
        kustomize.clone(),
    ));
    let kustomizations = Arc::new(Kustomizations::new(
        client.clone(),
        config,
        artifacts,
        clock,
        kustomize.clone(),
    ));
    let own = parts.config.source.as_ref().map(bootstrap_source).transpose()?;
    let linked = parts.config.orchestrator.is_some();
    let assignments = Assignments::open(&paths.state, client, kustomize.clone(), own, linked);
    assignments.enforce().await?;
    tasks.spawn(
        repositories
            .driver(fetch_queue, &parts.metrics)
            .run(parts.stop.clone().cancelled_owned()),
    );
    let guard = kustomizations.clone();
    let stop = parts.stop.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(guard.guard()).await;
    });
    tasks.spawn(
        kustomizations
            .driver(kustomize_queue, &parts.metrics)
            .run(parts.stop.clone().cancelled_owned()),
    );
    if let Some(hook) = &parts.config.webhook {
        let listener = webhook::bind(hook.listen).await?;
        let (stop, fetch) = (parts.stop.clone(), fetch.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(webhook::serve(listener, fetch)).await;
        });
    }
    Ok(Git {
        fetch,
        kustomize,
        assignments: Arc::new(assignments),
    })
}

fn bootstrap_source(source: &Source) -> anyhow::Result<BootstrapSource> {
    let mut secret = Vec::new();
    if let Some(username) = &source.username {
        secret.push(("username".to_owned(), username.clone().into_bytes()));
    }
    // One line in a file is what people write; the line's end is not part of the password.
    let line = |bytes: Vec<u8>| {
        String::from_utf8_lossy(&bytes)
            .trim_end_matches(['\r', '\n'])
            .as_bytes()
            .to_vec()
    };
    for (key, file, is_line) in [
        ("password", &source.password_file, true),
        ("bearerToken", &source.bearer_token_file, true),
        ("ca.crt", &source.ca_file, false),
        ("identity", &source.identity_file, false),
        ("known_hosts", &source.known_hosts_file, false),
    ] {
        if let Some(file) = file {
            let bytes = read(file)?;
            secret.push((key.to_owned(), if is_line { line(bytes) } else { bytes }));
        }
    }
    let reference = GitRef {
        branch: source.branch.clone(),
        tag: source.tag.clone(),
        semver: source.semver.clone(),
        name: None,
        commit: source.commit.clone(),
    };
    Ok(BootstrapSource {
        url: source.url.clone(),
        reference,
        path: source.path.clone(),
        interval: source.interval.clone(),
        secret,
        ..BootstrapSource::default()
    })
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("source: can't read {}", file.display()))
}
