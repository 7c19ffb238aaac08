//! The `{{ V1alpha1_… }}` functions of vm-operator in bootstrap data.
//!
//! A text is either rendered whole or left alone: when any `{{ … }}` in it is not one of these functions
//! (Jinja in a cloud-config, Go templates for something in the guest), nothing in it is touched. In a text
//! that is rendered, `\{\{` and `\}\}` give `{{` and `}}`.

use std::net::{IpAddr, Ipv4Addr};

/// What the functions can speak of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Each card's MAC address and its addresses in CIDR notation, as far as they are given by configuration.
    pub cards: Vec<(String, Vec<String>)>,
    /// Name servers.
    pub name_servers: Vec<String>,
}

/// Renders a text; `None` when it is to be left alone.
#[must_use]
pub fn render(text: &str, facts: &Facts) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut found = false;
    while let Some(at) = rest.find("{{") {
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside.find("}}")?;
        out.push_str(&call(&words(&inside[..end])?, facts)?);
        rest = &inside[end + 2..];
        found = true;
    }
    out.push_str(rest);
    found.then(|| out.replace(r"\{\{", "{{").replace(r"\}\}", "}}"))
}

/// The words of a call; texts in quotes are one word. `None` if it is no simple call.
fn words(call: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = call.trim();
    while let Some(first) = rest.chars().next() {
        let (word, after) = if first == '"' {
            let end = rest[1..].find('"')? + 1;
            (&rest[1..end], &rest[end + 1..])
        } else {
            rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()))
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Some(words)
}

fn call(words: &[String], facts: &Facts) -> Option<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["V1alpha1_FirstIP"] => facts.cards.first()?.1.first().cloned(),
        ["V1alpha1_FirstIPFromNIC", index] => {
            facts.cards.get(index.parse::<usize>().ok()?)?.1.first().cloned()
        }
        ["V1alpha1_IPsFromNIC", index] => {
            let addresses = &facts.cards.get(index.parse::<usize>().ok()?)?.1;
            // As Go prints a list.
            Some(format!("[{}]", addresses.join(" ")))
        }
        ["V1alpha1_FirstNicMacAddr"] => facts.cards.first().map(|card| card.0.clone()),
        ["V1alpha1_IP", ip] => address(ip).map(|ip| ip.to_string()),
        ["V1alpha1_FormatIP", ip, mask] => format_ip(ip, mask),
        ["V1alpha1_SubnetMask", cidr] => subnet_mask(cidr),
        ["V1alpha1_FormatNameservers", count, separator] => {
            let count: i64 = count.parse().ok()?;
            let count = usize::try_from(count)
                .unwrap_or(usize::MAX)
                .min(facts.name_servers.len());
            Some(facts.name_servers[..count].join(separator))
        }
        _ => None,
    }
}

fn address(text: &str) -> Option<IpAddr> {
    text.split_once('/').map_or(text, |(ip, _)| ip).parse().ok()
}

fn subnet_mask(cidr: &str) -> Option<String> {
    let prefix: u32 = cidr.split_once('/')?.1.parse().ok().filter(|p| *p <= 32)?;
    Some(Ipv4Addr::from(mask_of(prefix)).to_string())
}

fn mask_of(prefix: u32) -> u32 {
    u32::MAX.checked_shl(32 - prefix).unwrap_or(0)
}

/// The address with another prefix length; a mask may be `/24`, `24` or `255.255.255.0`; empty takes it away.
fn format_ip(ip: &str, mask: &str) -> Option<String> {
    let ip = address(ip)?;
    if mask.is_empty() {
        return Some(ip.to_string());
    }
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = match mask.trim_start_matches('/').parse::<u32>() {
        Ok(prefix) => prefix,
        Err(_) => {
            let bits = u32::from(mask.parse::<Ipv4Addr>().ok()?);
            if mask_of(bits.leading_ones()) != bits {
                return None;
            }
            bits.leading_ones()
        }
    };
    (prefix <= longest).then(|| format!("{ip}/{prefix}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts() -> Facts {
        Facts {
            cards: vec![
                (
                    "52:54:00:00:00:01".into(),
                    vec!["10.0.0.5/24".into(), "10.0.0.6/24".into()],
                ),
                ("52:54:00:00:00:02".into(), Vec::new()),
            ],
            name_servers: vec!["10.0.0.1".into(), "10.0.0.2".into()],
        }
    }

    #[test]
    fn each_function() {
        for (text, wanted) in [
            ("{{ V1alpha1_FirstIP }}", "10.0.0.5/24"),
            ("a {{V1alpha1_FirstIPFromNIC 0}} b", "a 10.0.0.5/24 b"),
            ("{{ V1alpha1_IPsFromNIC 0 }}", "[10.0.0.5/24 10.0.0.6/24]"),
            ("{{ V1alpha1_FirstNicMacAddr }}", "52:54:00:00:00:01"),
            ("{{ V1alpha1_IP \"10.9.8.7/24\" }}", "10.9.8.7"),
            (
                "{{ V1alpha1_FormatIP \"10.9.8.7\" \"255.255.255.0\" }}",
                "10.9.8.7/24",
            ),
            ("{{ V1alpha1_FormatIP \"10.9.8.7/24\" \"\" }}", "10.9.8.7"),
            ("{{ V1alpha1_SubnetMask \"10.0.0.0/20\" }}", "255.255.240.0"),
            ("{{ V1alpha1_FormatNameservers -1 \", \" }}", "10.0.0.1, 10.0.0.2"),
            (
                "{{ V1alpha1_FormatNameservers 1 \",\" }} \\{\\{ kept \\}\\}",
                "10.0.0.1 {{ kept }}",
            ),
        ] {
            assert_eq!(render(text, &facts()).as_deref(), Some(wanted), "{text}");
        }
    }

    #[test]
    fn other_templates_leave_the_whole_text_alone() {
        for text in [
            "no template",
            "{{ v1.local_hostname }}",
            "{{ V1alpha1_FirstIP }} {{ jinja }}",
            "{{ V1alpha1_FirstIPFromNIC 7 }}",
            "{{ V1alpha1_FirstIPFromNIC 1 }}",
            "{{ V1alpha1_SubnetMask \"10.0.0.0/99\" }}",
            "{{ unfinished",
            "\\{\\{ only escapes \\}\\}",
        ] {
            assert_eq!(render(text, &facts()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn foreign_text_never_panics(text in "([{}\"\\\\ é]|V1alpha1_(FirstIP|FormatIP|SubnetMask|FormatNameservers)|[0-9/.]){0,30}") {
            let _ = render(&text, &facts());
        }
    }
}
