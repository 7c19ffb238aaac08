//! Which figures there are: their bounds, and what others say of theirs.

use anyhow::Result;

use crate::{Context, applying, kustomizations, machines, measured::Measured, network, serving, uplink};

/// What a figure's values count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Milliseconds,
    /// Of 10⁶ bytes.
    Megabytes,
    /// Of one core.
    Percent,
    PerSecond,
}

/// Which of a figure's values is held against its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    Median,
    Worst,
}

/// A figure.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    /// It should be below.
    pub(crate) bound: Option<f64>,
    pub(crate) judged: Judged,
    /// What others have, with where that comes from; empty if nobody says.
    pub(crate) peer: &'static str,
}

/// Figures that are measured in one lab.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) figures: &'static [Figure],
    /// Measures those that are wanted. What was measured before an error counts.
    pub(crate) measure: fn(&Context, &mut Vec<Measured>) -> Result<()>,
}

const fn time(name: &'static str, what: &'static str, bound: Option<f64>, peer: &'static str) -> Figure {
    Figure {
        name,
        what,
        unit: Unit::Milliseconds,
        bound,
        judged: Judged::Median,
        peer,
    }
}

const fn worst(figure: Figure) -> Figure {
    Figure {
        judged: Judged::Worst,
        ..figure
    }
}

const fn rate(name: &'static str, what: &'static str) -> Figure {
    Figure {
        unit: Unit::PerSecond,
        ..time(name, what, None, "")
    }
}

/// All figures.
pub(crate) const GROUPS: &[Group] = &[
    Group {
        name: "applying",
        about: "a site of 1,000 ConfigMaps and 50 virtual machines, from Git",
        figures: &[
            time(
                "first-apply",
                "git push of 1,000 new objects until all are applied",
                Some(2000.0),
                "",
            ),
            time("unchanged", "a run over 1,000 unchanged objects", Some(100.0), ""),
            time(
                "push",
                "git push of one change until it is in the API",
                Some(1000.0),
                "Rancher Fleet looks every 15 s, EVE 60 s (published)",
            ),
            Figure {
                unit: Unit::Megabytes,
                ..worst(time(
                    "memory",
                    "the daemon, with 50 VMs and 1,000 ConfigMaps",
                    Some(50.0),
                    "kube-apiserver 281 + etcd 54 MB (measured, empty); k3s 535 MB (published)",
                ))
            },
            Figure {
                unit: Unit::Percent,
                ..worst(time(
                    "idle",
                    "processor time of the daemon and its children, same site",
                    Some(0.5),
                    "kube-apiserver 1.3 + etcd 0.8 % (measured, empty); k3s 6 % (published)",
                ))
            },
        ],
        measure: applying::measure,
    },
    Group {
        name: "kustomizations",
        about: "100 Kustomizations of 3 objects each",
        figures: &[
            time(
                "kustomizations-100",
                "git push of a change to each of 100 until all are applied",
                Some(2000.0),
                "Flux 26 s on 16 cores (published)",
            ),
            time(
                "kustomizations-1000",
                "the same with 1,000",
                None,
                "Flux 4 min 13 s on 16 cores (published)",
            ),
        ],
        measure: kustomizations::measure,
    },
    Group {
        name: "network",
        about: "1,000 port groups on one vSwitch",
        figures: &[
            time(
                "port-groups",
                "from the HostConfiguration's creation until it is Ready",
                Some(1000.0),
                "",
            ),
            time(
                "port-groups-unchanged",
                "a run over the host's unchanged configuration",
                Some(10.0),
                "",
            ),
        ],
        measure: network::measure,
    },
    Group {
        name: "uplink",
        about: "an active and a standby uplink, a packet each millisecond both ways, and a control",
        figures: &[worst(time(
            "uplink-loss",
            "time without packets when the active uplink's link goes down",
            Some(150.0),
            "no signal: ESXi beacons 3 s (published), Open vSwitch LACP fast 2.8 s (measured)",
        ))],
        measure: uplink::measure,
    },
    Group {
        name: "machines",
        about: "virtual machines, their image cached",
        figures: &[time(
            "machine-start",
            "from the VirtualMachine's creation until QEMU runs it, by its status",
            Some(300.0),
            "",
        )],
        measure: machines::measure,
    },
    Group {
        name: "serving",
        about: "the API over TLS, 32 requests at a time, 5,000 ConfigMaps",
        figures: &[
            rate("create-rate", "creates"),
            time("create-p99", "99th percentile of a create", None, ""),
            rate("get-rate", "gets"),
            time("get-p99", "99th percentile of a get", None, ""),
            time("list", "one list of 5,000", None, ""),
            time(
                "fan-out",
                "from an update's request until all of 60 watches have it",
                None,
                "",
            ),
            time(
                "start",
                "from the daemon's start, after kill -9, until its API is ready",
                Some(300.0),
                "",
            ),
        ],
        measure: serving::measure,
    },
];
