//! Which figures there are: their bounds, and what others say of theirs.

use anyhow::Result;

use crate::{
    Context, applying, fleet, kustomizations, machines, measured::Measured, network, serving, uplink,
};

/// What a figure's values count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Milliseconds,
    /// Of 10⁶ bytes.
    Megabytes,
    /// Of 10³ bytes.
    Kilobytes,
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

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    Below(f64),
    AtLeast(f64),
}

/// A figure.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    pub(crate) bound: Option<Bound>,
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

const fn time(name: &'static str, what: &'static str, below: Option<f64>, peer: &'static str) -> Figure {
    Figure {
        name,
        what,
        unit: Unit::Milliseconds,
        bound: match below {
            Some(below) => Some(Bound::Below(below)),
            None => None,
        },
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

const fn of(unit: Unit, figure: Figure) -> Figure {
    Figure { unit, ..figure }
}

/// What is measured of an orchestrator, by the names that its database gives them.
macro_rules! fleet {
    ($database:literal, $hosts:literal) => {
        &[
            Figure {
                bound: Some(Bound::AtLeast(200.0)),
                peer: "120/s, the best that is published",
                ..rate(
                    concat!("enrol-", $database),
                    concat!("hosts enrolled, of ", $hosts, " that come together"),
                )
            },
            of(
                Unit::Kilobytes,
                time(
                    concat!("host-memory-", $database),
                    concat!(
                        "the orchestrator's memory for each of ",
                        $hosts,
                        " connected hosts"
                    ),
                    Some(20.0),
                    "",
                ),
            ),
            time(
                concat!("host-cpu-", $database),
                "its processor time for each of them, a minute, at rest",
                None,
                "",
            ),
            time(
                concat!("told-", $database),
                concat!(
                    "git push until 99 % of ",
                    $hosts,
                    " hosts were told and have answered"
                ),
                Some(5000.0),
                "",
            ),
            time(
                concat!("browser-", $database),
                "a host's change of state until a browser has it, p99",
                Some(1000.0),
                "",
            ),
            time(
                concat!("overview-", $database),
                concat!("the page's overview of ", $hosts, " hosts"),
                Some(100.0),
                "",
            ),
            time(
                concat!("search-", $database),
                "a search among them, the slowest kind",
                Some(100.0),
                "",
            ),
            time(
                concat!("back-", $database),
                concat!(
                    "kill -9 and start of the orchestrator until all ",
                    $hosts,
                    " are connected again"
                ),
                None,
                "",
            ),
        ]
    };
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
    Group {
        name: "fleet-sqlite",
        about: "10,000 simulated hosts at an orchestrator with SQLite",
        figures: fleet!("sqlite", "10,000"),
        measure: fleet::sqlite,
    },
    Group {
        name: "fleet-postgres",
        about: "50,000 simulated hosts at an orchestrator with PostgreSQL",
        figures: fleet!("postgres", "50,000"),
        measure: fleet::postgres,
    },
];
