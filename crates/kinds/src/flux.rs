//! GitRepository and Kustomization as types, in every version that is served.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

use crate::{
    condition::Condition,
    duration,
    object::Object,
    typed::{self, Metadata, TypedError, is_default, null_is_default},
};

/// Annotation: a new value asks for a run now.
pub const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

/// Label on objects that a Kustomization applied: its name.
pub const OWNER_NAME: &str = "kustomize.toolkit.fluxcd.io/name";

/// Label on objects that a Kustomization applied: its namespace.
pub const OWNER_NAMESPACE: &str = "kustomize.toolkit.fluxcd.io/namespace";

/// How long a fetch may take when the manifest does not say.
pub const DEFAULT_FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// A Git repository to fetch from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GitRepository {
    /// Name, namespace and so on.
    pub metadata: Metadata,
    /// Where it is and what to fetch.
    pub spec: GitRepositorySpec,
    /// What was fetched.
    #[serde(deserialize_with = "null_is_default")]
    pub status: GitRepositoryStatus,
}

/// Where a repository is and what to fetch.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GitRepositorySpec {
    /// Its address.
    pub url: String,
    /// How often to look for a new commit.
    #[serde(deserialize_with = "span")]
    pub interval: Duration,
    /// How long a fetch may take; see [`GitRepositorySpec::fetch_timeout`].
    #[serde(deserialize_with = "optional_span")]
    pub timeout: Option<Duration>,
    /// What to fetch.
    #[serde(rename = "ref", deserialize_with = "null_is_default")]
    pub reference: GitRef,
    /// The Secret for signing in.
    #[serde(deserialize_with = "reference_name")]
    pub secret_ref: Option<String>,
    /// Nothing is fetched.
    #[serde(deserialize_with = "null_is_default")]
    pub suspend: bool,
    /// Files to leave out, as in .gitignore.
    pub ignore: Option<String>,
    /// Whose signature a commit must have.
    pub verify: Option<Verify>,
    /// Folders to fetch; all if empty.
    #[serde(deserialize_with = "null_is_default")]
    pub sparse_checkout: Vec<String>,
    /// The Secret with the proxy.
    #[serde(deserialize_with = "reference_name")]
    pub proxy_secret_ref: Option<String>,
}

impl GitRepositorySpec {
    /// How long a fetch may take.
    #[must_use]
    pub fn fetch_timeout(&self) -> Duration {
        self.timeout.unwrap_or(DEFAULT_FETCH_TIMEOUT)
    }
}

/// What to fetch. A commit wins over name, semver, tag and branch, in this order; nothing set is `master`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GitRef {
    /// A branch.
    pub branch: Option<String>,
    /// A tag.
    pub tag: Option<String>,
    /// The newest tag in a range of versions.
    pub semver: Option<String>,
    /// A full reference.
    pub name: Option<String>,
    /// A commit.
    pub commit: Option<String>,
}

/// Whose signature a commit must have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Verify {
    /// What is checked.
    pub mode: String,
    /// The Secret with the public keys.
    #[serde(deserialize_with = "reference_name")]
    pub secret_ref: Option<String>,
}

/// What was fetched. Serializes to the object's `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GitRepositoryStatus {
    /// The generation that the status is about.
    #[serde(skip_serializing_if = "is_default")]
    pub observed_generation: i64,
    /// The last request for a run that was acted on.
    #[serde(skip_serializing_if = "is_default")]
    pub last_handled_reconcile_at: String,
    /// The content on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// Conditions.
    #[serde(skip_serializing_if = "is_default")]
    pub conditions: Vec<Condition>,
}

/// Content of a repository on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Artifact {
    /// Branch or tag and commit, as `main@sha1:…`.
    pub revision: String,
    /// Checksum.
    #[serde(skip_serializing_if = "is_default")]
    pub digest: String,
    /// Where it is on the host.
    #[serde(skip_serializing_if = "is_default")]
    pub path: String,
    /// Where it can be had.
    #[serde(skip_serializing_if = "is_default")]
    pub url: String,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// When it last changed.
    #[serde(skip_serializing_if = "is_default")]
    pub last_update_time: String,
}

/// A folder whose objects are applied.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Kustomization {
    /// Name, namespace and so on.
    pub metadata: Metadata,
    /// Which folder, and how it is applied.
    pub spec: KustomizationSpec,
    /// What was applied.
    #[serde(deserialize_with = "null_is_default")]
    pub status: KustomizationStatus,
}

/// Which folder, and how it is applied. What Kustomize itself defines (patches, images) is kept as JSON.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KustomizationSpec {
    /// The source.
    pub source_ref: CrossReference,
    /// The folder, from the root of the repository.
    #[serde(deserialize_with = "null_is_default")]
    pub path: String,
    /// How often everything is compared.
    #[serde(deserialize_with = "span")]
    pub interval: Duration,
    /// How soon to try again; see [`KustomizationSpec::retry`].
    #[serde(deserialize_with = "optional_span")]
    pub retry_interval: Option<Duration>,
    /// How long a run may take; see [`KustomizationSpec::run_timeout`].
    #[serde(deserialize_with = "optional_span")]
    pub timeout: Option<Duration>,
    /// Whether objects that are gone from the folder are deleted.
    #[serde(deserialize_with = "null_is_default")]
    pub prune: bool,
    /// Whether to wait until everything is ready.
    #[serde(deserialize_with = "null_is_default")]
    pub wait: bool,
    /// Nothing is applied.
    #[serde(deserialize_with = "null_is_default")]
    pub suspend: bool,
    /// Whether objects are made anew when a field can't change.
    #[serde(deserialize_with = "null_is_default")]
    pub force: bool,
    /// Puts all objects into this namespace.
    pub target_namespace: Option<String>,
    /// Kustomizations that must be ready first.
    #[serde(deserialize_with = "null_is_default")]
    pub depends_on: Vec<CrossReference>,
    /// Objects that must be ready.
    #[serde(deserialize_with = "null_is_default")]
    pub health_checks: Vec<CrossReference>,
    /// Variables.
    pub post_build: Option<PostBuild>,
    /// Labels and annotations for all objects.
    pub common_metadata: Option<CommonMetadata>,
    /// Put before all names.
    pub name_prefix: Option<String>,
    /// Put after all names.
    pub name_suffix: Option<String>,
    /// Container images to rename or pin.
    #[serde(deserialize_with = "null_is_default")]
    pub images: Vec<Value>,
    /// Patches.
    #[serde(deserialize_with = "null_is_default")]
    pub patches: Vec<Value>,
    /// Strategic merge patches, older form.
    #[serde(deserialize_with = "null_is_default")]
    pub patches_strategic_merge: Vec<Value>,
    /// JSON patches, older form.
    #[serde(deserialize_with = "null_is_default")]
    pub patches_json6902: Vec<Value>,
    /// Kustomize components.
    #[serde(deserialize_with = "null_is_default")]
    pub components: Vec<String>,
    /// How encrypted files are read.
    pub decryption: Option<Value>,
    /// What becomes of the objects when the Kustomization is deleted.
    pub deletion_policy: Option<String>,
}

impl KustomizationSpec {
    /// How soon to try again after a failure.
    #[must_use]
    pub fn retry(&self) -> Duration {
        self.retry_interval.unwrap_or(self.interval)
    }

    /// How long a run may take.
    #[must_use]
    pub fn run_timeout(&self) -> Duration {
        self.timeout.unwrap_or(self.interval)
    }
}

/// An object of some kind in some namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CrossReference {
    /// API version, if said.
    #[serde(deserialize_with = "null_is_default")]
    pub api_version: String,
    /// Kind.
    #[serde(deserialize_with = "null_is_default")]
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; empty for the referring object's own.
    #[serde(deserialize_with = "null_is_default")]
    pub namespace: String,
}

/// Variables to replace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PostBuild {
    /// Values by name.
    #[serde(deserialize_with = "null_is_default")]
    pub substitute: BTreeMap<String, String>,
    /// Values from config maps and secrets, later ones win.
    #[serde(deserialize_with = "null_is_default")]
    pub substitute_from: Vec<SubstituteFrom>,
}

/// A source of variables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SubstituteFrom {
    /// `ConfigMap` or `Secret`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Whether it may be absent.
    #[serde(deserialize_with = "null_is_default")]
    pub optional: bool,
}

/// Labels and annotations for all objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CommonMetadata {
    /// Labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
}

/// What was applied. Serializes to the object's `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KustomizationStatus {
    /// The generation that the status is about.
    #[serde(skip_serializing_if = "is_default")]
    pub observed_generation: i64,
    /// The last request for a run that was acted on.
    #[serde(skip_serializing_if = "is_default")]
    pub last_handled_reconcile_at: String,
    /// The commit that was last applied completely.
    #[serde(skip_serializing_if = "is_default")]
    pub last_applied_revision: String,
    /// The commit that was last tried.
    #[serde(skip_serializing_if = "is_default")]
    pub last_attempted_revision: String,
    /// Which objects belong to the Kustomization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    /// Conditions.
    #[serde(skip_serializing_if = "is_default")]
    pub conditions: Vec<Condition>,
    /// What looks wrong without being an error.
    #[serde(skip_serializing_if = "is_default")]
    pub warnings: Vec<String>,
}

/// Which objects belong to a Kustomization.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// The objects.
    pub entries: Vec<InventoryEntry>,
}

/// An object that belongs to a Kustomization.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InventoryEntry {
    /// `namespace_name_group_kind`.
    pub id: String,
    /// Version.
    pub v: String,
}

impl GitRepository {
    /// From an object.
    pub fn from_object(object: &Object) -> Result<Self, TypedError> {
        typed::read(object)
    }
}

impl Kustomization {
    /// From an object.
    pub fn from_object(object: &Object) -> Result<Self, TypedError> {
        typed::read(object)
    }
}

fn span<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    duration::parse(&text).map_err(D::Error::custom)
}

fn optional_span<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| duration::parse(&text).map_err(D::Error::custom))
        .transpose()
}

fn reference_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    struct Reference {
        name: String,
    }
    Ok(Option::<Reference>::deserialize(from)?.map(|reference| reference.name))
}
