//! The description of a virtual machine in an OVA (DMTF DSP0243 1.1 and 2.0, with VMware's additions).
//!
//! Namespaces are not looked at: local names are unambiguous, and tools disagree on prefixes.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use serde::{Deserialize, Serialize};

/// The largest description.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// The most elements.
const MAX_ELEMENTS: usize = 100_000;
/// The deepest element.
const MAX_DEPTH: usize = 64;
/// The longest text of one element.
const MAX_TEXT: usize = 64 * 1024;

/// What the image's maker says of the virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OvfInfo {
    /// Name of the virtual system.
    pub name: String,
    /// Virtual processors.
    pub cpus: Option<u32>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Network cards, in order.
    pub nics: Vec<OvfNic>,
    /// Disks in the order of the hardware, also those without a file.
    pub disks: Vec<OvfDisk>,
    /// VMware's name (`ubuntu64Guest`) if given, else the number of the CIM enumeration.
    pub os_type: Option<String>,
    /// Which firmware it is made for.
    pub firmware: Firmware,
    /// For example `vmx-14`.
    pub hardware_version: Option<String>,
    /// What may be set when it is deployed.
    pub properties: Vec<OvfProperty>,
}

/// Firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// The default of the format.
    #[default]
    Bios,
    /// UEFI.
    Efi,
}

/// A network card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OvfNic {
    /// For example `Network adapter 1`.
    pub name: String,
    /// Name of the network in the description.
    pub network: String,
    /// For example `VmxNet3`, `E1000`.
    pub kind: String,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OvfDisk {
    /// `diskId`.
    pub id: String,
    /// Bytes that the guest sees.
    pub capacity: u64,
    /// Member of the archive; `None` for an empty disk.
    pub file: Option<String>,
}

/// Something that may be set when it is deployed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OvfProperty {
    /// With class and instance, for example `guestinfo.hostname` or `vami.ip0.appliance`.
    pub key: String,
    /// For example `string`, `boolean`, `password`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Default value.
    pub value: String,
    /// Whether a person may set it.
    pub user_configurable: bool,
    /// A few words for people.
    pub label: String,
}

/// A file that the description refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRef {
    /// Member of the archive.
    pub href: String,
    /// Bytes, if said.
    pub size: Option<u64>,
    /// `gzip` and the like; empty for none.
    pub compression: String,
}

/// A description with the files it refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ovf {
    /// What it says of the machine.
    pub info: OvfInfo,
    /// The files by member name.
    pub files: BTreeMap<String, FileRef>,
}

/// One piece of virtual hardware.
#[derive(Default)]
struct Item {
    kind: String,
    quantity: String,
    units: String,
    instance: String,
    resources: Vec<String>,
    connection: String,
    sub_type: String,
    name: String,
}

struct DiskElement {
    id: String,
    capacity: u64,
    file_ref: String,
}

#[derive(Default)]
struct Parser {
    ovf: Ovf,
    files: BTreeMap<String, String>,
    disks: Vec<DiskElement>,
    items: Vec<Item>,
    item: Option<Item>,
    product: (String, String),
    property: Option<OvfProperty>,
    systems: usize,
}

/// Reads a description.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse(text: &str) -> Result<Ovf, String> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut parser = Parser::default();
    let mut open: Vec<String> = Vec::new();
    let mut content = String::new();
    let mut elements = 0;
    loop {
        let at = reader.buffer_position();
        let event = reader
            .read_event()
            .map_err(|error| format!("its OVF is malformed at byte {at}: {error}"))?;
        match event {
            Event::Start(element) => {
                elements += 1;
                if elements > MAX_ELEMENTS || open.len() >= MAX_DEPTH {
                    return Err("its OVF has too many or too deep elements".into());
                }
                let name = local(&element);
                content.clear();
                let parent = open.last().map_or("", String::as_str);
                parser.start(&name, parent, &attributes(&element)?)?;
                open.push(name);
            }
            Event::Text(text) => append(&mut content, &text.xml10_content()),
            Event::CData(text) => append(&mut content, &text.xml10_content()),
            Event::GeneralRef(reference) => {
                let resolved = match reference.resolve_char_ref() {
                    Ok(Some(character)) => character.to_string(),
                    _ => quick_xml::escape::resolve_predefined_entity(&reference)
                        .unwrap_or_default()
                        .to_owned(),
                };
                append(&mut content, &resolved);
            }
            Event::End(_) => {
                // The reader checks that ends match starts.
                let Some(name) = open.pop() else {
                    return Err("its OVF is malformed".into());
                };
                parser.end(&name, open.last().map_or("", String::as_str), content.trim());
                content.clear();
            }
            Event::DocType(_) => return Err("its OVF has a document type, which no OVF has".into()),
            Event::Eof if open.is_empty() => break,
            Event::Eof => return Err("its OVF is cut off".into()),
            // Empty elements are given as a start and an end.
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::Empty(_) => {}
        }
    }
    parser.finish()
}

fn append(content: &mut String, text: &str) {
    if content.len() + text.len() <= MAX_TEXT {
        content.push_str(text);
    }
}

fn local(element: &BytesStart<'_>) -> String {
    element.local_name().as_ref().to_owned()
}

fn attributes(element: &BytesStart<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    for attribute in element.attributes() {
        let attribute = attribute.map_err(|error| format!("its OVF has a malformed attribute: {error}"))?;
        let name = attribute.key.local_name().as_ref().to_owned();
        let value = attribute
            .normalized_value(quick_xml::XmlVersion::Implicit1_0)
            .map_err(|error| format!("its OVF has a malformed attribute: {error}"))?;
        found.insert(name, value.into_owned());
    }
    Ok(found)
}

impl Parser {
    fn start(
        &mut self,
        name: &str,
        parent: &str,
        attributes: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let get = |key: &str| attributes.get(key).cloned().unwrap_or_default();
        match (parent, name) {
            (_, "VirtualSystemCollection") => {
                return Err(
                    "it holds a collection of virtual machines; export each as an OVA of its own".into(),
                );
            }
            (_, "VirtualSystem") => {
                self.systems += 1;
                if self.systems > 1 {
                    return Err("it holds more than one virtual machine".into());
                }
                self.ovf.info.name = get("id");
            }
            ("References", "File") => {
                let file = FileRef {
                    href: get("href"),
                    size: get("size").parse().ok(),
                    compression: get("compression").to_ascii_lowercase(),
                };
                if self.files.insert(get("id"), file.href.clone()).is_some() {
                    return Err(format!("its OVF names the file {:?} twice", get("id")));
                }
                self.ovf.files.insert(file.href.clone(), file);
            }
            ("DiskSection", "Disk") => {
                let capacity =
                    amount(&get("capacity"), &get("capacityAllocationUnits")).ok_or_else(|| {
                        format!("its OVF has a disk {:?} without a usable capacity", get("diskId"))
                    })?;
                self.disks.push(DiskElement {
                    id: get("diskId"),
                    capacity,
                    file_ref: get("fileRef"),
                });
            }
            (_, "OperatingSystemSection") => {
                let number = Some(get("id")).filter(|id| !id.is_empty());
                self.ovf.info.os_type = Some(get("osType")).filter(|name| !name.is_empty()).or(number);
            }
            ("VirtualHardwareSection", "Item" | "StorageItem" | "EthernetPortItem") => {
                self.item = Some(Item::default());
            }
            ("VirtualHardwareSection", "Config")
                if get("key").eq_ignore_ascii_case("firmware")
                    && get("value").eq_ignore_ascii_case("efi") =>
            {
                self.ovf.info.firmware = Firmware::Efi;
            }
            (_, "ProductSection") => self.product = (get("class"), get("instance")),
            ("ProductSection", "Property") => {
                let (class, instance) = &self.product;
                let parts = [class.clone(), get("key"), instance.clone()];
                let key: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                self.property = Some(OvfProperty {
                    key: key.join("."),
                    kind: get("type"),
                    value: get("value"),
                    user_configurable: get("userConfigurable").eq_ignore_ascii_case("true"),
                    label: String::new(),
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, name: &str, parent: &str, content: &str) {
        if let Some(item) = &mut self.item {
            let text = || content.to_owned();
            match name {
                "ResourceType" => item.kind = text(),
                "VirtualQuantity" => item.quantity = text(),
                "AllocationUnits" => item.units = text(),
                "InstanceID" => item.instance = text(),
                "HostResource" => item.resources.push(text()),
                "Connection" => item.connection = text(),
                "ResourceSubType" => item.sub_type = text(),
                "ElementName" => item.name = text(),
                "Item" | "StorageItem" | "EthernetPortItem" => self.items.extend(self.item.take()),
                _ => {}
            }
        } else if let Some(property) = &mut self.property {
            match name {
                "Label" => property.label = content.to_owned(),
                "Property" => self.ovf.info.properties.extend(self.property.take()),
                _ => {}
            }
        } else if name == "VirtualSystemType" && parent == "System" && !content.is_empty() {
            self.ovf.info.hardware_version = Some(content.to_owned());
        }
    }

    fn finish(mut self) -> Result<Ovf, String> {
        if self.systems == 0 {
            return Err("its OVF describes no virtual machine".into());
        }
        for item in &self.items {
            match item.kind.as_str() {
                "3" => self.ovf.info.cpus = item.quantity.parse().ok().filter(|&count| count > 0),
                "4" => {
                    // Without a unit it is megabytes, as in VMware's exports.
                    let units = if item.units.is_empty() {
                        "MegaBytes"
                    } else {
                        &item.units
                    };
                    self.ovf.info.memory = amount(&item.quantity, units).filter(|&bytes| bytes > 0);
                }
                "10" => self.ovf.info.nics.push(OvfNic {
                    name: item.name.clone(),
                    network: item.connection.clone(),
                    kind: item.sub_type.clone(),
                }),
                _ => {}
            }
        }
        let disk = |element: &DiskElement| -> Result<OvfDisk, String> {
            let file = match element.file_ref.as_str() {
                "" => None,
                reference => Some(self.files.get(reference).cloned().ok_or_else(|| {
                    format!(
                        "its OVF has a disk {:?} of the file {reference:?}, which is not declared",
                        element.id
                    )
                })?),
            };
            Ok(OvfDisk {
                id: element.id.clone(),
                capacity: element.capacity,
                file,
            })
        };
        let mut disks = Vec::new();
        let mut left: Vec<&DiskElement> = self.disks.iter().collect();
        let wanted = self
            .items
            .iter()
            .filter(|item| item.kind == "17")
            .flat_map(|item| &item.resources);
        for id in wanted.filter_map(|resource| resource.rsplit_once("disk/").map(|(_, id)| id)) {
            if let Some(at) = left.iter().position(|element| element.id == id) {
                disks.push(disk(left.remove(at))?);
            }
        }
        for element in left {
            disks.push(disk(element)?);
        }
        self.ovf.info.disks = disks;
        Ok(self.ovf)
    }
}

/// A quantity with a unit, in bytes: `16` of `byte * 2^30`, `2048` of `MegaBytes`.
fn amount(quantity: &str, units: &str) -> Option<u64> {
    let quantity: u64 = quantity.trim().parse().ok()?;
    let units: String = units.to_ascii_lowercase().split_whitespace().collect();
    let factor = match units.as_str() {
        "" | "byte" | "bytes" => 1,
        "kilobytes" | "kb" | "kilobyte" => 1 << 10,
        "megabytes" | "mb" | "megabyte" => 1 << 20,
        "gigabytes" | "gb" | "gigabyte" => 1 << 30,
        "terabytes" | "tb" => 1 << 40,
        other => {
            let power = other
                .strip_prefix("bytes*")
                .or_else(|| other.strip_prefix("byte*"))?;
            match power.split_once('^') {
                Some((base, exponent)) => {
                    let base: u64 = base.parse().ok()?;
                    base.checked_pow(exponent.parse().ok()?)?
                }
                None => power.parse().ok()?,
            }
        }
    };
    quantity.checked_mul(factor)
}

#[cfg(test)]
mod tests;
