//! From what a virtual machine asks for to the files on its CD.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    Error,
    iso::{self, File},
    network, ovf,
    template::{self, Facts},
    userdata::{self, Encoding},
};

/// Keys that may hold user data, the first that is there wins.
const USER_DATA: [&str; 4] = ["user-data", "userdata", "guestinfo.userdata", "value"];
const NETWORK: [&str; 2] = ["networkconfig", "network-config"];
const VENDOR_DATA: [&str; 3] = ["vendor-data", "vendordata", "guestinfo.vendordata"];

/// `spec.vmMetadata.transport`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// cloud-init.
    #[default]
    CloudInit,
    /// `guestinfo.*` keys.
    ExtraConfig,
    /// OVF properties.
    OvfEnv,
    /// OVF properties.
    VAppConfig,
    /// A Windows answer file.
    Sysprep,
}

impl Transport {
    /// By its name in the API; an unknown or absent one is cloud-init.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "ExtraConfig" => Self::ExtraConfig,
            "OvfEnv" => Self::OvfEnv,
            "vAppConfig" => Self::VAppConfig,
            "Sysprep" => Self::Sysprep,
            _ => Self::CloudInit,
        }
    }
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Lower case with colons.
    pub mac: String,
}

/// Who the virtual machine is and what it was given.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Cloud-init runs its once-per-instance parts anew when this changes.
    pub instance_id: String,
    /// The guest's host name.
    pub host_name: String,
    /// Network cards in order.
    pub nics: Vec<Nic>,
    /// How the data is to be delivered.
    pub transport: Transport,
    /// The ConfigMap's or Secret's content.
    pub data: BTreeMap<String, Vec<u8>>,
}

/// The files for a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Volume label of the CD.
    pub label: &'static str,
    /// Its files.
    pub files: Vec<File>,
    /// What was set right, left out or could not be read; a sentence each.
    pub notes: Vec<String>,
}

impl Media {
    /// The files that a request asks for.
    pub fn new(request: &Request) -> Result<Self, Error> {
        match request.transport {
            Transport::CloudInit | Transport::ExtraConfig => cloud_init(request),
            Transport::OvfEnv | Transport::VAppConfig => ovf_environment(request),
            Transport::Sysprep => sysprep(request),
        }
    }

    /// The bytes of the CD. The same files give the same bytes.
    #[must_use]
    pub fn iso(&self) -> Vec<u8> {
        iso::image(self.label, &self.files)
    }
}

/// Reads YAML as JSON. The error is one line.
pub(crate) fn yaml(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|e| e.to_string().lines().next().unwrap_or("unreadable").to_owned())
}

fn file(name: &str, content: impl Into<Vec<u8>>) -> File {
    File {
        name: name.into(),
        content: content.into(),
    }
}

impl Request {
    fn first(&self, keys: &[&str]) -> Option<(String, &[u8])> {
        keys.iter()
            .find_map(|key| Some(((*key).to_owned(), self.data.get(*key)?.as_slice())))
    }

    fn text(&self, key: &str) -> Option<String> {
        self.data
            .get(key)
            .map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The value of the first key that is there, unpacked.
    fn unpacked(&self, keys: &[&str]) -> Result<Option<Vec<u8>>, Error> {
        let Some((key, value)) = self.first(keys) else {
            return Ok(None);
        };
        let encoding = self
            .text(&format!("{key}.encoding"))
            .map(|e| Encoding::of(&e))
            .unwrap_or_default();
        userdata::decode(&key, value, encoding).map(Some)
    }
}

fn cloud_init(request: &Request) -> Result<Media, Error> {
    let mut notes = Vec::new();
    let mut metadata = json!({
        "instance-id": request.instance_id,
        "local-hostname": request.host_name,
        "hostname": request.host_name,
    });
    let keys = public_keys(request);
    if !keys.is_empty() {
        metadata["public-keys"] = json!(keys);
    }
    let mut given_network = request
        .first(&NETWORK)
        .map(|(_, text)| String::from_utf8_lossy(text).into_owned());
    if let Some(text) = request.unpacked(&["guestinfo.metadata"])? {
        match yaml(&String::from_utf8_lossy(&text)) {
            Ok(Value::Object(own)) => {
                for (key, value) in own {
                    if key == "network" {
                        given_network.get_or_insert_with(|| value.to_string());
                    } else {
                        metadata[key] = value;
                    }
                }
            }
            _ => notes.push("guestinfo.metadata is no YAML map and is left out".into()),
        }
    }
    let network = match &given_network {
        Some(text) => network::from_text(text, &request.nics),
        None => network::by_dhcp(&request.nics),
    };
    notes.extend(network.notes.iter().cloned());

    let facts = Facts {
        cards: request
            .nics
            .iter()
            .map(|n| (n.mac.clone(), network::addresses(&network.value, &n.mac)))
            .collect(),
        name_servers: network::name_servers(&network.value),
    };
    let user_data = match request.unpacked(&USER_DATA)? {
        Some(data) => rendered(data, &facts),
        // NoCloud wants the file to exist.
        None => b"#cloud-config\n{}\n".to_vec(),
    };
    let mut files = vec![
        file(
            "meta-data",
            serde_json::to_string_pretty(&metadata).unwrap_or_default() + "\n",
        ),
        file("user-data", user_data),
        file("network-config", network.text),
    ];
    if let Some(data) = request.unpacked(&VENDOR_DATA)? {
        files.push(file("vendor-data", rendered(data, &facts)));
    }
    notes.extend(undelivered(request));
    Ok(Media {
        label: "cidata",
        files,
        notes,
    })
}

fn rendered(data: Vec<u8>, facts: &Facts) -> Vec<u8> {
    match std::str::from_utf8(&data)
        .ok()
        .and_then(|text| template::render(text, facts))
    {
        Some(text) => text.into_bytes(),
        None => data,
    }
}

fn public_keys(request: &Request) -> Vec<String> {
    let text = request.text("ssh-public-keys").unwrap_or_default();
    text.lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(Into::into)
        .collect()
}

/// Keys of `guestinfo` that a NoCloud medium has no place for.
fn undelivered(request: &Request) -> Option<String> {
    let known = |key: &str| {
        ["guestinfo.metadata", "guestinfo.userdata", "guestinfo.vendordata"]
            .iter()
            .any(|k| key == *k || key.strip_prefix(k) == Some(".encoding"))
    };
    let left: Vec<&str> = request
        .data
        .keys()
        .map(String::as_str)
        .filter(|k| k.starts_with("guestinfo.") && !known(k))
        .take(8)
        .collect();
    (!left.is_empty()).then(|| format!("not delivered to the guest: {}", left.join(", ")))
}

fn ovf_environment(request: &Request) -> Result<Media, Error> {
    let mut properties = BTreeMap::new();
    let facts = Facts {
        cards: request.nics.iter().map(|n| (n.mac.clone(), Vec::new())).collect(),
        name_servers: Vec::new(),
    };
    let mut notes = Vec::new();
    for (key, value) in &request.data {
        if value.len() > userdata::MAX {
            return Err(Error::TooLarge {
                key: key.clone(),
                max: userdata::MAX,
            });
        }
        match std::str::from_utf8(value) {
            Ok(text) => {
                properties.insert(
                    key.clone(),
                    template::render(text, &facts).unwrap_or_else(|| text.into()),
                );
            }
            Err(_) => notes.push(format!("{key} is no text and is left out")),
        }
    }
    if request.transport == Transport::OvfEnv {
        // Upstream customizes the guest besides; cloud-init and most appliances read these two properties.
        properties
            .entry("hostname".into())
            .or_insert_with(|| request.host_name.clone());
        properties
            .entry("instance-id".into())
            .or_insert_with(|| request.instance_id.clone());
    }
    let document = ovf::environment(&request.instance_id, &properties);
    Ok(Media {
        label: "OVF ENV",
        files: vec![file("ovf-env.xml", document)],
        notes,
    })
}

fn sysprep(request: &Request) -> Result<Media, Error> {
    let mut notes = Vec::new();
    let files = match request.unpacked(&["unattend"])? {
        // Setup looks for the first name while it installs and for the second when an installed system is
        // specialised.
        Some(answers) => vec![
            file("autounattend.xml", answers.clone()),
            file("unattend.xml", answers),
        ],
        None => {
            notes.push("there is no key unattend, so the guest gets no answer file".into());
            Vec::new()
        }
    };
    Ok(Media {
        label: "sysprep",
        files,
        notes,
    })
}
