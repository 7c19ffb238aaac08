//! What the network and its users tell each other. The vSwitch domain publishes [`PortGroups`]; the virtual
//! machine domain publishes [`PortRequest`]s; the daemon carries the one to the other, so that neither
//! domain knows the other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A port group as it is on the host now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortGroup {
    /// Name, unique on the host.
    pub name: String,
    /// The vSwitch that carries it.
    pub switch: String,
    /// 0 untagged, 1–4094 access, 4095 trunk to the guest.
    pub vlan_id: u16,
    /// Bytes.
    pub mtu: u32,
}

/// The port groups of the host by name.
pub type PortGroups = BTreeMap<String, PortGroup>;

/// A virtual network card's wish for a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRequest {
    /// The tap device, made by the one who asks.
    pub interface: String,
    /// The port group to be on.
    pub port_group: String,
    /// The card's MAC address, lower case with colons.
    pub mac: String,
    /// Who asks, for people and for marks: `namespace/name` of the virtual machine.
    pub owner: String,
}

/// A virtual network card's names, the same after every restart because they are computed from the virtual
/// machine's UID and the card's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicIdentity {
    /// The tap device: `sv` and 10 hexadecimal digits, then `-` and the index; at most 15 characters.
    pub tap: String,
    /// A locally administered MAC address, lower case with colons.
    pub mac: String,
}

impl NicIdentity {
    /// The names of card `index` of the virtual machine `uid`. Two cards of one virtual machine share a tap
    /// prefix and differ in the index; 40 bits of hash keep virtual machines of one host apart.
    #[must_use]
    pub fn of(uid: &str, index: usize) -> Self {
        let machine = Sha256::digest(uid.as_bytes());
        let card = Sha256::digest(format!("{uid}/{index}").as_bytes());
        let hex = |bytes: &[u8], between: &str| {
            bytes
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<Vec<_>>()
                .join(between)
        };
        // Bit 1 of the first octet: locally administered; bit 0: not a group address.
        let first = (card[0] & 0xfc) | 0x02;
        Self {
            tap: format!("sv{}-{index}", hex(&machine[..5], "")),
            mac: format!("{first:02x}:{}", hex(&card[1..6], ":")),
        }
    }
}
