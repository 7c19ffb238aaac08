//! Network configuration for cloud-init, version 2 (netplan).

use serde_json::{Map, Value, json};

use crate::media::Nic;

/// Greatest text that is read as YAML.
const MAX_TEXT: usize = 256 * 1024;

/// What a network configuration became.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// The file's content. JSON, which is YAML too, unless it is people's text that could not be read.
    pub text: String,
    /// The configuration; null if it could not be read.
    pub value: Value,
    /// What was set right or could not be read, a sentence each.
    pub notes: Vec<String>,
}

/// Every card gets its address by DHCP. Cards are named `eth0`, `eth1`, … by MAC address, as vm-operator does.
#[must_use]
pub fn by_dhcp(nics: &[Nic]) -> Network {
    let cards = nics.iter().enumerate().map(|(index, nic)| {
        let name = format!("eth{index}");
        let card = json!({"match": {"macaddress": nic.mac}, "set-name": name, "dhcp4": true});
        (name, card)
    });
    let ethernets = Map::from_iter(cards);
    render(json!({"version": 2, "ethernets": ethernets}), Vec::new())
}

fn render(value: Value, notes: Vec<String>) -> Network {
    // Printing a JSON value can't fail.
    let text = serde_json::to_string_pretty(&value).unwrap_or_default() + "\n";
    Network { text, value, notes }
}

/// Takes what people wrote and sets right what is seen in the field:
/// a surrounding `network:`; no `version`; `dhcp` in place of `dhcp4`; booleans as texts; blanks around
/// values. A card without `match` is matched by the MAC address of the card at its place and gets the name it
/// was written under, so that a configuration that was written for another hypervisor's names works.
#[must_use]
pub fn from_text(text: &str, nics: &[Nic]) -> Network {
    let unread = |why: String| Network {
        text: text.into(),
        value: Value::Null,
        notes: vec![why],
    };
    if text.len() > MAX_TEXT {
        return unread(format!(
            "the network configuration is longer than {MAX_TEXT} bytes and is passed on as it is"
        ));
    }
    let mut value: Value = match crate::media::yaml(text) {
        Ok(value) => value,
        Err(why) => {
            return unread(format!(
                "the network configuration is no YAML and is passed on as it is: {why}"
            ));
        }
    };
    if let Some(inner) = value.get_mut("network") {
        value = inner.take();
    }
    let Value::Object(network) = &mut value else {
        return unread("the network configuration is no map and is passed on as it is".into());
    };
    if network.get("version").and_then(Value::as_i64) == Some(1) || network.contains_key("config") {
        return Network {
            text: text.into(),
            value: Value::Null,
            notes: Vec::new(),
        };
    }
    network.insert("version".into(), json!(2));
    let mut notes = Vec::new();
    trim(&mut value);
    if let Some(Value::Object(cards)) = value.get_mut("ethernets") {
        for (index, (name, card)) in cards.iter_mut().enumerate() {
            if let Value::Object(card) = card {
                mend(name, card, nics.get(index), &mut notes);
            }
        }
    }
    render(value, notes)
}

fn mend(name: &str, card: &mut Map<String, Value>, nic: Option<&Nic>, notes: &mut Vec<String>) {
    if let Some(dhcp) = card.remove("dhcp") {
        notes.push(format!("ethernets.{name}.dhcp is read as dhcp4"));
        card.entry("dhcp4").or_insert(dhcp);
    }
    for key in ["dhcp4", "dhcp6", "optional", "accept-ra", "wakeonlan"] {
        if let Some(value) = card.get_mut(key)
            && let Some(truth) = value.as_str().and_then(truth)
        {
            *value = Value::Bool(truth);
        }
    }
    if !card.contains_key("match")
        && let Some(nic) = nic
    {
        card.insert("match".into(), json!({"macaddress": nic.mac}));
        card.entry("set-name").or_insert_with(|| json!(name));
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn trim(value: &mut Value) {
    match value {
        Value::String(text) if text.trim().len() != text.len() => *text = text.trim().to_owned(),
        Value::Array(list) => list.iter_mut().for_each(trim),
        Value::Object(map) => map.values_mut().for_each(trim),
        _ => {}
    }
}

/// The addresses (in CIDR notation) that a configuration gives the card of a MAC address.
#[must_use]
pub fn addresses(network: &Value, mac: &str) -> Vec<String> {
    cards(network)
        .filter(|card| {
            card["match"]["macaddress"]
                .as_str()
                .is_some_and(|m| m.eq_ignore_ascii_case(mac))
        })
        .flat_map(|card| texts(&card["addresses"]))
        .collect()
}

/// The name servers that a configuration gives, each once, in order.
#[must_use]
pub fn name_servers(network: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for server in cards(network).flat_map(|card| texts(&card["nameservers"]["addresses"])) {
        if !out.contains(&server) {
            out.push(server);
        }
    }
    out
}

fn cards(network: &Value) -> impl Iterator<Item = &Value> {
    network["ethernets"].as_object().into_iter().flat_map(Map::values)
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nics(n: usize) -> Vec<Nic> {
        (0..n)
            .map(|i| Nic {
                mac: format!("52:54:00:00:00:{i:02x}"),
            })
            .collect()
    }

    #[test]
    fn the_default_is_dhcp_by_mac() {
        let network = by_dhcp(&nics(2));
        assert_eq!(
            network.value["ethernets"]["eth1"]["match"]["macaddress"],
            "52:54:00:00:00:01"
        );
        assert_eq!(network.value["ethernets"]["eth0"]["dhcp4"], true);
        assert_eq!(
            serde_json::from_str::<Value>(&network.text).unwrap(),
            network.value
        );
    }

    #[test]
    fn a_static_address_as_written_in_the_field() {
        let text = "version: 2\nethernets:\n  ens192:\n    dhcp: \"false\"\n    addresses:\n    - 10.211.32.60/24\n    \
                    nameservers:\n      addresses: [10.211.0.62]\n    routes:\n    - to: 0.0.0.0/0\n      via: '10.211.32.1 '\n";
        let network = from_text(text, &nics(1));
        let card = &network.value["ethernets"]["ens192"];
        assert_eq!(card["dhcp4"], false);
        assert!(card.get("dhcp").is_none());
        assert_eq!(card["routes"][0]["via"], "10.211.32.1");
        assert_eq!(card["match"]["macaddress"], "52:54:00:00:00:00");
        assert_eq!(card["set-name"], "ens192");
        assert_eq!(
            addresses(&network.value, "52:54:00:00:00:00"),
            ["10.211.32.60/24"]
        );
        assert_eq!(name_servers(&network.value), ["10.211.0.62"]);
        assert_eq!(network.notes.len(), 1);
    }

    #[test]
    fn a_surrounding_key_goes_and_a_match_of_ones_own_stays() {
        let text = "network:\n  ethernets:\n    a:\n      match: {name: 'en*'}\n      dhcp4: yes\n";
        let network = from_text(text, &nics(1));
        assert_eq!(network.value["version"], 2);
        assert_eq!(network.value["ethernets"]["a"]["match"], json!({"name": "en*"}));
        assert_eq!(network.value["ethernets"]["a"]["dhcp4"], true);
    }

    #[test]
    fn what_can_not_be_read_is_passed_on_with_a_note() {
        for text in ["a: [", "just words", "- list"] {
            let network = from_text(text, &nics(1));
            assert_eq!(
                (network.text.as_str(), network.notes.len()),
                (text, 1),
                "{network:?}"
            );
        }
    }

    #[test]
    fn version_1_is_left_alone() {
        let text = "version: 1\nconfig:\n- type: physical\n  name: eth0\n";
        assert_eq!(from_text(text, &nics(1)).text, text);
    }
}
