//! Reading policies: teaming and security, with a port group's own words over its vSwitch's.

use super::{Security, Team, TeamPolicy, fields::Fields};

const POLICIES: [(&str, TeamPolicy); 4] = [
    ("LOADBALANCE_SRCID", TeamPolicy::SourceId),
    ("LOADBALANCE_SRCMAC", TeamPolicy::SourceMac),
    ("LOADBALANCE_IP", TeamPolicy::IpHash),
    ("FAILOVER_EXPLICIT", TeamPolicy::Explicit),
];

/// A vSwitch's or a port group's `policy`; what it does not say is as in `base`.
pub(super) fn policy(
    policy: &Fields<'_>,
    nics: &[String],
    base: Option<&(Team, Security)>,
) -> (Team, Security) {
    let team = team(&policy.object("nic_teaming"), nics, base.map(|b| &b.0));
    let security = security(&policy.object("security"), base.map(|b| b.1).unwrap_or_default());
    let shaping = policy.object("traffic_shaping");
    if shaping.boolean("enabled") == Some(true) {
        policy.notes.not_enforced(policy.at("traffic_shaping"));
    }
    // The figures mean nothing while it is off, and are covered by the line above while it is on.
    for figure in ["average_bandwidth", "peak_bandwidth", "burst_size"] {
        let _ = shaping.value(figure);
    }
    (team, security)
}

fn security(fields: &Fields<'_>, base: Security) -> Security {
    Security {
        allow_promiscuous: fields
            .boolean("allow_promiscuous")
            .unwrap_or(base.allow_promiscuous),
        mac_changes: fields.boolean("mac_changes").unwrap_or(base.mac_changes),
        forged_transmits: fields
            .boolean("forged_transmits")
            .unwrap_or(base.forged_transmits),
    }
}

fn team(fields: &Fields<'_>, nics: &[String], base: Option<&Team>) -> Team {
    let policy = fields.word("policy", &POLICIES);
    let policy = policy.or(base.map(|b| b.policy)).unwrap_or(TeamPolicy::SourceId);
    let (active, standby) = (fields.texts("active_nics"), fields.texts("standby_nics"));
    for (key, list) in [("active_nics", &active), ("standby_nics", &standby)] {
        for (index, nic) in list.iter().flatten().enumerate() {
            let path = format!("{}[{index}]", fields.at(key));
            if !nics.contains(nic) {
                let message = format!(
                    "{nic} is not an uplink of the vSwitch; bridge.nics has {}",
                    or_none(nics)
                );
                fields.notes.problem(path, "UnknownUplink", message);
            } else if key == "standby_nics" && active.iter().flatten().any(|a| a == nic) {
                fields.notes.problem(
                    path,
                    "DuplicateUplink",
                    format!("{nic} is both active and standby"),
                );
            }
        }
    }
    let but = |list: &[String], not: &[String]| list.iter().filter(|n| !not.contains(n)).cloned().collect();
    let (active, standby) = match (active, standby) {
        (Some(active), Some(standby)) => (active, standby),
        (Some(active), None) => {
            let standby = base.map(|b| but(&b.standby, &active)).unwrap_or_default();
            (active, standby)
        }
        (None, Some(standby)) => (but(base.map_or(nics, |b| &b.active), &standby), standby),
        (None, None) => match base {
            Some(base) => (base.active.clone(), base.standby.clone()),
            None => (nics.to_vec(), Vec::new()),
        },
    };
    // Said once, where it comes from.
    let own = base.is_none() || fields.has("policy") || fields.has("standby_nics");
    if own && policy == TeamPolicy::IpHash && !standby.is_empty() {
        let message = "LOADBALANCE_IP needs every uplink in the physical switch's aggregation and allows no standby NIC";
        fields
            .notes
            .problem(fields.at("standby_nics"), "StandbyNotAllowed", message);
    }
    let beacon = fields.word("link_criteria_beacon", &[("IGNORE", false), ("REQUIRED", true)]);
    if beacon == Some(true) {
        if policy == TeamPolicy::IpHash {
            let message = "beacon probing does not work with LOADBALANCE_IP";
            fields
                .notes
                .problem(fields.at("link_criteria_beacon"), "BeaconNotAllowed", message);
        }
        fields.notes.not_enforced(fields.at("link_criteria_beacon"));
    }
    Team {
        policy,
        active,
        standby,
        rolling_order: fields
            .boolean("rolling_order")
            .or(base.map(|b| b.rolling_order))
            .unwrap_or(false),
        notify_switches: fields
            .boolean("notify_switches")
            .or(base.map(|b| b.notify_switches))
            .unwrap_or(true),
    }
}

pub(super) fn or_none(names: &[String]) -> String {
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}
