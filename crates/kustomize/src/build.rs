//! A folder of a tree to its objects.

use std::{collections::BTreeMap, fmt};

use crate::{
    ignore::Ignore,
    kustomization::{self, Overlay},
    manifest::{self, Limits, Located, ParseError},
    order,
    resource::{self, Resource},
    tree::{self, Entry, Tree, TreeError},
};

/// What to build with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bounds on one file.
    pub limits: Limits,
    /// Bound on the number of files that are read.
    pub files: usize,
    /// Bound on the bytes of all files that are read.
    pub bytes: usize,
    /// Bound on the number of objects.
    pub objects: usize,
    /// `spec.ignore` of the GitRepository: takes the place of the default exclusions.
    pub ignore: Option<String>,
    /// What a Kustomization asks for beyond the folder.
    pub overlay: Overlay,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            files: 100_000,
            bytes: 512 << 20,
            objects: 100_000,
            ignore: None,
            overlay: Overlay::default(),
        }
    }
}

/// A folder's objects.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// The objects in the order in which they are applied.
    pub objects: Vec<Located>,
    /// Files that were looked at and left out, each with why.
    pub skipped: Vec<(String, String)>,
    /// What is not wrong but worth a look.
    pub warnings: Vec<BuildError>,
}

/// Something wrong with a repository, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildError {
    /// The file or folder, relative to the root of the tree.
    pub file: String,
    /// Line, from 1; 0 if it has none.
    pub line: usize,
    /// Column, from 1; 0 if it has none.
    pub column: usize,
    /// The field, for example `spec.className`; empty if none fits.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
    /// The line and a caret; empty if there is none.
    pub excerpt: String,
}

impl BuildError {
    /// An error of a file as a whole.
    pub fn new(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            message: message.into(),
            ..Self::default()
        }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.file.is_empty() { "." } else { &self.file })?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for BuildError {}

impl From<ParseError> for BuildError {
    fn from(e: ParseError) -> Self {
        Self {
            file: e.file,
            line: e.line,
            column: e.column,
            field: String::new(),
            message: e.message,
            excerpt: e.excerpt,
        }
    }
}

/// Builds a folder: with a `kustomization.yaml`, as that says; without, all YAML files in it and below.
///
/// # Errors
/// Everything that is wrong, not only the first thing.
pub fn build(tree: &dyn Tree, root: &str, options: &Options) -> Result<Build, Vec<BuildError>> {
    let mut builder = Builder::new(tree, options);
    let built = builder.start(root);
    let resources = match built {
        Ok(resources) if builder.errors.is_empty() => resources,
        Ok(_) => return Err(builder.errors),
        Err(error) => {
            builder.errors.push(error);
            return Err(builder.errors);
        }
    };
    let mut objects: Vec<Located> = resource::finish(resources)?;
    order::sort(&mut objects, |located| &located.object);
    Ok(Build {
        objects,
        skipped: builder.skipped,
        warnings: builder.warnings,
    })
}

/// The work of one build. Methods give an error when there is nothing to go on with; what can be gone over
/// is collected in `errors`.
pub(crate) struct Builder<'b> {
    pub(crate) tree: &'b dyn Tree,
    pub(crate) options: &'b Options,
    pub(crate) errors: Vec<BuildError>,
    pub(crate) skipped: Vec<(String, String)>,
    pub(crate) warnings: Vec<BuildError>,
    /// The folders with a kustomization.yaml that are being built, outermost first.
    pub(crate) open: Vec<String>,
    ignore: Ignore,
    /// Folders whose `.sourceignore` is taken in.
    ignore_read: BTreeMap<String, ()>,
    files: usize,
    bytes: usize,
    objects: usize,
}

impl<'b> Builder<'b> {
    fn new(tree: &'b dyn Tree, options: &'b Options) -> Self {
        Self {
            tree,
            options,
            errors: Vec::new(),
            skipped: Vec::new(),
            warnings: Vec::new(),
            open: Vec::new(),
            ignore: Ignore::new(),
            ignore_read: BTreeMap::new(),
            files: 0,
            bytes: 0,
            objects: 0,
        }
    }

    fn start(&mut self, root: &str) -> Result<Vec<Resource>, BuildError> {
        let root = self.folder_at("", root)?;
        let mut above = String::new();
        self.take_ignore(&above)?;
        for part in root.split('/').filter(|p| !p.is_empty()) {
            above = tree::join(&above, part);
            self.take_ignore(&above)?;
        }
        if let Some(patterns) = &self.options.ignore {
            self.ignore.add("", patterns);
        }
        let resources = self.folder(&root)?;
        kustomization::overlay(self, &root, resources)
    }

    /// The objects of a folder.
    pub(crate) fn folder(&mut self, folder: &str) -> Result<Vec<Resource>, BuildError> {
        match self.kustomization_file(folder)? {
            Some(file) => kustomization::build(self, folder, &file),
            None => {
                let mut resources = Vec::new();
                self.plain(folder, &mut resources, 0)?;
                Ok(resources)
            }
        }
    }

    /// The name of a folder's kustomization file.
    pub(crate) fn kustomization_file(&self, folder: &str) -> Result<Option<String>, BuildError> {
        let mut found = Vec::new();
        for name in ["kustomization.yaml", "kustomization.yml", "Kustomization"] {
            let path = tree::join(folder, name);
            if matches!(
                self.tree.entry(&path).map_err(|e| wrong(&path, &e))?,
                Some(Entry::File | Entry::Link(_))
            ) {
                found.push(path);
            }
        }
        if found.len() > 1 {
            return Err(BuildError::new(
                folder,
                format!("more than one kustomization file: {}", found.join(", ")),
            ));
        }
        Ok(found.pop())
    }

    /// All YAML below a folder that has no kustomization file.
    fn plain(&mut self, folder: &str, into: &mut Vec<Resource>, depth: usize) -> Result<(), BuildError> {
        if depth > 64 {
            return Err(BuildError::new(folder, "folders are nested deeper than 64"));
        }
        self.take_ignore(folder)?;
        for (name, entry) in self.tree.list(folder).map_err(|e| wrong(folder, &e))? {
            let path = tree::join(folder, &name);
            let is_folder = entry == Entry::Folder;
            if self.ignore.matches(&path, is_folder) {
                continue;
            }
            let is_manifest = [".yaml", ".yml"].iter().any(|end| name.ends_with(end));
            match entry {
                Entry::Folder if self.kustomization_file(&path)?.is_some() => match self.folder(&path) {
                    Ok(more) => into.extend(more),
                    Err(error) => self.errors.push(error),
                },
                Entry::Folder => self.plain(&path, into, depth + 1)?,
                Entry::File if is_manifest => self.plain_file(&path, &path, into)?,
                Entry::File => {}
                Entry::Link(_) if is_manifest => match tree::resolve(self.tree, "", &path) {
                    Ok(target) => self.plain_file(&path, &target, into)?,
                    Err(error) => self.errors.push(wrong(&path, &error)),
                },
                Entry::Link(target) => {
                    // A link that leads out is refused even where it would not be read: it has no honest use.
                    match tree::resolve(self.tree, "", &path) {
                        Err(error @ TreeError::Outside(_)) => self.errors.push(wrong(&path, &error)),
                        _ => self.skipped.push((
                            path,
                            format!("symbolic link to `{target}`; links to folders are not followed"),
                        )),
                    }
                }
                Entry::Submodule => {
                    self.skipped
                        .push((path, "a submodule; submodules are not fetched".into()));
                }
            }
        }
        Ok(())
    }

    fn plain_file(&mut self, path: &str, target: &str, into: &mut Vec<Resource>) -> Result<(), BuildError> {
        let found = match self.parse(path, target) {
            Ok(found) => found,
            Err(error) if error.message.starts_with(TOO_MUCH) => return Err(error),
            Err(error) => {
                self.errors.push(error);
                return Ok(());
            }
        };
        let manifests = found.iter().filter(|l| is_manifest(l)).count();
        if manifests == 0 && !found.iter().any(is_half) {
            let why = if found.is_empty() {
                "empty"
            } else {
                "no manifest: no apiVersion and kind"
            };
            self.skipped.push((path.into(), why.into()));
            return Ok(());
        }
        for located in found {
            if is_manifest(&located) {
                if kinds::object::api_version(&located.object).starts_with("kustomize.config.k8s.io/") {
                    self.skipped.push((
                        path.into(),
                        "a kustomize file by another name than kustomization.yaml".into(),
                    ));
                    continue;
                }
                into.push(Resource::new(located));
            } else {
                self.errors.push(incomplete(&located));
            }
        }
        Ok(())
    }

    /// The objects of a file that is named as a resource: each must be one.
    pub(crate) fn named_file(&mut self, path: &str) -> Result<Vec<Resource>, BuildError> {
        let found = self.parse(path, path)?;
        for located in found.iter().filter(|l| !is_manifest(l)) {
            self.errors.push(incomplete(located));
        }
        Ok(found.into_iter().filter(is_manifest).map(Resource::new).collect())
    }

    fn parse(&mut self, path: &str, target: &str) -> Result<Vec<Located>, BuildError> {
        let bytes = self.read(path, target)?;
        let found = manifest::parse_manifests(path, &bytes, &self.options.limits)?;
        self.objects += found.len();
        if self.objects > self.options.objects {
            return Err(BuildError::new(
                path,
                format!("{TOO_MUCH} {} objects", self.options.objects),
            ));
        }
        Ok(found)
    }

    /// Reads a file within the bounds on number and size.
    pub(crate) fn read(&mut self, path: &str, target: &str) -> Result<Vec<u8>, BuildError> {
        self.files += 1;
        if self.files > self.options.files {
            return Err(BuildError::new(
                path,
                format!("{TOO_MUCH} {} files", self.options.files),
            ));
        }
        let bytes = self.tree.read(target).map_err(|e| wrong(path, &e))?;
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > self.options.bytes {
            return Err(BuildError::new(
                path,
                format!("{TOO_MUCH} {} bytes", self.options.bytes),
            ));
        }
        Ok(bytes)
    }

    /// The folder that a path means, seen from another.
    pub(crate) fn folder_at(&self, base: &str, path: &str) -> Result<String, BuildError> {
        let folder = tree::resolve(self.tree, base, path).map_err(|e| wrong(base, &e))?;
        match self.tree.entry(&folder).map_err(|e| wrong(base, &e))? {
            Some(Entry::Folder) => Ok(folder),
            Some(_) => Err(wrong(
                base,
                &TreeError::Kind {
                    path: path.into(),
                    wanted: "folder",
                },
            )),
            None => Err(wrong(base, &TreeError::NotFound(path.into()))),
        }
    }

    fn take_ignore(&mut self, folder: &str) -> Result<(), BuildError> {
        if self.ignore_read.insert(folder.into(), ()).is_some() {
            return Ok(());
        }
        let path = tree::join(folder, ".sourceignore");
        if self.tree.entry(&path).map_err(|e| wrong(&path, &e))? == Some(Entry::File) {
            let bytes = self.read(&path, &path)?;
            self.ignore.add(folder, &String::from_utf8_lossy(&bytes));
        }
        Ok(())
    }
}

/// How the message of a breached bound starts: such an error ends the build, others are collected.
const TOO_MUCH: &str = "the folder has more than";

pub(crate) fn wrong(path: &str, error: &TreeError) -> BuildError {
    BuildError::new(path, error.to_string())
}

fn is_manifest(located: &Located) -> bool {
    let object = &located.object;
    !kinds::object::api_version(object).is_empty() && !kinds::object::kind(object).is_empty()
}

/// Meant to be a manifest, as it seems, but for a field that is missing.
fn is_half(located: &Located) -> bool {
    let object = &located.object;
    let one = object.get("apiVersion").is_some() || object.get("kind").is_some();
    one && object.get("metadata").is_some() && !is_manifest(located)
}

fn incomplete(located: &Located) -> BuildError {
    let missing: Vec<&str> = ["apiVersion", "kind"]
        .into_iter()
        .filter(|f| located.object.get(f).is_none_or(|v| v.as_str() == Some("")))
        .collect();
    let message = if missing.is_empty() || missing.len() == 2 {
        "a document that is no manifest: it needs apiVersion and kind".to_owned()
    } else {
        format!("a manifest without {}", missing.join(" and "))
    };
    BuildError {
        line: located.line,
        ..BuildError::new(&located.file, message)
    }
}
