//! An object on its way through a build, with the names it had.

use std::collections::HashMap;

use kinds::object::{self, ObjectKey};

use crate::{BuildError, hash, manifest::Located, references};

/// An object and what is remembered of it.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) located: Located,
    /// The keys that it had before it was renamed or moved, oldest first.
    pub(crate) before: Vec<ObjectKey>,
    /// Prefixes and suffixes that it got, outermost last: two copies of one base are told apart by them.
    pub(crate) affixes: Vec<String>,
    /// Made by a generator that wants a hash at the end of the name.
    pub(crate) hashed: bool,
    /// Made by a generator.
    pub(crate) generated: bool,
}

impl Resource {
    pub(crate) fn new(located: Located) -> Self {
        Self {
            located,
            before: Vec::new(),
            affixes: Vec::new(),
            hashed: false,
            generated: false,
        }
    }

    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey::of(&self.located.object)
    }

    /// The key it has and those it had.
    pub(crate) fn keys(&self) -> impl Iterator<Item = ObjectKey> + '_ {
        self.before.iter().cloned().chain([self.key()])
    }

    pub(crate) fn kind(&self) -> &str {
        object::kind(&self.located.object)
    }

    /// Gives it another name.
    pub(crate) fn rename(&mut self, name: String) {
        if object::name(&self.located.object) != name {
            self.before.push(self.key());
            object::metadata_mut(&mut self.located.object).insert("name".into(), name.into());
        }
    }

    /// Moves it to another namespace.
    pub(crate) fn relocate(&mut self, namespace: &str) {
        if object::namespace(&self.located.object) != namespace {
            self.before.push(self.key());
            object::metadata_mut(&mut self.located.object).insert("namespace".into(), namespace.into());
        }
    }
}

/// The last steps of a build: hashes, references to names that changed, two objects of one key.
pub(crate) fn finish(mut resources: Vec<Resource>) -> Result<Vec<Located>, Vec<BuildError>> {
    for resource in &mut resources {
        if resource.hashed {
            let name = format!(
                "{}-{}",
                object::name(&resource.located.object),
                hash::of(&resource.located.object)
            );
            resource.rename(name);
        }
    }
    references::follow(&mut resources);
    let errors = twice(&resources);
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(resources.into_iter().map(|r| r.located).collect())
}

/// Objects whose key another one has too.
pub(crate) fn twice(resources: &[Resource]) -> Vec<BuildError> {
    let mut seen: HashMap<ObjectKey, &Located> = HashMap::with_capacity(resources.len());
    let mut errors = Vec::new();
    for resource in resources {
        let key = resource.key();
        if key.name.is_empty() {
            continue;
        }
        if let Some(first) = seen.get(&key) {
            let message = format!("{key} is there twice; the first is at {}", first.place());
            let located = &resource.located;
            errors.push(BuildError {
                line: located.line,
                ..BuildError::new(&located.file, message)
            });
        } else {
            seen.insert(key, &resource.located);
        }
    }
    errors
}
