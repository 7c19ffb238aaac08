//! Sites with one host each that do what they are told.

use std::collections::BTreeMap;

use fleet::model::{ExpectedSpec, Head, Host, PolicySpec, RepositorySpec, SiteSpec};
use fleet::status::Ingest;
use fleet::{Fleet, args};
use identity::enrol::{Answer, Request};
use identity::key::FileKey;
use link::message::{Hello, Status, Target};
use serde_json::{Value, json};

use crate::support::{Setup, map};

/// An enrolled host at a site.
pub(crate) async fn host(s: &Setup, name: &str, site: &str) -> Host {
    let spec = ExpectedSpec {
        name: name.to_owned(),
        site: site.to_owned(),
        serial: name.to_owned(),
        ..ExpectedSpec::default()
    };
    s.fleet.hosts().expect(&s.owner, &[spec]).await.unwrap();
    let request = Request {
        csr: identity::csr::make(&FileKey::generate().unwrap()).unwrap(),
        serial: name.to_owned(),
        ..Request::default()
    };
    let answer = s.fleet.enrolment().request(&request, "").await.unwrap();
    assert!(matches!(answer, Answer::Granted(_)));
    s.fleet.hosts().get(&s.owner, name).await.unwrap()
}

/// The hosts, and what they report.
pub(crate) struct World {
    pub(crate) ingest: Ingest,
    pub(crate) fleet: Fleet,
    pub(crate) tenant: String,
    pub(crate) repository: String,
    /// By site: host id, status generation.
    hosts: BTreeMap<String, (String, u64)>,
    /// Commits that sites refuse.
    pub(crate) refuse: Vec<(String, String)>,
}

impl World {
    /// Sites `(name, labels)` that follow one repository under the policy `careful`.
    pub(crate) async fn new(s: &Setup, policy: Value, sites: &[(&str, &str)]) -> Self {
        let spec = RepositorySpec {
            name: "shops".into(),
            url: "https://git.example.com/shops.git".into(),
            ..RepositorySpec::default()
        };
        let repository = s.fleet.repositories().create(&s.owner, &spec).await.unwrap();
        let spec: PolicySpec = serde_json::from_value(policy).unwrap();
        s.fleet.policies().create(&s.owner, &spec).await.unwrap();
        let mut world = Self {
            ingest: Ingest::start(&s.fleet, "link-1"),
            fleet: s.fleet.clone(),
            tenant: s.tenant.id.clone(),
            repository: repository.id,
            hosts: BTreeMap::new(),
            refuse: Vec::new(),
        };
        for (name, labels) in sites {
            let spec = SiteSpec {
                name: (*name).to_owned(),
                labels: map(labels),
                repository: Some("shops".into()),
                path: format!("sites/{name}"),
                policy: Some(spec.name.clone()),
                ..SiteSpec::default()
            };
            s.fleet.sites().create(&s.owner, &spec).await.unwrap();
            let host = host(s, &format!("host-{name}"), name).await;
            world
                .ingest
                .connected(&world.tenant, &host.id, &Hello::default(), "")
                .await
                .unwrap();
            world.hosts.insert((*name).to_owned(), (host.id, 0));
        }
        world
    }

    pub(crate) async fn push(&self, commit: &str) {
        let head = Head {
            commit: commit.to_owned(),
            subject: format!("Change of {commit}"),
            ..Head::default()
        };
        self.fleet
            .repositories()
            .set_head(&self.tenant, &self.repository, "main", &head)
            .await
            .unwrap();
    }

    /// What a site is told.
    pub(crate) async fn target(&self, site: &str) -> Option<String> {
        let (host, _) = &self.hosts[site];
        let told = self.fleet.assignments().of(&self.tenant, host).await.unwrap();
        match told?.assignment.target {
            Target::Pinned { commit } => Some(commit).filter(|commit| !commit.is_empty()),
            Target::Follow => panic!("a site under a policy follows nothing by itself"),
        }
    }

    pub(crate) async fn report(&mut self, site: &str, set: Value) {
        let (host, generation) = self.hosts.get_mut(site).unwrap();
        let status = Status {
            generation: *generation + 1,
            base: *generation,
            set: serde_json::from_value(set).unwrap(),
            remove: Vec::new(),
        };
        *generation += 1;
        self.ingest.status(&self.tenant, host, status).await.unwrap();
    }

    /// The host of a site says what time it is there: so many seconds off.
    pub(crate) async fn clock(&self, site: &str, off: i64) {
        let there = self.fleet.db().now().plus_seconds(off);
        let (host, _) = &self.hosts[site];
        self.ingest
            .clock(&self.tenant, host, &there.to_string())
            .await
            .unwrap();
    }

    /// Every site does what it is told, once.
    pub(crate) async fn turn(&mut self) {
        let sites: Vec<String> = self.hosts.keys().cloned().collect();
        for site in sites {
            let Some(commit) = self.target(&site).await else {
                continue;
            };
            let set = if self.refuse.contains(&(site.clone(), commit.clone())) {
                json!({"source": {"quarantined": [{"commit": commit, "reason": "the gateway was cut off"}]}})
            } else {
                json!({"health": {"state": "healthy"}, "source": {"applied": commit}})
            };
            self.report(&site, set).await;
        }
    }

    pub(crate) async fn all_at(&self, commit: &str) -> bool {
        for site in self.hosts.keys() {
            if self.target(site).await.as_deref() != Some(commit) {
                return false;
            }
        }
        true
    }

    /// Actions of the audit log about rollouts, oldest first.
    pub(crate) async fn audit(&self) -> Vec<String> {
        let rows = self
            .fleet
            .db()
            .rows(
                "SELECT action,COALESCE(after,'') FROM audit WHERE tenant=$1 AND object_kind='rollout' ORDER BY seq",
                args![&self.tenant],
            )
            .await
            .unwrap();
        rows.iter()
            .map(|row| {
                let after: Value = row.json(1);
                let what = ["sites", "wave", "state", "site"]
                    .iter()
                    .find_map(|key| match &after[key] {
                        Value::String(text) => Some(text.clone()),
                        Value::Array(names) => Some(
                            names
                                .iter()
                                .filter_map(Value::as_str)
                                .collect::<Vec<_>>()
                                .join("+"),
                        ),
                        _ => None,
                    });
                format!("{} {}", row.str(0), what.unwrap_or_default())
                    .trim()
                    .to_owned()
            })
            .collect()
    }
}
