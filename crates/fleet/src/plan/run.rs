//! The plan of a commit for many sites. Reads Git and thinks; no database, no network.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;
use kinds::{object::ObjectKey, registry::Registry};
use kustomize::TreeError;
use reconcile::section::Impact;

use super::{
    build::{self, Folder},
    diff,
    flux::{self, Part, Whole},
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
/// Folders that are built to tell whether they are the same though their files are not. Beyond they count as changed.
const MOST_BUILT: usize = 1000;

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
    /// By commit and folder.
    same: HashMap<(String, String), bool>,
    built: usize,
}

/// What is told by ids alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    Same,
    Differ,
    /// They are the same, and a Flux Kustomization among them may build others.
    GoOn,
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
            same: HashMap::new(),
            built: 0,
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
                    let differs = match self.files(&from, &site.path) {
                        Ok(Files::GoOn) => !self.same(&from, &site.path),
                        Ok(files) => files == Files::Differ,
                        Err(_) => true,
                    };
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

    /// Whether a folder's objects are the same at a commit as at the new one, before variables are filled in. Where
    /// that can't be told they are not.
    pub fn same(&mut self, from: &str, path: &str) -> bool {
        let path = clean(path);
        let key = (from.to_owned(), path.clone());
        if let Some(known) = self.same.get(&key) {
            return *known;
        }
        let same = self.compare(from, &path).unwrap_or(false);
        self.same.insert(key, same);
        same
    }

    fn compare(&mut self, from: &str, path: &str) -> Result<bool, PlanError> {
        if !self.trees.contains_key(from) {
            let Some(tree) = self.reader.commit(from)? else {
                return Ok(false);
            };
            self.trees.insert(from.to_owned(), tree);
        }
        Ok(self.builds_same(from, &Part::new(path, &Map::new()), 0))
    }

    /// Builds at both commits, and what Kustomizations build in their turn.
    fn builds_same(&mut self, from: &str, part: &Part, depth: usize) -> bool {
        if part.way.is_empty() && matches!(self.files(from, &part.path), Ok(Files::Same)) {
            return true;
        }
        if self.built >= MOST_BUILT || depth > flux::DEEPEST {
            return false;
        }
        self.built += 1;
        let (Ok(before), Ok(after)) = (self.folder(Some(from), part), self.folder(None, part)) else {
            return false;
        };
        if before.objects.len() != after.objects.len() {
            return false;
        }
        for (before, after) in before.objects.iter().zip(&after.objects) {
            if before.object != after.object {
                return false;
            }
            if !flux::is_kustomization(&ObjectKey::of(&after.object)) {
                continue;
            }
            // Which folder it names may depend on the site's variables.
            let next = match flux::of_site(&after.object) {
                Ok(Some((read, ..))) if read.spec.path.contains('$') => return false,
                Ok(Some((read, options, way))) => {
                    Part::new(&clean(&read.spec.path), &Map::new()).built(options, way)
                }
                Ok(None) => continue,
                Err(_) => return false,
            };
            if !self.builds_same(from, &next, depth + 1) {
                return false;
            }
        }
        true
    }

    /// What the ids of everything that a folder is built from say.
    fn files(&self, from: &str, path: &str) -> Result<Files, TreeError> {
        let before = self.tree(Some(from));
        if before.id("")? == self.to_tree.id("")? {
            return Ok(Files::Same);
        }
        // Where all that it is built from is the same, the other commit reaches the same places too.
        let mut reach = Reach::new(&self.to_tree);
        for (part, id) in reach.parts(path)? {
            if before.id(&part)? != id {
                return Ok(Files::Differ);
            }
        }
        Ok(if reach.goes_on { Files::GoOn } else { Files::Same })
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
        let before = self.whole(Some(from), site, &variables);
        let after = self.whole(None, site, &variables);
        let mut plan = SitePlan {
            site: site.name.clone(),
            impact: word(Impact::None).into(),
            ..SitePlan::default()
        };
        if from != self.from {
            plan.notes
                .push(format!("compared with commit {from}, which it is at"));
        }
        let mut after = match after {
            Ok(after) => after,
            Err(errors) => {
                plan.errors = errors;
                return plan;
            }
        };
        let before = before.unwrap_or_else(|errors| {
            plan.notes
                .push(format!("the commit before can't be built: {}", errors.join("; ")));
            Whole::default()
        });
        after.keep(&before);
        plan.notes.append(&mut after.notes);
        let (before, after) = (before.objects, after.objects);
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
    fn whole(&mut self, from: Option<&str>, site: &SiteInput, variables: &Map) -> Result<Whole, Vec<String>> {
        let root = Part::new(&site.path, variables);
        flux::whole(root, &site.variables, &site.secret_variables, |part| {
            let folder = self.folder(from, part);
            build::objects(self.tree(from), &folder, &part.variables, &self.registry)
        })
    }

    /// A commit before, or the new one.
    fn tree(&self, from: Option<&str>) -> &CommitTree {
        from.and_then(|from| self.trees.get(from))
            .unwrap_or(&self.to_tree)
    }

    /// A folder's objects before variables are filled in.
    fn folder(&mut self, from: Option<&str>, part: &Part) -> Folder {
        let path = part.path.as_str();
        let key = (
            from.unwrap_or_default().to_owned(),
            format!("{path}\0{}", part.way),
        );
        if let Some(folder) = self.kept.get(&key) {
            return folder.clone();
        }
        let tree = self.tree(from);
        // A site that is new in this commit was nothing before.
        let there = from.is_none() || matches!(tree.id(path), Ok(Some(_)) | Err(_));
        let folder = if there {
            build::folder(tree, path, &part.options)
        } else {
            Ok(Arc::default())
        };
        if self.kept.len() >= KEPT {
            self.kept.clear();
        }
        self.kept.insert(key, folder.clone());
        folder
    }
}

/// A folder as trees name it.
pub(super) fn clean(path: &str) -> String {
    path.trim_start_matches("./").trim_matches('/').to_owned()
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
