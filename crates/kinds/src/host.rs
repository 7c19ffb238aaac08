//! HostConfiguration (`esx.vmware.com/v1alpha1`) and the profile inside it, as types.

mod network;
mod profile;

use serde::Deserialize;
use serde_json::Value;

pub use self::{
    network::{
        Bridge, LinkDiscovery, NetworkVss, NicTeaming, PortGroupSpec, Security, Shaping, Switch,
        SwitchPolicy, Vmknic, VmknicIp, vmknics,
    },
    profile::{check, entry_path, field_path, list_key, schema, unknown_fields},
};
use crate::{
    object::Object,
    typed::{self, Metadata, TypedError, null_is_default},
};

/// The namespace of host configurations.
pub const NAMESPACE: &str = "esx-system";

/// The layer that the host itself makes.
pub const BASE_LAYER: &str = "esx-base-profile";

/// `layertype` of the base layer.
pub const BASE: &str = "Base";

/// `layertype` of all others.
pub const INCREMENTAL: &str = "Incremental";

/// A layer of the host's configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HostConfiguration {
    /// Name, namespace and so on.
    pub metadata: Metadata,
    /// What the layer asks for.
    #[serde(deserialize_with = "null_is_default")]
    pub spec: HostConfigurationSpec,
    /// What became of the layer, as JSON.
    pub status: Value,
}

/// What a layer asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HostConfigurationSpec {
    /// `Base` or `Incremental`.
    #[serde(rename = "layertype", deserialize_with = "null_is_default")]
    pub layer_type: String,
    /// The profile: JSON in a string, a mapping, or null.
    pub profile: Value,
    /// Where metrics are sent.
    #[serde(rename = "metrics-collection")]
    pub metrics_collection: Value,
}

impl HostConfiguration {
    /// From an object.
    pub fn from_object(object: &Object) -> Result<Self, TypedError> {
        typed::read(object)
    }

    /// Whether it is the base layer.
    #[must_use]
    pub fn is_base(&self) -> bool {
        self.metadata.name == BASE_LAYER && self.metadata.namespace == NAMESPACE
    }
}
