//! Flux `Kustomization`s in a site's folder: what they build in their turn, as the site's hosts do.

use std::collections::BTreeMap;

use kinds::{
    flux::Kustomization,
    object::{self, ObjectKey},
};
use kustomize::Options;
use serde_json::Value;

use super::{build::Built, diff, run::clean};
use crate::model::Map;

/// Kustomizations within each other.
pub(super) const DEEPEST: usize = 8;
/// Kustomizations of one site.
const MOST: usize = 200;

const GROUP: &str = "kustomize.toolkit.fluxcd.io";
/// What a host calls the source of its site's folder, and its namespace.
const SOURCE: (&str, &str) = ("flux-system", "selvedge-site");
/// The ConfigMap and the Secret with the site's variables, beside it.
const VARIABLES: &str = "selvedge-site-variables";

/// A folder to build.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) path: String,
    pub(super) options: Options,
    /// Different for parts of one folder that are built in different ways.
    pub(super) way: String,
    pub(super) variables: Map,
    /// The Kustomization that it is for; the site's own has none.
    owner: Option<ObjectKey>,
    /// The folders that led here.
    chain: Vec<String>,
}

impl Part {
    pub(super) fn new(path: &str, variables: &Map) -> Self {
        Self {
            path: path.into(),
            variables: variables.clone(),
            ..Self::default()
        }
    }

    /// In a way of its own.
    pub(super) fn built(self, options: Options, way: String) -> Self {
        Self { options, way, ..self }
    }
}

/// What becomes of a Kustomization's objects that it no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// They are deleted.
    Pruned,
    /// They stay.
    Kept,
    /// It is suspended: all stay as they are.
    Suspended,
}

/// Everything that is built for a site.
#[derive(Clone, Debug, Default)]
pub(super) struct Whole {
    pub(super) objects: BTreeMap<ObjectKey, Value>,
    pub(super) notes: Vec<String>,
    owners: BTreeMap<ObjectKey, ObjectKey>,
    ends: BTreeMap<ObjectKey, Ends>,
}

/// Builds a site's folder and what its Kustomizations name.
pub(super) fn whole(
    root: Part,
    site: &Map,
    secret: &[String],
    mut build: impl FnMut(&Part) -> Built,
) -> Result<Whole, Vec<String>> {
    let mut whole = Whole::default();
    let mut errors = Vec::new();
    let mut todo = vec![root];
    let mut count = 0;
    while let Some(part) = todo.pop() {
        let objects = match build(&part) {
            Ok(objects) => objects,
            Err(said) => {
                errors.extend(said);
                continue;
            }
        };
        let found: Vec<ObjectKey> = objects
            .keys()
            .filter(|key| is_kustomization(key))
            .cloned()
            .collect();
        for (key, object) in objects {
            if whole.objects.contains_key(&key) {
                whole.notes.push(format!(
                    "{key} is in more than one Kustomization: the last one to run wins"
                ));
            }
            if let Some(owner) = &part.owner {
                whole.owners.insert(key.clone(), owner.clone());
            }
            whole.objects.insert(key, object);
        }
        for key in found {
            count += 1;
            if count > MOST {
                errors.push(format!("there are more than {MOST} Kustomizations"));
                return Err(errors);
            }
            match whole.follow(&part, &key, site, secret) {
                Ok(next) => todo.extend(next),
                Err(why) => errors.push(format!("Kustomization {}/{}: {why}", key.namespace, key.name)),
            }
        }
    }
    if errors.is_empty() { Ok(whole) } else { Err(errors) }
}

/// Whether an object is a Flux Kustomization.
pub(super) fn is_kustomization(key: &ObjectKey) -> bool {
    key.group == GROUP && key.kind == "Kustomization"
}

/// What a Kustomization builds of the site's own repository: folder, how, and a word for how.
pub(super) fn of_site(object: &Value) -> Result<Option<(Kustomization, Options, String)>, String> {
    let read: Kustomization = serde_json::from_value(object.clone()).map_err(|e| e.to_string())?;
    let source = &read.spec.source_ref;
    let namespace = match source.namespace.as_str() {
        "" => object::namespace(object),
        other => other,
    };
    if source.kind != "GitRepository" || (namespace, source.name.as_str()) != SOURCE {
        return Ok(None);
    }
    let options = kustomize::flux::options(&read, None).map_err(|error| error.to_string())?;
    Ok(Some((read, options, object["spec"].to_string())))
}

impl Whole {
    /// What a Kustomization builds next, if that is known here.
    fn follow(
        &mut self,
        part: &Part,
        key: &ObjectKey,
        site: &Map,
        secret: &[String],
    ) -> Result<Option<Part>, String> {
        let Some(object) = self.objects.get(key) else {
            return Ok(None);
        };
        let named = format!("Kustomization {}/{}", key.namespace, key.name);
        let Some((read, options, way)) = of_site(object)? else {
            self.notes.push(format!(
                "{named} builds from another source than the site's repository: not looked into"
            ));
            return Ok(None);
        };
        let ends = match (read.spec.suspend, read.spec.prune) {
            (true, _) => Ends::Suspended,
            (_, true) => Ends::Pruned,
            _ => Ends::Kept,
        };
        self.ends.insert(key.clone(), ends);
        if ends == Ends::Suspended {
            self.notes
                .push(format!("{named} is suspended: what it built stays as it is"));
            return Ok(None);
        }
        let path = clean(&read.spec.path);
        let mut chain = part.chain.clone();
        chain.push(part.path.clone());
        if chain.contains(&path) {
            return Err(format!("spec.path leads back to {path:?}, in which it is itself"));
        }
        if chain.len() > DEEPEST {
            return Err(format!(
                "Kustomizations are within each other more than {DEEPEST} deep"
            ));
        }
        let mut variables = Map::new();
        for from in read.spec.post_build.iter().flat_map(|post| &post.substitute_from) {
            let is_secret = from.kind == "Secret";
            let hidden = |name: &String| (name.clone(), diff::HIDDEN.to_owned());
            if from.name == VARIABLES && key.namespace == SOURCE.0 {
                if is_secret {
                    variables.extend(secret.iter().map(hidden));
                } else {
                    variables.extend(site.clone());
                }
                continue;
            }
            let wanted = ObjectKey {
                group: String::new(),
                kind: from.kind.clone(),
                namespace: key.namespace.clone(),
                name: from.name.clone(),
            };
            let Some(found) = self.objects.get(&wanted) else {
                if !from.optional {
                    self.notes.push(format!(
                        "{named} takes variables from {} {}, which is not in the repository",
                        from.kind, from.name
                    ));
                }
                continue;
            };
            for field in ["data", "stringData"] {
                for (name, value) in found[field].as_object().into_iter().flatten() {
                    let text = value.as_str().unwrap_or_default().trim_end_matches('\n');
                    let value = if is_secret { diff::HIDDEN } else { text };
                    variables.insert(name.clone(), value.to_owned());
                }
            }
        }
        if let Some(post) = read.spec.post_build {
            variables.extend(post.substitute);
        }
        Ok(Some(Part {
            path,
            options,
            way,
            variables,
            owner: Some(key.clone()),
            chain,
        }))
    }

    /// What is in `before` and would stay though it is not in this one: of Kustomizations that do not prune, or are
    /// suspended now.
    pub(super) fn keep(&mut self, before: &Self) {
        for (key, owner) in &before.owners {
            let ends = self.ends.get(owner).or_else(|| before.ends.get(owner));
            let stays = match ends {
                Some(Ends::Suspended) => true,
                Some(Ends::Kept) => !self.objects.contains_key(key),
                _ => false,
            };
            if let (true, Some(object)) = (stays, before.objects.get(key)) {
                self.objects.insert(key.clone(), object.clone());
            }
        }
    }
}
