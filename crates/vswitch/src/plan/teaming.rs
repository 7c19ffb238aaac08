//! Which uplink carries which port.
//!
//! The ports of a team are spread over *lanes*. A lane is carried by one uplink at a time, so a failover moves
//! lanes and changes a handful of flows, however many ports there are. `FAILOVER_EXPLICIT` has one lane, the
//! `LOADBALANCE` policies by source have one per active NIC; `LOADBALANCE_IP` has one that is carried by all
//! working NICs at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{Switch, Team, TeamPolicy, hash};

/// A lane: its team and its place in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane {
    /// The team.
    pub team: Team,
    /// From 0.
    pub slot: usize,
}

/// The lanes of a vSwitch with the NICs that carry each: none, one, or with `LOADBALANCE_IP` several.
pub type Lanes = BTreeMap<Lane, Vec<String>>;

/// Decides which NICs carry each lane. `up` says whether a NIC works; `before` is the last decision, which
/// counts for teams with a rolling order.
#[must_use]
pub fn assign(switch: &Switch, up: &dyn Fn(&str) -> bool, before: &Lanes) -> Lanes {
    let teams: BTreeSet<&Team> = switch.port_groups.iter().map(|g| &g.team).collect();
    let mut lanes = Lanes::new();
    for team in teams {
        let previous = |slot| {
            let lane = Lane {
                team: team.clone(),
                slot,
            };
            before
                .get(&lane)
                .and_then(|nics| nics.first())
                .map(String::as_str)
        };
        for (slot, nics) in carriers(team, up, &previous).into_iter().enumerate() {
            lanes.insert(
                Lane {
                    team: team.clone(),
                    slot,
                },
                nics,
            );
        }
    }
    lanes
}

/// The slot of a port in its team.
#[must_use]
pub fn slot(team: &Team, port: &str, mac: &str) -> usize {
    let spread = |key: &str| {
        let count = u64::try_from(team.active.len().max(1)).unwrap_or(1);
        usize::try_from(hash(key) % count).unwrap_or(0)
    };
    match team.policy {
        TeamPolicy::SourceId => spread(port),
        TeamPolicy::SourceMac => spread(mac),
        TeamPolicy::IpHash | TeamPolicy::Explicit => 0,
    }
}

fn carriers<'a>(
    team: &'a Team,
    up: &dyn Fn(&str) -> bool,
    previous: &dyn Fn(usize) -> Option<&'a str>,
) -> Vec<Vec<String>> {
    let working = |list: &'a [String]| {
        list.iter()
            .map(String::as_str)
            .filter(|n| up(n))
            .collect::<Vec<_>>()
    };
    let (active, standby) = (working(&team.active), working(&team.standby));
    let ordered = || active.iter().chain(&standby).copied();
    // Only NICs that the team still has may go on because of a rolling order.
    let keeps = |slot| {
        let before = previous(slot).filter(|_| team.rolling_order)?;
        ordered().find(|nic| *nic == before)
    };
    match team.policy {
        TeamPolicy::IpHash => vec![active.iter().map(ToString::to_string).collect()],
        TeamPolicy::Explicit => {
            vec![
                keeps(0)
                    .or_else(|| ordered().next())
                    .map(ToString::to_string)
                    .into_iter()
                    .collect(),
            ]
        }
        TeamPolicy::SourceId | TeamPolicy::SourceMac => {
            let mut taken: Vec<Option<&str>> = (0..team.active.len().max(1))
                .map(|slot| {
                    keeps(slot).or_else(|| team.active.get(slot).map(String::as_str).filter(|n| up(n)))
                })
                .collect();
            let used: BTreeSet<&str> = taken.iter().flatten().copied().collect();
            // One standby replaces one failed NIC; when they run out, the others share the load.
            let mut spare = standby
                .iter()
                .copied()
                .filter(|n| !used.contains(n))
                .collect::<Vec<_>>()
                .into_iter();
            for carrier in &mut taken {
                *carrier = carrier.or_else(|| spare.next());
            }
            let rest: Vec<&str> = taken
                .iter()
                .flatten()
                .copied()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect();
            taken
                .iter()
                .enumerate()
                .map(|(slot, carrier)| {
                    let shared = (!rest.is_empty()).then(|| rest[slot % rest.len()]);
                    carrier.or(shared).map(ToString::to_string).into_iter().collect()
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{Discovery, DiscoveryProtocol, PortGroup, Security};

    fn switch(policy: TeamPolicy, active: &[&str], standby: &[&str], rolling_order: bool) -> Switch {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let team = Team {
            policy,
            active: names(active),
            standby: names(standby),
            rolling_order,
            notify_switches: true,
        };
        Switch {
            name: "s".into(),
            bridge: "s".into(),
            num_ports: 8,
            mtu: 1500,
            uplinks: Vec::new(),
            discovery: Discovery {
                protocol: DiscoveryProtocol::Lldp,
                listen: false,
                advertise: false,
                explicit: false,
            },
            port_groups: vec![PortGroup {
                name: "g".into(),
                vlan_id: 0,
                team,
                security: Security::default(),
            }],
        }
    }

    /// The carriers of each lane, one line of text.
    fn run(switch: &Switch, up: &[&str], before: &mut Lanes) -> String {
        *before = assign(switch, &|nic| up.contains(&nic), before);
        before
            .values()
            .map(|nics| nics.join("+"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn explicit_order_is_followed_and_comes_back_unless_rolling() {
        for (rolling, back) in [(false, "a"), (true, "b")] {
            let switch = switch(TeamPolicy::Explicit, &["a", "b"], &["c"], rolling);
            let mut lanes = Lanes::new();
            assert_eq!(run(&switch, &["a", "b", "c"], &mut lanes), "a");
            assert_eq!(run(&switch, &["b", "c"], &mut lanes), "b");
            assert_eq!(run(&switch, &["a", "b", "c"], &mut lanes), back);
            assert_eq!(run(&switch, &["c"], &mut lanes), "c");
            assert_eq!(run(&switch, &[], &mut lanes), "");
            assert_eq!(run(&switch, &["b"], &mut lanes), "b");
        }
    }

    #[test]
    fn a_standby_replaces_one_failed_nic_then_the_rest_share() {
        let switch = switch(TeamPolicy::SourceId, &["a", "b", "c"], &["s"], false);
        let mut lanes = Lanes::new();
        assert_eq!(run(&switch, &["a", "b", "c", "s"], &mut lanes), "a b c");
        assert_eq!(run(&switch, &["a", "c", "s"], &mut lanes), "a s c");
        assert_eq!(run(&switch, &["c", "s"], &mut lanes), "s s c");
        assert_eq!(run(&switch, &["c"], &mut lanes), "c c c");
        assert_eq!(run(&switch, &["a", "b", "c", "s"], &mut lanes), "a b c");
    }

    #[test]
    fn a_rolling_team_keeps_its_standby() {
        let switch = switch(TeamPolicy::SourceMac, &["a", "b"], &["s"], true);
        let mut lanes = Lanes::new();
        assert_eq!(run(&switch, &["b", "s"], &mut lanes), "s b");
        assert_eq!(run(&switch, &["a", "b", "s"], &mut lanes), "s b");
        assert_eq!(run(&switch, &["a", "b"], &mut lanes), "a b");
    }

    #[test]
    fn ip_hash_uses_all_that_work() {
        let switch = switch(TeamPolicy::IpHash, &["a", "b"], &[], false);
        let mut lanes = Lanes::new();
        assert_eq!(run(&switch, &["a", "b"], &mut lanes), "a+b");
        assert_eq!(run(&switch, &["b"], &mut lanes), "b");
        assert_eq!(run(&switch, &[], &mut lanes), "");
    }
}
