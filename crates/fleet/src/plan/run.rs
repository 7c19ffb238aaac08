//! The plan of a commit for many sites. Reads Git and thinks; no database, no network.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;
use kinds::registry::Registry;
use kustomize::TreeError;
use reconcile::section::Impact;

use super::{
    build::{self, Built, Folder},
    diff,
    git::{CommitTree, Reader},
    impact::{self, HostState},
    reach::Reach,
};
use crate::model::{Map, ObjectPlan, PlanTotals, SitePlan};

/// Objects of one site that are shown.
const MOST_OBJECTS: usize = 200;
/// Fields of the whole plan that are shown: beyond, sites are counted and named without their fields.
const MOST_FIELDS: usize = 20_000;
/// Folders whose build is kept for the next site.
const KEPT: usize = 64;
/// Commits that sites may be at; those at others are compared with the plan's own.
const MOST_COMMITS: usize = 16;

/// A site to plan for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SiteInput {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub path: String,
    /// The commit that it is at, if it is known.
    pub applied: Option<String>,
    /// What is substituted, without what is secret.
    pub variables: Map,
    /// Names of what is secret.
    pub secret_variables: Vec<String>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// `git` could not be run, or the repository not be read.
    #[error("the repository can't be read")]
    Git(#[from] std::io::Error),
    /// The repository does not have the commit.
    #[error("there is no commit {0} in the repository")]
    NoCommit(String),
}

/// A repository with the two commits open.
pub struct Planner {
    reader: Arc<Reader>,
    from: String,
    to_tree: CommitTree,
    trees: BTreeMap<String, CommitTree>,
    registry: Registry,
    now: Timestamp,
    kept: HashMap<(String, String), Folder>,
    fields: usize,
}

/// A site that a commit changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its place among the sites that were asked about.
    pub at: usize,
    /// The commit that it is compared with.
    pub from: String,
}

impl Planner {
    /// Opens a bare repository that has both commits.
    ///
    /// # Errors
    /// It can't be read, or a commit is missing.
    pub fn open(repository: &Path, from: &str, to: &str, now: Timestamp) -> Result<Self, PlanError> {
        let reader = Arc::new(Reader::open(repository)?);
        let open = |commit: &str| {
            reader
                .commit(commit)?
                .ok_or_else(|| PlanError::NoCommit(commit.to_owned()))
        };
        let (from_tree, to_tree) = (open(from)?, open(to)?);
        Ok(Self {
            to_tree,
            trees: BTreeMap::from([(from.to_owned(), from_tree)]),
            from: from.to_owned(),
            reader,
            registry: Registry::builtin(),
            now,
            kept: HashMap::new(),
            fields: 0,
        })
    }

    /// The sites whose files differ, or can't be compared: told by the ids of Git's trees, without building anything.
    ///
    /// # Errors
    /// The repository can't be read.
    pub fn changed(&mut self, sites: &[SiteInput]) -> Result<Vec<Changed>, PlanError> {
        let mut known: HashMap<(String, &str), bool> = HashMap::new();
        let mut found = Vec::new();
        for (at, site) in sites.iter().enumerate() {
            let from = self.base(site.applied.as_deref())?;
            let key = (from.clone(), site.path.as_str());
            let differs = match known.get(&key) {
                Some(differs) => *differs,
                None => {
                    // What can't be read is a change: the build will say what is the matter.
                    let differs = self.differs(&from, &site.path).unwrap_or(true);
                    known.insert(key, differs);
                    differs
                }
            };
            if differs {
                found.push(Changed { at, from });
            }
        }
        Ok(found)
    }

    /// The commit that a site is compared with: its own, if it is in the repository.
    fn base(&mut self, applied: Option<&str>) -> Result<String, PlanError> {
        let Some(applied) = applied.filter(|applied| *applied != self.from) else {
            return Ok(self.from.clone());
        };
        if !self.trees.contains_key(applied) {
            if self.trees.len() >= MOST_COMMITS {
                return Ok(self.from.clone());
            }
            let Some(tree) = self.reader.commit(applied)? else {
                return Ok(self.from.clone());
            };
            self.trees.insert(applied.to_owned(), tree);
        }
        Ok(applied.to_owned())
    }

    fn differs(&self, from: &str, path: &str) -> Result<bool, TreeError> {
        let before = &self.trees[from];
        if before.id("")? == self.to_tree.id("")? {
            return Ok(false);
        }
        // Where all that it is built from is the same, the other commit reaches the same places too.
        for (part, id) in Reach::new(&self.to_tree).parts(path)? {
            if before.id(&part)? != id {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What one site's change is.
    pub fn site(&mut self, site: &SiteInput, from: &str, hosts: &[HostState]) -> SitePlan {
        let mut variables = site.variables.clone();
        if !variables.is_empty() || !site.secret_variables.is_empty() {
            variables.extend(
                site.secret_variables
                    .iter()
                    .map(|name| (name.clone(), diff::HIDDEN.to_owned())),
            );
        }
        let before = self.objects(Some(from), &site.path, &variables);
        let after = self.objects(None, &site.path, &variables);
        let mut plan = SitePlan {
            site: site.name.clone(),
            impact: word(Impact::None).into(),
            ..SitePlan::default()
        };
        if from != self.from {
            plan.notes
                .push(format!("compared with commit {from}, which it is at"));
        }
        let after = match after {
            Ok(after) => after,
            Err(errors) => {
                plan.errors = errors;
                return plan;
            }
        };
        let before = before.unwrap_or_else(|errors| {
            plan.notes
                .push(format!("the commit before can't be built: {}", errors.join("; ")));
            BTreeMap::new()
        });
        let costs = impact::costs(&before, &after, hosts, self.now);
        plan.errors = costs.errors;
        plan.notes.extend(costs.notes);
        let mut worst = Impact::None;
        let mut keys: Vec<_> = before.keys().chain(after.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let (old, new) = (before.get(key), after.get(key));
            let action = match (old, new) {
                (Some(old), Some(new)) if old == new => continue,
                (None, _) => "create",
                (_, None) => "delete",
                _ => "update",
            };
            let impact = costs.impact.get(key).copied().unwrap_or_default();
            worst = worst.max(impact);
            match action {
                "create" => plan.count.create += 1,
                "delete" => plan.count.delete += 1,
                _ => plan.count.update += 1,
            }
            if plan.objects.len() >= MOST_OBJECTS || self.fields >= MOST_FIELDS {
                plan.more += 1;
                continue;
            }
            let (fields, more_fields) = diff::fields(key, old, new);
            self.fields += fields.len();
            plan.objects.push(ObjectPlan {
                action: action.into(),
                kind: key.kind.clone(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                impact: word(impact).into(),
                fields,
                more_fields: i64::try_from(more_fields).unwrap_or(i64::MAX),
            });
        }
        plan.impact = word(worst).into();
        plan
    }

    /// The objects of a site, at a commit before or at the new one.
    fn objects(&mut self, from: Option<&str>, path: &str, variables: &Map) -> Built {
        let tree = from.map_or(&self.to_tree, |from| {
            self.trees.get(from).unwrap_or(&self.to_tree)
        });
        let key = (from.unwrap_or_default().to_owned(), path.to_owned());
        let folder = match self.kept.get(&key) {
            Some(folder) => folder.clone(),
            None => {
                // A site that is new in this commit was nothing before.
                let there = from.is_none() || matches!(tree.id(path), Ok(Some(_)) | Err(_));
                let folder = if there {
                    build::folder(tree, path)
                } else {
                    Ok(Arc::default())
                };
                if self.kept.len() >= KEPT {
                    self.kept.clear();
                }
                self.kept.insert(key, folder.clone());
                folder
            }
        };
        build::objects(tree, &folder, variables, &self.registry)
    }
}

/// Adds a site to the totals.
pub fn add(totals: &mut PlanTotals, site: &SitePlan) {
    totals.changed += i64::from(site.count.create + site.count.update + site.count.delete > 0);
    totals.blocked += i64::from(!site.errors.is_empty());
    totals.objects.create += site.count.create;
    totals.objects.update += site.count.update;
    totals.objects.delete += site.count.delete;
    match site.impact.as_str() {
        "reboot" => totals.impact.reboot += 1,
        "maintenance" => totals.impact.maintenance += 1,
        _ => totals.impact.none += 1,
    }
}

/// The word of an impact in the API.
pub(super) fn word(impact: Impact) -> &'static str {
    match impact {
        Impact::None => "none",
        Impact::Maintenance => "maintenance",
        Impact::Reboot => "reboot",
    }
}
