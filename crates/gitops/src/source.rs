//! The reconciler of GitRepository: finds out whether there is a new commit, fetches it, makes it known.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use apiserver::{Client, client::EventType};
use async_trait::async_trait;
use kinds::{
    condition::{self, Condition},
    flux::{self, GitRepository, GitRepositoryStatus},
    object::{self, Gvr, Object},
};
use reconcile::{Key, Outcome, Reconciler, Signal};
use serde_json::Value;
use telemetry::{Clock, Metrics};

use crate::{
    artifacts::{Artifact, Artifacts},
    bootstrap::SUSPENDED,
    config::Config,
    git::{
        Class, Git, GitError,
        credentials::{self, Credentials},
        fetch::{self, Repository, Target},
        url::Url,
    },
    unsupported,
};

/// Reconciles GitRepositories.
pub struct GitRepositories {
    client: Client,
    config: Config,
    artifacts: Artifacts,
    clock: Clock,
    /// Wakes Kustomizations.
    kustomizations: Signal,
}

/// What a run found.
struct Fetched {
    artifact: Artifact,
    /// The commit before, if it is another.
    before: Option<String>,
    /// Whether the branch went on from there.
    went_on: bool,
}

impl GitRepositories {
    /// `kustomizations` is signalled for each Kustomization whose source has a new commit.
    #[must_use]
    pub fn new(
        client: Client,
        config: Config,
        artifacts: Artifacts,
        clock: Clock,
        kustomizations: Signal,
    ) -> Self {
        Self {
            client,
            config,
            artifacts,
            clock,
            kustomizations,
        }
    }

    /// A driver for it, with the watch it needs: a run is a fetch, so what only changes the status wakes nobody.
    #[must_use]
    pub fn driver(self: Arc<Self>, queue: reconcile::Queue, metrics: &Metrics) -> reconcile::Driver {
        let options = reconcile::Options {
            workers: 4,
            first_backoff: Duration::from_secs(2),
            longest_backoff: Duration::from_secs(60),
            ..reconcile::Options::default()
        };
        let (client, clock) = (self.client.clone(), self.clock.clone());
        self.artifacts.set_sources(queue.signal());
        let seen = crate::seen::Seen::default();
        reconcile::Driver::new(self, queue, options, metrics, clock).watches(&client, gvr(), move |object| {
            if seen.is_new(object) {
                reconcile::Wake::own(object)
            } else {
                reconcile::Wake::Nothing
            }
        })
    }

    async fn fetch(&self, key: &Key, repository: &GitRepository) -> Result<Fetched, GitError> {
        let spec = &repository.spec;
        let limit = spec.fetch_timeout();
        let url = Url::parse(&spec.url)?;
        let secret = self.secret(key, spec.secret_ref.as_deref()).await?;
        let disk = |e: std::io::Error| GitError::new(Class::Other, format!("can't prepare the fetch: {e}"));
        let private = credentials::private_folder(&self.config.run_dir).map_err(disk)?;
        let mut git = Git::new(&self.config.git, private.path());
        for (of, proxy) in &self.config.proxies {
            git.config(&format!("http.{of}.proxy"), proxy);
            git.hide(proxy);
        }
        credentials::equip(&mut git, &url, secret.as_ref(), private.path())?;
        let store = Repository::new(fetch::folder(&self.config.state_dir, &key.namespace, &key.name));
        let damaged = self.artifacts.take_damage(key);
        if damaged {
            tracing::warn!(repository = %key, "what was fetched is damaged; it is fetched anew");
            store.remove()?;
        }
        store.open(&git, limit).await?;
        let known = self.artifacts.get(key);
        // A commit that was recorded but whose objects are damaged counts as not there.
        let there = store.artifact(&git, limit).await;
        let mut target = if let (Some(commit), Some(there)) = (&spec.reference.commit, &there)
            && commit.eq_ignore_ascii_case(there)
        {
            let name = spec.reference.branch.clone().unwrap_or_default();
            Target {
                name,
                reference: String::new(),
                commit: there.clone(),
            }
        } else {
            fetch::resolve(&git, &store, &url, &spec.reference, limit).await?
        };
        if there.as_deref() != Some(&target.commit) {
            target.commit = match store.fetch(&git, &url, &target, limit).await {
                Err(error) if target.reference.is_empty() && error.class == Class::Reference => {
                    let branch = spec.reference.branch.as_deref();
                    store
                        .fetch_deep(&git, &url, branch, &target.commit, limit)
                        .await?
                }
                done => done?,
            };
            store.publish(&git, &target.commit, limit).await?;
        }
        let revision = target.revision();
        let same = known
            .as_ref()
            .is_some_and(|k| k.revision == revision && k.ignore == spec.ignore);
        let artifact = match known.clone() {
            Some(known) if same => known,
            _ => Artifact {
                revision,
                commit: target.commit.clone(),
                ignore: spec.ignore.clone(),
                fetched_at: self.clock.now_rfc3339(),
                url: url.address.clone(),
            },
        };
        if !same {
            self.artifacts.publish(key, artifact.clone()).map_err(disk)?;
        }
        if damaged || !same {
            self.wake(key).await;
        }
        let before = known.map(|k| k.commit).filter(|old| *old != target.commit);
        let mut went_on = true;
        if let Some(old) = &before {
            let branch = target.reference.starts_with("refs/heads/");
            went_on = !branch
                || store
                    .goes_on(&git, &url, &target, old, &target.commit, limit)
                    .await;
            if let Err(error) = store.tidy(&git, limit * 4).await {
                tracing::warn!(repository = %key, %error, "can't tidy the repository");
            }
        }
        Ok(Fetched {
            artifact,
            before,
            went_on,
        })
    }

    /// Fetches; a repository on this host that turns out damaged is made anew, once.
    async fn fetch_or_renew(&self, key: &Key, repository: &GitRepository) -> Result<Fetched, GitError> {
        match self.fetch(key, repository).await {
            Err(error) if error.class == Class::Damage => {
                tracing::warn!(repository = %key, %error, "the fetch failed on what is here");
                self.artifacts.report_damage(key);
                self.fetch(key, repository).await
            }
            done => done,
        }
    }

    async fn secret(&self, key: &Key, name: Option<&str>) -> Result<Option<Credentials>, GitError> {
        let Some(name) = name else { return Ok(None) };
        let gvr = Gvr::new("v1", "secrets");
        match self.client.get(&gvr, &key.namespace, name).await {
            Ok(Some(secret)) => Ok(Some(Credentials::of(&secret))),
            Ok(None) => Err(GitError::new(
                Class::Authentication,
                format!(
                    "there is no Secret {}/{name}; spec.secretRef names it",
                    key.namespace
                ),
            )),
            Err(status) => Err(GitError::new(
                Class::Other,
                format!("can't read the Secret {name}: {status}"),
            )),
        }
    }

    /// Wakes the Kustomizations of a source.
    async fn wake(&self, source: &Key) {
        match self.client.list(&crate::kustomizations::gvr(), None).await {
            Ok(list) => {
                for kustomization in list.items.iter().filter(|k| source_of(k) == Some(source.clone())) {
                    self.kustomizations.key(Key::of(kustomization));
                }
            }
            Err(status) => {
                tracing::warn!(error = %status, "can't list Kustomizations; waking all");
                self.kustomizations.all();
            }
        }
    }

    async fn report(
        &self,
        repository: &GitRepository,
        object: &Object,
        result: &Result<Fetched, GitError>,
    ) -> Result<(), apiserver::Status> {
        let now = self.clock.now_rfc3339();
        let generation = repository.metadata.generation;
        let mut status: GitRepositoryStatus = repository.status.clone();
        status.observed_generation = generation;
        if let Some(requested) = repository.metadata.annotations.get(flux::REQUESTED_AT) {
            status.last_handled_reconcile_at = requested.clone();
        }
        let key = Key::of(object);
        status.artifact = self.artifacts.get(&key).map(|artifact| flux::Artifact {
            revision: artifact.revision,
            path: fetch::folder(&self.config.state_dir, &key.namespace, &key.name)
                .display()
                .to_string(),
            last_update_time: artifact.fetched_at,
            ..flux::Artifact::default()
        });
        let at = |c: Condition| c.at_generation(generation);
        let conditions = &mut status.conditions;
        match result {
            Ok(fetched) => {
                let message = format!("stored artifact for revision '{}'", fetched.artifact.revision);
                condition::set(
                    conditions,
                    at(Condition::yes("Ready", "Succeeded", message.clone())),
                    &now,
                );
                condition::set(
                    conditions,
                    at(Condition::yes("ArtifactInStorage", "Succeeded", message)),
                    &now,
                );
                conditions.retain(|c| !matches!(c.kind.as_str(), "FetchFailed" | "Stalled" | "Reconciling"));
            }
            Err(error) => {
                let message = error.message.clone();
                condition::set(
                    conditions,
                    at(Condition::no("Ready", error.reason(), message.clone())),
                    &now,
                );
                condition::set(
                    conditions,
                    at(Condition::yes("FetchFailed", error.reason(), message.clone())),
                    &now,
                );
                conditions.retain(|c| !matches!(c.kind.as_str(), "Stalled" | "Reconciling"));
                if error.class == Class::Spec {
                    condition::set(
                        conditions,
                        at(Condition::yes("Stalled", "InvalidSpec", message)),
                        &now,
                    );
                } else {
                    let message = "the fetch is tried again; what was fetched before stays in force";
                    condition::set(
                        conditions,
                        at(Condition::yes("Reconciling", "ProgressingWithRetry", message)),
                        &now,
                    );
                }
            }
        }
        let value = serde_json::to_value(&status).unwrap_or(Value::Null);
        self.client
            .set_status(&gvr(), &key.namespace, &key.name, value)
            .await?;
        Ok(())
    }

    /// Says that nothing is fetched, and what stays in force.
    async fn report_suspended(
        &self,
        repository: &GitRepository,
        object: &Object,
    ) -> Result<(), apiserver::Status> {
        let mut status: GitRepositoryStatus = repository.status.clone();
        let generation = repository.metadata.generation;
        status.observed_generation = generation;
        let why = object::annotation(object, SUSPENDED).unwrap_or("spec.suspend is set");
        let why = format!("nothing is fetched: {why}");
        let ready = match self.artifacts.get(&Key::of(object)) {
            Some(artifact) => Condition::yes(
                "Ready",
                "Suspended",
                format!("{why}; {} stays in force", artifact.revision),
            ),
            None => Condition::unknown("Ready", "Suspended", why),
        };
        let now = self.clock.now_rfc3339();
        condition::set(&mut status.conditions, ready.at_generation(generation), &now);
        status
            .conditions
            .retain(|c| !matches!(c.kind.as_str(), "FetchFailed" | "Reconciling"));
        let value = serde_json::to_value(&status).unwrap_or(Value::Null);
        let (namespace, name) = (object::namespace(object), object::name(object));
        self.client.set_status(&gvr(), namespace, name, value).await?;
        Ok(())
    }

    async fn tell(&self, object: &Object, result: &Result<Fetched, GitError>, was_failing: bool) {
        match result {
            Ok(fetched) => match &fetched.before {
                Some(old) if !fetched.went_on => {
                    let message = format!(
                        "{} does not continue the commit {old} that was here before: the branch was force-pushed, \
                         or moved by many commits at once. The new commit is used",
                        fetched.artifact.revision
                    );
                    self.client
                        .event(object, EventType::Warning, "HistoryRewritten", &message)
                        .await;
                }
                Some(_) => {
                    let message = format!("fetched {}", fetched.artifact.revision);
                    self.client
                        .event(object, EventType::Normal, "NewArtifact", &message)
                        .await;
                }
                None if was_failing => {
                    self.client
                        .event(
                            object,
                            EventType::Normal,
                            "Succeeded",
                            "the source can be read again",
                        )
                        .await;
                }
                None => {}
            },
            Err(error) => {
                self.client
                    .event(object, EventType::Warning, error.reason(), &error.message)
                    .await;
            }
        }
    }
}

/// The resource.
pub(crate) fn gvr() -> Gvr {
    Gvr::new("source.toolkit.fluxcd.io/v1", "gitrepositories")
}

/// The GitRepository that a Kustomization object builds from.
pub(crate) fn source_of(kustomization: &Object) -> Option<Key> {
    let source = kustomization.pointer("/spec/sourceRef")?;
    let text = |field: &str| source.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("kind") != "GitRepository" {
        return None;
    }
    let namespace = if text("namespace").is_empty() {
        object::namespace(kustomization)
    } else {
        text("namespace")
    };
    Some(Key::new(namespace, text("name")))
}

#[async_trait]
impl Reconciler for GitRepositories {
    fn name(&self) -> &'static str {
        "gitrepository"
    }

    async fn keys(&self) -> Vec<Key> {
        match self.client.list(&gvr(), None).await {
            Ok(list) => {
                // With those that are gone, so that what was fetched for them goes too.
                let keys: BTreeSet<Key> = list
                    .items
                    .iter()
                    .map(Key::of)
                    .chain(self.artifacts.keys())
                    .collect();
                keys.into_iter().collect()
            }
            Err(status) => {
                tracing::warn!(error = %status, "can't list GitRepositories");
                Vec::new()
            }
        }
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        let object = match self.client.get(&gvr(), &key.namespace, &key.name).await {
            Ok(Some(object)) => object,
            Ok(None) => {
                self.artifacts.forget(key);
                return Outcome::Done;
            }
            Err(status) => return Outcome::Failed(status.to_string()),
        };
        if object::is_deleting(&object) {
            return Outcome::Done;
        }
        let repository = match GitRepository::from_object(&object) {
            Ok(repository) => repository,
            Err(error) => return Outcome::Failed(telemetry::chain(&error).to_string()),
        };
        if repository.spec.suspend {
            return match self.report_suspended(&repository, &object).await {
                Ok(()) => Outcome::Done,
                Err(status) => Outcome::Failed(format!("can't write the status: {status}")),
            };
        }
        let was_failing = condition::find(&repository.status.conditions, "FetchFailed").is_some();
        let result = match unsupported::refused(&object) {
            Some(refused) => Err(GitError::new(Class::Spec, refused.message())),
            None => self.fetch_or_renew(key, &repository).await,
        };
        if let Err(status) = self.report(&repository, &object, &result).await {
            return Outcome::Failed(format!("can't write the status: {status}"));
        }
        self.tell(&object, &result, was_failing).await;
        match result {
            Ok(_) => Outcome::Again(repository.spec.interval.max(Duration::from_secs(1))),
            Err(error) if error.class == Class::Spec => Outcome::Done,
            Err(error) => Outcome::Failed(error.message),
        }
    }
}
